"""Runners compute a method's maps for a batch of images: white-box passes, or queries with a response cache."""
