"""Six bits for a key and its value: what is read was planned, and all rotations come together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.experiments.turboquant import shares as experiment
from benchmarks.experiments.turboquant.shares import PILOT_WINDOWS, WINDOWS
from benchmarks.instruments.windows import spread, windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.power import Design, crossed_power
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from benchmarks.subjects import subject
from reference_model.quantization.turboquant import TurboQuant
from tests.benchmarks.small_models import shipped_tokens

FULL = Settings("full", "cpu", 0)
LENGTH = 64


@pytest.fixture
def short_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight short windows, of which the pilot has read two, in four stretches; six rotations."""
    tokens = shipped_tokens()[: 8 * LENGTH + 1]
    windows = windows_of([tokens[i : i + 2 * LENGTH + 1] for i in range(0, 512, 128)], LENGTH)
    monkeypatch.setattr(
        subject, "play_windows", lambda split, window, count, seed: spread(windows, count, seed)
    )
    monkeypatch.setattr(experiment, "PILOT_WINDOWS", 2)
    monkeypatch.setattr(experiment, "WINDOWS", 5)
    monkeypatch.setattr(experiment, "ROTATIONS", range(2, 5))
    monkeypatch.setattr(experiment, "AT_ONCE", 2)


def found_in(cells: CellsFound) -> list[Measurement]:
    return experiment.keys_need_more.combine(FULL, cells)


def values(found: list[Measurement], metric: str, **labels: object) -> list[float]:
    return [m.value for m in found if m.metric == metric and labels.items() <= m.labels.items()]


def verdict(found: list[Measurement]) -> str:
    (claim,) = (each for each in load_claims() if each.id == experiment.CLAIM)
    return judge_claim(claim, found)[0].verdict


def test_what_is_read_was_planned_and_is_new() -> None:
    windows = experiment.text_of(FULL)
    every = subject.subject_of(FULL).windows()
    of_pilot = subject.subject_of(FULL).windows(PILOT_WINDOWS)
    assert (len(windows), len(every)) == (WINDOWS, 215)
    assert set(windows.stretches) == set(every.stretches)
    inputs, read = ({tuple(row) for row in w.inputs.tolist()} for w in (windows, of_pilot))
    assert len(inputs) == WINDOWS
    assert not inputs & read
    assert not set(experiment.ROTATIONS) & set(experiment.PILOT_ROTATIONS)


def test_a_run_as_planned_decides_an_effect_like_the_pilots_and_no_text_decides_that_of_none() -> (
    None
):
    planned = {(m.option, m.parameters["windows"]): m.value for m in experiment.planned_power(FULL)}
    as_in_the_pilot, nothing = "saving 0.0134 nats a token", "saving 0 nats a token"
    assert 0.8 < planned[as_in_the_pilot, 100] < planned[as_in_the_pilot, 215]
    assert planned[nothing, 100] < planned[nothing, 215] < 0.65
    # Nor does any number of rotations; twice the text would.
    every, twice = Design(10_000, 215, 27), Design(40, 430, 54)
    border, scatter = experiment.BORDER, experiment.PILOT_SCATTER
    assert crossed_power(border, scatter, every) < 0.65
    assert crossed_power(border, scatter, twice) > 0.8


@pytest.mark.usefixtures("short_text")
def test_all_rotations_are_read_and_biases_and_equal_bits_beside_the_claim() -> None:
    torch.manual_seed(0)
    cells = experiment.keys_need_more.cells(FULL)
    assert [cell.parameters for cell in cells] == [
        {"biases_kept": False, "first": 2},
        {"biases_kept": False, "first": 4},
        {"biases_kept": True, "first": 2},
    ]
    assert [cell.share for cell in cells] == [4, 3, 3]
    found = experiment.keys_need_more(FULL)
    labels = {"key_bits": 4, "value_bits": 2}
    (many,) = values(found, "loss_increase", **labels, seeds=3)
    (few,) = values(found, "loss_increase", key_bits=2, value_bits=4, seeds=3)
    assert values(found, "loss_saved") == pytest.approx([few - many])
    assert len(values(found, "loss_increase", key_bits=3, value_bits=3, seeds=2)) == 1
    assert len(values(found, "biases_kept_loss_increase", **labels, seeds=2)) == 1
    assert len(values(found, "scatter_of_loss_saved")) == 4
    # An error of two bits is far larger than one of four.
    assert few > 0.01


@pytest.mark.usefixtures("short_text")
def test_each_rotation_has_its_own_place_among_those_of_all_cells() -> None:
    (of_many, *_), last = (experiment.ways(FULL, False, first) for first in (2, 4))
    assert [len(way.pairs) for way in (of_many, last[0])] == [2, 1]
    codec = last[0].pairs[0][0]
    assert isinstance(codec, TurboQuant)
    assert torch.equal(codec.rotation, TurboQuant(64, 4, seed=4).rotation)


def read_as(saved: float, rng: np.random.Generator) -> CellsFound:
    """Cells of a run in which 4 + 2 saves so much, with the pilot's scatter."""
    windows = experiment.text_of(FULL)
    stretches = rng.normal(0, 0.01, 27)[windows.stretches]
    cells: list[tuple[dict[str, Any], Any]] = []
    for cell in experiment.keys_need_more.cells(FULL):
        labels: dict[str, Any] = cell.parameters
        read = {}
        for way in experiment.ways(FULL, **labels):
            table = rng.normal(0, 0.02, (len(way.pairs), len(windows))) / 2
            if way.parameters["key_bits"] == 2:
                table += saved + stretches + rng.normal(0, 0.004, (len(way.pairs), 1))
            read[way.name] = {
                "baseline": [0.0] * len(windows),
                **{name: table.tolist() for name in ("losses", "divergences", "agreements")},
            }
        cells.append((labels, read))
    return cells


@pytest.mark.parametrize(
    ("saved", "expected"), [(0.04, "confirmed"), (-0.03, "refuted"), (0.005, "open")]
)
def test_the_claim_is_judged_by_what_is_saved(saved: float, expected: str) -> None:
    assert verdict(found_in(read_as(saved, np.random.default_rng(3)))) == expected
