"""What a design can tell, in a sentence for who decides whether to run it."""

from __future__ import annotations

from benchmarks.judging.stats import smallest_found


def finds(seeds: int, scatter: float, comparisons: int = 1) -> str:
    """``scatter``: a pilot's standard deviation over seeds of paired differences, in nats.

    Intervals of so many ``comparisons`` hold together.
    """
    smallest = smallest_found(scatter, seeds, 1 - 0.05 / comparisons)
    return (
        f"{seeds} seeds find a difference of {smallest:.2g} nats in 80 of 100 runs, if pairs "
        f"scatter by {scatter:.2g} as in a pilot"
    )
