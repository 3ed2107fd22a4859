"""Prompts hold each answer once, and what a cache loses of them is counted as it is."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.instruments import recall
from benchmarks.instruments.recall import (
    Prompts,
    needle_prompts,
    points_lost,
    recall_model,
    recall_prompts,
    recalled,
    sixteen_bits,
)
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.baselines import Plain
from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.kv_cache import QuantizedKVCache

WORDS = 400  # different tokens of a made-up text


class Copier(nn.Module):
    """Predicts what followed the token when it stood last; 0 where it never did. Has no cache."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(1, 1)

    def forward(self, tokens: Tensor, cache: None = None) -> Tensor:
        logits = torch.zeros(*tokens.shape, int(tokens.max()) + 1)
        for row, text in enumerate(tokens.tolist()):
            followers: dict[int, int] = {}
            for at, token in enumerate(text):
                logits[row, at, followers.get(token, 0)] = 1
                followers[token] = text[at + 1] if at + 1 < len(text) else 0
        return logits


class Noise(Plain):
    """Vectors of the right size that have nothing to do with those that were given."""

    def dequantize(self, parts: Parts) -> Tensor:
        vectors = super().dequantize(parts)
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        return noise * vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)


@pytest.fixture(scope="module")
def subject() -> Any:
    """A text of WORDS tokens, the low ones often and the high ones seldom, and a context of 256."""
    draws = torch.rand(9000, generator=torch.Generator().manual_seed(0))
    tokens = 1 + (draws.square() * WORDS).long()
    return SimpleNamespace(context=256, tokens=lambda: tokens)


@pytest.fixture(scope="module")
def model() -> GPT:
    return recall_model()


def empty(
    model: GPT, prompts: Prompts, codecs: tuple[Codec, Codec], batch_size: int
) -> QuantizedKVCache:
    return QuantizedKVCache(model, batch_size, prompts.length, *codecs)


def by(reader: nn.Module, prompts: Prompts) -> np.ndarray:
    return recalled(cast(GPT, reader), prompts, None)


def test_a_reader_that_copies_finds_every_needle_and_none_that_was_not_planted(
    subject: Any,
) -> None:
    prompts = needle_prompts(subject, 6, seed=0)
    assert by(Copier(), prompts).all()
    bare = prompts.tokens.clone()
    asked = bare[:, -prompts.asked.shape[1] * (recall.GIVEN + recall.ANSWERED) :].clone()
    for row, needles in zip(bare, asked, strict=True):
        row[torch.isin(row, needles)] = 1
    bare[:, -asked.shape[1] :] = asked
    without = Prompts(bare, prompts.asked, prompts.answered, prompts.clusters, "")
    assert not by(Copier(), without).any()


def test_a_needle_stands_once_before_it_is_asked_for_at_some_depth_of_the_text(
    subject: Any,
) -> None:
    prompts = needle_prompts(subject, 6, seed=0)
    needle = recall.GIVEN + recall.ANSWERED
    asks = prompts.asked.shape[1]
    assert prompts.tokens.shape == (6, 256)
    assert asks == 256 // recall.TOKENS_A_NEEDLE
    depths = set()
    for text in prompts.tokens:
        body, tail = text[: -asks * needle], text[-asks * needle :].view(asks, needle)
        assert len(tail.unique()) == asks * needle
        for asked in tail:
            (first,) = (body == asked[0]).nonzero()[:, 0].tolist()
            assert body[first : first + needle].equal(asked)
            assert torch.isin(body, asked).sum() == needle
            depths.add(first)
    assert len(depths) == 6 * asks
    assert min(depths) < 60
    assert max(depths) > 160


def test_an_answer_is_not_likelier_than_others_where_the_needle_is_not(subject: Any) -> None:
    prompts = needle_prompts(subject, 30, seed=0)
    answers = prompts.answers.flatten()
    given = prompts.tokens.gather(1, prompts.asked).flatten()
    # Drawn alike: neither the answer nor what is given is one of the frequent tokens.
    assert abs(answers.double().mean() - given.double().mean()) < 30
    assert len(answers.unique()) > 0.3 * len(answers)


def test_the_same_seed_asks_the_same_and_another_one_something_else(subject: Any) -> None:
    for make in (
        lambda seed: needle_prompts(subject, 4, seed),
        lambda seed: recall_prompts(4, seed),
    ):
        assert make(1).tokens.equal(make(1).tokens)
        assert not make(1).tokens.equal(make(2).tokens)


def test_a_value_stands_once_before_its_key_is_asked_for(model: GPT) -> None:
    prompts = recall_prompts(3, seed=0, pairs=20, asks=7)
    assert prompts.tokens.shape == (3, 2 * 20 + 2 * 7)
    assert int(prompts.tokens.max()) < model.config.vocab_size
    for text, asked, answers in zip(prompts.tokens, prompts.asked, prompts.answers, strict=True):
        told, again = text[:40].view(20, 2), text[40:].view(7, 2)
        assert len(told.unique()) == 40
        for key, value in again.tolist():
            ((place,),) = (told[:, 0] == key).nonzero().tolist()
            assert told[place, 1] == value
        assert text[asked].equal(again[:, 0])
        assert answers[:, 0].equal(again[:, 1])
    assert by(Copier(), prompts).all()


def test_the_shipped_model_recalls_and_an_exact_cache_loses_nothing(model: GPT) -> None:
    prompts = recall_prompts(2, seed=5)
    exact = by(model, prompts)
    assert exact.mean() >= 0.99
    codec = Plain(model.config.d_head, torch.float32)
    held = recalled(model, prompts, partial(empty, model, prompts, (codec, codec)))
    assert (held == exact).all()
    halved = recalled(model, prompts, sixteen_bits(model, prompts))
    assert abs(points_lost(prompts, exact, [halved]).value) < 1


def test_noise_in_place_of_keys_or_of_values_leaves_nothing_to_be_found(model: GPT) -> None:
    prompts = recall_prompts(2, seed=5)
    noise, plain = (kind(model.config.d_head, torch.float32) for kind in (Noise, Plain))
    for pair in ((noise, plain), (plain, noise)):
        found = recalled(model, prompts, partial(empty, model, prompts, pair))
        assert found.mean() < 0.05


def test_a_prompt_reads_the_same_alone_or_beside_others(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = recall_prompts(3, seed=5, pairs=40, asks=40)
    together = recalled(model, prompts, sixteen_bits(model, prompts))
    monkeypatch.setattr(recall, "TOKENS_AT_ONCE", 1)
    monkeypatch.setattr(recall, "PIECE", 33)
    assert (recalled(model, prompts, sixteen_bits(model, prompts)) == together).all()
    assert (recalled(model, prompts[1:2], sixteen_bits(model, prompts)) == together[1:2]).all()


class Forgetful(Copier):
    """Predicts nothing after one token."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def forward(self, tokens: Tensor, cache: None = None) -> Tensor:
        logits = super().forward(tokens)
        logits[:, self.at] = 0
        return logits


def test_an_answer_is_found_where_each_of_its_tokens_is(subject: Any) -> None:
    prompts = needle_prompts(subject, 1, seed=0)
    for place in range(prompts.answered):
        reader = Forgetful(int(prompts.asked[0, 1]) + place)
        assert by(reader, prompts).tolist() == [[True, False]]
    assert by(Forgetful(int(prompts.asked[0, 1]) - 1), prompts).all()


def test_sixteen_bits_are_held_for_each_number(model: GPT) -> None:
    cache = sixteen_bits(model, recall_prompts(1, seed=0))(1)
    assert {store.codec.bits_per_value for stores in cache.stores for store in stores} == {16}


def made_up(count: int) -> Prompts:
    """Of two answers each, all apart."""
    tokens, asked = torch.zeros(count, 4, dtype=torch.int64), torch.tensor([[0, 2]] * count)
    return Prompts(tokens, asked, 1, np.arange(count), "made-up prompts")


def test_points_are_what_is_found_less_often_in_a_hundred_answers() -> None:
    prompts = made_up(50)
    exact = np.ones((50, 2), dtype=bool)
    found = exact.copy()
    found[:5, 0] = False
    lost = points_lost(prompts, exact, [found, found])
    assert lost.value == pytest.approx(5)
    assert lost.interval[0] < 5 < lost.interval[1]
    assert lost.population == "made-up prompts"
    assert points_lost(prompts, exact, [exact]).interval == (0, 0)
    assert points_lost(prompts, found, [exact]).value == pytest.approx(-5)


def test_answers_that_are_not_found_without_compression_do_not_count() -> None:
    prompts = made_up(10)
    exact = np.array([[True, False]] * 10)
    found = ~exact
    found[:6] = [True, True]
    assert points_lost(prompts, exact, [found], exact).value == pytest.approx(40)
    assert points_lost(prompts, exact, [found]).value == pytest.approx(-30)
    with pytest.raises(ValueError, match="no answer counts"):
        points_lost(prompts, exact, [found], np.zeros_like(exact))


def test_answers_of_one_cluster_are_no_more_than_one_observation() -> None:
    apart = made_up(40)
    exact = np.ones((40, 2), dtype=bool)
    found = exact.copy()
    found[:4] = False
    alike = Prompts(apart.tokens, apart.asked, 1, np.arange(40) // 4, "")
    assert points_lost(alike, exact, [found]).n == 10
    wide, narrow = (points_lost(p, exact, [found]).interval for p in (alike, apart))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_what_cannot_be_asked_is_one_line(subject: Any) -> None:
    short = SimpleNamespace(context=256, tokens=lambda: torch.arange(100))
    poor = SimpleNamespace(context=256, tokens=lambda: torch.arange(2000) % 12)
    for ask, told in (
        (lambda: recall_prompts(1, 0, pairs=4000), "use 1 to 256 pairs"),
        (lambda: recall_prompts(1, 0, pairs=4, asks=5), "no more questions"),
        (lambda: needle_prompts(cast(Any, short), 1, 0), "use a longer text"),
        (lambda: needle_prompts(cast(Any, poor), 1, 0), "use a longer text"),
    ):
        with pytest.raises(UserError, match=told) as raised:
            ask()
        assert "\n" not in str(raised.value)
