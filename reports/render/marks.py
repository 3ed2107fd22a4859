"""The marks that the charts are made of: curves, bars and dots, each with its interval.

Rows reach Vega under field names of our own, so that no text of a results file is ever read as a
field or an expression. Colours are CSS variables: one drawing serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import Any

import altair as alt

from benchmarks.judging.rounding import in_full, number, setting
from reports.render.formats import label, with_interval, words
from reports.render.reach import reach
from reports.render.scales import Row, ValueScale, parameter_axis

Measurement = dict[str, Any]
AnyChart = alt.LayerChart | alt.FacetChart  # what alt.layer is typed to return

INK = "currentColor"
SERIES_COLOURS = [f"var(--series-{index})" for index in range(1, 7)]
# Vega's name for the mark, and the same shape for the legend, drawn in a box of 12 by 12.
SERIES_SHAPES = {
    "circle": "M6 1a5 5 0 1 0 .01 0z",
    "square": "M1.5 1.5h9v9h-9z",
    "triangle-up": "M6 1.2L11.2 10.6H.8z",
    "diamond": "M6 0L10.4 6L6 12L1.6 6z",
    "cross": "M4.2 1h3.6v3.2H11v3.6H7.8V11H4.2V7.8H1V4.2h3.2z",
    "triangle-down": "M6 10.8L11.2 1.4H.8z",
}
NAME_WIDTH = 24  # letters in a line
MOST_SERIES = len(SERIES_COLOURS)
MANY_POINTS = 16  # more than these on a line, and its intervals become a band
DASHED: dict[str, Any] = {
    "strokeDash": [5, 4],
    "color": INK,
    "opacity": 0.75,
    "strokeWidth": 1.5,
}


@dataclass(frozen=True)
class Panel:
    """One chart, and what stands above it as text of the page: title, note, names of the series.

    ``drawn`` are the ids of the measurements that it shows, ``reach`` its lowest and highest in
    words.

    The legend is the page's, not Vega's: it wraps on a phone, where a drawn one is cut off.
    """

    title: str
    chart: AnyChart
    note: str = ""
    series: tuple[str, ...] = ()
    drawn: frozenset[str] = frozenset()
    reach: str = ""

    @cached_property
    def declared(self) -> dict[str, Any]:
        """The chart as Vega-Lite; not to be changed.

        Whether it is valid is a test's question: to check it takes longer than to draw it.
        """
        return dict(self.chart.to_dict(validate=False))

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """(name, colour, path of the shape) of each series."""
        return list(zip(self.series, SERIES_COLOURS, SERIES_SHAPES.values(), strict=False))


def labels(measurement: Measurement) -> dict[str, Any]:
    return {"option": measurement["option"], **measurement["parameters"]}


def varying(measurements: Sequence[Measurement]) -> list[str]:
    """The labels that tell the measurements apart, in the order in which they were recorded.

    One that some lack counts only where the others do not suffice.
    """
    values: dict[str, set[Any]] = {}
    for measurement in measurements:
        for key, value in labels(measurement).items():
            values.setdefault(key, set()).add(value)
    telling = [key for key, seen in values.items() if len(seen) > 1]
    told = {(m["metric"], *(labels(m).get(key) for key in telling)) for m in measurements}
    if len(told) == len(measurements):
        return telling
    return [k for k in values if k in telling or any(k not in labels(m) for m in measurements)]


def name_of(measurement: Measurement, keys: Iterable[str]) -> str:
    """A legend entry: bare for words and sizes with a name, "rank 8" for numbers."""
    parts = []
    for key in keys:
        value = labels(measurement).get(key)
        if value is None or (value == "none" and key != "option"):
            continue
        bare = isinstance(value, str)
        parts.append(words(label(value)) if bare else f"{words(key)} {label(value)}")
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
            row["at"] = setting(row["x"])
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
        shown.insert(1, alt.Tooltip("at:N", title=words(x)))
    return shown


def curve(
    title: str,
    measurements: Sequence[Measurement],
    x: str,
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    y_reach: Sequence[Measurement] | None = None,
    dashed: Sequence[Measurement] = (),
    dashed_is: str = "what the law predicts",
    borders: Sequence[float] = (),
) -> Panel:
    """Value against the parameter ``x``, a line per series; ``dashed`` is what ``dashed_is`` says.

    ``borders`` end the claim's region. One at 0 or below is not drawn on a log scale.

    Panels to be compared by eye are given the same ``y_reach``, the measurements their scale spans.
    """
    keys = [key for key in varying(measurements) if key != x]
    ordered = sorted(measurements, key=lambda m: labels(m)[x])
    measured = rows(ordered, [name_of(m, keys) for m in ordered], x)
    predicted = sorted(dashed, key=lambda m: labels(m)[x])
    law = rows(predicted, [name_of(m, keys) for m in predicted], x)
    order = list(dict.fromkeys(name_of(m, keys) for m in measurements))
    spanned = rows(y_reach or ordered, [""] * len(y_reach or ordered))
    scale = ValueScale.over(spanned, log_y, borders)
    borders = [end for end in borders if end > 0 or not scale.log]
    data = scale.place(measured)
    x_axis = parameter_axis(x_title, [row["x"] for row in (*data, *law)], log_x)
    y_axis = scale.axis(alt.Y, y_title)
    base = alt.Chart(alt.Data(values=data)).encode(x=x_axis, color=colour(order))
    crowded = len(data) > MANY_POINTS * max(1, len(order))
    interval = base.mark_area(opacity=0.18) if crowded else base.mark_rule(strokeWidth=2.2)
    layers = [
        interval.encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=16 if crowded else 52, opacity=1).encode(
            y=y_axis, shape=shape(order), tooltip=tooltips(x)
        ),
    ]
    if dashed:
        line = alt.Chart(alt.Data(values=scale.place(law))).mark_line(**DASHED)
        layers.insert(0, line.encode(x=x_axis, y=y_axis, detail="name:N"))
    else:
        layers.insert(1, base.mark_line(strokeWidth=1.6, opacity=0.85).encode(y=y_axis))
    layers = [*_border_lines(borders, alt.Y), *layers]
    notes = [
        f"Dashed: {dashed_is}." if dashed else "",
        _border_note([in_full(end) for end in borders]),
        scale.note([*measured, *law]),
    ]
    return Panel(
        title,
        alt.layer(*layers).properties(height=280),
        " ".join(filter(None, notes)),
        tuple(order) if len(order) > 1 else (),
        drawn=ids_of(measurements),
        reach=reach(measured, x_title),
    )


def scatter(
    title: str,
    measurements: Sequence[Measurement],
    x: str,
    by: str,
    *,
    x_title: str,
    y_title: str,
    borders: Sequence[float] = (),
) -> Panel:
    """Value against the parameter ``x``, both by factors; a colour for each value of ``by``.

    The pointer is told the parameter "model" of a point.
    """
    order = list(dict.fromkeys(name_of(m, [by]) for m in measurements))
    data = rows(measurements, [name_of(m, [by]) for m in measurements], x)
    for row, m in zip(data, measurements, strict=True):
        row["model"] = labels(m)["model"]
    scale = ValueScale.over(data, log=True, borders=borders)
    chart = alt.Chart(alt.Data(values=scale.place(data))).encode(
        x=parameter_axis(x_title, [row["x"] for row in data], True),
        y=scale.axis(alt.Y, y_title),
        color=colour(order),
        shape=shape(order),
        tooltip=[alt.Tooltip("model:N", title="model"), *tooltips(x)],
    )
    layers = [*_border_lines(borders, alt.Y), chart.mark_point(filled=True, size=52, opacity=1)]
    return Panel(
        title,
        alt.layer(*layers).properties(height=280),
        _border_note([in_full(end) for end in borders]),
        tuple(order),
        drawn=ids_of(measurements),
        reach=reach(data, x_title),
    )


def dots(
    title: str,
    measurements: Sequence[Measurement],
    *,
    x_title: str,
    log_x: bool = False,
    borders: Sequence[float] = (),
) -> Panel:
    """One row per measurement, a dot with its interval; ``borders`` end the claim's region.

    One at 0 or below is not drawn on a log scale.
    """
    names = _row_names(measurements)
    measured = rows(measurements, names)
    scale = ValueScale.over(measured, log_x, borders)
    borders = [end for end in borders if end > 0 or not scale.log]
    data, x_axis = scale.place(measured), scale.axis(alt.X, x_title)
    note = f"{_border_note([in_full(end) for end in borders])} {scale.note(measured)}".strip()
    base = alt.Chart(alt.Data(values=data)).encode(y=_rows_axis(names))
    layers = [
        *_border_lines(borders),
        base.mark_rule(strokeWidth=2.2, color=SERIES_COLOURS[0]).encode(
            x=alt.X("low:Q"), x2="high:Q"
        ),
        base.mark_point(filled=True, size=64, opacity=1, color=SERIES_COLOURS[0]).encode(
            x=x_axis, tooltip=tooltips()
        ),
    ]
    chart = alt.layer(*layers).properties(height=_rows_height(names))
    return Panel(title, chart, note, drawn=ids_of(measurements), reach=reach(measured))


def bars(
    title: str,
    measurements: Sequence[Measurement],
    *,
    x_title: str,
    percent: bool = False,
    borders: Sequence[float] = (),
) -> Panel:
    """One bar per measurement from zero, its value written at its end; a ratio as ``percent``."""
    names = _row_names(measurements)
    data = rows(measurements, names)
    for row, m in zip(data, measurements, strict=True) if percent else ():
        hundredfold = None if m["interval"] is None else tuple(100 * x for x in m["interval"])
        row["text"] = f"{with_interval(100 * m['value'], hundredfold)[0]} %"
    lowest = min([0.0, *(row["low"] for row in data)])
    furthest = max([*(row["high"] for row in data), *borders])
    # From a thousand on "k", "M" and so on; below one plain, since "m" would read as minutes.
    format_ = "~%" if percent else "~s" if furthest >= 1000 else "~g"
    x_axis = alt.X(
        "value:Q",
        title=x_title,
        # Room at the right for the value that stands there.
        scale=alt.Scale(domain=[lowest * 1.15, furthest * 1.22 or 1.0], nice=False),
        axis=alt.Axis(tickCount=4, grid=True, labelOverlap=True, format=format_),
    )
    base = alt.Chart(alt.Data(values=data)).encode(y=_rows_axis(names))
    layers = [
        *_border_lines(borders),
        base.mark_bar(size=16, color=SERIES_COLOURS[0]).encode(x=x_axis, tooltip=tooltips()),
        base.mark_text(align="left", dx=7, color=INK, fontSize=12).encode(
            x=alt.X("high:Q"), text="text:N"
        ),
    ]
    if any(row["low"] != row["high"] for row in data):
        rule = base.mark_rule(strokeWidth=1.6, color=INK)
        layers.append(rule.encode(x=alt.X("low:Q"), x2="high:Q"))
    chart = alt.layer(*layers).properties(height=_rows_height(names))
    shown = [f"{in_full(100 * border)} %" if percent else in_full(border) for border in borders]
    note = _border_note(shown)
    return Panel(title, chart, note, drawn=ids_of(measurements), reach=reach(data))


def ids_of(measurements: Sequence[Measurement]) -> frozenset[str]:
    return frozenset(m["id"] for m in measurements if "id" in m)


def _border_lines(
    borders: Sequence[float], channel: type[alt.X] | type[alt.Y] = alt.X
) -> list[alt.Chart]:
    """Across the axis of values, which is ``channel``."""
    if not borders:
        return []
    lines = alt.Chart(alt.Data(values=[{"value": b, "text": in_full(b)} for b in borders]))
    tooltip = alt.Tooltip("text:N", title="border of the region")
    return [lines.mark_rule(**DASHED).encode(channel("value:Q"), tooltip=tooltip)]


def _border_note(borders: Sequence[str]) -> str:
    return f"Dashed: where the claim's region ends, {' and '.join(borders)}." if borders else ""


def _row_names(measurements: Sequence[Measurement]) -> list[str]:
    """Names of the rows, in lines short enough to leave room for the chart on a phone."""
    keys: Sequence[str] = varying(measurements)
    if len(measurements) == 1:
        keys = [key for key, value in labels(measurements[0]).items() if isinstance(value, str)]
    names = [name_of(m, keys) or label(m["option"]) for m in measurements]
    return ["\n".join(wrap(name, NAME_WIDTH)) for name in names]


def _rows_axis(names: Sequence[str]) -> alt.Y:
    order = list(dict.fromkeys(names))
    return alt.Y(
        "name:N",
        title=None,
        sort=order,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(
            labelLimit=210,
            labelExpr="split(datum.label, '\\n')",
            labelLineHeight=14,
            domain=False,
            ticks=False,
            labelPadding=8,
        ),
    )


def _rows_height(names: Sequence[str]) -> int:
    lines = max((name.count("\n") + 1 for name in names), default=1)
    return (12 + 15 * lines) * len(set(names)) + 14


def colour(order: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(order), range=SERIES_COLOURS)
    return alt.Color("name:N", scale=scale, legend=None)


def shape(order: Sequence[str]) -> alt.Shape:
    scale = alt.Scale(domain=list(order), range=list(SERIES_SHAPES))
    return alt.Shape("name:N", scale=scale, legend=None)
