"""The split of LLM.int8(): which features it takes, what it computes, and what it repairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import outlier_split as experiments
from benchmarks.experiments.int8.outlier_split import (
    METHODS,
    SplitLinear,
    rounded_inputs,
    with_int8_products,
)
from benchmarks.instruments.windows import windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from reference_model.config import preset
from reference_model.model import GPT
from reference_model.quantization.grid import rounded
from tests.benchmarks.small_models import WINDOW, shipped_tokens

VECTOR = METHODS["absmax per vector"]


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(12, 5)


@pytest.fixture
def inputs() -> Tensor:
    """Two sequences of seven tokens; feature 3 is an outlier in one token of the second."""
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1))
    x[1, 4, 3] = 60.0
    return x


def test_the_split_takes_a_feature_out_of_the_sequence_that_has_an_outlier_in_it(
    linear: nn.Linear, inputs: Tensor
) -> None:
    split = SplitLinear(linear, VECTOR, split=True)
    with torch.no_grad():
        found = split(inputs)
        codes = rounded(linear.weight, VECTOR.weights)
        first = rounded_inputs(inputs[:1], "per token") @ codes.T + linear.bias
        others = inputs[1:].clone()
        others[..., 3] = 0
        outlier = inputs[1:, :, 3:4].half().float() * linear.weight[:, 3].half().float()
        second = rounded_inputs(others, "per token") @ codes.T + linear.bias + outlier
    assert torch.allclose(found, torch.cat([first, second]), atol=1e-5)
    assert split.share_of_outliers == 1 / 24


def test_without_outliers_the_split_changes_nothing(linear: nn.Linear, inputs: Tensor) -> None:
    calm = inputs.clamp(-5, 5)
    with torch.no_grad():
        for method in METHODS.values():
            plain, split = (SplitLinear(linear, method, s)(calm) for s in (False, True))
            assert torch.equal(plain, split)


def error(linear: nn.Linear, x: Tensor, name: str, split: bool) -> float:
    with torch.no_grad():
        return float((SplitLinear(linear, METHODS[name], split)(x) - linear(x)).abs().mean())


def test_an_outlier_spoils_every_method_and_the_split_repairs_it(
    linear: nn.Linear, inputs: Tensor
) -> None:
    for name in METHODS:
        assert error(linear, inputs, name, True) < 0.5 * error(linear, inputs, name, False)
    coarse, fine = (error(linear, inputs, f"absmax per {m}", False) for m in ("tensor", "vector"))
    assert fine < coarse


@pytest.mark.parametrize(
    ("how", "step"), [("per token", 2 / 127), ("per sequence", 8 / 127), ("zero point", 9 / 255)]
)
def test_inputs_lie_on_a_grid_of_their_token_or_their_sequence(how: str, step: float) -> None:
    x = torch.tensor([[[0.3, -1.0, 2.0], [8.0, 0.0, 0.5]]])
    found = rounded_inputs(x, how)  # type: ignore[arg-type]
    in_steps = found[0, 0] / step
    assert torch.allclose(in_steps, in_steps.round(), atol=1e-4)
    assert (found - x).abs().max() <= 9 / 255
    assert torch.equal(rounded_inputs(torch.zeros(1, 2, 3), how), torch.zeros(1, 2, 3))  # type: ignore[arg-type]


def test_linears_of_layers_are_replaced_and_no_embedding_and_no_head() -> None:
    model = GPT(preset("toy")).eval()
    changed, made = with_int8_products(model, VECTOR, split=True)
    assert len(made) == 4 * model.config.n_layer
    assert type(changed.get_submodule("lm_head")) is type(model.lm_head)
    assert not any(isinstance(module, SplitLinear) for module in model.modules())


def test_the_ratio_of_means_is_paired_over_stretches() -> None:
    windows = windows_of([torch.arange(5) for _ in range(40)], 4)
    below = np.random.default_rng(0).uniform(1, 3, len(windows))
    found = windows.ratio_of_means(0.9 * below, below)
    assert found.value == pytest.approx(0.9)
    assert found.interval == pytest.approx((0.9, 0.9))  # what varies does so in both
    loose = windows.ratio_of_means(np.roll(below, 1), below)
    assert loose.interval[0] < 0.95 < 1.05 < loose.interval[1]
    assert loose.n == 40


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """judged(plain, split) → the verdict, where INT8 costs so much with planted outliers."""
    windows = windows_of([torch.arange(5) for _ in range(9)], 4)
    monkeypatch.setattr(experiments, "text_of", lambda settings: windows)
    (claim,) = (c for c in load_claims() if c.id == experiments.CLAIM)

    def verdict(plain: float, split: float) -> str:
        base = np.linspace(3, 4, 9)
        losses = {"none": (base + plain).tolist(), "outliers in float16": (base + split).tolist()}
        cell = {"float32": base.tolist(), **losses, "outliers": [0.1]}
        labels = {"model": "planted outliers", "method": "absmax per vector"}
        found = experiments.outlier_split.combine(Settings("quick", "cpu", 0), [(labels, cell)])
        return judge_claim(claim, found)[0].verdict

    return verdict


def test_the_verdict_is_by_the_share_that_the_split_removes(judged: Callable[..., str]) -> None:
    assert judged(0.5, 0.01) == "confirmed"
    assert judged(0.5, 0.2) == "refuted"
    assert judged(0.001, 0.0) == "open"  # the outliers did no harm that could be repaired
    assert judged(0.0, 0.0) == "open"


def test_losses_without_int8_are_named_by_the_dtype_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shipped_tokens()[: 2 * WINDOW + 1]
    windows = windows_of([text[: WINDOW + 1], text[WINDOW:]], WINDOW)
    monkeypatch.setattr(experiments, "text_of", lambda settings: windows)
    asked = Settings("quick", "cpu", 0, dtype="bfloat16")
    labels = {"model": "reference checkpoint", "method": "absmax per vector"}
    cell = experiments.of_a_method(asked, **labels)
    assert set(cell) == {"bfloat16", "none", "outliers in float16", "outliers"}
    found = experiments.outlier_split.combine(asked, [(labels, cell)])
    assert {m.parameters["model"] for m in found} == {"our 6 M model (bfloat16)"}
