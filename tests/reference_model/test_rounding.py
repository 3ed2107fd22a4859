"""Simulated INT8 rounds what it says it rounds, to the grid it says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.rounding import (
    Granularity,
    round_int8,
    with_rounded_linears,
    with_rounded_norms,
)

GRANULARITIES: tuple[Granularity, ...] = ("per tensor", "per channel")


def tiny(**changes: object) -> GPT:
    shape = {"vocab_size": 32, "context_length": 8, "n_layer": 2, "n_head": 2, "n_embd": 16}
    model = GPT(GPTConfig(**{**shape, **changes}))
    for parameter in model.parameters():  # norms and biases too, as after training
        torch.nn.init.normal_(parameter)
    return model


def changed(before: GPT, after: GPT) -> set[str]:
    others = dict(after.named_parameters(remove_duplicate=False))
    both = before.named_parameters(remove_duplicate=False)
    return {name for name, values in both if not torch.equal(values, others[name])}


# ---- the grid


def test_the_grid_is_the_one_worked_out_by_hand() -> None:
    values = torch.tensor(
        [[127.0, 0.5, 1.5, -126.6], [0.0, 0.0, 0.0, 0.0], [1.27, 0.004, -0.006, 0]]
    )
    per_channel = torch.tensor([[127.0, 0, 2, -127], [0, 0, 0, 0], [1.27, 0, -0.01, 0]])
    torch.testing.assert_close(round_int8(values, "per channel"), per_channel)
    per_tensor = torch.tensor([[127.0, 0, 2, -127], [0, 0, 0, 0], [1, 0, 0, 0]])
    torch.testing.assert_close(round_int8(values, "per tensor"), per_tensor)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_no_value_moves_by_more_than_half_a_step(granularity: Granularity) -> None:
    values = torch.randn(6, 500, dtype=torch.float64)
    largest = (
        values.abs().amax(1, keepdim=True) if granularity == "per channel" else values.abs().max()
    )
    error = (round_int8(values, granularity) - values).abs() / (largest / 127)
    assert error.max() <= 0.5 + 1e-9
    assert error.max() > 0.45  # it does round


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_channel_has_at_most_255_values(granularity: Granularity) -> None:
    rounded = round_int8(torch.rand(3, 20_000) - 0.5, granularity)
    assert all(250 < len(row.unique()) <= 255 for row in rounded)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_already_on_the_grid_do_not_move(granularity: Granularity) -> None:
    values = torch.randint(-127, 128, (4, 300)) * 2.0**-9
    values[:, 0] = 127 * 2.0**-9
    assert torch.equal(round_int8(values, granularity), values)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_rounding_is_odd(granularity: Granularity) -> None:
    values = torch.randn(4, 300)
    assert torch.equal(round_int8(-values, granularity), -round_int8(values, granularity))


def test_one_outlier_ruins_the_whole_tensor_but_only_its_own_channel() -> None:
    values = torch.randn(8, 200)
    values[0, 0] = 1000.0
    error = {g: (round_int8(values, g) - values)[1:].square().mean() for g in GRANULARITIES}
    assert error["per tensor"] > 1000 * error["per channel"]


def test_the_dtype_is_kept() -> None:
    assert round_int8(torch.randn(3, 3, dtype=torch.bfloat16), "per tensor").dtype == torch.bfloat16


def test_an_unknown_granularity_is_named() -> None:
    with pytest.raises(UserError, match="'per group' is not known; use per tensor or per channel"):
        round_int8(torch.ones(2, 2), "per group")  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        round_int8(torch.tensor([[1.0, torch.nan]]), "per tensor")


# ---- a model


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_names_of_rounded_linears_are_what_changed_and_the_head_is_among_them(
    granularity: Granularity,
) -> None:
    model = tiny(head="untied")
    rounded, names = with_rounded_linears(model, granularity)
    assert changed(model, rounded) == set(names)
    assert len(names) == 4 * 2 + 1
    assert "lm_head.weight" in names
    assert torch.equal(
        rounded.h[1].mlp.c_fc.weight, round_int8(model.h[1].mlp.c_fc.weight, granularity)
    )


def test_a_tied_head_stays_one_tensor_with_the_embedding() -> None:
    model = tiny(head="tied")
    rounded, names = with_rounded_linears(model, "per channel")
    assert rounded.lm_head.weight is rounded.wte.weight
    assert changed(model, rounded) == {*names, "wte.weight"}


def test_the_names_of_rounded_norms_are_what_changed() -> None:
    model = tiny()
    rounded, names = with_rounded_norms(model)
    assert changed(model, rounded) == set(names)
    assert len(names) == 2 * (2 * 2 + 1)
    assert torch.equal(rounded.ln_f.bias, round_int8(model.ln_f.bias, "per tensor"))


def test_an_rmsnorm_has_no_bias_to_round() -> None:
    _, names = with_rounded_norms(tiny(norm="rmsnorm", norm_placement="double"))
    assert len(names) == 2 * 4 + 1
    assert all(name.endswith(".weight") for name in names)


@pytest.mark.parametrize(
    "rewrite", [with_rounded_norms, lambda model: with_rounded_linears(model, "per tensor")]
)
def test_the_model_that_is_given_stays_as_it_is(
    rewrite: Callable[[GPT], tuple[GPT, list[str]]],
) -> None:
    model = tiny()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    rewrite(model)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
