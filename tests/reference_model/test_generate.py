"""Decoding: the same tokens with and without a cache, and samples from the right distribution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from reference_model.errors import UserError
from reference_model.generate import choose, generate, stream
from reference_model.model import GPT

PROMPT = torch.tensor([[1, 2, 3], [7, 5, 2]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- greedy


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope", "alibi", "none"])
def test_greedy_tokens_are_the_same_with_and_without_a_cache(
    tiny_model: Callable[..., GPT], position: str
) -> None:
    model = tiny_model(position=position, head="untied", context_length=40)
    cached = generate(model, PROMPT, 30)
    assert cached.shape == (2, 33)
    assert torch.equal(cached[:, :3], PROMPT)
    assert cached[:, 3:].unique().numel() > 3  # not one token over and over
    assert torch.equal(cached, generate(model, PROMPT, 30, use_cache=False))


def test_greedy_takes_the_likeliest_token_at_each_step(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(head="untied")
    written = generate(model, PROMPT, 6)
    with torch.no_grad():
        logits = model(written)
    assert torch.equal(logits[:, 2:-1].argmax(-1), written[:, 3:])


def test_generation_may_end_with_the_last_position_of_the_context(
    tiny_model: Callable[..., GPT],
) -> None:
    # The last token is written but never read: 12 positions carry 13 tokens.
    model = tiny_model(context_length=12)
    assert generate(model, PROMPT, 10).shape == (2, 13)
    model.register_forward_pre_hook(lambda *_: pytest.fail("worked before it refused"))
    with pytest.raises(
        UserError, match=r"has 12 positions, .* prompt of 3 tokens and 11 to follow"
    ):
        generate(model, PROMPT, 11)


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_rows_of_a_batch_do_not_know_of_each_other(
    tiny_model: Callable[..., GPT], use_cache: bool
) -> None:
    model = tiny_model(head="untied")
    together = generate(model, PROMPT, 8, use_cache=use_cache)
    alone = [generate(model, row[None], 8, use_cache=use_cache) for row in PROMPT]
    assert torch.equal(together, torch.cat(alone))


def test_the_head_reads_only_the_last_token(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model()
    seen: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda m, inputs, out: seen.append(tuple(out.shape)))
    generate(model, PROMPT, 3, use_cache=False)
    assert seen == [(2, 1, 23)] * 3


def test_with_a_cache_each_step_reads_one_token(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model()
    rows: dict[bool, list[int]] = {True: [], False: []}
    for use_cache, lengths in rows.items():
        hook = model.h[0].attn.c_attn.register_forward_hook(
            lambda m, inputs, out, lengths=lengths: lengths.append(out.shape[1])
        )
        generate(model, PROMPT, 4, use_cache=use_cache)
        hook.remove()
    assert rows == {True: [3, 1, 1, 1], False: [3, 4, 5, 6]}


def test_generation_leaves_the_prompt_as_it_was(tiny_model: Callable[..., GPT]) -> None:
    prompt = PROMPT.clone()
    generate(tiny_model(), prompt, 3)
    assert torch.equal(prompt, PROMPT)


# ---- sampled


def test_a_generator_makes_a_sample_repeatable(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model()

    def sampled(seed: int, use_cache: bool = True) -> Tensor:
        return generate(
            model, PROMPT, 9, use_cache=use_cache, temperature=1.5, generator=seeded(seed)
        )

    assert torch.equal(sampled(1), sampled(1))
    assert torch.equal(sampled(1), sampled(1, use_cache=False))
    assert not torch.equal(sampled(1), sampled(2))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_softmax_of_the_logits_over_the_temperature(
    tiny_model: Callable[..., GPT], temperature: float
) -> None:
    model, draws = tiny_model(vocab_size=6), 4000
    prompt = torch.tensor([[4, 2]])
    with torch.no_grad():
        logits = model(prompt)[0, -1]
    written = generate(
        model, prompt.expand(draws, 2), 1, temperature=temperature, generator=seeded()
    )
    counts = written[:, -1].bincount(minlength=6).numpy()

    def p_value(at: float) -> float:
        weights = (logits / at).exp()
        return chisquare(counts, (draws * weights / weights.sum()).numpy()).pvalue

    assert p_value(temperature) > 1e-3
    assert p_value(1.3 * temperature) < 1e-6  # the draws are enough to tell


def test_only_the_top_k_are_sampled_in_the_right_proportion() -> None:
    logits = torch.tensor([0.0, 3.0, 2.0, -1.0, 1.0])
    drawn = choose(logits.expand(3000, 5), 1.0, 2, seeded()).bincount(minlength=5)
    assert drawn[[0, 3, 4]].tolist() == [0, 0, 0]
    share = 1 / (1 + torch.tensor(-1.0).exp())  # e³ / (e³ + e²)
    assert float(drawn[1] / 3000) == pytest.approx(float(share), abs=0.03)


def test_tokens_as_likely_as_the_kth_are_all_kept() -> None:
    logits = torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0])
    drawn = choose(logits.expand(2000, 5), 1.0, 2, seeded()).bincount(minlength=5)
    assert drawn[3] == 0
    assert (drawn[[0, 1, 2, 4]] > 200).all()


def test_the_single_likeliest_token_is_greedy(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(head="untied")
    sampled = generate(model, PROMPT, 8, temperature=3.0, top_k=1, generator=seeded())
    assert torch.equal(sampled, generate(model, PROMPT, 8))


def test_a_top_k_beyond_the_vocabulary_keeps_all_tokens() -> None:
    logits = torch.randn(4, 5)
    all_kept = choose(logits, 1.0, 99, seeded())
    assert torch.equal(all_kept, choose(logits, 1.0, None, seeded()))


@pytest.mark.parametrize("temperature", [1e-30, 1e-45, 1e-300])  # float32 cannot hold the last
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits = torch.randn(50, 9)
    assert torch.equal(choose(logits, temperature, None, seeded()), choose(logits))


# ---- bad arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": torch.tensor([1, 2])}, r"shape \(2,\); use \(batch, time\)"),
        ({"prompt": torch.ones(2, 0, dtype=torch.long)}, r"shape \(2, 0\).*at least one token"),
        ({"prompt": torch.ones(0, 2, dtype=torch.long)}, r"shape \(0, 2\).*at least one token"),
        ({"prompt": torch.tensor([[1, 23]])}, r"token ids 1 … 23, the model knows 0 … 22"),
        ({"prompt": torch.tensor([[-1, 2]])}, r"token ids -1 … 2, the model knows 0 … 22"),
        ({"new_tokens": 0}, r"new_tokens=0"),
        ({"new_tokens": -3}, r"new_tokens=-3"),
        ({"temperature": -0.5}, r"temperature=-0\.5"),
        ({"temperature": float("nan")}, r"temperature=nan"),
        ({"temperature": 1.0, "top_k": 0}, r"top_k=0"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(
    tiny_model: Callable[..., GPT], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        generate(tiny_model(), **{"prompt": PROMPT, "new_tokens": 2, **changes})
    assert "\n" not in str(raised.value)


# ---- as a stream


def test_the_stream_hands_out_each_token_before_it_computes_the_next(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model()
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    expected = generate(model, PROMPT, 5)
    passes.clear()
    for count, tokens in enumerate(stream(model, PROMPT, 5), start=1):
        assert len(passes) == count
        assert torch.equal(tokens, expected[:, 2 + count])
    assert len(passes) == 5


def test_a_step_allocates_no_more_than_the_step_before(tiny_model: Callable[..., GPT]) -> None:
    # What grows with the sequence (the cache, the tokens) is allocated once, before the first step.
    model = tiny_model(context_length=24)
    sizes: list[int] = []
    steps = stream(model, PROMPT, 20)
    for _ in range(20):
        with torch.profiler.profile(profile_memory=True) as profile:
            next(steps)
        sizes.append(sum(max(0, event.self_cpu_memory_usage) for event in profile.events()))
    assert sizes[0] > max(sizes[1:])  # the prompt's step allocates the cache
    # The scores of one query, in a work area of the attention, are all that may grow.
    assert sizes[-1] - sizes[1] <= 20 * 2 * 2 * 8 * model.config.n_layer * 2
