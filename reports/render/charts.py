"""Which chart shows a claim: one small function per claim, and a fallback for all others.

A function takes the claim's measurements and its entry in the results, and returns panels, none
where the measurements it draws are not there. Each panel is Vega-Lite, declared through Altair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reports.render.formats import words
from reports.render.marks import (
    MOST_SERIES,
    Measurement,
    Panel,
    bars,
    curve,
    dots,
    labels,
    name_of,
    varying,
)

Claim = dict[str, Any]
Panels = list[Panel]
CURVE_NEEDS = 4  # values of a numeric parameter; fewer make rows of dots
MOST_ROWS = 24


def panels(claim: Claim, measurements: Sequence[Measurement]) -> Panels:
    """The charts of ``claim``; an empty list where a table says it better."""
    draw = CHARTS.get(claim["id"])
    drawn = draw(measurements, claim) if draw else []
    return drawn or ([] if claim["id"] in TABLE_IS_ENOUGH else generic(measurements, claim))


def generic(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """A curve over a number that was varied, else dots; for metrics measured at least twice."""
    drawn = []
    for metric in dict.fromkeys(m["metric"] for m in measurements):
        chosen = of(measurements, metric)
        if len(chosen) >= 2 and len({m["value"] for m in chosen}) > 1:
            drawn += _generic_panels(chosen, border(claim, metric))
    return drawn


def of(measurements: Sequence[Measurement], *metrics: str) -> list[Measurement]:
    return [m for m in measurements if m["metric"] in metrics]


def border(claim: Claim, metric: str) -> float | None:
    """Where the region of a requirement on ``metric`` ends, if it has a single end."""
    for requirement in claim["requirements"]:
        region = requirement.get("region")
        if requirement.get("metric") != metric or not isinstance(region, dict):
            continue
        for kind in ("at_most", "at_least"):
            if kind in region:
                return float(region[kind])
    return None


def _generic_panels(chosen: list[Measurement], edge: float | None) -> Panels:
    title = words(chosen[0]["metric"])
    unit = _axis_title(chosen)
    spread = _spans_decades(chosen)
    numeric = [key for key in varying(chosen) if _numbers(chosen, key) >= CURVE_NEEDS]
    if numeric:
        x = numeric[0]
        return [
            Panel(
                name,
                curve(
                    part,
                    x,
                    x_title=words(x),
                    y_title=unit,
                    log_x=_doubling(part, x),
                    log_y=spread,
                ),
            )
            for name, part in _split(chosen, x, title)
        ]
    if len(chosen) > MOST_ROWS:
        return []
    return [Panel(title, dots(chosen, x_title=unit, log_x=spread, border=edge))]


def _split(
    chosen: list[Measurement], x: str, title: str, by: str | None = None
) -> list[tuple[str, list[Measurement]]]:
    """One part, or one per value of a label where a single chart would have too many lines."""
    keys = [key for key in varying(chosen) if key != x]
    series = {name_of(m, keys) for m in chosen}
    if by is None and (len(series) <= MOST_SERIES or not keys):
        return [(title, chosen)]
    key = by or min(keys, key=lambda k: len({str(labels(m).get(k)) for m in chosen}))
    parts: dict[str, list[Measurement]] = {}
    for measurement in chosen:
        parts.setdefault(name_of(measurement, [key]), []).append(measurement)
    return [(f"{title}, {name}", part) for name, part in parts.items()]


def _numbers(chosen: Sequence[Measurement], key: str) -> int:
    values = {labels(m).get(key) for m in chosen}
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return len(values) if plain else 0


def _doubling(chosen: Sequence[Measurement], key: str) -> bool:
    """Was the parameter varied by factors rather than by steps?"""
    values = sorted({labels(m)[key] for m in chosen})
    return len(values) > 2 and values[0] > 0 and values[-1] / values[0] >= 8 * len(values) / 4


def _spans_decades(chosen: Sequence[Measurement]) -> bool:
    ends = [m["interval"] or (m["value"], m["value"]) for m in chosen]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return low > 0 and high / low > 50


def _axis_title(chosen: Sequence[Measurement]) -> str:
    metric, unit = words(chosen[0]["metric"]), chosen[0]["unit"]
    return metric if unit in ("1", "", "ratio", "share") else f"{metric} ({unit})"


def _are_shares(chosen: Sequence[Measurement]) -> bool:
    return all(m["unit"] in ("share", "fraction", "ratio", "1") for m in chosen)


# --- L1 -------------------------------------------------------------------------------------------


def trainable_share(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    shares = of(measurements, "trainable_share", "share")
    if _numbers(shares, "rank") >= CURVE_NEEDS:
        return [
            Panel(
                title,
                curve(
                    part, "rank", x_title="rank", y_title="trained share", log_x=True, log_y=True
                ),
            )
            for title, part in _split(shares, "rank", "share of the weights that LoRA trains")
        ]
    if not shares:
        return []
    return [
        Panel(
            "share of the weights that LoRA trains",
            bars(shares, x_title="trained share", percent=_are_shares(shares)),
        )
    ]


def variance_by_rank(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Measured variances as dots with intervals; what the law predicts as a dashed line."""
    measured = of(measurements, "variance", "product_variance", "update_variance")
    if _numbers(measured, "rank") < CURVE_NEEDS:
        return []
    predicted = of(measurements, "law", "closed_form", "predicted_variance", "variance_law")
    return [
        Panel(
            title,
            curve(
                part,
                "rank",
                x_title="rank r",
                y_title="variance of an entry",
                log_x=True,
                log_y=True,
                dashed=predicted if part is measured else (),
            ),
        )
        for title, part in _split(measured, "rank", "variance against rank")
    ]


# --- L2 -------------------------------------------------------------------------------------------


def position_parameters(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    counted = of(measurements, "parameters", "position_parameters")
    if len(counted) < 2:
        return []
    return [
        Panel("parameters spent on positions", bars(counted, x_title="parameters")),
    ]


def shift_deviation(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Log scale, on which an exact zero has no place: drawn at a tenth of the smallest other."""
    deviations = of(measurements, "shift_deviation")
    positive = [m["value"] for m in deviations if m["value"] > 0]
    if len(deviations) < 2 or not positive:
        return []
    floor = min(positive) / 10
    drawn = [m if m["value"] > 0 else {**m, "value": floor, "interval": None} for m in deviations]
    return [
        Panel(
            "largest change of a score when both positions shift",
            dots(
                drawn,
                x_title=_axis_title(deviations),
                log_x=True,
                border=border(claim, "shift_deviation"),
            ),
        )
    ]


def norm_change(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    changes = of(measurements, "norm_change")
    if len(changes) < 2:
        return []
    return [
        Panel(
            "change of the embedding's norm by the position",
            bars(
                changes,
                x_title="relative change of norm",
                percent=_are_shares(changes),
                border=border(claim, "norm_change"),
            ),
        )
    ]


# --- L3 -------------------------------------------------------------------------------------------


def saved_share(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    shares = of(
        measurements, "saved_share", "share", "saved_share_of_tied", "saved_share_of_untied"
    )
    if len(shares) < 2:
        return []
    return [
        Panel(
            "share of the parameters that tying saves",
            bars(
                shares,
                x_title="saved share",
                percent=_are_shares(shares),
                border=border(claim, shares[0]["metric"]),
            ),
        )
    ]


# --- L4 -------------------------------------------------------------------------------------------


def gradient_profile(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Per layer of the deepest model, then against depth; a panel per initialization."""
    drawn: Panels = []
    norms = of(measurements, "gradient_norm")
    depths = [labels(m)["depth"] for m in norms if "depth" in labels(m)]
    if depths:
        norms = [m for m in norms if labels(m).get("depth") == max(depths)]
    if _numbers(norms, "layer") >= CURVE_NEEDS:
        title = "gradient norm by layer" + (f", {max(depths)} layers" if depths else "")
        for name, part in _split(norms, "layer", title, by=_initialization(norms)):
            chart = curve(
                part,
                "layer",
                x_title="layer",
                y_title="gradient norm",
                log_y=True,
                y_domain=_domain(norms),
            )
            drawn.append(Panel(name, chart))
    for metric in ("first_to_last_ratio", "last_layer_gradient"):
        by_depth = of(measurements, metric)
        if _numbers(by_depth, "depth") < CURVE_NEEDS:
            continue
        title = f"{words(metric)} against depth"
        for name, part in _split(by_depth, "depth", title, by=_initialization(by_depth)):
            chart = curve(
                part,
                "depth",
                x_title="depth (layers)",
                y_title=words(metric),
                log_x=True,
                log_y=True,
                y_domain=_domain(by_depth),
            )
            drawn.append(Panel(name, chart))
    return drawn


def _initialization(chosen: Sequence[Measurement]) -> str | None:
    return "initialization" if "initialization" in varying(chosen) else None


def _domain(chosen: Sequence[Measurement]) -> tuple[float, float]:
    """One domain for the panels of a metric, so that they can be compared by eye."""
    ends = [m["interval"] or (m["value"], m["value"]) for m in chosen]
    positive = [end for pair in ends for end in pair if end > 0]
    return min(positive) / 1.3, max(positive) * 1.3


# --- L5 -------------------------------------------------------------------------------------------


def speedup(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    ratios = of(measurements, "speedup")
    if len(ratios) < 2:
        return []
    if _numbers(ratios, "new_tokens") >= CURVE_NEEDS:
        chart = curve(
            ratios,
            "new_tokens",
            x_title="new tokens",
            y_title="speed-up by the cache",
            log_x=True,
        )
    else:
        chart = dots(ratios, x_title="speed-up by the cache (1 = none)")
    return [Panel("speed-up by the cache", chart)]


def cache_bytes(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    sizes = [m for m in measurements if m["unit"] == "bytes"]
    x = next((key for key in ("length", "tokens") if _numbers(sizes, key) >= 3), None)
    if x is None:
        return []
    # One line per metric: it is written into the label that tells the lines apart.
    named = [{**m, "parameters": {"bytes": words(m["metric"]), **m["parameters"]}} for m in sizes]
    return [
        Panel(
            title,
            curve(
                part,
                x,
                x_title="length of the cached sequence (tokens)",
                y_title="bytes",
                log_x=True,
                log_y=True,
            ),
        )
        for title, part in _split(named, x, "bytes of the cache by length")
    ]


def row_projections(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    per_step = [m for m in measurements if _is_whole_count(m)]
    x = next((key for key in ("step", "tokens") if _numbers(per_step, key) >= CURVE_NEEDS), None)
    if x is not None:
        chart = curve(per_step, x, x_title=words(x), y_title="rows projected to keys and values")
    elif len(per_step) >= 2:
        chart = bars(per_step, x_title="rows projected to keys and values")
    else:
        return []
    return [Panel("rows projected to keys and values", chart)]


def _is_whole_count(measurement: Measurement) -> bool:
    return "projections" in measurement["metric"] and "ratio" not in measurement["unit"]


# --- L6 -------------------------------------------------------------------------------------------


def loss_increase(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    increases = of(measurements, "loss_increase")
    if not increases:
        return []
    return [
        Panel(
            "loss added by the quantisation, with 95 % intervals",
            dots(
                increases,
                x_title="increase of the held-out loss (nats/token)",
                border=border(claim, "loss_increase"),
            ),
        )
    ]


# A published configuration's field is a word, not a quantity.
TABLE_IS_ENOUGH = frozenset({"tying.abandoned", "cache.same-output", "cache.memory-example"})

CHARTS: dict[str, Callable[[Sequence[Measurement], Claim], Panels]] = {
    "lora.trainable-share": trainable_share,
    "lora.product-variance": variance_by_rank,
    "lora.update-variance": variance_by_rank,
    "position.parameters": position_parameters,
    "position.relative": shift_deviation,
    "position.embedding-untouched": norm_change,
    "tying.saving-small": saved_share,
    "tying.saving-large": saved_share,
    "norm.gradient-profile": gradient_profile,
    "cache.fifteen-tokens": speedup,
    "cache.fifteenfold-projections": row_projections,
    "cache.memory-law": cache_bytes,
    "int8.weights-quality": loss_increase,
    "int8.norm-damage": loss_increase,
}
