"""Losses beyond the trained length: of which targets, read how, and by which rescaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.positions.extrapolation import position_extrapolation as extrapolated
from benchmarks.instruments import extrapolation
from benchmarks.instruments.extrapolation import AT_ONE, at_trained_length, beyond, rescaled, tuned
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.trained_models import HALF, WHOLE, held_out
from benchmarks.instruments.windows import Windows, windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.subjects.built import Model, ModelConfig
from reference_model.training import Batches
from tests.reference_model.tiny import enlarge

TRAINED = 32
CONFIG = ModelConfig(vocab_size=50, context_length=TRAINED, n_layer=2, n_head=2, n_embd=32)


def model_with(position: str) -> Model:
    torch.manual_seed(0)
    model = Model(CONFIG.replace(position=position))
    enlarge(model)
    return model.eval()


def text() -> Tensor:
    return torch.randint(50, (3 * 128 + 1,), generator=torch.Generator().manual_seed(0))


def windows_at(length: int) -> Windows:
    return windows_of(text(), length)


def batches_at(length: int) -> Batches:
    def batch(step: int) -> Tensor:
        return (torch.arange(4)[:, None] + torch.arange(length + 1) + step) % 50

    return batch


def test_targets_are_read_again_from_the_tokens_just_before_them() -> None:
    model, windows = model_with("rope"), windows_at(4 * TRAINED)
    found = at_trained_length(model, windows, TRAINED)
    short = token_losses(model, windows_at(TRAINED)).mean(axis=1).reshape(3, 4)
    assert found == pytest.approx(short[:, 1:].mean(axis=1))


@pytest.mark.parametrize("position", ["rope", "alibi", "none", "sinusoidal"])
def test_every_ratio_and_way_has_a_loss_of_each_window(
    position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extrapolation, "TUNED_STEPS", 2)
    found = beyond(model_with(position), windows_at, batches_at, seed=0)
    assert found is not None
    scalings = {"none", "interpolation", "ntk"} if position == "rope" else {"none"}
    after = {f"{scaling}, tuned" for scaling in scalings} if position == "rope" else set()
    assert {*found["by_ratio"]["2"]} == {AT_ONE} | scalings | after
    assert {*found["by_ratio"]["4"]} == {AT_ONE} | scalings
    assert [len(each) for each in found["by_ratio"]["2"].values()] == [6] * len(
        found["by_ratio"]["2"]
    )
    assert len(found["by_position"]) == 4 * TRAINED // extrapolation.PART


def test_only_targets_beyond_the_trained_length_count() -> None:
    model, windows = model_with("alibi"), windows_at(2 * TRAINED)
    found = beyond(model, windows_at, batches_at, seed=0)
    assert found is not None
    expected = token_losses(model, windows)[:, TRAINED:].mean(axis=1)
    assert found["by_ratio"]["2"]["none"] == pytest.approx(expected)


def test_learned_positions_cannot_be_read_beyond() -> None:
    assert beyond(model_with("learned"), windows_at, batches_at, seed=0) is None


def test_interpolated_positions_are_those_of_every_other_token() -> None:
    """At twice the length position 2p turns as p did."""
    model = model_with("rope")
    other = rescaled(model, "interpolation", 2)
    tokens = text()[None, :TRAINED]
    q = torch.randn(1, 2, TRAINED, 16)
    plain, scaled = (each._rotation(0, 2 * TRAINED, q) for each in (model, other))
    assert plain is not None
    assert scaled is not None
    assert torch.allclose(scaled[0][::2], plain[0][:TRAINED], atol=1e-6)
    assert rescaled(model, "none", 2) is model
    assert torch.equal(other.wte.weight, model.wte.weight)
    assert other(tokens).shape == (1, TRAINED, 50)


def test_tuning_learns_at_the_longer_length_and_leaves_the_model_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extrapolation, "TUNED_STEPS", 40)
    model = model_with("rope")
    before = model.wte.weight.detach().clone()
    counting = windows_of((torch.arange(5 * 64 + 1) % 50), 2 * TRAINED)
    for scaling in extrapolation.SCALINGS:
        after = tuned(model, scaling, batches_at(2 * TRAINED), seed=0)
        start = rescaled(model, scaling, 2)
        losses = [np.mean(token_losses(each, counting)) for each in (start, after)]
        assert losses[1] < losses[0] - 0.5, scaling
    assert torch.equal(model.wte.weight, before)


# ---- the claim


def planted(option: str, trained: bool = True) -> dict[str, Any]:
    """Rotary rises by 0.04 nats at twice the length, others by 0.1; rescaled it does not rise."""
    counts = {ratio: len(held_out(ratio * 128)) for ratio in (2, 4)}
    rise = 0.04 if option == "rope" else 0.1
    ways = {"at the trained length": 4.0, "none": 4.0 + rise}
    if option == "rope":
        ways |= {"interpolation": 4.0, "interpolation, tuned": 3.9}
    by_ratio = {
        str(ratio): {way: [value] * count for way, value in ways.items()}
        for ratio, count in counts.items()
    }
    losses = {"losses": [4.0] * len(held_out()), "outcome": "trained", "reason": ""}
    return {
        "by_tokens": {str(tokens): losses for tokens in (HALF, WHOLE)},
        "beyond": {"by_ratio": by_ratio, "by_position": [4.0] * 16} if trained else None,
    }


@pytest.mark.parametrize("trained", [True, False])
def test_a_rise_is_over_the_same_targets_and_a_lead_over_the_others(trained: bool) -> None:
    settings, found = Settings("full", "cpu", 0), []
    assert extrapolated.further is not None
    while cells := (extrapolated.further if found else lambda s, _: extrapolated.cells(s))(
        settings, found
    ):
        for cell in cells:
            option = str(cell.parameters["option"])
            if "task" in cell.parameters:
                right = {"1": 1.0} if option == "baseline" else {"1": 1.0, "2": 0.9, "4": 0.5}
                found.append((cell.parameters, {"rate": 1e-3, "right": right}))
            else:
                found.append((cell.parameters, planted(option, trained or option != "alibi")))
    measured = extrapolated.combine(settings, found)
    copied = {(m.option, m.parameters["length_ratio"]): m for m in measured if m.metric == "copied"}
    assert len(copied) == 4 * 3 + 1
    assert copied["rope", 2].value == pytest.approx(0.9)
    assert copied["learned", 1].n == 5
    names = ("length_ratio", "rope_scaling", "tuned")
    rises = {
        (m.option, *(m.parameters[name] for name in names)): m
        for m in measured
        if m.metric == "loss_rise"
    }
    assert rises["rope", 2, "none", False].value == pytest.approx(0.04)
    assert rises["rope", 2, "interpolation", True].value == pytest.approx(-0.1)
    assert rises["none", 4, "none", False].value == pytest.approx(0.1)
    leads = {m.parameters["over"]: m.value for m in measured if m.metric == "loss_advantage"}
    assert leads["none"] == pytest.approx(0.06)
    assert ("alibi" in leads) == trained
    (claim,) = (each for each in load_claims() if each.id == "position.extrapolation")
    assert judge_claim(claim, measured)[0].verdict == "confirmed"
