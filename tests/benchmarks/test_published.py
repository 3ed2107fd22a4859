"""What is published twice under one id is one quantity; the README says what results say."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm, poisson

from benchmarks.json_files import read_json

pytestmark = pytest.mark.K10

FOLDER = "reports/published"
Twice = list[tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def published(root: Path) -> dict[str, list[dict[str, Any]]]:
    """File → its measurements, of all results that are published."""
    found = {}
    for path in sorted((root / FOLDER).glob("*.json")):
        content = read_json(path)
        if isinstance(content, dict) and "measurements" in content:
            found[path.name] = content["measurements"]
    return found


@pytest.fixture(scope="module")
def twice(published: dict[str, list[dict[str, Any]]]) -> Twice:
    """Pairs of measurements of one id, from two files."""
    of_id = defaultdict(list)
    for measurements in published.values():
        for each in measurements:
            of_id[each["id"]].append(each)
    return [pair for same in of_id.values() for pair in itertools.combinations(same, 2)]


def problems(pairs: Twice) -> list[str]:
    """What in pairs of one id each says that they are not one quantity."""
    found, expected = [], 0.0
    apart: dict[str, list[bool]] = defaultdict(list)
    for a, b in pairs:
        if a["interval"] is None or b["interval"] is None:
            if a["interval"] != b["interval"]:
                found.append(f"{a['id']} is exact in one file and not in the other")
            elif not math.isclose(a["value"], b["value"], rel_tol=1e-9):
                found.append(f"{a['id']} is {a['value']} and {b['value']}, both called exact")
        elif a["interval"] != b["interval"]:
            halves = [(m["interval"][1] - m["interval"][0]) / 2 for m in (a, b)]
            # Of two normal estimates of one number, whose 95 % intervals are as wide as these.
            if any(halves):
                expected += 2 * norm.sf(1.96 * sum(halves) / math.hypot(*halves))
            (low, high), (other_low, other_high) = a["interval"], b["interval"]
            apart[f"{a['claim']}/{a['metric']}"].append(high < other_low or other_high < low)
    excluded = sum(map(sum, apart.values()))
    if excluded > poisson.ppf(0.999, expected):
        found.append(f"{excluded} intervals of one id exclude each other, by chance {expected:.1f}")
    # Chance strikes here and there; where most of a metric moved, its id lacks what moved it.
    found += [
        f"{metric}: {sum(each)} of {len(each)} intervals exclude each other"
        for metric, each in apart.items()
        if len(each) > 3 and sum(each) > len(each) / 2
    ]
    return found


def test_whatever_is_published_twice_under_one_id_is_one_quantity(twice: Twice) -> None:
    assert len(twice) > 500
    assert problems(twice) == []


def estimate(name: str, value: float, half: float | None) -> dict[str, Any]:
    interval = None if half is None else [value - half, value + half]
    claim, metric = "a.claim", "metric"
    return {"id": name, "claim": claim, "metric": metric, "value": value, "interval": interval}


def test_quantities_that_differ_are_found() -> None:
    same = [(estimate(f"m{i}", i, 0.1), estimate(f"m{i}", i + 0.01, 0.2)) for i in range(20)]
    assert problems(same) == []
    one_by_chance = [(estimate("n", 0, 0.1), estimate("n", 1, 0.1))]
    assert problems(same + one_by_chance) == []
    moved = [(estimate(f"k{i}", i, 0.1), estimate(f"k{i}", 9 * i + 9, 0.1)) for i in range(4)]
    assert len(problems(moved)) == 2
    assert problems([(estimate("x", 1, None), estimate("x", 2, None))])
    assert problems([(estimate("x", 1, None), estimate("x", 1, 0.1))])


# ---- what the README says of them

TRIPLE = re.compile(r"(−?\d[\d.]*)\s\((−?\d[\d.]*)\sto\s(−?\d[\d.]*)\)")
LINK = re.compile(rf"{FOLDER}/(\w+)\.(?:json|md)")
SOURCES = {"kv_codecs": "turboquant"}  # a table that is written from a file of another name


def says(texts: tuple[str, str, str], measurement: dict[str, Any]) -> bool:
    """Whether a value and the ends of its interval are those of a measurement, rounded."""
    numbers = (measurement["value"], *(measurement["interval"] or ()))
    return len(numbers) == 3 and all(
        abs(float(text.replace("−", "-")) - number) <= 0.51 * 10.0 ** -len(text.partition(".")[2])
        for text, number in zip(texts, numbers, strict=True)
    )


def test_intervals_in_the_readme_are_those_of_the_results_that_it_links(
    root: Path, published: dict[str, list[dict[str, Any]]]
) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    missing, checked, linked = [], 0, []
    for block in readme.split("\n\n"):
        # A table belongs to what is linked above it.
        own = [f"{SOURCES.get(name, name)}.json" for name in LINK.findall(block)]
        linked = own or (linked if block.startswith("|") else [])
        measurements = [m for name in linked for m in published.get(name, [])]
        for texts in TRIPLE.findall(block) if measurements and linked != ["quick.json"] else ():
            checked += 1
            if not any(says(texts, m) for m in measurements):
                missing.append((texts, linked))
    assert missing == []
    assert checked > 30
