"""L5's charts: speed, work and memory of generation with a KV cache and without, and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reports.render.formats import words
from reports.render.marks import Measurement, Panel, curve, labels
from reports.render.selection import (
    CURVE_NEEDS,
    Claim,
    Panels,
    bordered_bars,
    bordered_dots,
    numbers,
    of,
    split,
)

CLAIMED_TOKENS = 15


def generation_speed(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Speed and speed-up against the length, and both at the length that the claim speaks of."""
    ratios, seconds = (
        [m for m in of(measurements, metric) if labels(m)["new_tokens"] == CLAIMED_TOKENS]
        for metric in ("speedup", "seconds")
    )
    at_claim = []
    if ratios and seconds:
        title = f"speed-up by the cache over {CLAIMED_TOKENS} tokens"
        at_claim = [
            bordered_dots(title, ratios, claim, "uncached seconds over cached ones"),
            bordered_bars(f"seconds to generate {CLAIMED_TOKENS} tokens", seconds, claim, "s"),
        ]
    return [
        *_over_length(measurements, "tokens_per_second", "tokens per second", "tokens/s"),
        *_over_length(measurements, "speedup", "speed-up by the cache", "uncached over cached"),
        *at_claim,
    ]


def _over_length(
    measurements: Sequence[Measurement], metric: str, title: str, y_title: str
) -> Iterator[Panel]:
    """A panel per prompt that was continued to enough lengths; none if there is no such prompt."""
    for prompt in dict.fromkeys(labels(m).get("prompt_tokens") for m in of(measurements, metric)):
        own = [m for m in of(measurements, metric) if labels(m).get("prompt_tokens") == prompt]
        if numbers(own, "new_tokens") >= CURVE_NEEDS:
            yield curve(
                f"{title}, after a prompt of {prompt}",
                own,
                "new_tokens",
                x_title="new tokens",
                y_title=y_title,
                log_x=True,
            )


def counted_flops(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """On these axes a polynomial of degree d is a line that climbs d decades in one."""
    flops = [m for m in of(measurements, "flops") if "part" in labels(m)]
    if numbers(flops, "tokens") < CURVE_NEEDS:
        return []
    x_title, y_title = "tokens in all", "FLOPs of the whole run"
    return [
        curve(name, part, "tokens", x_title=x_title, y_title=y_title, log_x=True, log_y=True)
        for name, part in split(flops, "tokens", "counted FLOPs against the length")
    ]


def roofline(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Steps under the roof of the machine, where the time goes, and speed against its limit."""
    return [*_roof(measurements), *_shares(measurements, claim), *_rates(measurements, claim)]


def _roof(measurements: Sequence[Measurement]) -> Iterator[Panel]:
    """Achieved FLOP/s against FLOPs per byte, below what bandwidth and arithmetic allow."""
    intensities = {_step(m): m["value"] for m in of(measurements, "intensity")}
    points = [
        _at(m, intensities[_step(m)], option=_step(m))
        for m in of(measurements, "flops_per_second")
        if _step(m) in intensities
    ]
    bandwidths = of(measurements, "read_bandwidth")
    kind = next((labels(point).get("dtype", "float32") for point in points), "float32")
    rates = [m for m in of(measurements, "matrix_rate") if labels(m).get("dtype") == kind]
    if len(points) < 2 or not bandwidths or not rates:
        return
    bandwidth, rate = bandwidths[0]["value"], rates[0]["value"]
    if bandwidth <= 0 or rate <= 0:  # a machine that does nothing has no roof
        return
    ends = [labels(point)["intensity"] for point in points]
    corner = rate / bandwidth
    roof = [
        _at({**rates[0], "value": min(rate, x * bandwidth), "interval": None}, x, option="roof")
        for x in sorted({min(*ends, corner), corner, max(*ends, corner)})
    ]
    yield curve(
        f"steps under the roof of the machine, {kind}",
        points,
        "intensity",
        x_title="FLOPs per byte read",
        y_title="FLOP/s",
        log_x=True,
        log_y=True,
        y_reach=[*points, *roof],
        dashed=roof,
        dashed_is="the most that the measured bandwidth and arithmetic allow",
    )


def _step(measurement: Measurement) -> str:
    """Which step a measurement is of: "decode, batch size 4" or "prefill, 512 tokens"."""
    own = labels(measurement)
    if "tokens" in own:
        return f"{own['option']}, {own['tokens']} tokens"
    return f"{own['option']}, batch size {own.get('batch_size')}"


def _at(measurement: Measurement, intensity: float, option: str) -> Measurement:
    # Two digits place a point well enough, and ticks stand at the points themselves.
    parameters = {"intensity": float(f"{intensity:.2g}")}
    return {**measurement, "option": option, "parameters": parameters}


def _shares(measurements: Sequence[Measurement], claim: Claim) -> Iterator[Panel]:
    texts = {
        "reading_share": "reading: between the next two",
        "reading_least": "read at full bandwidth",
        "operator_share": "inside operators that read",
        "computing_share": "compute at full rate",
    }
    chosen = [
        {**m, "option": text, "parameters": {}}
        for metric, text in texts.items()
        for m in of(measurements, metric)
        if m["option"] == "decode" and labels(m).get("batch_size") == 1
    ]
    if len(chosen) == len(texts):
        yield bordered_bars("parts of a decode step's seconds", chosen, claim, "share of the step")


def _rates(measurements: Sequence[Measurement], claim: Claim) -> Iterator[Panel]:
    texts = {"tokens_per_second": "measured", "tokens_per_second_limit": "limit"}
    rates = of(measurements, *texts)
    chosen = [{**m, "option": texts[m["metric"]]} for m in rates]
    if len(chosen) >= 2:
        title = f"decoded {words('tokens_per_second')}, and the limit of the machine"
        yield bordered_dots(title, chosen, claim, "tokens/s", log=True)


def cache_bytes(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Bytes in use against the length, for one batch size: the others are multiples of it."""
    sizes = [m for m in of(measurements, "bytes") if labels(m)["counted"] == "in use"]
    if numbers(sizes, "tokens") < CURVE_NEEDS:
        return []
    batch = min(labels(m)["batch_size"] for m in sizes)
    sizes = [m for m in sizes if labels(m)["batch_size"] == batch]
    x_title = "tokens in the cache"
    return [
        curve(name, part, "tokens", x_title=x_title, y_title="bytes", log_x=True, log_y=True)
        for name, part in split(sizes, "tokens", f"bytes in use, batch size {batch}")
    ]


def row_projections(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    counts = of(measurements, "row_projections")
    if numbers(counts, "step") < CURVE_NEEDS:
        return []
    title = "rows projected to keys and values at each step"
    return [curve(title, counts, "step", x_title="generated token", y_title="rows")]
