"""What measures the reference model and decides the claims."""
