"""L6's charts: what each part can bear, how far activations reach, whether losses add."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import altair as alt

from benchmarks.judging.rounding import number
from reports.render.formats import label, words
from reports.render.marks import (
    INK,
    SERIES_COLOURS,
    Measurement,
    Panel,
    curve,
    ids_of,
    labels,
    rows,
    tooltips,
)
from reports.render.reach import reach
from reports.render.scales import Channel, Row
from reports.render.selection import (
    CURVE_NEEDS,
    Claim,
    Panels,
    bordered_dots,
    borders,
    numbers,
    of,
)

NATS = "increase of the held-out loss (nats/token)"
LIGHTEST, DARKEST = 0.05, 0.55  # of a cell's opacity: text on it is read in light and in dark
DECADES = 3  # from the lightest cell to the darkest
CELL_HEIGHT = 30


def sensitivity(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Kinds against number formats, layers against kinds where they were measured, and losses."""
    panels = []
    per_megabyte = of(measurements, "loss_per_megabyte")
    if len(per_megabyte) >= 2:
        title = "thousandths of a nat lost per megabyte saved, one kind of module at a time"
        panels.append(heat_map(title, per_megabyte, "kind", "option", times=1000))
    cells = of(measurements, "map_loss_increase")
    if len(cells) >= 2:
        title = f"thousandths of a nat lost, one kind in one layer, {_formats(cells)}"
        panels.append(heat_map(title, cells, "kind", "layer", times=1000))
    for metric, title in (
        ("loss_increase", "loss added by one kind of module alone"),
        ("layer_loss_increase", "loss added by the linears of one layer alone"),
    ):
        found = of(measurements, metric)
        if len(found) >= 2:
            panels.append(bordered_dots(title, found, claim, NATS))
    compared = of(measurements, "sensitivity_ratio")
    if len(compared) >= 2:
        title = "the most sensitive kind's loss per megabyte over the least sensitive one's"
        panels.append(bordered_dots(title, compared, claim, "ratio", log=True))
    return panels


def _formats(chosen: Sequence[Measurement]) -> str:
    return " and ".join(dict.fromkeys(str(m["option"]) for m in chosen))


def activation_range(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Cosines layer by layer, as they are and with outliers planted; what the linears read."""
    as_it_is = of(measurements, "gradient_cosine", "gradient_cosine_int4")
    planted = of(measurements, "gradient_cosine_planted")
    panels = [
        *_cosines("gradient through rounded numbers against the exact one", as_it_is, claim),
        *_cosines("the same with outlier channels planted", planted, claim),
    ]
    for metric, times, title in (
        ("activation_range", 1, "largest input of a linear over its root mean square"),
        ("outlier_share", 1000, "inputs beyond 6 σ, in thousandths"),
        ("kurtosis", 1, "kurtosis of the inputs (3: Gaussian)"),
    ):
        found = of(measurements, metric)
        for model in dict.fromkeys(labels(m)["model"] for m in found):
            chosen = [m for m in found if labels(m)["model"] == model]
            if len(chosen) >= 2:
                name = f"{title}, {label(model)}"
                panels.append(heat_map(name, chosen, "kind", "layer", times=times))
    return panels


def _cosines(title: str, chosen: list[Measurement], claim: Claim) -> Iterator[Panel]:
    """Against the layer; a dashed line where the claim's region ends."""
    shown = [{**m, "parameters": {"layer": labels(m)["layer"]}} for m in chosen]
    if numbers(shown, "layer") < CURVE_NEEDS:
        return
    first = [m for m in shown if m["option"] == shown[0]["option"]]
    ends = borders(claim, "gradient_cosine")
    yield curve(
        title,
        shown,
        "layer",
        x_title="layer",
        y_title="cosine",
        dashed=[{**m, "value": end, "interval": None} for end in ends for m in first],
        dashed_is="where the claim's region ends",
    )


def factorial(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """What each pair of weights and cache loses, and what of it neither half explains."""
    panels = []
    for metric, title, x_title in (
        ("factorial_loss_increase", "loss added by rounded weights and a compressed cache", NATS),
        ("interaction", "loss of both beyond the sum of each alone", "interaction (nats/token)"),
    ):
        found = of(measurements, metric)
        if len(found) >= 2:
            panels.append(bordered_dots(title, found, claim, x_title))
    return panels


def heat_map(
    title: str, chosen: Sequence[Measurement], down: str, across: str, times: float = 1
) -> Panel:
    """A cell for each pair of two labels, its value written in it, ``times`` as large.

    One colour, the stronger the larger, on a log scale of `DECADES`: what is less, or below zero,
    is as light as a cell can be.
    """
    largest = max(m["value"] for m in chosen)
    names = [_cell_name(m, down, across) for m in chosen]
    data = [
        {
            **row,
            "down": words(label(labels(m)[down])),
            "across": words(label(labels(m)[across])),
            "shade": _shade(m["value"], largest),
            "cell": number(m["value"] * times, 2),
        }
        for m, row in zip(chosen, rows(chosen, names), strict=True)
    ]
    base = alt.Chart(alt.Data(values=data)).encode(
        x=_bands(alt.X, "across", words(across) if across != "option" else None, data),
        y=_bands(alt.Y, "down", None, data),
    )
    cell = base.mark_rect(color=SERIES_COLOURS[0], stroke=INK, strokeOpacity=0.15).encode(
        opacity=alt.Opacity("shade:Q", scale=None, legend=None), tooltip=tooltips()
    )
    text = base.mark_text(color=INK, fontSize=11).encode(text="cell:N")
    height = CELL_HEIGHT * len({row["down"] for row in data})
    note = f"The stronger, the larger, by factors, over {DECADES} decades."
    chart = alt.layer(cell, text).properties(height=height)
    shown = reach([{**row, "text": row["cell"]} for row in data])
    return Panel(title, chart, note, drawn=ids_of(chosen), reach=shown)


def _cell_name(measurement: Measurement, down: str, across: str) -> str:
    found = labels(measurement)
    return f"{words(label(found[down]))} · {words(across)} {label(found[across])}"


def _shade(value: float, largest: float) -> float:
    if value <= 0 or largest <= 0:
        return LIGHTEST
    place = 1 + math.log10(value / largest) / DECADES  # 1: the largest
    return LIGHTEST + (DARKEST - LIGHTEST) * max(0.0, place)


def _bands(channel: type[Channel], field: str, title: str | None, data: Sequence[Row]) -> Channel:
    """An axis of names, in the order in which they came."""
    order = list(dict.fromkeys(row[field] for row in data))
    axis = alt.Axis(labelLimit=150, labelAngle=0, domain=False, ticks=False, grid=False)
    return channel(f"{field}:N", title=title, sort=order, axis=axis)
