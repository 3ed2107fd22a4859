"""The marks that the charts are made of: curves, bars and dots, each with its interval.

Rows reach Vega under field names of our own, so that no text of a results file is ever read as a
field or an expression. Colours are CSS variables: one drawing serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from reports.render.formats import label, number, with_interval, words

Measurement = dict[str, Any]
Row = dict[str, Any]
AnyChart = alt.LayerChart | alt.FacetChart  # what alt.layer is typed to return

INK = "currentColor"
SERIES_COLOURS = [f"var(--series-{index})" for index in range(1, 7)]
SERIES_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
WIDTH = 560
MOST_SERIES = len(SERIES_COLOURS)
MANY_POINTS = 16  # more than these on a line, and its intervals become a band
POINT_SIZE = 52
INTERVAL_WIDTH = 2.2


@dataclass(frozen=True)
class Panel:
    """One chart with the title that stands above it in the page's own text."""

    title: str
    chart: AnyChart


def labels(measurement: Measurement) -> dict[str, Any]:
    return {"option": measurement["option"], **measurement["parameters"]}


def varying(measurements: Sequence[Measurement]) -> list[str]:
    """The labels in which the measurements differ, in the order in which they were recorded."""
    seen: dict[str, set[Any]] = {}
    for measurement in measurements:
        for key in labels(measurement):
            seen.setdefault(key, set())
    for key, values in seen.items():
        values.update(str(labels(measurement).get(key)) for measurement in measurements)
    return [key for key, values in seen.items() if len(values) > 1]


def name_of(measurement: Measurement, keys: Iterable[str]) -> str:
    """A legend entry: bare for words and sizes with a name, "rank 8" for numbers."""
    parts = []
    for key in keys:
        value = labels(measurement).get(key)
        if value is None:
            continue
        bare = isinstance(value, str)
        parts.append(str(value) if bare else f"{words(key)} {label(value)}")
    return " · ".join(parts)


def rows(
    measurements: Sequence[Measurement], names: Sequence[str], x: str | None = None
) -> list[Row]:
    """The data of a chart: numbers to draw, and texts to show under the pointer."""
    result = []
    for measurement, name in zip(measurements, names, strict=True):
        interval = measurement["interval"]
        shown, shown_interval = with_interval(measurement["value"], interval)
        low, high = interval or (measurement["value"], measurement["value"])
        row = {
            "name": name,
            "value": measurement["value"],
            "low": low,
            "high": high,
            "text": shown,
            "interval": shown_interval,
            "n": "exact" if measurement["n"] is None else number(measurement["n"]),
            "unit": measurement["unit"],
        }
        if x is not None:
            row["x"] = labels(measurement)[x]
        result.append(row)
    return result


def tooltips(x: str | None = None) -> list[alt.Tooltip]:
    shown = [
        alt.Tooltip("name:N", title="of"),
        alt.Tooltip("text:N", title="value"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("n:N", title="n"),
        alt.Tooltip("unit:N", title="unit"),
    ]
    if x is not None:
        shown.insert(1, alt.Tooltip("x:Q", title=words(x)))
    return shown


def curve(
    measurements: Sequence[Measurement],
    x: str,
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    y_domain: tuple[float, float] | None = None,
    dashed: Sequence[Measurement] = (),
    series: Sequence[str] | None = None,
) -> AnyChart:
    """Value against the parameter ``x``, a line per series; ``dashed`` is what a law predicts."""
    keys = [key for key in varying(measurements) if key != x] if series is None else series
    ordered = sorted(measurements, key=lambda m: labels(m)[x])
    names = [name_of(m, keys) for m in ordered]
    order = list(dict.fromkeys(name_of(m, keys) for m in measurements))
    data = rows(ordered, names, x)
    x_axis = alt.X(
        "x:Q",
        title=x_title,
        scale=_scale(log_x, base=2),
        axis=alt.Axis(tickCount=8, grid=False, format=",d" if log_x else ""),
    )
    if log_x:
        x_axis = x_axis.axis(values=_powers([row["x"] for row in data]), grid=False, format=",d")
    y_axis = alt.Y(
        "value:Q",
        title=y_title,
        scale=_scale(log_y, domain=y_domain),
        axis=_log_axis() if log_y else alt.Axis(tickCount=6),
    )
    base = alt.Chart(alt.Data(values=data)).encode(x=x_axis, color=_colour(order))
    layers: list[alt.Chart] = []
    if dashed:
        predicted = sorted(dashed, key=lambda m: labels(m)[x])
        predicted_names = [name_of(m, keys) for m in predicted]
        law = alt.Chart(alt.Data(values=rows(predicted, predicted_names, x)))
        layers.append(
            law.mark_line(strokeDash=[5, 4], color=INK, opacity=0.7, strokeWidth=1.5).encode(
                x=x_axis, y=y_axis, detail="name:N"
            )
        )
    crowded = len(data) > MANY_POINTS * max(1, len(order))
    if crowded:
        layers.append(base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q"))
    else:
        layers.append(
            base.mark_rule(strokeWidth=INTERVAL_WIDTH).encode(y=alt.Y("low:Q"), y2="high:Q")
        )
    layers.append(base.mark_line(strokeWidth=1.6, opacity=0.85).encode(y=y_axis))
    layers.append(
        base.mark_point(filled=True, size=22 if crowded else POINT_SIZE, opacity=1).encode(
            y=y_axis, shape=_shape(order), tooltip=tooltips(x)
        )
    )
    return alt.layer(*layers).properties(width=WIDTH, height=280)


def dots(
    measurements: Sequence[Measurement],
    *,
    x_title: str,
    log_x: bool = False,
    border: float | None = None,
    keys: Sequence[str] | None = None,
) -> AnyChart:
    """One row per measurement, a dot with its interval; ``border`` ends the claim's region."""
    names = _row_names(measurements, keys)
    data = rows(measurements, names)
    if log_x:
        data = [row for row in data if row["value"] > 0]
    scale = _scale(log_x, zero=None if log_x else border is not None)
    axis = _log_axis(grid=True) if log_x else alt.Axis(tickCount=6, grid=True)
    base = alt.Chart(alt.Data(values=data)).encode(y=_rows_axis(names))
    x_axis = alt.X("value:Q", title=x_title, scale=scale, axis=axis)
    layers = [
        base.mark_rule(strokeWidth=INTERVAL_WIDTH, color=SERIES_COLOURS[0]).encode(
            x=alt.X("low:Q"), x2="high:Q"
        ),
        base.mark_point(filled=True, size=64, opacity=1, color=SERIES_COLOURS[0]).encode(
            x=x_axis, tooltip=tooltips()
        ),
    ]
    if border is not None:
        line = alt.Chart(alt.Data(values=[{"value": border, "text": number(border)}]))
        layers.insert(
            0,
            line.mark_rule(strokeDash=[5, 4], color=INK, opacity=0.75, strokeWidth=1.5).encode(
                x=alt.X("value:Q"), tooltip=alt.Tooltip("text:N", title="border of the region")
            ),
        )
    return alt.layer(*layers).properties(width=WIDTH, height=_rows_height(names))


def bars(
    measurements: Sequence[Measurement],
    *,
    x_title: str,
    keys: Sequence[str] | None = None,
    percent: bool = False,
    border: float | None = None,
) -> AnyChart:
    """One bar per measurement from zero, its value written at its end."""
    names = _row_names(measurements, keys)
    data = rows(measurements, names)
    furthest = max((abs(row["high"]) for row in data), default=0.0)
    if percent:
        for row in data:
            row["text"] = f"{row['value'] * 100:.3g} %"
    base = alt.Chart(alt.Data(values=data)).encode(y=_rows_axis(names))
    lowest = min([0.0, *(row["low"] for row in data)])
    axis = alt.Axis(tickCount=5, grid=True, format="%" if percent else "~s")
    x_axis = alt.X(
        "value:Q",
        title=x_title,
        # Room at the right for the value that stands there.
        scale=alt.Scale(domain=[lowest * 1.15, furthest * 1.22 or 1.0], nice=False),
        axis=axis,
    )
    layers = [
        base.mark_bar(size=16, color=SERIES_COLOURS[0]).encode(x=x_axis, tooltip=tooltips()),
        base.mark_text(align="left", dx=7, color=INK, fontSize=12).encode(
            x=alt.X("high:Q"), text="text:N"
        ),
    ]
    if any(row["low"] != row["high"] for row in data):
        layers.insert(
            1, base.mark_rule(strokeWidth=1.6, color=INK).encode(x=alt.X("low:Q"), x2="high:Q")
        )
    if border is not None:
        line = alt.Chart(alt.Data(values=[{"value": border}]))
        layers.append(
            line.mark_rule(strokeDash=[5, 4], color=INK, opacity=0.75).encode(x=alt.X("value:Q"))
        )
    return alt.layer(*layers).properties(width=WIDTH, height=_rows_height(names))


def _row_names(measurements: Sequence[Measurement], keys: Sequence[str] | None) -> list[str]:
    chosen = varying(measurements) if keys is None else keys
    return [name_of(m, chosen) or m["option"] for m in measurements]


def _rows_axis(names: Sequence[str]) -> alt.Y:
    order = list(dict.fromkeys(names))
    return alt.Y(
        "name:N",
        title=None,
        sort=order,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(labelLimit=210, domain=False, ticks=False, labelPadding=8),
    )


def _rows_height(names: Sequence[str]) -> int:
    return 26 * len(set(names)) + 14


def _colour(order: Sequence[str]) -> alt.Color:
    return alt.Color(
        "name:N",
        scale=alt.Scale(domain=list(order), range=SERIES_COLOURS),
        legend=_legend(order),
    )


def _shape(order: Sequence[str]) -> alt.Shape:
    return alt.Shape(
        "name:N",
        scale=alt.Scale(domain=list(order), range=SERIES_SHAPES),
        legend=_legend(order),
    )


def _legend(order: Sequence[str]) -> alt.Legend | None:
    if len(order) < 2:
        return None
    columns = 1 if max(map(len, order)) > 36 else 2 if max(map(len, order)) > 16 else 4
    return alt.Legend(title=None, orient="top", columns=columns, labelLimit=420)


def _scale(
    log: bool,
    *,
    base: int = 10,
    domain: tuple[float, float] | None = None,
    zero: bool | None = False,
) -> alt.Scale:
    settings: dict[str, Any] = {"type": "log", "base": base} if log else {}
    if not log and zero is not None:
        settings["zero"] = zero
    if domain is not None:
        settings["domain"] = list(domain)
    return alt.Scale(**settings)


def _log_axis(**settings: Any) -> alt.Axis:
    return alt.Axis(tickCount=6, format=".0e", labelOverlap=True, **settings)


def _powers(values: Sequence[float]) -> list[float]:
    """Ticks at the tested values themselves, thinned where there are many."""
    distinct = sorted(set(values))
    step = -(-len(distinct) // 8)
    return distinct[::step]
