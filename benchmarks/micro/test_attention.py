"""One token's attention over a cache: two projections and what lies between them."""

from __future__ import annotations

import pytest
import torch

from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.costs import forward_flops
from reference_model.model import Attention

CONFIG = preset("gpt2", n_layer=1)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-3}


@pytest.mark.benchmark(group="attention step")
@pytest.mark.parametrize("past", [128, 512, 1023])
def test_attention_step(timed, put, past: int) -> None:
    C, H, D = CONFIG.n_embd, CONFIG.n_head, CONFIG.d_head
    attention = put(Attention(CONFIG, layer=0))
    x = put(torch.randn(1, 1, C))
    k, v = put(torch.randn(2, 1, H, past, D))
    cache = KVCache(CONFIG, 1, past + 1, x.dtype, x.device)
    cache.update(0, k, v)

    def step() -> torch.Tensor:
        cache._lengths[0] = past  # each call is the first after the same past
        return attention(x, cache=cache)

    counted = forward_flops(CONFIG, 1, past)
    weights = sum(p.nbytes for p in attention.parameters())
    found = timed(
        step, nbytes=weights + cache.nbytes, flops=counted.projections + counted.attention
    )
    # The textbook, in float64, one head at a time.
    exact = attention.double()
    q, new_k, new_v = exact.c_attn(x.double())[0, 0].view(3, H, D)
    heads = []
    for h in range(H):
        keys = torch.cat([k[0, h].double(), new_k[None, h]])
        values = torch.cat([v[0, h].double(), new_v[None, h]])
        heads.append((keys @ q[h] / D**0.5).softmax(0) @ values)
    expected = exact.c_proj(torch.cat(heads))
    assert (found[0, 0].double() - expected).abs().max() < TOLERANCE[x.dtype]
