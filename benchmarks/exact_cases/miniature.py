"""An experiment in miniature: which of its cells are measured, how small, and what is found.

What stands in for models, texts and the clock is in stand_ins.py.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.exact_cases.stand_ins import in_miniature

if TYPE_CHECKING:
    from benchmarks.judging.claims import Claim

Labels = Mapping[str, Any]


@dataclass(frozen=True)
class Miniature:
    """An experiment's profile, and which of its cells are measured: those with these labels.

    All of them where none are named. ``rest``: each other cell has found what the one most like it
    has, its numbers moved a little. ``sizes``: smaller ones for constants, by module and name.
    """

    claim: str
    profile: str
    cells: Sequence[Mapping[str, Any]] = ()
    rest: bool = False
    sizes: Mapping[str, Any] = field(default_factory=dict)


def found_by(miniature: Miniature) -> object:
    """All that it measures, by name, and the verdict that this leads to."""
    from benchmarks.experiments.catalogue import all_experiments
    from benchmarks.experiments.experiment import Settings
    from benchmarks.judging.verdicts import judge_claim

    (experiment,) = (each for each in all_experiments() if each.claim == miniature.claim)
    claim = _claims()[miniature.claim]
    settings = Settings(miniature.profile, "cpu", 0)  # type: ignore[arg-type]
    with in_miniature(miniature.sizes):
        found: list[tuple[Any, Any]] = []
        cells = [cell.parameters for cell in experiment.cells(settings)]
        while cells:
            chosen = [each for labels in miniature.cells for each in _first(cells, labels)] or cells
            of_chosen = [(c, experiment.measure(settings, **c)) for c in chosen]
            of_all = [(labels, _like(labels, of_chosen)) for labels in cells]
            found += of_all if miniature.rest else of_chosen
            # Made for old commits as well, whose experiments name all their cells at once.
            further = getattr(experiment, "further", None)
            cells = [cell.parameters for cell in further(settings, found)] if further else []
        measured = experiment.combine(settings, found)
    judged, _ = judge_claim(claim, measured)
    return [{m.id: [m.value, m.interval, m.n, m.unit] for m in measured}, judged.verdict]


@cache
def _claims() -> dict[str, Claim]:
    from benchmarks.judging.claims import load_claims

    return {each.id: each for each in load_claims()}


def _first(cells: Sequence[Labels], labels: Labels) -> list[Labels]:
    """The first with these labels; none where no cell has them."""
    return [each for each in cells if labels.items() <= each.items()][:1]


def _like(labels: Labels, found: Sequence[tuple[Labels, Any]]) -> Any:
    """What the most similar of the measured cells found; moved, where it is not the same cell."""

    def alike(each: tuple[Labels, Any]) -> tuple[int, int]:
        return len(each[0].keys() & labels.keys()), len(each[0].items() & labels.items())

    nearest, numbers = max(found, key=alike)
    return numbers if nearest == labels else _moved(numbers, random.Random(str(labels)))


def _moved(found: Any, draws: random.Random) -> Any:
    if isinstance(found, float):
        return found * draws.uniform(0.95, 1.05)
    if isinstance(found, Mapping):
        return {key: _moved(each, draws) for key, each in found.items()}
    return [_moved(each, draws) for each in found] if isinstance(found, list | tuple) else found
