"""What shows the results: one self-contained page and the README's table."""
