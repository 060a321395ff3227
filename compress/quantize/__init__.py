"""Where quantizers stand, which tensors share a scale, and the integer graph that files are written from."""
