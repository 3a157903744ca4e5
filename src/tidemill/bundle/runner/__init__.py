"""The programs that travel with a bundle: they stand on onnxruntime, numpy and the standard library alone."""
