"""Autoregressive decoding, greedy or sampled, with and without a KV cache."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from reference_model.cache import KVCache, StaticKVCache
from reference_model.config import LARGEST, GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.reading import quoted

# eager: the cache hands out what it holds, so that shapes grow by a token each step.
# static: it hands out all its room, masked: the same shapes each step.
# compiled: static, and the step of one token goes through torch.compile.
Decoding = Literal["eager", "static", "compiled"]
Step = Callable[[GPT, Tensor, KVCache | None], Tensor]
STATIC_ROOM = 256  # static caches come in multiples of this, so that few shapes are compiled


@torch.inference_mode()
def generate(
    model: GPT,
    prompt: Tensor,
    new_tokens: int,
    *,
    use_cache: bool = True,
    temperature: float = 0.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    decoding: Decoding = "eager",
    cache: KVCache | None = None,
    ends: Sequence[int] = (),
    pad: int | None = None,
) -> Tensor:
    """Continue prompt (B, T) int64 by new_tokens → (B, T + new_tokens).

    Temperature 0 is greedy; above 0 it samples, from the top_k likeliest tokens if given. With a
    cache, the prompt is prefilled once and each step computes one token; without, each step
    computes the whole sequence anew (but the head only for its last token). See `Decoding`. A
    ``cache`` of your own, empty, is used instead of a plain one: a `QuantizedKVCache`, say.

    A sequence that wrote one of the tokens ``ends`` goes on with ``pad`` (the first end, if none is
    given), as in transformers. With all of them ended there are fewer new tokens.
    """
    steps = stream(
        model,
        prompt,
        new_tokens,
        use_cache=use_cache,
        temperature=temperature,
        top_k=top_k,
        generator=generator,
        decoding=decoding,
        cache=cache,
        ends=ends,
        pad=pad,
    )
    return torch.cat([prompt, torch.stack(list(steps), dim=1)], dim=1)


@torch.inference_mode()
def stream(
    model: GPT,
    prompt: Tensor,
    new_tokens: int,
    *,
    use_cache: bool = True,
    temperature: float = 0.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    decoding: Decoding = "eager",
    cache: KVCache | None = None,
    ends: Sequence[int] = (),
    pad: int | None = None,
) -> Iterator[Tensor]:
    """The tokens of `generate`, each (B,) int64, as soon as they are there.

    They stay on the device of the model: nothing waits for them but who reads them, unless there
    are ``ends`` to look for.
    """
    check_request(model.config, prompt, new_tokens, temperature, top_k, use_cache, decoding)
    ended = _Ended(model.config, prompt, ends, pad) if ends else None
    if cache is not None:
        _check_cache(cache, prompt, new_tokens, use_cache, decoding)
    batch_size, length = prompt.shape
    # Without a cache each step reads all of it; allocated once, no step copies what is there.
    sequence = prompt.new_empty(batch_size, length + new_tokens)
    sequence[:, :length] = prompt
    step: Step = _step
    if use_cache and cache is None:
        weight = model.wte.weight
        # The last token is only written down, never fed back.
        capacity = length + new_tokens - 1
        if decoding == "eager":
            cache = KVCache(model.config, batch_size, capacity, weight.dtype, weight.device)
        else:
            capacity = math.ceil(capacity / STATIC_ROOM) * STATIC_ROOM
            cache = StaticKVCache(model.config, batch_size, capacity, weight.dtype, weight.device)
            if decoding == "compiled":
                cache.keep_address()
                step = _compiled_step()
    logits = _prefill(model, prompt, cache)
    for end in range(length, length + new_tokens):
        token = choose(logits, temperature, top_k, generator)
        if ended is not None:
            token = ended.padded(token)
        sequence[:, end] = token
        yield token
        if ended is not None and ended.all:
            return
        if end + 1 < length + new_tokens:
            read = sequence[:, : end + 1] if cache is None else token[:, None]
            logits = step(model, read, cache)


class _Ended:
    """Which sequences of a batch have written an end."""

    def __init__(
        self, config: GPTConfig, prompt: Tensor, ends: Sequence[int], pad: int | None
    ) -> None:
        known = range(config.vocab_size)
        # An end that the model cannot write never comes, and could not be read as padding.
        self.ends = prompt.new_tensor([end for end in ends if end in known])
        if pad is not None and pad not in known:
            raise UserError(f"pad={pad} is no token; the model knows 0 … {config.vocab_size - 1}")
        self.pad = int(self.ends[0]) if pad is None and len(self.ends) else pad
        self.which = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)

    def padded(self, token: Tensor) -> Tensor:
        """The tokens (B,) of one step, with padding where the sequence has ended before."""
        if self.pad is not None:
            token = token.masked_fill(self.which, self.pad)
        self.which = self.which | torch.isin(token, self.ends)
        return token

    @property
    def all(self) -> bool:
        """Whether every sequence has ended."""
        return bool(self.which.all())


def _step(model: GPT, tokens: Tensor, cache: KVCache | None) -> Tensor:
    """Logits (B, V) of the token after these (B, T)."""
    return model(tokens, cache, last_only=True)[:, -1]


def _prefill(model: GPT, prompt: Tensor, cache: KVCache | None) -> Tensor:
    """The same of a prompt, which a cache may want in pieces."""
    at_once = (cache and cache.prompt_at_once) or prompt.shape[1]
    *first, last = prompt.split(at_once, dim=1)
    for piece in first:
        model(piece, cache, last_only=True)
    return _step(model, last, cache)


@functools.cache
def _compiled_step() -> Step:
    """One token's step, compiled once per model and shape; with CUDA graphs where there is CUDA."""
    compiled = torch.compile(_step, dynamic=False, fullgraph=True, mode="reduce-overhead")

    def step(model: GPT, tokens: Tensor, cache: KVCache | None) -> Tensor:
        try:
            return compiled(model, tokens, cache)
        except torch._dynamo.exc.Unsupported as error:  # a rewrite, such as FBGEMM's packed weights
            reason = str(error).splitlines()[0]
            raise UserError(
                f"torch.compile cannot take this model ({reason}); use decoding='static'"
            ) from None
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if "compiler" not in str(error):
                raise
            raise UserError(
                "torch.compile needs a C++ compiler and finds none that works; install one "
                "(Debian: apt install g++), or use decoding='static'"
            ) from None

    return step


def choose(
    logits: Tensor,
    temperature: float = 0.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The next token of each sequence: logits (B, V) → (B,) int64."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    # The likeliest becomes 0 first, and float64 divides, which can hold any temperature above 0:
    # near 0 the others may go to −∞, but nothing to NaN.
    below = (logits - logits.amax(dim=-1, keepdim=True)).double()
    logits = (below / temperature).float()
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


def check_request(
    config: GPTConfig,
    prompt: Tensor,
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    use_cache: bool = True,
    decoding: Decoding = "eager",
) -> None:
    """Raise `UserError` for what `generate` cannot do."""
    if prompt.ndim != 2 or prompt.numel() == 0:
        raise UserError(
            f"the prompt has shape {tuple(prompt.shape)}; use (batch, time) with at least one token"
        )
    lowest, highest = int(prompt.min()), int(prompt.max())
    if lowest < 0 or highest >= config.vocab_size:
        raise UserError(
            f"the prompt holds token ids {lowest} … {highest}, the model knows 0 … "
            f"{config.vocab_size - 1}; encode it with the model's own tokenizer"
        )
    if not 1 <= new_tokens <= LARGEST:
        raise UserError(
            f"new_tokens={quoted(new_tokens)} cannot be written; use a whole number from 1 to 10^9"
        )
    length = prompt.shape[1] + new_tokens
    if config.position == "learned" and length - 1 > config.context_length:
        # The model would say so too, but only after all the work that can be done.
        raise UserError(
            f"position='learned' has {config.context_length} positions, received a prompt of "
            f"{prompt.shape[1]} tokens and {new_tokens} to follow; ask for fewer"
        )
    if not temperature >= 0:
        raise UserError(f"temperature={temperature} is negative; use 0 for greedy, or more")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k={top_k} leaves no token to sample; use a whole number ≥ 1")
    if decoding not in get_args(Decoding):
        raise UserError(
            f"unknown decoding={decoding!r}; use one of {', '.join(get_args(Decoding))}"
        )
    if decoding != "eager" and not use_cache:
        raise UserError(
            f"decoding={decoding!r} needs a cache, received use_cache=False; use decoding='eager'"
        )


def _check_cache(
    cache: KVCache, prompt: Tensor, new_tokens: int, use_cache: bool, decoding: Decoding
) -> None:
    if not use_cache or decoding != "eager":
        raise UserError(
            f"a cache was given, with use_cache={use_cache} and decoding={decoding!r}; "
            "use it with use_cache=True and decoding='eager'"
        )
    if cache.batch_size != len(prompt):
        raise UserError(
            f"the cache given is for {cache.batch_size} sequences, received {len(prompt)} prompts; "
            "build it for as many"
        )
    if cache.length:
        raise UserError(
            f"the cache given holds {cache.length} tokens already; give an empty one for a prompt"
        )
    needed = prompt.shape[1] + new_tokens - 1
    if cache.capacity < needed:
        # The cache would say so too, but only after all the work that can be done.
        raise UserError(
            f"the cache given has room for {cache.capacity} tokens, and {needed} are asked for; "
            "build it with a larger capacity"
        )
