"""What the referee found, as one table: a line a row, by the bits that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.judging.rounding import number
from benchmarks.referee.comparing import frontier

HEADERS = (
    "format",
    "bits",
    "kept",
    "bits a value",
    "bytes once",
    "loss",
    "KL",
    "± KL",
    "KL p99",
    "greedy",
    "speed",
    "beside TurboQuant",
    "",
)
SPEED_AT = 4096  # tokens
FRONTIER = "frontier"
BETWEEN = " − "  # the names of a pair
Measurement = Mapping[str, Any]
Key = tuple[str, str, str]  # title, bits, and what is kept exactly


def table(measurements: Sequence[Measurement]) -> str:
    """Of the measurements in results.json; empty where there are none of rows."""
    from tabulate import tabulate

    found = _rows(measurements)
    points = {key: (of["bits_held"], of["prediction_kl"]["value"]) for key, of in found.items()}
    best = frontier(points)
    lines = [
        _line(key, of, measurements, key in best)
        for key, of in sorted(found.items(), key=lambda each: each[1]["bits_held"])
    ]
    return tabulate(lines, HEADERS, disable_numparse=True) if lines else ""


def _rows(measurements: Sequence[Measurement]) -> dict[Key, dict[str, Any]]:
    """Measurements of each row by their metric: by title, bits and what is kept exactly."""
    found: dict[Key, dict[str, Any]] = {}
    for each in measurements:
        labels = each["parameters"]
        if "kept" not in labels or "eighth" in labels:
            continue
        key = each["option"], str(labels["bits"]), labels["kept"]
        of = found.setdefault(key, {"bits_held": labels["bits_held"]})
        of[each["metric"]] = each
    return {key: of for key, of in found.items() if "prediction_kl" in of}


def _line(
    key: Key,
    of: Mapping[str, Any],
    measurements: Sequence[Measurement],
    is_best: bool,
) -> tuple[str, ...]:
    title, bits, kept = key
    low, high = of["prediction_kl"]["interval"]
    return (
        title,
        bits,
        kept,
        f"{of['bits_held']:.2f}",
        f"{of['bytes_once']['value']:,}",
        f"{of['loss_increase']['value']:+.4f}",
        f"{of['prediction_kl']['value']:.5f}",
        f"{(high - low) / 2:.5f}",
        f"{of['kl_p99']['value']:.4f}",
        f"{of['greedy_agreement']['value']:.2f}",
        _speed(title, bits, measurements),
        _beside_turboquant(key, measurements),
        FRONTIER if is_best else "",
    )


def _speed(title: str, bits: str, measurements: Sequence[Measurement]) -> str:
    for each in measurements:
        labels = each["parameters"]
        if (
            each["metric"] == "speed_over_uncompressed"
            and (each["option"], str(labels["bits"])) == (title, bits)
            and labels["tokens"] == SPEED_AT
        ):
            return f"{number(each['value'])}×"
    return ""


def _beside_turboquant(key: Key, measurements: Sequence[Measurement]) -> str:
    """Lower, higher, equal or open: the KL beside that of TurboQuant at as many bits."""
    own = _name(key)
    for each in measurements:
        labels = each["parameters"]
        if each["metric"] != "kl_difference" or labels["center"] == own:
            continue
        pair = each["option"].split(BETWEEN)
        if own in pair and labels["center"] in pair:
            lower = (each["value"] < 0) == (own == pair[0])
            outcome = str(labels["outcome"])
            return ("lower" if lower else "higher") if outcome == "decided" else outcome
    return ""


def _name(key: Key) -> str:
    title, bits, kept = key
    return f"{title}, {bits} bits" + f", {kept}" * (kept != "bare")
