"""LayerNorm and RMSNorm of one row and of a prompt, GPT-2 small's width."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from reference_model.config import Norm, preset
from reference_model.norms import make_norm

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}


@pytest.mark.benchmark(group="norms")
@pytest.mark.parametrize("rows", [1, 512])
@pytest.mark.parametrize("norm", get_args(Norm))
def test_norm(timed, put, norm: Norm, rows: int) -> None:
    config = preset("gpt2", norm=norm)
    module, x = put(make_norm(config)), put(torch.randn(rows, config.n_embd))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    weights = sum(p.nbytes for p in module.parameters())
    found = timed(lambda: module(x), nbytes=2 * x.nbytes + weights)
    exact = x.double()
    if norm == "layernorm":
        exact = exact - exact.mean(-1, keepdim=True)
    exact = exact / (exact.square().mean(-1, keepdim=True) + config.norm_epsilon).sqrt()
    exact = exact * module.weight.double()
    if norm == "layernorm":
        exact = exact + module.bias.double()
    assert (found.double() - exact).abs().max() < TOLERANCE[x.dtype]
