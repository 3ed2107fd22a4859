"""Which chart shows a claim: one small function per claim, and a fallback for all others.

A function takes the claim's measurements and its entry in the results, and returns panels, none
where the measurements it draws are not there. Each panel is Vega-Lite, declared through Altair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reference_model.printing import clean
from reports.render.cache_charts import (
    cache_bytes,
    counted_flops,
    generation_speed,
    roofline,
    row_projections,
)
from reports.render.formats import words
from reports.render.int8_charts import activation_range, factorial, sensitivity
from reports.render.int8_speed_charts import size_speed
from reports.render.kv_charts import (
    compression,
    distortion,
    law_of_a_coordinate,
    loss_through_cache,
    residual_bit,
    shared_bits,
    work_of_the_rotation,
)
from reports.render.lora_charts import trainable_share, variance_by_rank
from reports.render.lora_training_charts import first_step, moments, rank_pays
from reports.render.marks import Measurement, curve, labels, scatter, varying
from reports.render.referee_chart import best_at_three
from reports.render.selection import (
    CURVE_NEEDS,
    Claim,
    Panels,
    axis_title,
    bordered_bars,
    bordered_dots,
    borders,
    by_factors,
    numbers,
    of,
    spans_decades,
    split,
)
from reports.render.trained_charts import (
    compared,
    extrapolated,
    rate_law,
    stable_rates,
    variants,
)

MOST_ROWS = 24
MOST_DRAWN = 1000  # of a claim; the largest so far has 312, and a thousand take seconds


class TooMany(ValueError):
    """A claim has more measurements than a chart shows."""


def panels(claim: Claim, measurements: Sequence[Measurement]) -> Panels:
    """The charts of ``claim``; an empty list where a table says it better.

    Raises `TooMany`, and whatever a chart raises that does not know the labels or numbers.
    """
    if len(measurements) > MOST_DRAWN:
        raise TooMany(f"{len(measurements):,} measurements, a chart shows {MOST_DRAWN:,} at most")
    shown = [_cleaned(measurement) for measurement in measurements]
    draw = CHARTS.get(claim["id"])
    drawn = draw(shown, claim) if draw else []
    return drawn or ([] if claim["id"] in TABLE_IS_ENOUGH else generic(shown, claim))


def _cleaned(measurement: Measurement) -> Measurement:
    """Its texts are drawn, which passes by the templates: what would steer is spelled out here."""

    def cleaned(value: Any) -> Any:
        return clean(value, lines=True) if isinstance(value, str) else value

    parameters = {cleaned(key): cleaned(value) for key, value in measurement["parameters"].items()}
    return {key: cleaned(value) for key, value in measurement.items()} | {"parameters": parameters}


def generic(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """A curve over a number that was varied, else dots, of what the requirements speak of."""
    drawn = []
    for metric in dict.fromkeys(requirement["metric"] for requirement in claim["requirements"]):
        chosen = of(measurements, metric)
        if len(chosen) >= 2 and len({m["value"] for m in chosen}) > 1:
            drawn += _generic_panels(chosen, claim)
    return drawn


def _generic_panels(chosen: list[Measurement], claim: Claim) -> Panels:
    title, value = words(chosen[0]["metric"]), axis_title(chosen)
    spread = spans_decades(chosen)
    numeric = [key for key in varying(chosen) if numbers(chosen, key) >= CURVE_NEEDS]
    if numeric:
        x = numeric[0]
        factors = by_factors(chosen, x)
        return [
            curve(name, part, x, x_title=words(x), y_title=value, log_x=factors, log_y=spread)
            for name, part in split(chosen, x, title)
        ]
    return [bordered_dots(title, chosen, claim, value, spread)] if len(chosen) <= MOST_ROWS else []


# --- L2 -------------------------------------------------------------------------------------------


def position_parameters(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    counted = of(measurements, "parameters")
    if len(counted) < 2:
        return []
    return [bordered_bars("parameters spent on positions", counted, claim, "parameters")]


def shift_deviation(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    deviations = of(measurements, "shift_deviation")
    if len(deviations) < 2 or not any(m["value"] > 0 for m in deviations):
        return []
    title = "largest change of a score when both positions shift"
    return [bordered_dots(title, deviations, claim, axis_title(deviations), log=True)]


def norm_change(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    changes = of(measurements, "norm_change")
    if len(changes) < 2:
        return []
    title = "change of the embedding's norm by the position"
    # Without √C sinusoids are twenty times as long as the embedding: bars would hide all others.
    return [bordered_dots(title, changes, claim, "relative change of norm", log=True)]


# --- L3 -------------------------------------------------------------------------------------------


def both_sizes(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    sizes = of(measurements, "parameters")
    title = "parameters with one matrix and with two"
    return [bordered_bars(title, sizes, claim, "parameters")] if len(sizes) >= 2 else []


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
            panels.append(bordered_bars(title, shares, claim, "saved share"))
    return [*panels, *_against_size(measurements, claim)]


def _against_size(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    published = [
        m
        for m in measurements
        if m["metric"].startswith("saved_share") and "size" in m["parameters"]
    ]
    if len(published) < CURVE_NEEDS:
        return []
    return [
        scatter(
            "share that tying saves, or would save, against size",
            published,
            "size",
            "head",
            x_title="parameters of the model",
            y_title="saved share of the untied size",
            borders=borders(claim, "saved_share_of_untied"),
        )
    ]


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
        between = [bordered_dots(title, ratios, claim, "ratio", log=True)]
    return [
        *_by_theory(of(measurements, "gradient_norm"), "layer", "gradient norm by layer"),
        *_by_theory(of(measurements, "last_layer_gradient"), "depth", "last layer's gradient"),
        *between,
    ]


def _by_theory(chosen: list[Measurement], x: str, title: str) -> Panels:
    """A panel under the theorem's initialization, one under all others, on the same scale."""
    if numbers(chosen, x) < CURVE_NEEDS:
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
            log_x=by_factors(chosen, x),
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


# --- L6 -------------------------------------------------------------------------------------------


def loss_increase(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    increases = of(measurements, "loss_increase")
    if not increases:
        return []
    title, x_title = "loss added by the quantisation", "increase of the held-out loss (nats/token)"
    panels = [bordered_dots(f"{title}, with 95 % intervals", increases, claim, x_title)]
    for metric, more in (
        ("loss_increase_of_other_grids", "on other grids"),
        ("loss_increase_w8a8", "by real INT8 products, activations rounded too"),
    ):
        others = of(measurements, metric)
        if len(others) >= 2:
            panels.append(bordered_dots(f"{title}, {more}", others, claim, x_title))
    return [*panels, *factorial(measurements, claim)]


# A published configuration's field is a word, not a quantity.
TABLE_IS_ENOUGH = frozenset({"tying.abandoned", "cache.same-output", "cache.memory-example"})

CHARTS: dict[str, Callable[[Sequence[Measurement], Claim], Panels]] = {
    "lora.trainable-share": trainable_share,
    "lora.product-variance": variance_by_rank,
    "lora.update-variance": variance_by_rank,
    "lora.real-init": first_step,
    "lora.activation-stability": moments,
    "lora.rank-pays": rank_pays,
    "lora.learning-rate-law": rate_law,
    "position.parameters": position_parameters,
    "position.quality": compared,
    "position.extrapolation": extrapolated,
    "position.relative": shift_deviation,
    "position.embedding-untouched": norm_change,
    "tying.saving-small": both_sizes,
    "tying.saving-large": saved_share,
    "tying.quality": compared,
    "norm.gradient-profile": gradient_profile,
    "norm.quality": compared,
    "norm.stable-range": stable_rates,
    "norm.variants": variants,
    "cache.complexity": counted_flops,
    "cache.fifteen-tokens": generation_speed,
    "cache.fifteenfold-projections": row_projections,
    "cache.memory-bound": roofline,
    "cache.memory-law": cache_bytes,
    "cache.grouped-queries": compared,
    "turboquant.memory": compression,
    "turboquant.beta": law_of_a_coordinate,
    "turboquant.distortion": distortion,
    "turboquant.unbiased": residual_bit,
    "turboquant.zero-loss": loss_through_cache,
    "turboquant.best-at-three": best_at_three,
    "turboquant.keys-need-more": shared_bits,
    "turboquant.rotation-first": work_of_the_rotation,
    "int8.weights-quality": loss_increase,
    "int8.norm-damage": loss_increase,
    "int8.size-speed": size_speed,
    "int8.sensitivity": sensitivity,
    "int8.activation-range": activation_range,
}
