"""L6's charts of size and speed: what INT8 weights take, and how fast they are read."""

from __future__ import annotations

from collections.abc import Sequence

from reports.render.marks import Measurement, bars
from reports.render.selection import Claim, Panels, bordered_bars, borders, of

SPEEDS = {
    "speedup": "float32's seconds over INT8's",
    "speedup_over_bfloat16": "bfloat16's seconds over INT8's",
}


def size_speed(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Speed over float32 with the region's border, over bfloat16 beside it, and the bytes."""
    panels = []
    for metric, title in SPEEDS.items():
        found = [_without_threads(m) for m in of(measurements, metric)]
        if len(found) >= 2:
            # Factors above 1 are no percentages.
            ends = borders(claim, metric)
            panels.append(bars(title, found, x_title="times as fast", borders=ends))
    shares = of(measurements, "bytes_ratio")
    if len(shares) >= 2:
        title = "bytes of the weights, scales included, over float32's"
        panels.append(bordered_bars(title, shares, claim, "share of float32's bytes"))
    sizes = of(measurements, "weight_bytes")
    if len(sizes) >= 2:
        title = "bytes of the weights, read off the buffers"
        panels.append(bars(title, sizes, x_title="bytes"))
    return panels


def _without_threads(measurement: Measurement) -> Measurement:
    """They are the same in a whole run, and stand in its environment."""
    kept = {k: v for k, v in measurement["parameters"].items() if k != "threads"}
    return {**measurement, "parameters": kept}
