"""A Hadamard without signs is harmed by what all coordinates share, and by nothing else."""

from __future__ import annotations

import pytest
import torch

from benchmarks.experiments.experiment import CellsFound, Settings, Unavailable
from benchmarks.experiments.turboquant import kv_vectors
from benchmarks.experiments.turboquant import signs as experiment
from benchmarks.instruments.windows import windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from benchmarks.subjects import subject
from reference_model.quantization.codebook import lloyd_max
from tests.benchmarks.small_models import WINDOW, shipped_tokens

FULL = Settings("full", "cpu", 0)


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "TURNED", 2000)
    monkeypatch.setattr(experiment, "ROTATIONS", 5)
    monkeypatch.setattr(experiment, "PACKED", (3,))
    window = windows_of(shipped_tokens()[: WINDOW + 1], WINDOW)
    monkeypatch.setattr(subject, "play_windows", lambda *_: window)


def found_for(*names: str) -> list[Measurement]:
    cells: CellsFound = [({}, experiment.of_vectors(FULL, name)) for name in names]
    return experiment.signs.combine(FULL, cells)


def value(found: list[Measurement], metric: str, **labels: object) -> float:
    (one,) = [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]
    return one.value


def verdict(found: list[Measurement]) -> str:
    (claim,) = (each for each in load_claims() if each.id == experiment.CLAIM)
    return judge_claim(claim, found)[0].verdict


@pytest.mark.parametrize("rounds", experiment.ROUNDS)
def test_only_a_mean_that_all_coordinates_share_does_harm(rounds: int) -> None:
    found = found_for(*experiment.SIMULATED)
    ratio = "unsigned_over_signed"
    assert value(found, ratio, option="Gaussian", rounds=rounds) == pytest.approx(1, abs=0.1)
    assert value(found, ratio, option="shifted Gaussian", rounds=rounds) > 5
    assert value(found, f"{ratio}_control", rounds=rounds) == pytest.approx(1, abs=0.1)
    assert verdict(found) == "depends"


def test_of_a_gaussian_both_lose_what_the_codebook_does() -> None:
    found = found_for("Gaussian")
    exact = lloyd_max(64, 3).distortion
    assert value(found, "distortion", signs=False) == pytest.approx(exact, rel=0.03)
    assert value(found, "distortion", rounds=1) == pytest.approx(exact, rel=0.03)


def test_each_kind_of_vectors_is_a_cell_and_biases_are_kept_beside() -> None:
    cells = [cell.parameters for cell in experiment.cells(FULL)]
    assert [each["vectors"] for each in cells] == [*experiment.SIMULATED, *experiment.REAL * 2]
    found = experiment.of_vectors(FULL, "keys", biases_kept=True)
    assert {each["metric"] for each in found} == {
        "distortion_biases_kept",
        "unsigned_over_signed_biases_kept",
    }


def test_biases_that_are_kept_are_those_of_the_model() -> None:
    dropped, kept = (
        kv_vectors.keys_and_values(FULL, 4000, drop_biases=drop) for drop in (True, False)
    )
    for less, whole in zip(dropped, kept, strict=True):
        # As many different ones as there are layers and heads.
        assert len(torch.unique((whole - less).mul(1e3).round(), dim=0)) == 24


def test_heads_without_a_hadamard_matrix_leave_the_claim_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wide:
        width = 96

    monkeypatch.setattr(experiment, "subject_of", lambda settings: Wide())
    with pytest.raises(Unavailable, match="96 wide"):
        experiment.of_vectors(FULL, "keys")
