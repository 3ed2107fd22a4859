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

LOSS = "loss (nats/token)"


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
    for metric, x, title, y_title in (
        ("loss_by_position", "position", "held-out loss by position in the text", LOSS),
        ("copied", "length_ratio", "answers copied from a distance", "share of answers"),
    ):
        found = of(measurements, metric)
        if len({labels(m)[x] for m in found}) >= 2:
            panels.append(curve(title, found, x, x_title=words(x), y_title=y_title))
    return [*panels, *_ways(measurements)]


def stable_rates(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """The largest stable rate against depth, and its ratios."""
    panels: Panels = []
    ratios = of(measurements, "stable_rate_ratio")
    if len(ratios) >= 2:
        title = "largest stable rate over another placement's"
        panels.append(bordered_dots(title, ratios, claim, "ratio", log=spans_decades(ratios)))
    rates = of(measurements, "largest_stable_rate")
    if len({labels(m)["depth"] for m in rates}) >= 2:
        title = "largest stable learning rate"
        for name, part in split(rates, "depth", title, by="warmup_steps"):
            panels.append(
                curve(name, part, "depth", x_title="depth", y_title="learning rate", log_y=True)
            )
    return panels


def rate_law(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """The best learning rate against the rank, and its exponents by both rules."""
    panels: Panels = []
    best = of(measurements, "best_rate")
    if len(best) >= 2:
        title = "best learning rate against the rank"
        panels.append(
            curve(
                title,
                best,
                "rank",
                x_title="rank r",
                y_title="learning rate",
                log_x=True,
                log_y=True,
            )
        )
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
    losses = of(measurements, "training_loss")
    if len({labels(m)["tokens"] for m in losses}) < 2:
        return []
    title = "training loss against tokens"
    return [
        curve(name, part, "tokens", x_title="tokens", y_title=LOSS)
        for name, part in split(losses, "tokens", title)
    ]


def _rates(measurements: Sequence[Measurement]) -> Panels:
    losses = of(measurements, "tuning_loss")
    if len({labels(m)["rate"] for m in losses}) < 2:
        return []
    title = "loss by learning rate, seeds for tuning"
    return [
        curve(name, part, "rate", x_title="learning rate", y_title=LOSS, log_x=True)
        for name, part in split(losses, "rate", title)
    ]
