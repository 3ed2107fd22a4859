"""Choosing the next token from GPT-2's vocabulary."""

from __future__ import annotations

import pytest
import torch

from reference_model.generate import choose

WAYS = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top-k": {"temperature": 0.8, "top_k": 40},
}


@pytest.mark.benchmark(group="sampling")
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("way", WAYS)
def test_choose(timed, put, way: str, batch: int) -> None:
    logits = put(torch.randn(batch, 50257))
    likely = logits.double().topk(40).indices
    logits.scatter_(1, likely, 50.0)  # whatever is drawn, it is one of these
    logits[:, 7] = 60.0 if way == "greedy" else logits[:, 7]
    found = timed(lambda: choose(logits, **WAYS[way]), nbytes=logits.nbytes)
    assert found.shape == (batch,)
    if way == "greedy":
        assert (found == 7).all()
    else:
        assert (likely == found[:, None]).any(dim=1).all()
