"""White-box methods: saliency maps from a network's activations and gradients, one file a method."""
