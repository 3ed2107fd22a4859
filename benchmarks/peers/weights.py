"""What all peers share: the weights, the prompt, and how a token is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

import torch

from benchmarks.subjects.built import Model, ModelConfig

Step = tuple[int, float]  # a token, and the seconds from the call until it was there
Run = Callable[[list[int], int], list[Step]]
SEED = 0


def random_model(config: ModelConfig) -> Model:
    """A GPT-2 with random weights, large enough that it does not repeat one token."""
    torch.manual_seed(SEED)
    model = Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model


def prompt(config: ModelConfig, tokens: int) -> list[int]:
    """Random ids, the same for everybody."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(config.vocab_size, (tokens,), generator=generator).tolist()


def timed(tokens: Iterable[int]) -> list[Step]:
    start = perf_counter()
    return [(token, perf_counter() - start) for token in tokens]
