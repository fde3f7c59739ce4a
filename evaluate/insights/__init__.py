"""Insights: from the maps of a data set to what the black box relies on, tested by intervention on the black box."""
