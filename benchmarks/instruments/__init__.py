"""What turns a model or a machine into numbers."""
