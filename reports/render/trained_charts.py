"""Charts of models that were trained to be compared: differences, ways there, borders of rates."""

from __future__ import annotations

from collections.abc import Sequence

from reports.render.formats import words
from reports.render.marks import Measurement, curve, dots, labels
from reports.render.selection import (
    Claim,
    Panels,
    axis_title,
    bordered_dots,
    of,
    spans_decades,
    split,
)

LOSS, RATE, SHARE = "loss (nats/token)", "learning rate", "share of answers"


def compared(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """What an option saves or adds; the loss against tokens; the loss at every rate tried."""
    return [*_differences(measurements, claim), *_ways(measurements), *_rates(measurements)]


def variants(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Those of a comparison and of stable rates, and what RMSNorm costs."""
    panels = [*compared(measurements, claim), *stable_rates(measurements, claim)]
    costs = of(measurements, "seconds_ratio")
    if len(costs) >= 2:
        panels.append(dots("RMSNorm's seconds over LayerNorm's", costs, x_title="ratio"))
    return panels


def extrapolated(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Rises beyond the trained length, the loss by position, and what is copied from a distance."""
    panels: Panels = []
    rises = of(measurements, "loss_rise")
    if len(rises) >= 2:
        title = "rise of the loss beyond the trained length, on the same targets"
        panels += [
            bordered_dots(name, part, claim, axis_title(part))
            for name, part in split(rises, "length_ratio", title, by="length_ratio")
        ]
    panels += _differences(measurements, claim)
    return [
        *panels,
        *_curves(measurements, "loss_by_position", "position", "held-out loss by position"),
        *_curves(measurements, "copied", "length_ratio", "answers copied from a distance", SHARE),
        *_ways(measurements),
    ]


def stable_rates(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """The largest stable rate against depth, and its ratios."""
    panels: Panels = []
    ratios = of(measurements, "stable_rate_ratio")
    if len(ratios) >= 2:
        title = "largest stable rate over another placement's"
        panels.append(bordered_dots(title, ratios, claim, "ratio", log=spans_decades(ratios)))
    title = "largest stable learning rate"
    return [
        *panels,
        *_curves(
            measurements,
            "largest_stable_rate",
            "depth",
            title,
            RATE,
            by="warmup_steps",
            log_y=True,
        ),
    ]


def rate_law(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """The best learning rate against the rank, and its exponents by both rules."""
    title = "best learning rate against the rank"
    panels = _curves(measurements, "best_rate", "rank", title, RATE, log_x=True, log_y=True)
    exponents = of(measurements, "exponent")
    if len(exponents) >= 2:
        panels.append(dots("exponent of the rank in it", exponents, x_title="exponent"))
    return panels


def _differences(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    panels: Panels = []
    for metric, title in (
        ("loss_advantage", "loss that an option saves"),
        ("loss_excess", "loss that an option adds"),
    ):
        found = of(measurements, metric)
        if found:
            panels.append(bordered_dots(title, found, claim, axis_title(found)))
    return panels


def _ways(measurements: Sequence[Measurement]) -> Panels:
    return _curves(measurements, "training_loss", "tokens", "training loss against tokens")


def _rates(measurements: Sequence[Measurement]) -> Panels:
    title = "loss by learning rate, seeds for tuning"
    return _curves(measurements, "tuning_loss", "rate", title, log_x=True)


def _curves(
    measurements: Sequence[Measurement],
    metric: str,
    x: str,
    title: str,
    y_title: str = LOSS,
    *,
    by: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Panels:
    """Of a metric against ``x``, a panel for each value of ``by``; none of a single value of x."""
    found = of(measurements, metric)
    if len({labels(m)[x] for m in found}) < 2:
        return []
    return [
        curve(name, part, x, x_title=words(x), y_title=y_title, log_x=log_x, log_y=log_y)
        for name, part in split(found, x, title, by)
    ]
