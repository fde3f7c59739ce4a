"""Pictures of saliency maps: overlays on photographs, methods side by side, and an HTML gallery of a data set."""
