"""Norms under INT8 round what they say, and whole numbers give what floats give, nearly."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.norms import (
    Int8Norm,
    NormScheme,
    _rounded_ratio,
    _whole_root,
    with_int8_norms,
)


def layer_norm(width: int = 64) -> nn.LayerNorm:
    norm = nn.LayerNorm(width)
    nn.init.normal_(norm.weight, 1.0, 0.2)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("build", [layer_norm, lambda: nn.RMSNorm(64, eps=1e-5)])
def test_a_scheme_without_rounding_is_the_norm(build: Callable[[], nn.LayerNorm]) -> None:
    norm, x = build(), torch.randn(3, 5, 64) * 4
    assert torch.allclose(Int8Norm(norm, NormScheme())(x), norm(x), atol=1e-5)


@pytest.mark.parametrize("build", [layer_norm, lambda: nn.RMSNorm(64, eps=1e-5)])
def test_whole_numbers_give_the_statistics_of_the_rounded_input(
    build: Callable[[], nn.LayerNorm],
) -> None:
    norm, x = build(), torch.randn(3, 5, 64) * 4 + 1
    step = x.abs().max() / 127
    exact = norm((x / step).round() * step)
    found = Int8Norm(norm, NormScheme(statistics="integer"))(x)
    # Half a step of the result's ten fractional bits, and as much of the statistics' eight.
    assert (found - exact).abs().max() < 4 * 2.0**-8 * norm.weight.abs().max()
    assert (found - norm(x)).abs().max() > 1e-3  # the input was rounded


@torch.no_grad()
def test_fewer_fractional_bits_are_coarser() -> None:
    norm, x = layer_norm(), torch.randn(50, 64)
    errors = [
        float((Int8Norm(norm, NormScheme(statistics="integer"), f)(x) - norm(x)).square().mean())
        for f in (8, 2, 0)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_a_root_is_the_largest_whole_number_whose_square_fits() -> None:
    values = torch.cat(
        (torch.arange(1, 5000), torch.tensor([2**52 - 1, 2**52, 2**52 + 1, (2**26 + 5) ** 2 - 1]))
    )
    assert _whole_root(values).tolist() == [math.isqrt(value) for value in values.tolist()]


def test_a_ratio_is_rounded_to_the_nearest() -> None:
    numerators = torch.arange(-50, 51)
    found = _rounded_ratio(numerators, 7)
    assert found.tolist() == [math.floor(n / 7 + 0.5) for n in numerators.tolist()]


def test_rounded_weights_are_on_one_grid_for_each_tensor() -> None:
    norm = layer_norm()
    found = Int8Norm(norm, NormScheme(weights="int8"))
    for before, after in ((norm.weight, found.weight), (norm.bias, found.bias)):
        step = before.abs().max() / 127
        codes = after / step
        assert torch.allclose(codes, codes.round(), atol=1e-3)
        assert (after - before).abs().max() <= 0.5001 * step


@torch.no_grad()
def test_an_outlier_in_the_input_costs_all_other_channels_their_steps() -> None:
    norm, x = layer_norm(), torch.randn(50, 64)
    found = Int8Norm(norm, NormScheme(input="int8"))
    plain = float((found(x) - norm(x)).square().mean())
    x[:, 3] *= 1000
    spoilt = (found(x) - norm(x)).square()
    relative = float(spoilt[:, 4:].mean() / (norm(x) - norm.bias)[:, 4:].square().mean())
    assert plain < 1e-3
    assert relative > 0.5


def test_zeros_stay_finite() -> None:
    for scheme in (NormScheme("int8", "int8"), NormScheme(statistics="integer")):
        assert Int8Norm(layer_norm(), scheme)(torch.zeros(2, 64)).isfinite().all()


def test_every_norm_of_a_model_is_replaced_and_nothing_else(tiny_model: Callable[..., GPT]) -> None:
    for choices, count in (({}, 5), ({"norm_placement": "double", "norm": "rmsnorm"}, 9)):
        model = tiny_model(torch.float32, **choices)
        changed, names = with_int8_norms(model, NormScheme(weights="int8"))
        assert len(names) == count
        assert all(isinstance(changed.get_submodule(name), Int8Norm) for name in names)
        kept = {n: p for n, p in model.named_parameters() if n.rpartition(".")[0] not in names}
        after = dict(changed.named_parameters())
        assert all(torch.equal(after[name], values) for name, values in kept.items())


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(UserError, match="weights='int4' is not a known choice; use one of float"):
        NormScheme(weights="int4")  # type: ignore[arg-type]
