"""The shipped thing: one ONNX graph with everything inside, proven, written down and run."""
