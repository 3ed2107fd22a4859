"""Faults of known kinds, and harmless rewrites, to be put into this repository: a file a group."""
