"""What the referee found, as one table: a line a row, by the bits that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.experiments.turboquant.recall import NEEDLE, RECALL
from benchmarks.judging.rounding import number
from benchmarks.judging.stats import Estimate
from benchmarks.referee.comparing import BETWEEN, outcomes
from benchmarks.referee.frontier import frontier

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
    "recall",
    "needles",
    "speed",
    "beside TurboQuant",
    "",
)
SPEED_AT = 4096  # tokens
FRONTIER = "frontier"
Measurement = Mapping[str, Any]
Key = tuple[str, str, str]  # title, bits, and what is kept exactly


def table(measurements: Sequence[Measurement]) -> str:
    """Of the measurements in results.json; empty where there are none of rows.

    Recall and needles are shares that are found, of needles those that are found uncompressed.
    Lower, higher, equal or open says how a row's KL is beside TurboQuant's, where it holds about as
    many bits. The frontier are the rows that none beats in both, KL and bits.
    """
    from tabulate import tabulate

    found = _rows(measurements)
    points = {key: (of["bits_held"], of["prediction_kl"]["value"]) for key, of in found.items()}
    best, beside, speeds = frontier(points), _beside_turboquant(measurements), _speeds(measurements)
    lines = [
        (
            *key,
            *_numbers(of),
            speeds.get(key[:2], ""),
            beside.get(_name(key), ""),
            FRONTIER if key in best else "",
        )
        for key, of in sorted(found.items(), key=lambda each: points[each[0]])
    ]
    return tabulate(lines, HEADERS, disable_numparse=True) if lines else ""


def _rows(measurements: Sequence[Measurement]) -> dict[Key, dict[str, Any]]:
    """Measurements of each row by their metric."""
    found: dict[Key, dict[str, Any]] = {}
    for each in measurements:
        labels = each["parameters"]
        if "kept" in labels and "eighth" not in labels:
            key = each["option"], str(labels["bits"]), labels["kept"]
            of = found.setdefault(key, {"bits_held": labels["bits_held"]})
            of[labels.get("task", each["metric"])] = each
    return {key: of for key, of in found.items() if "prediction_kl" in of}


def _numbers(of: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = of["prediction_kl"]["interval"]
    return (
        f"{of['bits_held']:.2f}",
        f"{of['bytes_once']['value']:,}",
        f"{of['loss_increase']['value']:+.4f}",
        f"{of['prediction_kl']['value']:.5f}",
        f"{(high - low) / 2:.5f}",
        f"{of['kl_p99']['value']:.4f}",
        f"{of['greedy_agreement']['value']:.2f}",
        *(f"{of[task]['value']:.3f}" if task in of else "" for task in (RECALL, NEEDLE)),
    )


def _speeds(measurements: Sequence[Measurement]) -> dict[tuple[str, str], str]:
    """By title and bits, over the uncompressed cache."""
    return {
        (each["option"], str(each["parameters"]["bits"])): f"{number(each['value'])}×"
        for each in measurements
        if each["metric"] == "speed_over_uncompressed" and each["parameters"]["tokens"] == SPEED_AT
    }


def _beside_turboquant(measurements: Sequence[Measurement]) -> dict[str, str]:
    """By the name of a row."""
    told: dict[str, str] = {}
    pairs = [each for each in measurements if each["metric"] == "kl_difference"]
    for near in dict.fromkeys(each["parameters"]["near"] for each in pairs):
        of_set = [each for each in pairs if each["parameters"]["near"] == near]
        names = [each["option"].split(BETWEEN) for each in of_set]
        # With the options that all rows have, where there is no bare one.
        ours = [n for pair in names for n in pair if n.startswith(f"TurboQuant, {near} bits")]
        center = min(ours, key=len, default="")
        estimates = [Estimate(e["value"], tuple(e["interval"]), e["n"]) for e in of_set]
        for pair, found, outcome in zip(names, estimates, outcomes(estimates), strict=True):
            if center in pair:
                (other,) = set(pair) - {center}
                is_lower = (found.value < 0) == (other == pair[0])
                word = "lower" if is_lower else "higher"
                told[other] = word if outcome == "decided" else outcome
    return told


def _name(key: Key) -> str:
    title, bits, kept = key
    return f"{title}, {bits} bits" + f", {kept}" * (kept != "bare")
