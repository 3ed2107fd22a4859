"""The plays as tokens: whole splits, and batches of shuffled windows."""

from __future__ import annotations

import functools

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.data.assets import Split, play_texts
from benchmarks.instruments.windows import Windows, spread, windows_of
from reference_model.checkpoints import reference_tokenizer
from reference_model.training import Batches


def joined(split: Split) -> str:
    """All plays of a split, one after the other."""
    return "\n".join(play_texts(split).values())


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """Token ids (N,) int64."""
    return torch.tensor(tokenizer.encode(text).ids)


@functools.cache
def reference_tokens(split: Split) -> Tensor:
    """Token ids (N,) int64 of all plays of a split, in the vocabulary of the checkpoint."""
    return encode(reference_tokenizer(), joined(split))


@functools.cache
def _all_windows(split: Split, window: int) -> Windows:
    plays = play_texts(split).values()
    texts = [encode(reference_tokenizer(), play) for play in plays]
    return windows_of(texts, window, f"the text of {len(texts)} plays")


def play_windows(split: Split, window: int, count: int | None = None, seed: int = 0) -> Windows:
    """``count`` windows of so many tokens, evenly from all plays of a split; None: all of them.

    Intervals over them speak of more text like that of these plays, in the same shares: stretches
    of text are what is independent, whether some windows were read or all. They do not speak of
    other plays, which may differ by more than that (INT8 weights per tensor cost −0.0006, 0.0001
    and 0.0034 nats a token by play): three observations would leave two degrees of freedom.
    """
    return spread(_all_windows(split, window), count, seed)


def shuffled_windows(tokens: Tensor, window: int, batch_size: int, seed: int) -> Batches:
    """Batches (B, window + 1): each epoch cuts the text at another offset and shuffles the pieces.

    So every token is seen once an epoch, and never twice in the same place.
    """
    count = (len(tokens) - window - 1) // window
    per_epoch = count // batch_size

    def batch(step: int) -> Tensor:
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        offset = int(torch.randint(window, (), generator=generator))
        order = torch.randperm(count, generator=generator)
        chosen = order[position * batch_size : (position + 1) * batch_size]
        return tokens[offset + chosen[:, None] * window + torch.arange(window + 1)]

    return batch
