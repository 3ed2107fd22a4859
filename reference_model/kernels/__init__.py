"""Kernels of our own: what a codec's packed codes make possible and PyTorch has no operator for."""
