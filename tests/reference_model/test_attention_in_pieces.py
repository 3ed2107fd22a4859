"""Attention over keys and values that come piece by piece is attention over all of them."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from reference_model import attention as module
from reference_model.attention import Run, attend, attend_in_pieces
from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.generate import generate
from reference_model.kernels.compiled import VARIABLE
from reference_model.model import GPT
from reference_model.quantization import kv_cache
from reference_model.quantization.baselines import Int8, PerChannel, PerToken
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant
from reference_model.workspace import Workspace

HEADS, GROUPS, TOKENS, WIDTH = 6, 2, 37, 8
SIZES = (1, 5, 36, 37, 100)  # tokens of a piece


@dataclass
class Held:
    """Tensors, (B, G, S, D) and (B, G, S, 1), as a source; the last query is the last token."""

    vectors: tuple[Tensor, Tensor]
    queries: int
    of_vectors: tuple[Tensor, Tensor] | None = None
    block: int = 1

    @property
    def groups(self) -> int:
        return self.vectors[0].shape[1]

    def seen(self, query: int) -> tuple[int, int]:
        return 0, self.vectors[0].shape[2] - self.queries + query + 1

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        yield from self.vectors[which][:, :, run.tokens].split(run.size, dim=2)

    def scales(self, which: int, tokens: slice) -> Tensor | None:
        return None if self.of_vectors is None else self.of_vectors[which][:, :, tokens]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what runs where there is no compiler."""
    monkeypatch.setenv(VARIABLE, "plain")


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many tokens are read at once, by so many queries."""
    monkeypatch.setattr(module, "KEYS_AT_ONCE", request.param * 2 * GROUPS * WIDTH)
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", request.param)
    return int(request.param)


def drawn(queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, H, T, D), and k, v (B, G, S, D), float64."""
    shapes = (2, HEADS, queries, WIDTH), (2, GROUPS, TOKENS, WIDTH), (2, GROUPS, TOKENS, WIDTH)
    q, k, v = (3 * torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    return q, k, v


def masks(queries: int) -> dict[str, Tensor | None]:
    """Over the last queries of all tokens; nobody sees what comes after him."""
    token, query = torch.arange(TOKENS), torch.arange(TOKENS - queries, TOKENS)[:, None]
    past = token <= query
    near = past & (token > query - 2)  # the first pieces have nothing to see
    scores = torch.randn(HEADS, queries, TOKENS, dtype=torch.float64)
    heads = torch.stack([past & ((token + h) % 3 > 0) | (token == query) for h in range(HEADS)])
    return {
        "none": None,
        "every third": past & (token % 3 != 0) | (token == query),
        "the last two": near,
        "of heads": heads,
        "added": scores.masked_fill(~past, -torch.inf),
        "added, with −∞": torch.zeros(queries, TOKENS).masked_fill(~near, -torch.inf).double(),
    }


@pytest.mark.parametrize("queries", [1, 7, TOKENS])
@pytest.mark.parametrize("mask", masks(1))
def test_pieces_of_any_size_give_the_whole(size: int, queries: int, mask: str) -> None:
    (q, k, v), given = drawn(queries), masks(queries)[mask]
    found = attend_in_pieces(q, [Held((k, v), queries)], given, Workspace(), TOKENS)
    past = (
        masks(queries)["none"]
        if queries == 1
        else torch.ones(queries, TOKENS).bool().tril(TOKENS - queries)
    )
    expected = attend(q, k, v, past if given is None else given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_sources_follow_one_another(size: int) -> None:
    q, k, v = drawn(1)
    first = Held((k[:, :, :20], v[:, :, :20]), 1)
    last = _After((k[:, :, 20:], v[:, :, 20:]), 1, 20)
    found = attend_in_pieces(q, [first, last], None, Workspace(), TOKENS)
    torch.testing.assert_close(found, attend(q, k, v), rtol=0, atol=1e-12)


class _After(Held):
    """Tokens behind ``first`` others."""

    def __init__(self, vectors: tuple[Tensor, Tensor], queries: int, first: int) -> None:
        super().__init__(vectors, queries)
        self.first = first

    def seen(self, query: int) -> tuple[int, int]:
        return self.first, self.first + super().seen(query)[1]

    def levels(self, which: int, run: Run) -> Iterator[Tensor]:
        return super().levels(which, run._replace(start=run.start - self.first))


@pytest.mark.parametrize("queries", [1, 7])
def test_scales_meet_scores_and_weights(size: int, queries: int) -> None:
    q, k, v = drawn(queries)
    of_keys, of_values = (torch.rand(2, GROUPS, TOKENS, 1).double() + 0.5 for _ in range(2))
    source = Held((k, v), queries, (of_keys, of_values))
    found = attend_in_pieces(q, [source], None, Workspace(), TOKENS)
    past = torch.ones(queries, TOKENS).bool().tril(TOKENS - queries)
    expected = attend(q, k * of_keys, v * of_values, past)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_scores_beyond_what_an_exponential_holds_are_no_trouble(size: int) -> None:
    q, k, v = drawn(1)
    found = attend_in_pieces(q, [Held((1e4 * k, v), 1)], None, Workspace(), TOKENS)
    torch.testing.assert_close(found, attend(q, 1e4 * k, v), rtol=0, atol=1e-9)


def test_blocks_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_AT_ONCE", 7 * 2 * GROUPS * WIDTH)
    asked = []

    class Blocks(Held):
        def levels(self, which: int, run: Run) -> Iterator[Tensor]:
            asked.append(run)
            return super().levels(which, run)

    q, k, v = (x[:, :, -36:] for x in drawn(1))
    attend_in_pieces(q, [Blocks((k, v), 1, block=4)], None, Workspace(), 36)
    assert all(run.start % 4 == 0 and run.size % 4 == 0 for run in asked)
    assert max(run.size for run in asked) == 4  # two blocks are more than seven tokens


# ---- through caches


CACHES: dict[str, Callable[[GPT, int], KVCache]] = {
    "bfloat16": lambda model, room: KVCache(model.config, 2, room, torch.bfloat16),
    "turboquant": lambda model, room: QuantizedKVCache(model, 2, room, TurboQuant(WIDTH, 3)),
    "window": lambda model, room: QuantizedKVCache(
        model, 2, room, TurboQuant(WIDTH, 4), TurboQuant(WIDTH, 1), window=5
    ),
    "int8": lambda model, room: QuantizedKVCache(model, 2, room, Int8(WIDTH)),
    "blocks of tokens": lambda model, room: QuantizedKVCache(
        model, 2, room, PerChannel(WIDTH, 4, group=4), PerToken(WIDTH, 4), window=1
    ),
}
KINDS = [
    {"position": position, **heads}
    for position in ("learned", "rope", "alibi")
    for heads in ({}, {"n_head": 4, "n_kv_head": 2, "d_head": WIDTH})
]


@pytest.mark.parametrize("choices", KINDS, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("kind", CACHES)
def test_a_text_in_small_pieces_is_read_as_in_one(
    tiny_model: Callable[..., GPT],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    choices: dict[str, object],
) -> None:
    # Of one layer: in a second, what was rounded may lie on the other side of an edge.
    model = tiny_model(torch.float32, context_length=64, n_layer=1, **choices)
    tokens = torch.randint(23, (2, 41))

    def read(values_at_once: int, queries_at_once: int) -> Tensor:
        monkeypatch.setattr(module, "KEYS_AT_ONCE", values_at_once)
        monkeypatch.setattr(module, "QUERIES_AT_ONCE", queries_at_once)
        cache = CACHES[kind](model, 41)
        with torch.inference_mode():
            parts = [model(part, cache) for part in tokens.split([23, 16, 1, 1], dim=1)]
        return torch.cat(parts, dim=1)

    whole = read(2**20, 64)
    for values, queries in ((1, 64), (16 * WIDTH, 3), (100 * WIDTH, 1)):
        torch.testing.assert_close(read(values, queries), whole, rtol=0, atol=2e-5)


def test_a_cache_of_half_the_bits_gives_what_converting_all_of_it_gives(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float64, context_length=64)
    cache, plain = (KVCache(model.config, 2, 41, torch.float32) for _ in range(2))
    q, k, v = torch.randn(3, 2, 2, 40, WIDTH, dtype=torch.float64)
    found = cache.attend(0, q, k, v)
    expected = attend(q, *plain.update(0, k, v))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_gradients_go_through_a_plain_cache(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float64, context_length=64)
    cache = KVCache(model.config, 1, 5, torch.float32)
    q, k, v = torch.randn(3, 1, 2, 5, WIDTH, dtype=torch.float64)
    cache.attend(0, q.requires_grad_(), k, v).sum().backward()
    assert q.grad is not None
    assert q.grad.abs().sum() > 0


# ---- memory


def test_a_step_asks_the_system_for_no_memory() -> None:
    # Each layer's keys and values in float32 would be 2,048 pages, of one step 4,096 and more.
    config = preset("gpt2", vocab_size=8, n_layer=2)
    model = GPT(config).eval()
    caches = {
        "bfloat16": KVCache(config, 1, 1400, torch.bfloat16),
        "3 bits": QuantizedKVCache(model, 1, 1400, TurboQuant(64, 3)),
    }
    k, q = torch.randn(1, 12, 1390, 64), torch.randn(1, 12, 1, 64)
    with torch.inference_mode():
        for cache in caches.values():
            for layer in (0, 1):
                cache.append(layer, k, k)
        for _ in range(3):
            faults = {}
            for name, cache in caches.items():
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for layer in (0, 1):
                    cache.attend(layer, q, q, q)
                faults[name] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert max(faults.values()) < 1000, faults


def test_what_a_step_works_with_does_not_grow_with_the_text() -> None:
    config = preset("gpt2", vocab_size=8, n_layer=1)
    model = GPT(config).eval()
    held = {}
    for length in (4096, 8192):
        cache = QuantizedKVCache(model, 1, length, TurboQuant(64, 3))
        with torch.inference_mode():
            for _ in range(length // 1024 - 1):
                cache.append(0, *torch.randn(2, 1, 12, 1024, 64))
            cache.attend(0, *torch.randn(3, 1, 12, 1, 64))
        held[length] = cache.workspace.nbytes
    assert held[8192] < 1.1 * held[4096] < 2**24  # pieces of even sizes are not of one size


def test_two_generations_at_once_are_two_generations_one_after_the_other(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float32, context_length=64)
    prompts = torch.randint(23, (2, 1, 30))
    found: dict[int, Tensor] = {}

    def run(index: int) -> None:
        cache = QuantizedKVCache(model, 1, 60, TurboQuant(WIDTH, 3))
        found[index] = generate(model, prompts[index], 30, cache=cache)

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(found)
    for index in (0, 1):
        run(index)
        assert torch.equal(found[index], together[index])


def test_a_prompt_goes_through_a_compressed_cache_in_pieces(
    tiny_model: Callable[..., GPT], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(torch.float32, context_length=64, position="rope", n_layer=1)
    prompt, read = torch.randint(23, (2, 30)), []
    model.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))

    def continued() -> Tensor:
        return generate(model, prompt, 3, cache=QuantizedKVCache(model, 2, 40, Int8(WIDTH)))

    whole = continued()
    assert read == [30, 1, 1]
    monkeypatch.setattr(kv_cache, "PROMPT_AT_ONCE", 8)
    read.clear()
    assert torch.equal(continued(), whole)
    assert read == [8, 8, 8, 6, 1, 1]
