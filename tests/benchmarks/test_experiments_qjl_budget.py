"""QJL's bit is compared with as many bits of the codebook, and with one bit less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.turboquant import qjl_budget as experiment
from benchmarks.instruments.windows import windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from benchmarks.subjects import subject
from reference_model.quantization.codec import Codec
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd
from tests.benchmarks.small_models import shipped_tokens

FULL = Settings("full", "cpu", 0)
LENGTH = 48


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six short windows, each a text of its own."""
    texts = shipped_tokens()[: 6 * (LENGTH + 1)].split(LENGTH + 1)
    windows = windows_of(texts, LENGTH)
    monkeypatch.setattr(subject, "play_windows", lambda *_: windows)
    monkeypatch.setattr(experiment, "SEEDS", 3)
    monkeypatch.setattr(experiment, "TOTAL_BITS", (3,))


def verdict(found: list[Measurement]) -> str:
    (claim,) = (each for each in load_claims() if each.id == experiment.CLAIM)
    return judge_claim(claim, found)[0].verdict


def chosen(found: list[Measurement], metric: str, **labels: object) -> list[Measurement]:
    return [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]


@pytest.mark.parametrize(("bits", "expected"), [(4, "confirmed"), (2, "refuted")])
def test_a_codec_with_less_error_wins(
    bits: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(width: int, total: int, seed: int) -> dict[str, Codec]:
        return {"planted": TurboQuant(width, bits, seed=seed + 100)}

    monkeypatch.setattr(experiment, "codecs_with_qjl", planted)
    monkeypatch.setattr(experiment, "COMPRESSED", ("keys and values",))
    assert verdict(experiment.qjl_budget(FULL)) == expected


def test_keys_and_values_are_compressed_one_without_the_other_too() -> None:
    for compressed, kinds in (
        ("keys", (True, False)),
        ("values", (False, True)),
        ("keys and values", (True, True)),
    ):
        ways = experiment.ways(64, compressed, range(2, 4))
        assert [(way.option, way.parameters["bits"]) for way in ways] == [
            ("codebook", 2),
            ("codebook", 3),
            ("with QJL", 3),
            ("with QJL", 3),
        ]
        for way in ways:
            quantised = TurboQuant if way.option == "codebook" else TurboQuantProd
            assert [isinstance(codec, quantised) for codec in way.pairs[0]] == list(kinds)


def test_both_sides_have_the_same_rotation_and_as_many_bits() -> None:
    _, alone, gaussian, orthonormal = experiment.ways(64, "keys", range(2, 3))
    codecs: Any = [way.pairs[0][0] for way in (alone, gaussian, orthonormal)]
    assert [codec.bits for codec in codecs] == [3, 3, 3]
    assert all(torch.equal(codec.rotation, codecs[0].rotation) for codec in codecs)
    assert codecs[1].constant != codecs[2].constant  # of one projection and of the other


def read_as(factors: dict[tuple[str, str], float], rng: np.random.Generator) -> list[Measurement]:
    """A run in which divergences are so many times those of the codebook of three bits."""
    cells = []
    for cell in experiment.cells(FULL):
        labels: Any = cell.parameters
        read = {}
        for way in experiment.ways(64, labels["compressed"], range(1)):
            projection = str(way.parameters.get("projection", ""))
            factor = factors.get((labels["compressed"], projection), 2.0)
            level = {2: 4.0, 3: factor if projection else 1.0}[int(way.parameters["bits"])]
            rows = (level * rng.lognormal(0, 0.02, (1, 6))).tolist()
            names = ("losses", "divergences", "agreements")
            read[way.name] = {"baseline": [0.0] * 6, **dict.fromkeys(names, rows)}
        cells.append((labels, read))
    return experiment.qjl_budget.combine(FULL, cells)


def test_ratios_are_those_of_the_windows_and_adjusted_together() -> None:
    found = read_as({("values", "orthonormal"): 1.005}, np.random.default_rng(0))
    equal, fewer = (
        chosen(found, "kl_ratio", against=against) for against in ("as many bits", "one bit less")
    )
    assert len(equal) == len(fewer) == 6
    assert [m.value for m in equal if m.value > 1.5] == pytest.approx([2.0] * 5, rel=0.03)
    assert [m.value for m in fewer if m.value > 0.3] == pytest.approx([0.5] * 5, rel=0.03)
    p_values = {
        (m.parameters["compressed"], m.parameters["projection"]): m.value
        for m in chosen(found, "holm_p_value", against="as many bits")
    }
    near = p_values.pop(("values", "orthonormal"))
    assert near > 0.05 > max(p_values.values())
    assert len(chosen(found, "loss_increase")) == 12


@pytest.mark.parametrize(
    ("factor", "expected"), [(0.5, "depends"), (1.0, "open"), (1.5, "refuted")]
)
def test_the_claim_is_judged_by_as_many_bits(factor: float, expected: str) -> None:
    found = read_as({("values", "orthonormal"): factor}, np.random.default_rng(1))
    assert verdict(found) == expected
