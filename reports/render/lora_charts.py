"""L1's charts: shares, variances against rank with their law, and how often its checks err."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.experiments.lora.variance_checks import NOMINAL
from benchmarks.judging.rounding import in_full
from reports.render.formats import label
from reports.render.marks import Measurement, curve, dots, labels, varying
from reports.render.selection import CURVE_NEEDS, Claim, Panels, numbers, of, split


def trainable_share(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    shares = of(measurements, "trainable_share")
    if numbers(shares, "rank") < CURVE_NEEDS:
        return []
    title, y_title = "share of the weights that LoRA trains", "trained share (percent)"
    return [
        curve(name, part, "rank", x_title="rank", y_title=y_title, log_x=True, log_y=True)
        for name, part in split(shares, "rank", title)
    ]


def variance_by_rank(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Measured variances as dots with intervals; what the law predicts as a dashed line.

    A panel per scaling, on one scale; then how often the checks of the law err.
    """
    measured = of(measurements, "variance")
    if numbers(measured, "rank") < CURVE_NEEDS:
        return error_rates(measurements, claim)
    ratios = of(measurements, "product_variance_ratio", "variance_over_law")
    by = "option" if "option" in varying(measured) else None
    panels = [
        curve(
            name,
            part,
            "rank",
            x_title="rank r",
            y_title="variance of an entry",
            log_x=True,
            log_y=True,
            y_reach=measured,
            dashed=_law(part, ratios),
        )
        for name, part in split(measured, "rank", "variance against rank", by)
    ]
    return [*panels, *error_rates(measurements, claim)]


def _law(measured: Sequence[Measurement], ratios: Sequence[Measurement]) -> list[Measurement]:
    """What the law predicts: each variance over its measured ratio to the law."""
    by_labels = {str(labels(m)): m["value"] for m in ratios if m["value"]}
    predicted = [
        {**m, "value": m["value"] / by_labels[str(labels(m))], "interval": None}
        for m in measured
        if str(labels(m)) in by_labels
    ]
    return [m for m in predicted if math.isfinite(m["value"])]


def error_rates(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Errors beside the level they shall keep, then a panel per wrong law: who doubts it?"""
    errors = of(measurements, "false_alarm_rate", "false_equivalence_rate")
    doubted = of(measurements, "power", "rejection_rate")
    parts = {"how often each check is wrong": errors}
    for law in dict.fromkeys(str(m["option"]) for m in doubted):
        title = f"how often each check doubts a law that is wrong by {label(law)}"
        parts[title] = [m for m in doubted if m["option"] == law]
    note = f"Dashed: the level that each check is to keep, {in_full(NOMINAL)}."
    return [
        replace(dots(title, part, x_title="share of repetitions", borders=[NOMINAL]), note=note)
        for title, part in parts.items()
        if len(part) >= 2
    ]
