"""Whatever a codec is given at once, the bytes of a vector are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reference_model.quantization import codec as module
from reference_model.quantization.baselines import AbsmaxBlocks, PerChannel, PerToken
from reference_model.quantization.codec import Codec
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

WIDTH = 32
CODECS: dict[str, Callable[[], Codec]] = {
    "TurboQuant": lambda: TurboQuant(WIDTH, 3),
    "one bit": lambda: TurboQuant(WIDTH, 1),
    "unbiased": lambda: TurboQuant(WIDTH, 4, scale="unbiased"),
    "prod": lambda: TurboQuantProd(WIDTH, 3),
    "per token": lambda: PerToken(WIDTH, 4),
    "per channel": lambda: PerChannel(WIDTH, 3, group=4),
    "rotated blocks": lambda: AbsmaxBlocks(WIDTH, 4, seed=0),
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]()


# Vectors at once: of one head a block of tokens, not all of its tokens, all of two heads'.
@pytest.mark.parametrize("vectors", [4, 20, 70])
def test_pieces_are_encoded_to_the_bytes_of_the_whole(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, vectors: int
) -> None:
    x = torch.randn(2, 3, 32, WIDTH)
    whole = codec.encode(x)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", vectors * WIDTH)
    for found, expected in zip(codec.encode(x), whole, strict=True):
        # In another order of sums a coordinate may lie on the other side of an edge.
        assert found.shape == expected.shape
        assert (found != expected).float().mean() < 0.01


@pytest.mark.parametrize("vectors", [20, 10_000])
def test_bytes_go_where_there_is_room_for_them(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, vectors: int
) -> None:
    monkeypatch.setattr(module, "VALUES_AT_ONCE", vectors * WIDTH)
    x = torch.randn(2, 3, 32, WIDTH)
    expected = codec.encode(x)
    room = [torch.zeros(2, 3, 40, *part.shape[3:], dtype=part.dtype) for part in expected]
    at = 8 // codec.block, 32 // codec.block
    into = tuple(part.narrow(2, *at) for part in room)
    assert codec.encode(x, into) is into
    for part, written in zip(room, expected, strict=True):
        assert torch.equal(part.narrow(2, *at), written)
        assert not part.narrow(2, 0, at[0]).any()


def test_what_is_encoded_stays_as_it_was(codec: Codec) -> None:
    x = torch.randn(2, 3, 32, WIDTH)
    before = x.clone()
    codec.encode(x)
    codec.quantize(x)
    assert torch.equal(x, before)
