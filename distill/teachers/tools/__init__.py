"""Tools that make a black box's model file: export, quantization, EfficientNet-Lite."""
