"""The linears' product, over GPT-2 small's weights, with the plain operator beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.devices import DTYPES
from reference_model.linear import linear, plain_products

# name → (out, in)
WEIGHTS = {
    "c_attn": (2304, 768),
    "attn.c_proj": (768, 768),
    "c_fc": (3072, 768),
    "mlp.c_proj": (768, 3072),
    "lm_head": (50257, 768),
}
# A sum of K products of numbers near 1 rounds by some √K · ε.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2.0, torch.float16: 0.25}


def check(
    timed: Callable[..., Any],
    put: Callable[[Tensor], Tensor],
    copies: Callable[[Tensor], list[Tensor]],
    enough: Callable[[int], int],
    name: str,
    rows: int,
    dtype: str | None = None,
    plain: bool = False,
) -> None:
    outputs, inputs = enough(WEIGHTS[name][0]), WEIGHTS[name][1]
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    x, weight, bias = (put(torch.randn(shape)) for shape in shapes)
    if dtype is not None:
        x, weight, bias = (each.to(getattr(torch, dtype)) for each in (x, weight, bias))
    weights = cycle(copies(weight))
    with plain_products() if plain else nullcontext():
        found = timed(
            lambda: linear(x, next(weights), bias),
            nbytes=x.nbytes + weight.nbytes + rows * bias.nbytes,
            flops=2 * rows * weight.numel(),
            dtype=dtype,
        )
    expected = x.double() @ weight.double().T + bias.double()
    assert (found.double() - expected).abs().max() < TOLERANCE[x.dtype]


@pytest.mark.benchmark(group="one-row linear")
@pytest.mark.parametrize("plain", [False, True], ids=["ours", "F.linear"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_one_row(timed, put, copies, enough, name: str, plain: bool) -> None:
    check(timed, put, copies, enough, name, 1, plain=plain)


@pytest.mark.benchmark(group="linear c_fc, by dtype and rows")
@pytest.mark.parametrize("rows", [1, 8, 128])
@pytest.mark.parametrize("dtype", DTYPES)  # side by side, whichever is the run's
def test_rows(timed, put, copies, enough, dtype: str, rows: int) -> None:
    check(timed, put, copies, enough, "c_fc", rows, dtype)
