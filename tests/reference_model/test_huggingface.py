"""Our codecs as a cache of transformers: what its own cache gives, in every way of decoding."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import PerChannel, PerToken, Plain
from reference_model.quantization.codec import Codec
from reference_model.quantization.turboquant import TurboQuant

pytest.importorskip("transformers")

from reference_model.huggingface import held_bytes, packed_cache, rotary_frequencies

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    **dict.fromkeys(("bos_token_id", "eos_token_id")),
    "pad_token_id": 0,
}
ALTERNATING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 128}),
    "Llama": ("Llama", SIZES),
    "Qwen3": ("Qwen3", SIZES),
    "Mistral": ("Mistral", {**SIZES, "sliding_window": 8}),
    "Gemma3": ("Gemma3", {**SIZES, **ALTERNATING}),
    "Gemma2": ("Gemma2", {**SIZES, **ALTERNATING}),
}
NEW = 12
PROMPT = torch.randint(1, 50, (1, 10), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def build(transformers: ModuleType) -> Callable[..., Any]:
    """build("Llama", "eager") → a tiny model with weights of some size, in evaluation mode."""
    made: dict[tuple[str, str], Any] = {}

    def get(name: str, attention: str = "eager") -> Any:
        if (name, attention) not in made:
            torch.manual_seed(1)
            kind, settings = MODELS[name]
            text = "TextConfig" if kind == "Gemma3" else "Config"
            own = {"vocab_size": 50, "initializer_range": 0.3, "eos_token_id": None}
            config = getattr(transformers, f"{kind}{text}")(
                **{**own, **settings, "attn_implementation": attention}
            )
            head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
            model = getattr(transformers, f"{kind}{head}")(config).eval()
            model.generation_config.pad_token_id = 0
            made[name, attention] = model
        return made[name, attention]

    return get


def exact(width: int) -> Codec:
    return Plain(width, torch.float32)


def four_bits(width: int) -> Codec:
    return TurboQuant(width, 4)


def own_cache(transformers: ModuleType, model: Any) -> Any:
    return transformers.DynamicCache(config=model.config)


# ---- ways of decoding: (model, a new cache) → tokens

Decode = Callable[[Any, Callable[[], Any]], Tensor]


def generated(model: Any, cache: Any, prompt: Tensor = PROMPT, **choices: Any) -> Tensor:
    found: Tensor = model.generate(
        prompt, past_key_values=cache, max_new_tokens=NEW, **{"do_sample": False, **choices}
    )
    return found


def sampled(model: Any, new: Callable[[], Any]) -> Tensor:
    torch.manual_seed(7)
    return generated(model, new(), do_sample=True)


def beams(model: Any, new: Callable[[], Any]) -> Tensor:
    return generated(model, new(), num_beams=3, num_return_sequences=2)


def in_pieces(model: Any, new: Callable[[], Any]) -> Tensor:
    cache = new()
    with torch.no_grad():
        for piece in (PROMPT[:, :4], PROMPT[:, 4:9]):
            model(piece, past_key_values=cache)
    return generated(model, cache)


def second_turn(model: Any, new: Callable[[], Any]) -> Tensor:
    cache = new()
    first = generated(model, cache)
    return generated(model, cache, torch.cat((first, PROMPT[:, :5]), dim=1))


def padded(model: Any, new: Callable[[], Any]) -> Tensor:
    prompt, mask = PROMPT.repeat(3, 1), torch.ones(3, 10, dtype=torch.long)
    for row, count in enumerate((0, 3, 7)):
        prompt[row, :count], mask[row, :count] = 0, 0
    return generated(model, new(), prompt, attention_mask=mask)


def assisted(model: Any, new: Callable[[], Any]) -> Tensor:
    return generated(model, new(), assistant_model=model)


WAYS: dict[str, Decode] = {
    "greedy": lambda model, new: generated(model, new()),
    "sampled": sampled,
    "beams": beams,
    "in pieces": in_pieces,
    "prompt lookup": lambda model, new: generated(model, new(), prompt_lookup_num_tokens=3),
    "assisted": assisted,
    "second turn": second_turn,
    "left padding": padded,
}


ATTENTIONS = [
    (name, attention)
    for name in MODELS
    for attention in ("sdpa", "eager")
    if (name, attention) != ("Gemma2", "sdpa")  # which transformers does not have
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "attention"), ATTENTIONS)
def test_without_compression_the_tokens_are_those_of_the_models_own_cache(
    transformers: ModuleType, build: Callable[..., Any], name: str, attention: str, way: str
) -> None:
    model = build(name, attention)
    expected = WAYS[way](model, lambda: own_cache(transformers, model))
    found = WAYS[way](model, lambda: packed_cache(exact))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_in_four_bits_every_way_decodes(build: Callable[..., Any], name: str, way: str) -> None:
    found = WAYS[way](build(name), lambda: packed_cache(four_bits))
    more = NEW + 5 if way == "second turn" else 0
    assert found.shape[1] == PROMPT.shape[1] + NEW + more


@pytest.mark.parametrize("chunks", [[22], [1] * 22, [10, *[1] * 12]], ids=len)
@pytest.mark.parametrize("name", MODELS)
def test_in_four_bits_logits_stay_within_the_codecs_error(
    build: Callable[..., Any], name: str, chunks: list[int]
) -> None:
    model = build(name)
    text = torch.randint(1, 50, (2, 22), generator=torch.Generator().manual_seed(4))

    def read(make: Callable[[int], Codec]) -> Tensor:
        cache = packed_cache(make)
        with torch.no_grad():
            return torch.cat(
                [model(piece, past_key_values=cache).logits for piece in text.split(chunks, 1)], 1
            )

    with torch.no_grad():
        plain = model(text).logits
    torch.testing.assert_close(read(exact), plain, rtol=0, atol=2e-5)
    errors = [
        float((read(lambda width, bits=bits: TurboQuant(width, bits)) - plain).square().mean())
        for bits in (4, 2)
    ]
    assert 0 < errors[0] < 0.2 * float(plain.var())
    assert errors[0] < errors[1]  # it is the codec that acts


# ---- what is held


@pytest.mark.parametrize("make", [exact, four_bits, lambda width: PerToken(width, 4)])
def test_bytes_are_those_of_the_codec(
    build: Callable[..., Any], make: Callable[[int], Codec]
) -> None:
    cache = packed_cache(make)
    with torch.no_grad():
        build("Llama")(PROMPT, past_key_values=cache)
    codec = make(8)
    per_vector = codec.bits_per_value * 8 / 8  # bytes of 8 numbers
    constants = sum({id(t): t.nbytes for t in codec.constants}.values())
    assert held_bytes(cache) == 2 * 2 * 2 * 10 * per_vector + constants  # layers, k and v, heads


def test_tokens_wait_for_a_whole_block_and_cannot_be_taken_out_of_one(
    build: Callable[..., Any],
) -> None:
    model = build("Llama")
    cache = packed_cache(lambda width: PerChannel(width, 4, group=4), four_bits)
    with torch.no_grad():
        model(PROMPT, past_key_values=cache)
        keys = cache.layers[0].stores[0]
        assert (keys.encoded, keys.waiting.shape[-2]) == (8, 2)
        assert not cache.is_croppable
        cache.crop(-2)
        assert cache.get_seq_length() == 8
        with pytest.raises(UserError, match="encodes 4 tokens together and cannot go back to 7"):
            cache.crop(-1)


def test_nothing_is_taken_back_where_one_of_both_cannot(build: Callable[..., Any]) -> None:
    cache = packed_cache(four_bits, lambda width: PerChannel(width, 4, group=4))
    with torch.no_grad():
        build("Llama")(PROMPT, past_key_values=cache)
    with pytest.raises(UserError, match="cannot go back to 7"):
        cache.crop(-3)
    assert [store.length for store in cache.layers[0].stores] == [10, 10]


def test_a_forward_with_gradients_reads_the_same(build: Callable[..., Any]) -> None:
    model, logits = build("Llama"), []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found = model(PROMPT, past_key_values=packed_cache(four_bits)).logits
        logits.append(found.detach())
    assert torch.equal(*logits)


def test_a_part_of_a_head_may_be_rotated_and_the_rest_stays() -> None:
    from reference_model.huggingface import PackedLayer

    layer = packed_cache(exact, frequencies=torch.tensor([0.5])).layer_class_to_replicate()
    assert isinstance(layer, PackedLayer)
    keys = torch.randn(1, 2, 3, 8)
    found, _ = layer.update(keys, torch.randn(1, 2, 3, 8))
    torch.testing.assert_close(found, keys, rtol=0, atol=1e-6)
    held = layer.stores[0].read()
    assert torch.equal(held[..., 2:], keys[..., 2:])
    assert not torch.equal(held[..., :2], keys[..., :2])


def test_what_was_taken_back_is_read_again_to_the_same_logits(build: Callable[..., Any]) -> None:
    model, cache = build("Qwen3"), packed_cache(four_bits)
    with torch.no_grad():
        whole = model(PROMPT, past_key_values=cache).logits
        cache.crop(-4)
        cache.crop(0)
        assert cache.get_seq_length() == 6
        again = model(PROMPT[:, 6:], past_key_values=cache).logits
    torch.testing.assert_close(again, whole[:, 6:], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="negative"):
        cache.crop(3)
    cache.reset()
    assert cache.get_seq_length() == 0


# ---- keys before they are turned


def test_keys_that_are_turned_back_and_again_are_the_same(build: Callable[..., Any]) -> None:
    model = build("Llama")
    frequencies = rotary_frequencies(model)
    with torch.no_grad():
        plain = model(PROMPT).logits
        for chunks in ([10], [1] * 10):
            cache = packed_cache(exact, frequencies=frequencies)
            found = [
                model(piece, past_key_values=cache).logits for piece in PROMPT.split(chunks, 1)
            ]
            torch.testing.assert_close(torch.cat(found, 1), plain, rtol=0, atol=1e-5)


def test_what_is_encoded_is_the_key_without_its_position(build: Callable[..., Any]) -> None:
    model = build("Llama")
    same = torch.full((1, 6), 17)  # in the first layer, one token's keys differ by their turn alone
    held = {}
    for name, frequencies in (("before", rotary_frequencies(model)), ("after", None)):
        cache = packed_cache(exact, frequencies=frequencies)
        with torch.no_grad():
            model(same, past_key_values=cache)
        held[name] = cache.layers[0].stores[0].read()
    assert (held["before"] - held["before"][..., :1, :]).abs().max() < 1e-5
    assert (held["after"] - held["after"][..., :1, :]).abs().max() > 0.1


def test_models_that_turn_keys_in_no_way_or_in_several_are_refused(
    build: Callable[..., Any],
) -> None:
    with pytest.raises(UserError, match="does not rotate its keys"):
        rotary_frequencies(build("GPT-2"))
    with pytest.raises(UserError, match="rotates its keys in several ways"):
        rotary_frequencies(build("Gemma3"))
