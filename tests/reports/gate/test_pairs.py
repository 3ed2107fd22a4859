"""The turns of one pair: how many there are, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest

from reference_model.errors import UserError
from reports.gate import pairs
from reports.gate.pairs import Floats, enough, error, in_turns, middle


class Asked:
    """A process whose calls take the ``seconds`` that it is given, and which counts them."""

    def __init__(self, seconds: Iterator[float]) -> None:
        self._seconds, self.calls, self.spent = seconds, 0, 0.0

    def ask(self, do: str, **given: object) -> dict:
        taken = next(self._seconds)
        self.calls, self.spent = self.calls + 1, self.spent + taken
        return {"seconds": [taken]}


def scattered(seconds: float, scatter: float, seed: int) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    while True:
        yield seconds * math.exp(scatter * rng.standard_normal())


def taken(base: Asked, head: Asked, swapped: bool = False) -> float:
    ratio, _ = in_turns("x", base, head, swapped, None)  # type: ignore[arg-type]
    return ratio


@pytest.mark.parametrize("head", [0.005, 0.1, 0.5])
def test_a_head_that_is_many_times_slower_costs_few_calls_more(head: float) -> None:
    sides = Asked(scattered(0.005, 0.1, 1)), Asked(scattered(head, 0.1, 2))
    assert taken(*sides) == pytest.approx(math.log(head / 0.005), abs=0.15)
    most = pairs.MOST_SECONDS if head == 0.005 else 2 * pairs.LEAST_SECONDS
    assert sides[0].spent + sides[1].spent < most + 8 * head


def test_calm_turns_end_early_rough_ones_go_on_and_all_end() -> None:
    calls = []
    for scatter in (0.001, 0.08, 0.12, 0.7):
        sides = Asked(scattered(0.005, scatter, 3)), Asked(scattered(0.005, scatter, 4))
        taken(*sides)
        calls.append(sides[0].calls - pairs.SETTLING)
        assert sides[0].calls == sides[1].calls
    calm, rough, rougher, _ = calls
    assert 2 * calm * (0.005 + pairs.ASKING) == pytest.approx(pairs.LEAST_SECONDS, rel=0.15)
    assert calm < rough < rougher
    assert sides[0].spent + sides[1].spent < pairs.MOST_SECONDS + 1


def test_rough_turns_end_with_an_error_as_small_as_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        turns: list[tuple[float, float]] = []
        while not enough(turns):
            turns += [tuple(0.002 * np.exp(0.12 * rng.standard_normal(2))) for _ in range(2)]
        assert len(turns) < pairs.MOST_TURNS
        ratios = np.log(np.array(turns))
        found.append(middle(ratios[:, 1] - ratios[:, 0]))
    # To stop at what looks calm by chance costs some of it.
    assert 0.5 * pairs.SMALL < np.std(found) < 1.4 * pairs.SMALL


@pytest.mark.parametrize("slower", [0.0, 0.05, 1.0])
def test_which_of_two_is_the_slower_does_not_change_how_many_turns_they_take(slower: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        turns = 0.004 * np.exp(0.1 * rng.standard_normal((600, 2)) + [0, math.log1p(slower)])
        ends = [
            next(n for n in range(0, 600, 2) if enough([(float(a), float(b)) for a, b in of[:n]]))
            for of in (turns, turns[:, ::-1])
        ]
        assert ends[0] == ends[1]


def alternating(effect: float, scatter: float, turns: int, seed: int) -> Floats:
    """Ratios whose sign follows who was the first of a turn."""
    order = np.where(np.arange(turns) % 2, effect, -effect)
    return order + scatter * np.random.default_rng(seed).standard_normal(turns)


def test_what_being_the_first_costs_is_no_error_since_the_two_share_it() -> None:
    with_order = error(alternating(0.3, 0.01, 64, 5))
    assert with_order == pytest.approx(error(alternating(0.0, 0.01, 64, 5)))
    assert with_order == pytest.approx(0.01 / 8, rel=0.5)


def test_a_few_calls_that_met_something_else_do_not_move_the_middle() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.01, 32), rng.normal(-0.44, 0.01, 32)  # whose turn was first
    calm = np.concatenate((first, second))
    assert middle(calm) == pytest.approx(0.03, abs=0.01)
    disturbed = calm.copy()
    disturbed[:5] += 3.0
    assert middle(disturbed) == pytest.approx(middle(calm), abs=0.05)
    assert abs(np.mean(disturbed) - np.mean(calm)) > 0.2


@pytest.mark.parametrize("swapped", [False, True])
def test_the_calls_that_find_no_caches_yet_are_not_counted(swapped: bool) -> None:
    def after(first: float, seed: int) -> Asked:
        of_settling = [first] * pairs.SETTLING
        return Asked(chain(of_settling, scattered(0.005, 0.05, seed)))

    calm = taken(after(0.005, 1), after(0.005, 2), swapped)
    assert taken(after(0.03, 1), after(0.01, 2), swapped) == calm


@pytest.mark.parametrize("swapped", [False, True])
def test_each_process_is_as_often_the_first(swapped: bool) -> None:
    order: list[str] = []

    class Noted(Asked):
        def __init__(self, name: str) -> None:
            super().__init__(scattered(0.01, 0.001, 1))
            self.name = name

        def ask(self, do: str, **given: object) -> dict:
            order.append(self.name)
            return super().ask(do, **given)

    taken(Noted("b"), Noted("h"), swapped)
    turns = "".join(order)
    assert turns.startswith("hbbh" if swapped else "bhhb")
    assert turns[::2].count("b") == turns[1::2].count("b")


def test_a_call_of_nothing_measures_nothing() -> None:
    with pytest.raises(UserError, match="measures nothing: a call takes 5e-06"):
        taken(Asked(scattered(5e-6, 0.0, 1)), Asked(scattered(5e-6, 0.0, 1)))
