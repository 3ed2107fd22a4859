"""Fewer bits per weight, and what that does to the model."""
