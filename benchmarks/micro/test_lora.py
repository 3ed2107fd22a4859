"""One linear with an adapter beside it, and what merging and unmerging take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reference_model.linear import Linear
from reference_model.lora import LoRAConfig, LoRALinear

ROWS, WIDTH, RANK = 512, 768, 16
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 6e-3}
# name → outputs, and which of them are adapted
LINEARS = {
    "attn.c_proj": (WIDTH, (slice(0, WIDTH),)),
    "query and value": (3 * WIDTH, (slice(0, WIDTH), slice(2 * WIDTH, 3 * WIDTH))),
}


def adapted(name: str, put: Callable[[Linear], Linear]) -> LoRALinear:
    outputs, slices = LINEARS[name]
    base = put(Linear(WIDTH, outputs))
    return LoRALinear(base, LoRAConfig(RANK, init_b="gaussian"), slices).eval()


def adapter_bytes(linear: LoRALinear) -> int:
    """Float32 beside a base of fewer bits."""
    return sum(parameter.nbytes for parameter in linear.adapters.parameters())


def adapter_values(linear: LoRALinear) -> int:
    return sum(parameter.numel() for parameter in linear.adapters.parameters())


@pytest.mark.benchmark(group="linear, adapted")
@pytest.mark.parametrize("way", ["plain", "adapted", "merged"])
@pytest.mark.parametrize("name", LINEARS)
def test_forward(timed, put, name: str, way: str) -> None:
    linear, x = adapted(name, put), put(torch.randn(ROWS, WIDTH))
    outputs, beside = linear.out_features, linear(x)
    if way == "merged":
        linear.merge()
    base = linear.base
    values = WIDTH * outputs
    nbytes, flops = x.itemsize * (values + outputs + ROWS * (WIDTH + outputs)), 2 * ROWS * values
    if way == "adapted":
        nbytes += adapter_bytes(linear)
        flops += 2 * ROWS * adapter_values(linear)
    found = timed(lambda: base(x) if way == "plain" else linear(x), nbytes=nbytes, flops=flops)
    expected = base(x) if way == "plain" else beside
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[x.dtype])


@pytest.mark.benchmark(group="merge")
@pytest.mark.parametrize("name", LINEARS)
def test_merge(timed, put, name: str) -> None:
    linear = adapted(name, put)
    before = linear.base.weight.clone()

    def merge() -> None:
        linear.merge()
        linear.unmerge()  # only puts the original back: no bytes are moved

    # BA: 2·r·d·n for each slice, where both d and n are the width.
    flops = adapter_values(linear) * WIDTH
    timed(merge, nbytes=2 * before.nbytes + adapter_bytes(linear), flops=flops, product="float32")
    assert torch.equal(linear.base.weight, before)
    linear.merge()
    merged = (before + linear.delta_weight()).to(before.dtype)
    torch.testing.assert_close(linear.base.weight, merged)


@pytest.mark.benchmark(group="merge")
def test_unmerge(timed, put) -> None:
    linear = adapted("attn.c_proj", put)
    before = linear.base.weight.clone()
    timed(linear.unmerge, nbytes=0, setup=linear.merge)
    assert torch.equal(linear.base.weight, before)
