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
    """A curve over a number that was varied, else dots, of what the requirements speak of."""
    drawn = []
    for metric in dict.fromkeys(requirement["metric"] for requirement in claim["requirements"]):
        chosen = of(measurements, metric)
        if len(chosen) >= 2 and len({m["value"] for m in chosen}) > 1:
            drawn += _generic_panels(chosen, claim)
    return drawn


def of(measurements: Sequence[Measurement], *metrics: str) -> list[Measurement]:
    return [m for m in measurements if m["metric"] in metrics]


def borders(claim: Claim, metric: str) -> list[float]:
    """Where the region for ``metric`` ends; none if its requirements disagree or name a point."""
    ends = {
        tuple(bounds) if isinstance(bounds, list) else (bounds,)
        for requirement in claim["requirements"]
        if requirement["metric"] == metric
        for kind, bounds in requirement["region"].items()
        if kind != "equals"
    }
    return [float(end) for end in ends.pop()] if len(ends) == 1 else []


def _generic_panels(chosen: list[Measurement], claim: Claim) -> Panels:
    title, value = words(chosen[0]["metric"]), _axis_title(chosen)
    spread = _spans_decades(chosen)
    numeric = [key for key in varying(chosen) if _numbers(chosen, key) >= CURVE_NEEDS]
    if numeric:
        x = numeric[0]
        by_factors = _by_factors(chosen, x)
        return [
            curve(name, part, x, x_title=words(x), y_title=value, log_x=by_factors, log_y=spread)
            for name, part in _split(chosen, x, title)
        ]
    return [_dots(title, chosen, claim, value, spread)] if len(chosen) <= MOST_ROWS else []


def _dots(
    title: str, chosen: list[Measurement], claim: Claim, x_title: str, log: bool = False
) -> Panel:
    ends = [end for end in borders(claim, chosen[0]["metric"]) if end > 0 or not log]
    return dots(title, chosen, x_title=x_title, log_x=log, borders=ends)


def _bars(title: str, chosen: list[Measurement], claim: Claim, x_title: str) -> Panel:
    """Shares of one are shown in percent."""
    metric, percent = chosen[0]["metric"], chosen[0]["unit"] == "ratio"
    return bars(title, chosen, x_title=x_title, percent=percent, borders=borders(claim, metric))


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


def _by_factors(chosen: Sequence[Measurement], key: str) -> bool:
    """Was the parameter varied by factors rather than by steps?"""
    values = sorted({labels(m)[key] for m in chosen})
    return len(values) > 2 and values[0] > 0 and values[-1] / values[0] >= 8 * len(values) / 4


def _spans_decades(chosen: Sequence[Measurement]) -> bool:
    ends = [m["interval"] or (m["value"], m["value"]) for m in chosen]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return low > 0 and high / low > 50


def _axis_title(chosen: Sequence[Measurement]) -> str:
    metric, unit = words(chosen[0]["metric"]), chosen[0]["unit"]
    return metric if unit in ("1", "ratio", metric) else f"{metric} ({unit})"


# --- L1 -------------------------------------------------------------------------------------------


def trainable_share(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    shares = of(measurements, "trainable_share")
    if _numbers(shares, "rank") < CURVE_NEEDS:
        return []
    title, y_title = "share of the weights that LoRA trains", "trained share (percent)"
    return [
        curve(name, part, "rank", x_title="rank", y_title=y_title, log_x=True, log_y=True)
        for name, part in _split(shares, "rank", title)
    ]


def variance_by_rank(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Measured variances as dots with intervals; what the law predicts as a dashed line."""
    measured = of(measurements, "variance")
    if _numbers(measured, "rank") < CURVE_NEEDS:
        return []
    predicted = _law(measured, of(measurements, "product_variance_ratio"))
    by = "option" if "option" in varying(measured) else None
    return [
        curve(
            name,
            part,
            "rank",
            x_title="rank r",
            y_title="variance of an entry",
            log_x=True,
            log_y=True,
            y_reach=measured,
            dashed=predicted if by is None else (),
        )
        for name, part in _split(measured, "rank", "variance against rank", by)
    ]


def _law(measured: Sequence[Measurement], ratios: Sequence[Measurement]) -> list[Measurement]:
    """What the law predicts: each variance over its measured ratio to the law."""
    by_labels = {str(labels(m)): m["value"] for m in ratios}
    return [
        {**m, "value": m["value"] / by_labels[str(labels(m))], "interval": None}
        for m in measured
        if str(labels(m)) in by_labels
    ]


# --- L2 -------------------------------------------------------------------------------------------


def position_parameters(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    counted = of(measurements, "parameters")
    if len(counted) < 2:
        return []
    return [_bars("parameters spent on positions", counted, claim, "parameters")]


def shift_deviation(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    deviations = of(measurements, "shift_deviation")
    if len(deviations) < 2 or not any(m["value"] > 0 for m in deviations):
        return []
    title = "largest change of a score when both positions shift"
    return [_dots(title, deviations, claim, _axis_title(deviations), log=True)]


def norm_change(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    changes = of(measurements, "norm_change")
    if len(changes) < 2:
        return []
    title = "change of the embedding's norm by the position"
    # Without √C sinusoids are twenty times as long as the embedding: bars would hide all others.
    return [_dots(title, changes, claim, "relative change of norm", log=True)]


# --- L3 -------------------------------------------------------------------------------------------


def both_sizes(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    sizes = of(measurements, "parameters")
    title = "parameters with one matrix and with two"
    return [_bars(title, sizes, claim, "parameters")] if len(sizes) >= 2 else []


def saved_share(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    panels = []
    metric_of_large = "saved_share_of_untied"
    for metric, where in (
        (metric_of_large, ""),
        (f"{metric_of_large}_at_other_sizes", ", other sizes"),
    ):
        shares = [_named_by_model(m) for m in of(measurements, metric)]
        if len(shares) >= 2:
            title = f"share of the parameters that tying saves{where}"
            panels.append(_bars(title, shares, claim, "saved share"))
    return panels


def _named_by_model(measurement: Measurement) -> Measurement:
    """Published models go by their own name alone; another sum says what it is."""
    option, model = measurement["option"], labels(measurement).get("model", "")
    name = model if option == "as published" else f"{option} ({model})"
    return {**measurement, "option": name, "parameters": {}}


# --- L4 -------------------------------------------------------------------------------------------


WHOSE = {"xavier": "Xavier's", "gpt2": "GPT-2's", "deepnorm": "DeepNorm's"}


def gradient_profile(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Layer by layer in the deepest model, first to last in one number, and against the depth."""
    ratios, between = of(measurements, "first_to_last_ratio"), []
    if len(ratios) >= 2:
        title = f"first layer's gradient over the last layer's, {_wide(ratios)}"
        between = [_dots(title, ratios, claim, "ratio", log=True)]
    return [
        *_by_theory(of(measurements, "gradient_norm"), "layer", "gradient norm by layer"),
        *_by_theory(of(measurements, "last_layer_gradient"), "depth", "last layer's gradient"),
        *between,
    ]


def _by_theory(chosen: list[Measurement], x: str, title: str) -> Panels:
    """A panel under the theorem's initialization, one under all others, on the same scale."""
    if _numbers(chosen, x) < CURVE_NEEDS:
        return []
    xavier = [m for m in chosen if labels(m)["initialization"] == "xavier"]
    others = [m for m in chosen if m not in xavier]
    return [
        curve(
            f"{title}, {_wide(part)}, {_initializations(part)}",
            part,
            x,
            x_title=words(x),
            y_title="gradient norm",
            log_x=_by_factors(chosen, x),
            log_y=True,
            y_reach=chosen,
        )
        for part in (xavier, others)
        if part
    ]


def _wide(chosen: Sequence[Measurement]) -> str:
    widths = dict.fromkeys(labels(m)["width"] for m in chosen)
    return f"{' and '.join(map(str, widths))} wide"


def _initializations(chosen: Sequence[Measurement]) -> str:
    used = dict.fromkeys(labels(m)["initialization"] for m in chosen)
    return f"{' and '.join(WHOSE[name] for name in used)} initialisation"


# --- L5 -------------------------------------------------------------------------------------------


def speedup(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    ratios, seconds = of(measurements, "speedup"), of(measurements, "seconds")
    if not ratios or not seconds:
        return []
    return [
        _dots("speed-up by the cache", ratios, claim, "uncached seconds over cached ones"),
        _bars("seconds to generate", seconds, claim, "s"),
    ]


def cache_bytes(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Bytes in use against the length, for one batch size: the others are multiples of it."""
    sizes = [m for m in of(measurements, "bytes") if labels(m)["counted"] == "in use"]
    if _numbers(sizes, "tokens") < CURVE_NEEDS:
        return []
    batch = min(labels(m)["batch_size"] for m in sizes)
    sizes = [m for m in sizes if labels(m)["batch_size"] == batch]
    x_title = "tokens in the cache"
    return [
        curve(name, part, "tokens", x_title=x_title, y_title="bytes", log_x=True, log_y=True)
        for name, part in _split(sizes, "tokens", f"bytes in use, batch size {batch}")
    ]


def row_projections(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    counts = of(measurements, "row_projections")
    if _numbers(counts, "step") < CURVE_NEEDS:
        return []
    title = "rows projected to keys and values at each step"
    return [curve(title, counts, "step", x_title="generated token", y_title="rows")]


# --- L6 -------------------------------------------------------------------------------------------


def loss_increase(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    increases = of(measurements, "loss_increase")
    if not increases:
        return []
    title = "loss added by the quantisation, with 95 % intervals"
    return [_dots(title, increases, claim, "increase of the held-out loss (nats/token)")]


# A published configuration's field is a word, not a quantity.
TABLE_IS_ENOUGH = frozenset({"tying.abandoned", "cache.same-output", "cache.memory-example"})

CHARTS: dict[str, Callable[[Sequence[Measurement], Claim], Panels]] = {
    "lora.trainable-share": trainable_share,
    "lora.product-variance": variance_by_rank,
    "lora.update-variance": variance_by_rank,
    "position.parameters": position_parameters,
    "position.relative": shift_deviation,
    "position.embedding-untouched": norm_change,
    "tying.saving-small": both_sizes,
    "tying.saving-large": saved_share,
    "norm.gradient-profile": gradient_profile,
    "cache.fifteen-tokens": speedup,
    "cache.fifteenfold-projections": row_projections,
    "cache.memory-law": cache_bytes,
    "int8.weights-quality": loss_increase,
    "int8.norm-damage": loss_increase,
}
