"""The linears' product in INT8, over GPT-2 small's weights."""

from __future__ import annotations

from itertools import cycle

import pytest
import torch
from torch import nn

from reference_model.quantization.int8 import (
    Int8Linear,
    Product,
    packed_is_available,
    with_int8_linears,
)

# name → (out, in)
WEIGHTS = {
    "c_attn": (2304, 768),
    "attn.c_proj": (768, 768),
    "c_fc": (3072, 768),
    "mlp.c_proj": (768, 3072),
    "lm_head": (50257, 768),
}
# Of the head a step asks for the last row alone.
CASES = [(name, rows) for name in WEIGHTS for rows in ((1,) if name == "lm_head" else (1, 128))]
PRODUCTS: tuple[Product, ...] = (
    *(("packed",) if packed_is_available() else ()),
    "int_mm",
    "dequantize",
)


@pytest.mark.benchmark(group="linear, int8")
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize(("name", "rows"), CASES)
def test_int8_linear(timed, copies, put, enough, name: str, product: Product, rows: int) -> None:
    outputs, inputs = enough(WEIGHTS[name][0]), WEIGHTS[name][1]
    x = put(torch.randn(rows, inputs))
    if product == "packed" and x.device.type != "cpu":
        pytest.skip("FBGEMM packs weights on a CPU")
    if product == "int_mm" and x.device.type == "cuda" and outputs % 8:
        pytest.skip(f"CUDA's int8 product gives outputs in eights, and not {outputs}")
    linear = put(nn.Linear(inputs, outputs))
    # As many of it as do not fit a cache, where one row reads all of the weight.
    count = len(copies(torch.empty(outputs, inputs, dtype=torch.int8))) if rows == 1 else 1
    layers: list[Int8Linear] = [
        with_int8_linears(nn.Sequential(linear), product).model[0] for _ in range(min(count, 40))
    ]
    turn = cycle(layers)
    found = timed(
        lambda: next(turn)(x),
        # Codes, a step and a bias for each output, and the outputs.
        nbytes=x.nbytes + outputs * (inputs + 4 + x.itemsize * (rows + 1)),
        flops=2 * rows * outputs * inputs,
        product=None if product == "dequantize" else "int8",
    )
    exact = x.double() @ linear.weight.double().T + linear.bias.double()
    # Both factors are rounded to 1/127 of their largest: a percent or so of the whole. Activations
    # of 7 bits, where a processor lacks VNNI, twice as coarsely.
    most = 0.04 if layers[0].seven_bits else 0.02
    assert float((found.double() - exact).norm() / exact.norm()) < most
