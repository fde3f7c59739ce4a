"""Static methods as one graph for an inference engine: tracing, ONNX writing and engine selection."""
