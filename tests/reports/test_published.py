"""What is published twice under one id is one quantity; Markdown says what published files say."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import norm, poisson

from reports.figures import MARK, typed_by_hand, with_figures
from reports.figures import START as START_OF_MARK
from reports.published_figures import published as content_of
from reports.table import END, START

pytestmark = pytest.mark.K10

FOLDER = Path("reports/published")
# Whatever these say of a measurement is written between marks: README.md and the lessons' pages.
WITHOUT_TYPED_FIGURES = ("README.md", "benchmarks/experiments/**/*.md")
TABLE = re.compile(f"{START}.*{END}", re.DOTALL)  # another command writes it
Twice = list[tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="module")
def published(root: Path) -> dict[str, list[dict[str, Any]]]:
    """File → its measurements, of all results that are published."""
    found = {}
    for path in sorted((root / FOLDER).glob("*.json")):
        content = content_of(path)
        if isinstance(content, dict) and "measurements" in content:
            found[path.name] = content["measurements"]
    return found


@pytest.fixture(scope="module")
def twice(root: Path, published: dict[str, list[dict[str, Any]]]) -> Twice:
    """Pairs of measurements of one id and one model, from two files."""
    of_id = defaultdict(list)
    for name, measurements in published.items():
        content: Any = content_of(root / FOLDER / name)
        model = content.get("environment", {}).get("model", "")
        for each in measurements:
            of_id[model, each["id"]].append(each)
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


# ---- what Markdown says of them


def test_every_marked_figure_of_every_page_is_what_the_published_file_says_now(
    root: Path, repository_files: list[Path]
) -> None:
    count, stale = 0, []
    for path in repository_files:
        if path.suffix != ".md":
            continue
        text = path.read_text(encoding="utf-8")
        new, marked = with_figures(text, root / FOLDER, str(path.relative_to(root)))
        count += marked
        assert marked == text.count(START_OF_MARK), f"{path.name}: a mark stands in code"
        if new != text:
            marks = zip(MARK.finditer(text), MARK.finditer(new), strict=True)
            stale += [(path.name, old[0], now["text"]) for old, now in marks if old[0] != now[0]]
    assert stale == [], "run make readme"
    assert count > 300


# A decimal point, or two numbers with "to" or a dash between them.
FIGURE = re.compile(r"(?<![\w.])[\d,]+\.\d+|\d(?: %)? to [−-]?\d|\d\s?–\s?\d")
# Numbers that name something: a link's target, an arXiv number, a version behind its program.
NAMES = re.compile(
    r"\]\([^)\s]*\)|https?://\S+|(?:arXiv:)?\d{4}\.\d{5}"
    r"|(?:Python|PyTorch|asv|llm-design-bench|version)(?: ≥)? \d+(?:\.\d+)+"
)


def typed_figures(text: str) -> list[str]:
    """Figures that stand in Markdown outside of marks and code, and name nothing."""
    return [
        found[0] for found in FIGURE.finditer(NAMES.sub("", typed_by_hand(TABLE.sub("", text))))
    ]


def test_no_figure_is_typed_into_the_readme_or_a_page_of_a_lesson(root: Path) -> None:
    pages = [path for name in WITHOUT_TYPED_FIGURES for path in sorted(root.glob(name))]
    assert len(pages) >= 8
    found = {
        str(path.relative_to(root)): typed_figures(path.read_text(encoding="utf-8"))
        for path in pages
    }
    assert {name: typed for name, typed in found.items() if typed} == {}


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("It is 1.44 times as fast.", ["1.44"]),
        ("between 3 to 5 s, −3 to −2, 3–5 s", ["3 to 5", "3 to −2", "3–5"]),
        ("12 layers, `0.5`, <!-- = a.json b -->0.5 (0.4 to 0.6)<!-- / -->", []),
        ("```sh\nsleep 0.5\n```\n", []),
        ("Python ≥ 3.11, PyTorch 2.13.0, arXiv:1910.05895, [1](a0.5.md)", []),
    ],
)
def test_a_typed_figure_has_a_decimal_point_or_is_an_interval(text: str, typed: list[str]) -> None:
    assert typed_figures(text) == typed
