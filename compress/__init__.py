"""Compress a trained image segmenter to a byte budget, export it to ONNX and TFLite, and measure the files."""
