"""A compressed cache reads what its codecs decode, the same whichever way the text comes in."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reference_model.cache import KVCache
from reference_model.errors import UserError
from reference_model.generate import generate
from reference_model.kernels.compiled import VARIABLE
from reference_model.model import GPT
from reference_model.quantization.baselines import Float8, Int8, PerChannel, PerToken
from reference_model.quantization.codec import Codec
from reference_model.quantization.e8 import E8Box
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.kvarn import KVarNKeys, KVarNValues
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd
from tests.reference_model.decoding import DecodeThenAttend

WIDTH = 8  # of a head of the tiny model
CODECS: dict[str, Callable[[], tuple[Codec, Codec]]] = {
    "TurboQuant": lambda: (TurboQuant(WIDTH, 3),) * 2,
    "TurboQuant, keys and values apart": lambda: (
        TurboQuant(WIDTH, 4, scale="unbiased"),
        TurboQuant(WIDTH, 2, seed=9),
    ),
    "prod": lambda: (TurboQuantProd(WIDTH, 3), TurboQuant(WIDTH, 3)),
    "KIVI": lambda: (PerChannel(WIDTH, 4, group=4), PerToken(WIDTH, 4)),
    "KVarN": lambda: (KVarNKeys(WIDTH, 4, tile=4), KVarNValues(WIDTH, 4, tile=4)),
    "E8": lambda: (E8Box(WIDTH, 3),) * 2,
    "8 bits": lambda: (Int8(WIDTH), Float8(WIDTH)),
}
POSITIONS = ("learned", "sinusoidal", "rope", "alibi", "none")
SHARED = {"n_head": 4, "n_kv_head": 2, "d_head": WIDTH}  # two heads of queries for each of keys
CONTEXT = 24


@pytest.fixture(autouse=True, params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways that attention is computed on a CPU; what only one can is asked of it twice."""
    monkeypatch.setenv(VARIABLE, request.param)


@pytest.fixture(params=CODECS)
def codecs(request: pytest.FixtureRequest) -> tuple[Codec, Codec]:
    return CODECS[request.param]()


def tokens(model: GPT, batch_size: int = 2, length: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(model.config.vocab_size, (batch_size, length), generator=generator)


@torch.inference_mode()
def read(
    model: GPT, text: Tensor, codecs: tuple[Codec, Codec], chunks: list[int], **how: object
) -> Tensor:
    cache = QuantizedKVCache(model, len(text), text.shape[1], *codecs, **how)
    return torch.cat([model(part, cache) for part in text.split(chunks, dim=1)], dim=1)


# ---- one text, one result


# Of one layer: in a second, rounding in the first can move a number across an edge of a codebook.


@pytest.mark.parametrize("window", [0, 1, 3])
def test_a_text_at_once_is_read_as_token_by_token_and_in_pieces(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], window: int
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, n_layer=1)
    text = tokens(model)
    alone = read(model, text, codecs, [1] * 13, window=window)
    for chunks in ([13], [5, 8], [1, 6, 2, 4], [12, 1]):
        assert (read(model, text, codecs, chunks, window=window) - alone).abs().max() < 2e-5


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("position", POSITIONS)
def test_the_rotated_basis_gives_what_decoding_and_then_attending_gives(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], position: str, window: int
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, position=position, n_layer=1)
    text = tokens(model)
    turned = QuantizedKVCache(model, 2, 13, *codecs, window=window)
    plain = DecodeThenAttend(model, 2, 13, *codecs, window=window)
    with torch.inference_mode():
        for token in text.split(1, dim=1):
            assert (model(token, turned) - model(token, plain)).abs().max() < 2e-5


@pytest.mark.parametrize("position", POSITIONS)
def test_heads_that_share_keys_read_what_decoding_and_then_attending_gives(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], position: str
) -> None:
    choices = {"context_length": CONTEXT, "position": position, "n_layer": 1, **SHARED}
    model = tiny_model(torch.float32, **choices)
    text = tokens(model)
    alone = read(model, text, codecs, [1] * 13, window=2)
    assert (read(model, text, codecs, [5, 8], window=2) - alone).abs().max() < 2e-5
    plain = DecodeThenAttend(model, 2, 13, *codecs, window=2)
    with torch.inference_mode():
        expected = torch.cat([model(token, plain) for token in text.split(1, dim=1)], dim=1)
    assert (alone - expected).abs().max() < 2e-5


@pytest.mark.parametrize("position", POSITIONS)
def test_a_chunk_under_every_position_is_read_as_token_by_token(
    tiny_model: Callable[..., GPT], position: str
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, position=position, n_layer=1)
    text = tokens(model)
    for name in ("TurboQuant", "KIVI"):
        for window in (0, 2):
            codecs = CODECS[name]()
            alone = read(model, text, codecs, [1] * 13, window=window)
            together = read(model, text, codecs, [6, 7], window=window)
            assert (alone - together).abs().max() < 2e-5


def test_every_layer_keeps_its_own(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec]
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, n_layer=3)
    text = tokens(model)
    exact = model(text)
    alone, together = (read(model, text, codecs, chunks) for chunks in ([1] * 13, [6, 7]))
    moved = (alone - exact).square().mean()
    assert moved > 0  # the quantiser acted
    assert (alone - together).square().mean() < 0.01 * moved


def test_attention_of_one_token_is_exact_to_rounding() -> None:
    # Straight against float64, on vectors of the real width and a long past.
    from reference_model.config import GPTConfig

    model = GPT(GPTConfig(vocab_size=32, context_length=8, n_layer=1, n_head=2, n_embd=128))
    torch.nn.init.normal_(model.h[0].attn.c_attn.bias)
    codec = TurboQuant(64, 3)
    cache = QuantizedKVCache(model, 1, 300, codec)
    q, k, v = torch.randn(3, 1, 2, 300, 64)
    with torch.inference_mode():
        cache.attend(0, q[:, :, :299], k[:, :, :299], v[:, :, :299])
        found = cache.attend(0, q[:, :, 299:], k[:, :, 299:], v[:, :, 299:])
    _, b_k, b_v = model.h[0].attn.c_attn.bias.detach().view(3, 2, 1, 64)
    keys = codec.decode(codec.encode(k - b_k)).double()
    values = codec.decode(codec.encode(v - b_v)).double() + b_v.double()
    weights = (q[:, :, 299:].double() @ keys.mT / 8).softmax(-1)
    assert (found.double() - weights @ values).abs().max() < 1e-5


@pytest.mark.parametrize("window", [0, 3])
def test_a_query_has_the_gradient_of_decoding_and_then_attending(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], window: int
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, n_layer=1, **SHARED)
    config, draw = model.config, torch.Generator().manual_seed(5)
    shape = (2, config.n_kv_head, 13, WIDTH)
    k, v = (torch.randn(shape, generator=draw) for _ in "kv")
    q = torch.randn(2, config.n_head, 13, WIDTH, generator=draw)
    found = []
    for kind in (QuantizedKVCache, DecodeThenAttend):
        cache, asked = kind(model, 2, 13, *codecs, window=window), q.clone().requires_grad_()
        for token in zip(*(x.split(1, dim=2) for x in (asked, k, v)), strict=True):
            cache.attend(0, *token).square().sum().backward()
        assert asked.grad is not None
        found.append(asked.grad)
    torch.testing.assert_close(found[0], found[1], rtol=2e-4, atol=2e-5)
    assert found[0].abs().max() > 1e-2


# ---- windows


def test_what_lies_in_the_window_is_read_exactly(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    text = tokens(model)
    exact = model(text)
    found = read(model, text, CODECS["TurboQuant"](), [13], window=6)
    assert (found - exact)[:, :6].abs().max() < 1e-5  # all they read is in their window
    assert (found - exact)[:, 6:].abs().max() > 1e-3
    whole = read(model, text, CODECS["TurboQuant"](), [4, 9], window=13)
    assert (whole - exact).abs().max() < 1e-5


def test_an_incomplete_group_is_read_exactly(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    text = tokens(model, length=11)
    found = read(model, text, (PerChannel(WIDTH, 2, group=4),) * 2, [1] * 11) - model(text)
    assert found[:, :3].abs().max() < 1e-5
    assert found[:, 4:].abs().max() > 1e-3


# ---- layers


def test_each_layer_may_have_codecs_of_its_own(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    text, good, bad = tokens(model), Int8(WIDTH), TurboQuant(WIDTH, 1)
    exact = model(text).detach()

    def error(first: Codec, second: Codec) -> float:
        pairs = ([first, second], [first, second])
        return float((read(model, text, pairs, [13]) - exact).square().mean())

    same, shared = (
        read(model, text, pair, [13]) for pair in (([bad, bad], [bad, bad]), (bad, None))
    )
    assert (same - shared).abs().max() < 1e-5
    assert error(good, good) < error(good, bad) < error(bad, bad)
    assert error(bad, good) != error(good, bad)


def test_a_codec_that_several_layers_share_is_held_once(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    one, other = (TurboQuant(WIDTH, 3, seed=seed) for seed in (0, 1))
    held = sum(constant.nbytes for constant in one.constants)
    alone = QuantizedKVCache(model, 1, 16, one)
    assert QuantizedKVCache(model, 1, 16, [one, one]).nbytes == alone.nbytes
    assert QuantizedKVCache(model, 1, 16, [one, other]).nbytes == alone.nbytes + held


def test_codecs_for_another_number_of_layers_are_refused(tiny_model: Callable[..., GPT]) -> None:
    with pytest.raises(UserError, match="codecs for 3 layers, but the model has 2; give one codec"):
        QuantizedKVCache(tiny_model(torch.float32), 1, 4, [TurboQuant(WIDTH, 3)] * 3)


# ---- biases


@pytest.mark.parametrize(
    "choices",
    [
        *({"position": position} for position in POSITIONS if position != "rope"),
        SHARED,
        {**SHARED, "qk_norm": True},
        {"qk_norm": True},
        {"bias": False, "qkv_bias": True},
    ],
    ids=lambda choices: "-".join(map(str, choices.values())),
)
def test_dropping_the_biases_is_exact(
    tiny_model: Callable[..., GPT], choices: dict[str, object]
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, **choices)
    text = tokens(model)
    # All in the window: nothing is rounded, and only the biases' way differs.
    for drop in (True, False):
        found = read(model, text, CODECS["TurboQuant"](), [5, 8], window=13, drop_biases=drop)
        assert (found - model(text)).abs().max() < 1e-5


def test_a_bias_that_dwarfs_the_keys_does_no_harm_once_it_is_dropped(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    for block in model.h:
        block.attn.c_attn.bias.data[16:] *= 50  # of keys and values
    text = tokens(model)
    exact = model(text).detach()
    error = {
        drop: float(
            (read(model, text, CODECS["TurboQuant"](), [13], drop_biases=drop) - exact)
            .square()
            .mean()
        )
        for drop in (True, False)
    }
    assert error[True] < error[False] / 10


def test_rotary_keys_keep_their_bias_since_it_turns_with_them(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, position="rope")
    cache = QuantizedKVCache(model, 1, 4, TurboQuant(WIDTH, 3))
    key, value = cache._biases(0)
    assert key.eq(0).all()
    assert torch.equal(value[0], model.h[0].attn.c_attn.bias.detach().view(3, 2, 1, 8)[2])


def test_normed_keys_are_encoded_as_they_are_since_the_norm_takes_the_bias_in(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, qk_norm=True)
    key, value = QuantizedKVCache(model, 1, 4, TurboQuant(WIDTH, 3))._biases(0)
    assert key.eq(0).all()
    assert value.any()


def test_a_model_without_biases_has_none_to_drop(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT, bias=False)
    text = tokens(model)
    found = read(model, text, CODECS["TurboQuant"](), [5, 8], window=13)
    assert (found - model(text)).abs().max() < 1e-5


# ---- what is held


@pytest.mark.parametrize("window", [0, 3])
def test_bytes_are_those_of_every_tensor_the_cache_owns(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec], window: int
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    cache = QuantizedKVCache(model, 2, 16, *codecs, window=window)
    block = cache.block
    per_token = sum(codec.bits_per_value for codec in codecs) * WIDTH / 8  # a head, keys and values
    encoded = 2 * 2 * 2 * (16 // block * block) * per_token  # layers, sequences, heads, tokens
    waiting = 2 * 2 * 2 * 2 * (window + block - 1) * WIDTH * 4
    constants = {id(t): t.nbytes for codec in codecs for t in codec.constants}
    assert cache.nbytes == encoded + waiting + sum(constants.values())
    with torch.inference_mode():
        model(tokens(model), cache)
    assert cache.length == 13
    count = max(0, (13 - window) // block * block)
    assert cache.nbytes_used == (
        2 * 2 * 2 * (count * per_token + (13 - count) * 2 * WIDTH * 4) + sum(constants.values())
    )


def test_three_bits_of_gpt2_hold_less_than_3_3_bits_a_value_all_included() -> None:
    from reference_model.config import preset

    config = preset("gpt2", vocab_size=8)  # the vocabulary is not in the cache
    model = GPT(config)
    cache = QuantizedKVCache(model, 1, 1024, TurboQuant(64, 3))
    values = 2 * 12 * 1024 * 768
    assert cache.nbytes * 8 / values <= 3.30
    assert 2 * values / cache.nbytes >= 4.85
    assert KVCache(config, 1, 1024).nbytes / cache.nbytes >= 9.7


def test_nothing_is_allocated_while_tokens_come_in(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    cache = QuantizedKVCache(model, 1, 13, *CODECS["KIVI"](), window=2)
    before = [t.data_ptr() for t in tensors(cache)]
    with torch.inference_mode():
        for token in tokens(model, 1).split(1, dim=1):
            model(token, cache)
    assert [t.data_ptr() for t in tensors(cache)] == before


def tensors(cache: QuantizedKVCache) -> list[Tensor]:
    stores = [store for of_layer in cache.stores for store in of_layer]
    return [tensor for store in stores for tensor in (*store.parts, store.recent)]


def test_what_was_encoded_is_never_encoded_again(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    cache = QuantizedKVCache(model, 1, 13, TurboQuant(WIDTH, 3))
    with torch.inference_mode():
        model(tokens(model, 1)[:, :8], cache)
        first = [part.clone() for part in cache.stores[0][0].filled(8)]
        model(tokens(model, 1)[:, 8:], cache)
    assert all(map(torch.equal, first, cache.stores[0][0].filled(8)))


def test_appending_holds_what_updating_holds(
    tiny_model: Callable[..., GPT], codecs: tuple[Codec, Codec]
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    k, v = torch.randn(2, 1, 2, 9, WIDTH)
    caches = [QuantizedKVCache(model, 1, 9, *codecs, window=2) for _ in range(2)]
    with torch.inference_mode():
        caches[0].append(0, k, v)
        caches[1].update(0, k, v)
    for appended, updated in zip(tensors(caches[0]), tensors(caches[1]), strict=True):
        assert torch.equal(appended, updated)


# ---- in use


def test_generation_takes_a_compressed_cache(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    prompt = tokens(model, length=5)
    eight_bits = QuantizedKVCache(model, 2, 12, Int8(WIDTH))
    assert torch.equal(generate(model, prompt, 8, cache=eight_bits), generate(model, prompt, 8))
    assert eight_bits.length == 12


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"use_cache": False}, "use it with use_cache=True and decoding='eager'"),
        ({"decoding": "static"}, "use it with use_cache=True and decoding='eager'"),
        ({"new_tokens": 9}, "has room for 12 tokens, and 13 are asked for"),
    ],
)
def test_generation_refuses_a_cache_that_it_cannot_use(
    tiny_model: Callable[..., GPT], how: dict, message: str
) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    cache = QuantizedKVCache(model, 2, 12, Int8(WIDTH))
    with pytest.raises(UserError, match=message):
        generate(model, tokens(model, length=5), **{"new_tokens": 8, **how}, cache=cache)


def test_generation_refuses_a_cache_that_is_not_empty(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    cache = QuantizedKVCache(model, 2, 20, Int8(WIDTH))
    generate(model, tokens(model, length=5), 4, cache=cache)
    with pytest.raises(UserError, match="holds 8 tokens already; give an empty one"):
        generate(model, tokens(model, length=5), 4, cache=cache)


def test_a_codec_of_another_width_is_refused(tiny_model: Callable[..., GPT]) -> None:
    with pytest.raises(UserError, match="encodes vectors 64 wide, but the model's heads are 8"):
        QuantizedKVCache(tiny_model(torch.float32), 1, 4, TurboQuant(64, 3))


def test_a_cache_without_room_says_so(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, context_length=CONTEXT)
    cache = QuantizedKVCache(model, 2, 4, TurboQuant(WIDTH, 3))
    with pytest.raises(UserError, match="has room for 4 tokens, received token 5"):
        model(tokens(model)[:, :5], cache)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_model_may_have_any_precision(
    tiny_model: Callable[..., GPT], dtype: torch.dtype
) -> None:
    for position in ("learned", "alibi"):
        model = tiny_model(dtype, context_length=CONTEXT, position=position)
        text = tokens(model)
        for window in (0, 2):
            found = read(model, text, CODECS["TurboQuant"](), [6, 6, 1], window=window)
            assert found.dtype == dtype
            assert found.isfinite().all()
    assert math.isfinite(float(found.float().sum()))
