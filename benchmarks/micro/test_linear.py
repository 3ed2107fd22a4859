"""The linears' product, over GPT-2 small's weights, with the plain operator beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor

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
TOLERANCE = {"float32": 1e-3, "bfloat16": 2.0, "float16": 0.25}


def check(
    timed: Callable[..., Any],
    copies: Callable[[Tensor], list[Tensor]],
    name: str,
    rows: int,
    dtype: str,
    plain: bool = False,
) -> None:
    kind = getattr(torch, dtype)
    x, weight = torch.randn(rows, WEIGHTS[name][1]).to(kind), torch.randn(WEIGHTS[name]).to(kind)
    bias = torch.randn(WEIGHTS[name][0]).to(kind)
    weights = cycle(copies(weight))
    with plain_products() if plain else nullcontext():
        found = timed(
            lambda: linear(x, next(weights), bias),
            nbytes=x.nbytes + weight.nbytes + rows * bias.nbytes,
            flops=2 * rows * weight.numel(),
            dtype=dtype,
        )
    expected = x.double() @ weight.double().T + bias.double()
    assert (found.double() - expected).abs().max() < TOLERANCE[dtype]


@pytest.mark.benchmark(group="one-row linear, float32")
@pytest.mark.parametrize("plain", [False, True], ids=["ours", "F.linear"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_one_row(timed, copies, name: str, plain: bool) -> None:
    check(timed, copies, name, 1, "float32", plain)


@pytest.mark.benchmark(group="linear c_fc, by dtype and rows")
@pytest.mark.parametrize("rows", [1, 8, 128])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rows(timed, copies, dtype: str, rows: int) -> None:
    check(timed, copies, "c_fc", rows, dtype)
