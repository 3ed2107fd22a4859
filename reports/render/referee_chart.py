"""L5: every format of keys and values by what it holds and what it loses, and the frontier."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from benchmarks.referee.frontier import frontier
from reports.render.marks import (
    DASHED,
    Measurement,
    Panel,
    colour,
    ids_of,
    labels,
    rows,
    shape,
    tooltips,
)
from reports.render.reach import reach
from reports.render.scales import ValueScale, parameter_axis
from reports.render.selection import CURVE_NEEDS, Claim, Panels, numbers, of

OTHERS = "blocks and floats"  # of engines: q4_0, FP4, INT8, …
FAMILIES = ("TurboQuant", "E8", "KIVI", "KVarN", "OSCAR")  # by the first word of a format
X, X_TITLE = "bits_held", "bits a value, scales and exact tokens included"


def best_at_three(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """KL of the predictions against all bits held, with intervals; dashed what none beats."""
    found = sorted(of(measurements, "prediction_kl"), key=lambda m: labels(m)[X])
    if numbers(found, X) < CURVE_NEEDS:
        return []
    families = [_family(m) for m in found]
    order = [name for name in (*FAMILIES, OTHERS) if name in families]
    measured = rows(found, families, X)
    for row, m in zip(measured, found, strict=True):
        row["of"] = _name(m)
    scale = ValueScale.over(measured, log=True)
    data = scale.place(measured)
    best = frontier({i: (row["x"], row["value"]) for i, row in enumerate(measured)})
    x_axis = parameter_axis(X_TITLE, [row["x"] for row in data], log=True)
    y_axis = scale.axis(alt.Y, "KL of predictions (nats/token)")
    base = alt.Chart(alt.Data(values=data)).encode(x=x_axis, color=colour(order))
    line = alt.Chart(alt.Data(values=[data[i] for i in sorted(best)]))
    layers = [
        line.mark_line(**DASHED).encode(x=x_axis, y=y_axis),
        base.mark_rule(strokeWidth=2.2).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=52, opacity=1).encode(
            y=y_axis,
            shape=shape(order),
            tooltip=[alt.Tooltip("of:N", title="format"), *tooltips(X)[1:]],
        ),
    ]
    told = ", ".join(measured[i]["of"] for i in sorted(best))
    return [
        Panel(
            "KL of predictions against all bits held",
            alt.layer(*layers).properties(height=340),
            f"Dashed: the frontier, which no format beats in both: {told}.",
            tuple(order) if len(order) > 1 else (),
            drawn=ids_of(found),
            reach=reach(measured, X_TITLE),
        )
    ]


def _family(measurement: Measurement) -> str:
    option = str(measurement["option"])
    return next((name for name in FAMILIES if option.startswith(name)), OTHERS)


def _name(measurement: Measurement) -> str:
    own = labels(measurement)
    kept = "" if own.get("kept") == "bare" else f", {own.get('kept')}"
    return f"{own['option']}, {own.get('bits')} bits{kept}"
