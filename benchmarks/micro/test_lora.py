"""One linear with an adapter beside it, and what merging and unmerging take."""

from __future__ import annotations

import pytest
import torch

from reference_model.linear import Linear
from reference_model.lora import LoRAConfig, LoRALinear

ROWS, WIDTH, RANK = 512, 768, 16
# name → outputs, and which of them are adapted
LINEARS = {
    "attn.c_proj": (WIDTH, (slice(0, WIDTH),)),
    "query and value": (3 * WIDTH, (slice(0, WIDTH), slice(2 * WIDTH, 3 * WIDTH))),
}


def adapted(name: str) -> LoRALinear:
    outputs, slices = LINEARS[name]
    return LoRALinear(Linear(WIDTH, outputs), LoRAConfig(RANK, init_b="gaussian"), slices).eval()


def adapter_values(linear: LoRALinear) -> int:
    return sum(parameter.numel() for parameter in linear.adapters.parameters())


@pytest.mark.benchmark(group="linear, adapted")
@pytest.mark.parametrize("way", ["plain", "adapted", "merged"])
@pytest.mark.parametrize("name", LINEARS)
def test_forward(timed, name: str, way: str) -> None:
    linear, x = adapted(name), torch.randn(ROWS, WIDTH)
    outputs, beside = linear.out_features, linear(x)
    if way == "merged":
        linear.merge()
    base = linear.base
    values = WIDTH * outputs + (adapter_values(linear) if way == "adapted" else 0)
    found = timed(
        lambda: base(x) if way == "plain" else linear(x),
        nbytes=4 * (values + outputs + ROWS * (WIDTH + outputs)),
        flops=2 * ROWS * values,
    )
    expected = base(x) if way == "plain" else beside
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.benchmark(group="merge")
@pytest.mark.parametrize("name", LINEARS)
def test_merge(timed, name: str) -> None:
    linear = adapted(name)
    before = linear.base.weight.clone()

    def merge() -> None:
        linear.merge()
        linear.unmerge()  # only puts the original back: no bytes are moved

    weight, values = WIDTH * linear.out_features, adapter_values(linear)
    # BA: 2·r·d·n for each slice, where both d and n are the width.
    timed(merge, nbytes=4 * (2 * weight + values), flops=values * WIDTH)
    assert torch.equal(linear.base.weight, before)
    linear.merge()
    torch.testing.assert_close(linear.base.weight, before + linear.delta_weight())


@pytest.mark.benchmark(group="merge")
def test_unmerge(benchmark) -> None:
    linear = adapted("attn.c_proj")
    before = linear.base.weight.clone()
    benchmark.pedantic(linear.unmerge, setup=linear.merge, rounds=20)
    benchmark.extra_info.update(bytes=0, flops=0, threads=torch.get_num_threads())
    assert torch.equal(linear.base.weight, before)
