"""Query-based methods: saliency maps from the black box's responses to perturbed images, one file a method."""
