"""Texts: greedy and sampled, with and without a cache, batched, and where they end."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.exact_cases.caches import WIDTH, codec_of
from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import small_model, tokens_of

NEW = 12


def _texts(**options: Any) -> object:
    """Tokens (B, T) of two prompts, and of one of a single token."""
    import torch

    from reference_model.generate import generate

    seed, choices = options.pop("seed", None), options.pop("choices", {})
    model, found = small_model(**choices), []
    for batch_size, length, count in ((2, 5, NEW), (1, 1, 1), (1, 20, 14)):
        drawn = None if seed is None else torch.Generator().manual_seed(seed)
        tokens = tokens_of(model, batch_size, length)
        found.append(generate(model, tokens, count, generator=drawn, **options))
    return found


def _with_ends() -> object:
    """Each sequence stops at its own end; the rest is padding."""
    from reference_model.generate import generate

    model = small_model()
    prompt = tokens_of(model, 3, 4)
    written = generate(model, prompt, NEW)
    ends = [int(written[0, 6]), int(written[1, 9])]
    return [
        generate(model, prompt, NEW, ends=ends),
        generate(model, prompt, NEW, ends=ends, pad=2),
        generate(model, prompt, NEW, ends=[10_000]),
        generate(model, prompt, NEW, ends=ends, use_cache=False),
        refusal(lambda: generate(model, prompt, NEW, ends=ends, pad=61)),
    ]


def _with_own_cache() -> object:
    """A compressed cache that is given, and what is wrong with one."""
    from reference_model.cache import KVCache
    from reference_model.generate import generate
    from reference_model.quantization.kv_cache import QuantizedKVCache

    model = small_model(n_embd=3 * WIDTH)
    prompt = tokens_of(model, 2, 5)

    def own(room: int, batch_size: int = 2) -> Any:
        return QuantizedKVCache(model, batch_size, room, codec_of("turboquant 4"))

    plain = KVCache(model.config, 2, 5 + NEW)
    return [
        generate(model, prompt, NEW, cache=own(4 + NEW)),
        generate(model, prompt, NEW, cache=plain),
        plain.length,
        refusal(lambda: generate(model, prompt, NEW, cache=plain)),
        refusal(lambda: generate(model, prompt, NEW, cache=own(3 + NEW))),
        refusal(lambda: generate(model, prompt, NEW, cache=own(30, 1))),
        refusal(lambda: generate(model, prompt, NEW, cache=own(30), use_cache=False)),
    ]


def _choice_of_tokens() -> object:
    """`choose` alone: ties, temperatures far from 1, and k below, at and above the vocabulary."""
    import torch

    from reference_model.generate import choose

    logits = torch.linspace(-3, 3, 8).repeat(400, 1)
    logits[:, 6] = logits[:, 7]
    found: list[object] = [choose(logits)]
    for temperature in (1e-30, 0.3, 1.0, 50.0):
        for top_k in (None, 1, 3, 8, 20):
            drawn = torch.Generator().manual_seed(1)
            tokens = choose(logits, temperature, top_k, drawn)
            found.append(torch.bincount(tokens, minlength=8))
    return found


def _refused() -> object:
    import torch

    from reference_model.generate import generate

    model = small_model()
    prompt = tokens_of(model, 1, 5)
    wrong: tuple[dict[str, Any], ...] = (
        {"prompt": prompt[0]},
        {"prompt": prompt[:, :0]},
        {"prompt": prompt + 60},
        {"new_tokens": 0},
        {"prompt": prompt - 6},
        {"new_tokens": 29},
        {"new_tokens": 30},
        {"temperature": -1.0},
        {"top_k": 0},
        {"decoding": "fast"},
        {"decoding": "static", "use_cache": False},
        {"temperature": float("nan")},
    )
    found = []
    for each in wrong:
        call: dict[str, Any] = {"prompt": prompt, "new_tokens": 3, **each}
        found.append(refusal(partial(generate, model, **call)))
    return [*found, torch.get_num_threads()]


def _command() -> object:
    """Exit statuses and numbers of the command; its words are free."""
    import contextlib
    import io
    import re

    from reference_model.__main__ import main

    found = []
    for arguments in (
        "describe gpt2",
        "describe toy position=rope head=untied norm=rmsnorm",
        "describe huge",
        "describe toy position=there",
        "generate --tokens 6 --temperature 0 --prompt ROMEO",
        "generate --tokens 6 --seed 3 --top-k 5 --kv-bits 3",
        "generate --tokens 6 --no-cache --seed 1",
        "generate --tokens 0",
    ):
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            status = main(arguments.split())
        told = out.getvalue()
        kept = told if arguments.startswith("generate") else re.findall(r"[\d,]+", told)
        found.append([status, kept])
    return found


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, no cache": {"use_cache": False},
    "greedy, static": {"decoding": "static"},
    "greedy, rope, alike": {"choices": {"position": "rope", "norm": "rmsnorm"}},
    "greedy, alibi, no cache": {"choices": {"position": "alibi"}, "use_cache": False},
    "sampled": {"temperature": 1.0, "seed": 0},
    "sampled, seed 5": {"temperature": 1.0, "seed": 5},
    "sampled, cool, three likeliest": {"temperature": 0.5, "top_k": 3, "seed": 0},
    "sampled, hot, static": {"temperature": 3.0, "seed": 0, "decoding": "static"},
}
SINGLE = (
    *(
        Case(
            f"text, {name}",
            "B 2 and 1, T 1 to 34",
            "float32",
            "tokens that come out otherwise",
            partial(_texts, **dict(way)),
        )
        for name, way in WAYS.items()
    ),
    Case(
        "text, with ends",
        "B 3, 12 tokens",
        "float32",
        "an end that is missed, or padded wrongly",
        _with_ends,
    ),
    Case(
        "text, a cache of one's own",
        "B 2, 12 tokens",
        "float32",
        "a cache that does not fit and is used",
        _with_own_cache,
    ),
    Case(
        "choice of a token",
        "400 × 8 logits, 5 temperatures, 5 k",
        "float32",
        "a draw from another law",
        _choice_of_tokens,
    ),
    Case("text, refused", "12 requests", "float32", "what is wrong and passes", _refused),
    Case("the command", "8 command lines", "float32", "another answer or exit status", _command),
)
