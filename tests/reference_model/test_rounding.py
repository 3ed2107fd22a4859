"""Simulated INT8 rounds what it says it rounds, to the grid it says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.grid import Granularity, Grid, rounded, to_grid
from reference_model.quantization.rounding import with_rounded_linears, with_rounded_norms

GRANULARITIES: tuple[Granularity, ...] = ("per tensor", "per channel")


def round_int8(values: torch.Tensor, granularity: Granularity) -> torch.Tensor:
    return rounded(values, Grid(granularity=granularity))


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


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("granularity", ["per tensor", "per channel", "per group"])
def test_every_grid_is_within_half_a_step_and_uses_its_codes(
    granularity: Granularity, zero: str, bits: int
) -> None:
    values = torch.randn(6, 256, dtype=torch.float64) + 0.3
    found = to_grid(values, Grid(bits, granularity, zero))  # type: ignore[arg-type]
    rows, groups = found.steps.shape
    assert (rows, groups) == {"per tensor": (1, 1), "per channel": (6, 1), "per group": (6, 4)}[
        granularity
    ]
    error = (found.values - values).abs().reshape(rows, groups, -1) / found.steps[..., None]
    assert error.max() <= (0.5 if zero == "symmetric" else 1.0) + 1e-9
    assert found.codes.dtype == torch.int8
    assert len(found.codes.unique()) > 2**bits / 3


def test_an_asymmetric_grid_is_finer_where_all_numbers_have_one_sign() -> None:
    values = torch.rand(4, 512, dtype=torch.float64)
    errors = {
        zero: (rounded(values, Grid(4, "per channel", zero)) - values).square().mean()  # type: ignore[arg-type]
        for zero in ("symmetric", "asymmetric")
    }
    assert errors["asymmetric"] < errors["symmetric"] / 3


def test_groups_confine_an_outlier_to_its_neighbours() -> None:
    values = torch.randn(2, 256)
    values[0, 0] = 1000.0
    error = (rounded(values, Grid(8, "per group")) - values).square()
    assert error[0, 64:].mean() < 1e-3 < error[0, :64].mean()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"granularity": "per row"}, "'per row' is not known; use per tensor or per channel or"),
        ({"zero": "none"}, "zero='none' is not known; use symmetric or asymmetric"),
        ({"bits": 9}, "bits=9 has no grid here; use 2 to 8"),
    ],
)
def test_an_unknown_grid_is_named(wrong: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Grid(**wrong)


def test_groups_refuse_a_width_they_do_not_fill() -> None:
    with pytest.raises(UserError, match="do not fill a weight with 40; use per channel"):
        rounded(torch.ones(2, 40), Grid(8, "per group"))


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        round_int8(torch.tensor([[1.0, torch.nan]]), "per tensor")


# ---- a model


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_names_of_rounded_linears_are_what_changed_and_the_head_is_among_them(
    granularity: Granularity,
) -> None:
    model = tiny(head="untied")
    result, names = with_rounded_linears(model, Grid(granularity=granularity))
    assert changed(model, result) == set(names)
    assert len(names) == 4 * 2 + 1
    assert "lm_head.weight" in names
    assert torch.equal(
        result.h[1].mlp.c_fc.weight, round_int8(model.h[1].mlp.c_fc.weight, granularity)
    )


def test_a_tied_head_stays_one_tensor_with_the_embedding() -> None:
    model = tiny(head="tied")
    result, names = with_rounded_linears(model, Grid())
    assert result.lm_head.weight is result.wte.weight
    assert changed(model, result) == {*names, "wte.weight"}


def test_the_names_of_rounded_norms_are_what_changed() -> None:
    model = tiny()
    result, names = with_rounded_norms(model)
    assert changed(model, result) == set(names)
    assert len(names) == 2 * (2 * 2 + 1)
    assert torch.equal(result.ln_f.bias, round_int8(model.ln_f.bias, "per tensor"))


def test_an_rmsnorm_has_no_bias_to_round() -> None:
    _, names = with_rounded_norms(tiny(norm="rmsnorm", norm_placement="double"))
    assert len(names) == 2 * 4 + 1
    assert all(name.endswith(".weight") for name in names)


@pytest.mark.parametrize(
    "rewrite",
    [with_rounded_norms, lambda model: with_rounded_linears(model, Grid(granularity="per tensor"))],
)
def test_the_model_that_is_given_stays_as_it_is(
    rewrite: Callable[[GPT], tuple[GPT, list[str]]],
) -> None:
    model = tiny()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    rewrite(model)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
