"""Two commits -> pass, regression, inconclusive, error, not comparable."""
