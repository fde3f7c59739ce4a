"""Measure maps on the black box itself: games, agreement, statistics and the report."""
