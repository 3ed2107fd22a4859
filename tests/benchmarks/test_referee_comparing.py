"""Which format is better: planted differences are found, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.referee.comparing import (
    MARGIN,
    Units,
    all_pairs,
    near,
    outcomes,
    paired,
    strongest,
)
from benchmarks.referee.frontier import frontier
from benchmarks.referee.quality import percentile

SEEDS, COUNT = 5, 54
DRAWS = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test draws the same, whichever ran before it."""
    monkeypatch.setitem(globals(), "DRAWS", np.random.default_rng(0))


def windows(count: int = COUNT) -> Units:
    """Two windows of each stretch of text."""
    return Units(np.arange(count) // 2, "a text")


def planted(mean: float, scatter: float, seeds: int = SEEDS) -> np.ndarray:
    """Values (seeds, windows) with this mean over what all rows share, and scatter of their own."""
    shared = np.linspace(0.01, 0.1, COUNT)
    return mean + shared + scatter * DRAWS.standard_normal((seeds, COUNT))


def told(values: dict[str, np.ndarray]) -> dict[str, str]:
    pairs = all_pairs(values, dict.fromkeys(values, 3.25), windows())
    found = outcomes([pair.difference for pair in pairs])
    return {pair.name: outcome for pair, outcome in zip(pairs, found, strict=True)}


def test_a_difference_is_decided_none_is_equal_and_what_scatter_hides_is_open() -> None:
    found = told(
        {
            "worse": planted(0.02, 1e-4),
            "better": planted(0.0, 1e-4),
            "as good": planted(0.0002, 1e-4),
            "scattered": planted(0.0, 0.1),
        }
    )
    assert found["worse − better"] == found["worse − as good"] == "decided"
    assert found["better − as good"] == "equal"
    assert found["better − scattered"] == "open"
    assert len(found) == 6


def test_rows_that_are_not_as_large_as_each_other_are_not_compared() -> None:
    bits = {"a": 3.25, "b": 3.3, "c": 3.35, "d": 3.375}
    found = all_pairs({name: planted(0.0, 1e-3) for name in bits}, bits, windows())
    assert {(pair.first, pair.second) for pair in found} == {
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("b", "d"),
        ("c", "d"),
    }


def test_no_pair_of_many_without_a_difference_is_decided() -> None:
    found = told({str(i): planted(0.0, 0.05) for i in range(12)})
    assert "decided" not in found.values()


def test_what_windows_share_does_not_hide_a_difference_of_a_tenth_of_it() -> None:
    difference = paired(planted(0.005, 1e-4), planted(0.0, 1e-4), windows())
    assert difference.value == pytest.approx(0.005, abs=2e-4)
    assert difference.interval[0] > 0.004


def test_a_row_that_draws_nothing_stands_beside_each_seed_of_another() -> None:
    drawn, fixed = planted(0.0, 1e-3), planted(0.0, 1e-3, seeds=1)
    by_seed = [paired(each[None], fixed, windows()).value for each in drawn]
    assert paired(drawn, fixed, windows()).value == pytest.approx(np.mean(by_seed))
    assert paired(fixed, fixed + 1e-3, windows()).n == COUNT // 2


def test_an_equal_pair_lies_within_the_margin_and_not_at_its_edge() -> None:
    pairs = {"a": planted(0.0, 1e-5), "b": planted(MARGIN, 1e-5)}
    assert list(told(pairs).values()) == ["decided"]
    pairs["b"] = planted(0.9 * MARGIN, 1e-5)
    assert list(told(pairs).values()) == ["equal"]


@pytest.mark.parametrize(
    ("others", "lower", "upper"),
    [((-0.01, 0.02), -1, -1), ((0.01, 0.02), 1, 1), ((0.0, 0.02), -1, 1)],
)
def test_the_strongest_rival_decides_what_holds_for_all(
    others: tuple[float, ...], lower: int, upper: int
) -> None:
    ours = planted(0.0, 1e-3)
    rivals = {str(mean): planted(mean, 1e-3) for mean in others}
    found = strongest(rivals, ours, windows())
    assert found is not None
    assert found[0] == str(min(others))
    assert [np.sign(end) for end in found[1].interval] == [lower, upper]
    # Of what is better when it is higher the same, turned over.
    turned = strongest({name: -each for name, each in rivals.items()}, -ours, windows(), False)
    assert turned is not None
    assert [np.sign(end) for end in turned[1].interval] == [-upper, -lower]


def test_an_interval_for_all_rivals_is_wider_than_for_one() -> None:
    ours, rival = planted(0.0, 1e-3), planted(0.0, 1e-3)
    widths = []
    for rivals in (["a"], list("abcdefgh")):
        found = strongest(dict.fromkeys(rivals, rival), ours, windows())
        assert found is not None
        widths.append(found[1].interval[1] - found[1].interval[0])
    assert widths[1] > 1.5 * widths[0]
    assert strongest({}, ours, windows()) is None


def test_none_beats_what_is_on_the_frontier_in_both() -> None:
    points = {"a": (2.0, 0.5), "b": (3.0, 0.1), "c": (3.0, 0.2), "d": (4.0, 0.1), "e": (5.0, 0.05)}
    assert frontier(points) == {"a", "b", "e"}


def test_near_are_those_that_hold_about_as_much() -> None:
    assert near({"a": 3.0, "b": 3.25, "c": 3.56, "d": 3.8}, 3.25) == ["a", "b", "c"]


def test_a_percentile_is_over_all_tokens_and_its_interval_over_seeds_and_stretches() -> None:
    values = DRAWS.exponential(size=(SEEDS, COUNT, 100))
    found = percentile(values, 0.99, windows().clusters)
    assert found.value == pytest.approx(np.quantile(values, 0.99))
    assert found.interval[0] < -np.log(0.01) < found.interval[1]
    assert found.n == SEEDS
    scattered = percentile(values * np.arange(1, 6)[:, None, None], 0.99, windows().clusters)
    assert scattered.interval[1] / scattered.interval[0] > 1.2  # by the seeds
    assert percentile(values[:1], 0.99, windows().clusters).n == COUNT // 2
