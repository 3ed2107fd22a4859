"""The first tokens of a compressed cache stay exact, whatever comes behind them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reference_model.cache import KVCache
from reference_model.errors import UserError
from reference_model.kernels.compiled import VARIABLE
from reference_model.model import GPT
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant
from tests.reference_model.decoding import DecodeThenAttend
from tests.reference_model.test_quantized_cache import CODECS, POSITIONS, SHARED, WIDTH, tokens

LENGTH = 13
PIECES = ([LENGTH], [1] * LENGTH, [7, 6])
ONE_LAYER = {"context_length": 24, "n_layer": 1, **SHARED}  # in a second, rounding moves codes


# How attention is computed on a CPU, and over which codecs: only TurboQuant's is compiled.
WAYS = [
    *(("compiled", name) for name in CODECS if name.startswith("TurboQuant")),
    *(("plain", name) for name in CODECS),
]


@pytest.fixture(params=WAYS, ids=": ".join)
def codecs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Codec, Codec]:
    way, name = request.param
    monkeypatch.setenv(VARIABLE, way)
    return CODECS[name]()


@pytest.fixture(params=["compiled", "plain"])
def turboquant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TurboQuant:
    monkeypatch.setenv(VARIABLE, request.param)
    return TurboQuant(WIDTH, 3)


def drawn(heads: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, heads, LENGTH, WIDTH, generator=generator)


def by_definition(q: Tensor, k: Tensor, v: Tensor, cache: QuantizedKVCache, mask: Tensor) -> Tensor:
    """Attention in float64, query by query: sinks as they are, blocks of codes, then the window."""
    biases, codecs, sinks = cache._biases(0), [s.codec for s in cache.stores[0]], cache.sinks
    sides, outputs = [], []
    for x, bias, codec in zip((k, v), biases, (codecs[0], codecs[-1]), strict=True):
        held = x - bias
        blocks = held[:, :, sinks : LENGTH - (LENGTH - sinks) % cache.block]
        decoded = codec.decode(codec.encode(blocks)) if blocks.numel() else blocks
        sides.append((held.double(), decoded.double()))
    for seen in range(1, LENGTH + 1):
        count = max(0, seen - sinks - cache.window) // cache.block * cache.block
        keys, values = (
            torch.cat(
                (x[:, :, : min(sinks, seen)], decoded[:, :, :count], x[:, :, sinks + count : seen]),
                dim=2,
            ).repeat_interleave(2, dim=1)
            for x, decoded in sides
        )
        scores = q[:, :, seen - 1 : seen].double() @ keys.mT / math.sqrt(WIDTH)
        outputs.append((scores + mask[:, seen - 1 : seen, :seen]).softmax(-1) @ values)
    return torch.cat(outputs, dim=2) + biases[1].double().repeat_interleave(2, dim=1)


@pytest.mark.parametrize(
    ("masked", "gradients"), [(False, False), (True, False), (True, True)], ids=str
)
def test_a_token_reads_the_sinks_exactly_then_what_is_decoded_then_its_window(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], masked: bool, gradients: bool
) -> None:
    model, x = tiny_model(torch.float32, **ONE_LAYER), (drawn(4, 0), drawn(2, 1), drawn(2, 2))
    past = torch.ones(LENGTH, LENGTH).tril().log().expand(4, -1, -1)
    mask = past + torch.randn(past.shape) if masked else past
    for sinks, window in ((1, 3), (4, 0), (11, 3)):
        expected = None
        for pieces in PIECES:
            cache = QuantizedKVCache(model, 2, LENGTH, *codecs, sinks=sinks, window=window)
            expected = by_definition(*x, cache, mask) if expected is None else expected
            found, start = [], 0
            for q, k, v in zip(*(each.split(pieces, dim=2) for each in x), strict=True):
                end = start + q.shape[2]
                seen = mask[:, start:end, :end] if masked or 0 < start < end - 1 else None
                q = q.clone().requires_grad_(gradients)
                found.append(cache.attend(0, q, k, v, seen))
                start = end
            difference = (torch.cat(found, dim=2).double() - expected).abs().max()
            assert difference < 2e-5, (sinks, window, pieces)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_model_reads_in_pieces_what_decoding_and_then_attending_gives(
    tiny_model: Callable[..., GPT], turboquant: TurboQuant, position: str
) -> None:
    model = tiny_model(torch.float32, position=position, **ONE_LAYER)
    text, how = tokens(model), {"sinks": 3, "window": 2}
    plain = DecodeThenAttend(model, 2, LENGTH, turboquant, **how)
    with torch.inference_mode():
        expected = torch.cat([model(token, plain) for token in text.split(1, dim=1)], dim=1)
        for pieces in (*PIECES, [2, 1, 9, 1]):
            cache = QuantizedKVCache(model, 2, LENGTH, turboquant, **how)
            found = [model(part, cache) for part in text.split(pieces, dim=1)]
            assert (torch.cat(found, dim=1) - expected).abs().max() < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_text_of_sinks_alone_is_read_exactly(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], dtype: torch.dtype
) -> None:
    model = tiny_model(dtype, **ONE_LAYER)
    text, exact = tokens(model), KVCache(model.config, 2, LENGTH, dtype)
    with torch.inference_mode():
        expected = model(text, exact)
        for sinks in (LENGTH, 1000):
            cache = QuantizedKVCache(model, 2, LENGTH, *codecs, sinks=sinks)
            found = torch.cat([model(part, cache) for part in text.split([4, 9], dim=1)], dim=1)
            assert (found - expected).norm() < 20 * torch.finfo(dtype).eps * expected.norm()
    assert cache.encoded(LENGTH) == 0
    assert cache.stores[0][0].first.dtype == dtype


def test_blocks_of_codes_start_behind_the_sinks(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec]
) -> None:
    model, k, v = tiny_model(torch.float32, **ONE_LAYER), drawn(2, 1), drawn(2, 2)
    cache = QuantizedKVCache(model, 2, LENGTH, *codecs, sinks=3)
    bare = QuantizedKVCache(model, 2, LENGTH - 3, *codecs)
    cache.append(0, k, v)
    bare.append(0, k[:, :, 3:], v[:, :, 3:])
    for held, alone in zip(cache.stores[0], bare.stores[0], strict=True):
        assert all(map(torch.equal, held.parts, alone.parts))
        assert torch.equal(held.recent, alone.recent)


@pytest.mark.parametrize("window", [0, 3])
def test_bytes_are_those_of_every_tensor_the_cache_owns(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], window: int
) -> None:
    model = tiny_model(torch.float32, **ONE_LAYER)
    cache = QuantizedKVCache(model, 2, 16, *codecs, sinks=5, window=window)
    per_token = sum(codec.bits_per_value for codec in codecs) * WIDTH / 8  # a head, keys and values
    constants = sum({id(t): t.nbytes for codec in codecs for t in codec.constants}.values())
    waiting = min(window + cache.block - 1, 11)

    def nbytes(exact: int, encoded: int) -> float:
        return 2 * 2 * (exact * 2 * WIDTH * 4 + encoded * per_token) + constants

    assert cache.nbytes == nbytes(5 + waiting, 11 // cache.block * cache.block)
    for length in (0, 4, LENGTH):
        if length:
            x = torch.randn(2, 2, length - cache.length, WIDTH)
            cache.append(0, x, x)
        encoded = max(0, length - 5 - window) // cache.block * cache.block
        assert cache.encoded(length) == encoded
        assert cache.nbytes_used == nbytes(length - encoded, encoded)


def test_what_is_read_again_after_going_back_is_the_same(
    tiny_model: Callable[..., GPT], turboquant: TurboQuant
) -> None:
    model = tiny_model(torch.float32, **ONE_LAYER)
    text = tokens(model)
    cache = QuantizedKVCache(model, 2, LENGTH, turboquant, sinks=4)
    with torch.inference_mode():
        before = model(text, cache)
        for length in (9, 4, 2):  # behind the sinks, at their end, among them
            cache.forget(length)
            assert (model(text[:, length:], cache) - before[:, length:]).abs().max() < 2e-5


def test_a_cache_does_not_go_back_to_where_compressed_tokens_were_exact(
    tiny_model: Callable[..., GPT], turboquant: TurboQuant
) -> None:
    model = tiny_model(torch.float32, **ONE_LAYER)
    cache = QuantizedKVCache(model, 2, LENGTH, turboquant, sinks=4, window=3)
    with torch.inference_mode():
        model(tokens(model)[:, :7], cache)
        cache.forget(3)
        model(tokens(model)[:, 3:], cache)
    with pytest.raises(UserError, match="cannot go back to 12 tokens: it holds those before 10 "):
        cache.forget(12)


def test_fewer_than_no_sinks_are_refused(tiny_model: Callable[..., GPT]) -> None:
    with pytest.raises(UserError, match="sinks=-1 is no number of tokens; use 0 or more"):
        QuantizedKVCache(tiny_model(torch.float32), 1, 4, TurboQuant(WIDTH, 3), sinks=-1)
