"""What appending a token to the KV cache costs, growing and of static shapes."""

from __future__ import annotations

import pytest
import torch

from reference_model.cache import KVCache, StaticKVCache
from reference_model.config import preset

CONFIG = preset("gpt2", n_layer=1)
KINDS = {"growing": KVCache, "static": StaticKVCache}


@pytest.mark.benchmark(group="cache update, one token")
@pytest.mark.parametrize("past", [128, 1023])
@pytest.mark.parametrize("kind", KINDS)
def test_update(timed, put, kind: str, past: int) -> None:
    before = put(torch.randn(1, CONFIG.n_head, past, CONFIG.d_head))
    new = put(torch.randn(2, 1, CONFIG.n_head, 1, CONFIG.d_head))
    cache = KINDS[kind](CONFIG, 1, 1024, new.dtype, new.device)
    cache.update(0, before, before)

    def update() -> tuple[torch.Tensor, torch.Tensor]:
        if isinstance(cache, StaticKVCache):
            cache.position.fill_(past)
        else:
            cache._lengths[0] = past
        return cache.update(0, *new)

    keys, values = timed(update, nbytes=2 * new.nbytes)  # read once, written once
    assert cache.length == past + 1
    assert torch.equal(keys[:, :, : past + 1], torch.cat([before, new[0]], dim=2))
    assert torch.equal(values[:, :, : past + 1], torch.cat([before, new[1]], dim=2))
