"""L5's charts: what a compressed KV cache holds, and what it loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.render.marks import MOST_SERIES, Measurement, Panel, bars, curve, labels
from reports.render.selection import (
    CURVE_NEEDS,
    Claim,
    Panels,
    bordered_bars,
    bordered_dots,
    borders,
    numbers,
    of,
)

OURS = "turboquant"


def compression(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """How many times smaller than fp16, and the bits held a value against the length."""
    panels = []
    for metric, title in (
        ("compression", "times smaller than an fp16 cache, everything counted"),
        ("compression_otherwise", "the same of shorter texts, with a window, and of prod"),
    ):
        found = [m for m in of(measurements, metric) if labels(m)["against"] == "fp16"]
        if len(found) >= 2 and metric == "compression":
            panels.append(_ratios(title, found, claim))
        elif len(found) >= 2:
            shown = [m for m in found if labels(m)["bits"] == 3]
            panels.append(_ratios(f"{title}, 3 bits", shown, claim))
    speeds = of(measurements, "speed_over_uncompressed", "copies")
    if len(speeds) >= 2:
        panels += _speeds(measurements, claim)
    return panels


def _ratios(title: str, chosen: list[Measurement], claim: Claim) -> Panel:
    """Times as small, which are no percentages; the claim's region in all of them."""
    ends = borders(claim, "compression")
    return bars(title, chosen, x_title="fp16 bytes over bytes held", borders=ends)


def _speeds(measurements: Sequence[Measurement], claim: Claim) -> Iterator[Panel]:
    decoding = of(measurements, "speed_over_uncompressed")
    if len(decoding) >= 2:
        title = "tokens per second over those of the uncompressed cache"
        yield bars(title, decoding, x_title="speed over uncompressed")
    copies = of(measurements, "copies")
    if len(copies) >= 2:
        title = "seconds to encode and decode, in copies of the same tensor"
        yield bars(title, copies, x_title="copies")


def law_of_a_coordinate(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    distances = [
        {**m, "option": f"{m['option']}, {turned}", "parameters": {}}
        for metric, turned in (("distance", "rotated"), ("distance_unrotated", "as they are"))
        for m in of(measurements, metric)
    ]
    if len(distances) < 2:
        return []
    title = "distance of a coordinate's distribution from the Beta law"
    return [bordered_dots(title, distances, claim, "Kolmogorov and Smirnov's distance", log=True)]


def distortion(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Against the bits: both bounds, the paper's, the exact and the measured values."""
    found = of(measurements, "distortion")
    if numbers(found, "bits") < CURVE_NEEDS:
        return []
    panels = []
    for width in dict.fromkeys(labels(m)["width"] for m in found):
        own = [_only(m, "bits") for m in found if labels(m)["width"] == width]
        panels.append(
            curve(
                f"distortion against bits, vectors {width} wide",
                own,
                "bits",
                x_title="bits a coordinate",
                y_title="E‖x − x̂‖² of unit vectors",
                log_y=True,
            )
        )
    products = of(measurements, "inner_product_variance")
    narrowest = min((labels(m)["width"] for m in products), default=None)
    own = [_only(m, "bits") for m in products if labels(m)["width"] == narrowest]
    if numbers(own, "bits") >= CURVE_NEEDS:
        panels.append(
            curve(
                f"error of inner products against bits, vectors {narrowest} wide",
                own,
                "bits",
                x_title="bits a coordinate, the residual's included",
                y_title="D · E⟨y, x − x̂⟩²",
                log_y=True,
            )
        )
    return panels


def residual_bit(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """QJL on and off at equal bits: slope, divergence of the attention weights, their ratio."""
    panels = []
    for metric, title, x_title, log in (
        ("attention_kl_ratio", "divergence of attention with QJL over that without", "ratio", True),
        ("attention_kl", "divergence of attention weights from the exact ones", "KL (nats)", True),
        ("inner_product_slope", "slope of estimated inner products", "slope", False),
    ):
        chosen = [_without(m, "seeds", "width") for m in of(measurements, metric)]
        if len(chosen) >= 2:
            panels.append(bordered_dots(title, chosen, claim, x_title, log=log))
    return panels


def loss_through_cache(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """The claim's loss, and for every format what it costs against all the bits it holds."""
    panels = []
    claimed = [_without(m, "seeds") for m in of(measurements, "loss_increase")]
    if len(claimed) >= 2:
        title = "loss added by compressed keys and values"
        x_title = "increase of the held-out loss (nats/token)"
        panels.append(bordered_dots(title, claimed, claim, x_title))
    for metric, y_title, log_y in (
        ("format_prediction_kl", "KL of predictions (nats/token)", True),
        ("format_loss_increase", "increase of the held-out loss (nats/token)", False),
    ):
        formats = [_only(m, "bits_held") for m in of(measurements, metric)]
        if numbers(formats, "bits_held") < CURVE_NEEDS:
            continue
        for part, chosen in _in_parts(formats):
            panels.append(
                curve(
                    f"{y_title.partition(' (')[0]} against all bits held, {part}",
                    chosen,
                    "bits_held",
                    x_title="bits a value, scales included",
                    y_title=y_title,
                    log_x=True,
                    log_y=log_y,
                    y_reach=formats,
                    borders=() if log_y else borders(claim, "loss_increase"),
                )
            )
    varied = [_without(m, "seeds") for m in of(measurements, "variation_loss_increase")]
    if len(varied) >= 2:
        title = "loss added with one thing changed"
        x_title = "increase of the held-out loss (nats/token)"
        panels.append(bordered_dots(title, varied, claim, x_title))
    return panels


def _in_parts(formats: list[Measurement]) -> Iterator[tuple[str, list[Measurement]]]:
    """Variants of ours, and the peers beside the plainest of ours: six lines at most in each."""
    ours = [m for m in formats if m["option"].startswith(OURS)]
    plainest = ours[0]["option"] if ours else None
    windowed = [m for m in formats if "window" in m["option"]]
    peers = [m for m in formats if m not in ours and m not in windowed]
    beside = [m for m in ours if m["option"] == plainest]
    for name, chosen in (
        ("TurboQuant and its peers", beside + peers),
        ("with a window of exact tokens", beside + windowed),
        ("TurboQuant's variants", [m for m in ours if m not in windowed]),
    ):
        options = list(dict.fromkeys(m["option"] for m in chosen))[:MOST_SERIES]
        if len(options) >= 2:
            yield name, [m for m in chosen if m["option"] in options]


def shared_bits(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    found = [_without(m, "seeds") for m in of(measurements, "loss_increase")]
    if len(found) < 2:
        return []
    title = "loss added, six bits shared out between a key and its value"
    return [bordered_dots(title, found, claim, "increase of the held-out loss (nats/token)")]


def work_of_the_rotation(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    gains = [_at_three_bits(m) for m in of(measurements, "gain_by_rotation", "gain_by_codebook")]
    costs = [m for m in of(measurements, "distortion_times_levels") if labels(m)["bits"] == 3]
    panels = []
    chosen = [m for m in gains if m is not None]
    if len(chosen) >= 2:
        title = "what the distortion is divided by, 3 bits"
        panels.append(bordered_bars(title, [_as_factor(m) for m in chosen], claim, "times less"))
    if len(costs) >= 2:
        title = "distortion times 4 to the bits held, 3 bits"
        shown = [_without(m, "bits") for m in costs]
        panels.append(bordered_dots(title, shown, claim, "D · 4^bits", log=True))
    return panels


def _at_three_bits(measurement: Measurement) -> Measurement | None:
    if labels(measurement)["bits"] != 3:
        return None
    by = measurement["metric"].removeprefix("gain_by_")
    return {**measurement, "option": f"{measurement['option']}, by the {by}", "parameters": {}}


def _as_factor(measurement: Measurement) -> Measurement:
    """A factor, which bars would show in percent."""
    return {**measurement, "unit": "times"}


def _only(measurement: Measurement, key: str) -> Measurement:
    return {**measurement, "parameters": {key: labels(measurement)[key]}}


def _without(measurement: Measurement, *keys: str) -> Measurement:
    kept = {k: v for k, v in measurement["parameters"].items() if k not in keys}
    return {**measurement, "parameters": kept}
