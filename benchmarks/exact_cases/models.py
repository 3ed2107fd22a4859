"""Small models for cases: odd sizes, three heads, and weights that no draw decides."""

from __future__ import annotations

import zlib
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from benchmarks.suite.workloads import check_choices, of_this_commit, start

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reference_model.model import GPT

# Nothing is a power of two, so that what only holds for those shows.
SIZES: dict[str, int] = {
    "vocab_size": 61,
    "context_length": 33,
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 42,
}


@of_this_commit()
def small_model(dtype: str = "float32", **choices: Any) -> GPT:
    """A model of `SIZES` in evaluation mode, filled by `fill`; skipped without these choices."""
    start()
    import torch

    from reference_model.config import GPTConfig
    from reference_model.model import GPT

    check_choices(choices)
    model = GPT(GPTConfig(**{**SIZES, **choices})).eval()
    fill(model)
    return model.to(getattr(torch, dtype))


def chosen(config: Any) -> dict[str, Any]:
    """Fields that are not as by default and follow no other: one that is new changes nothing."""
    given = config.given() if hasattr(config, "given") else asdict(config)
    defaults = {each.name: each.default for each in fields(config)}
    return {name: value for name, value in given.items() if value != defaults[name]}


def fill(module: nn.Module) -> None:
    """Give every parameter numbers that depend on its name alone.

    Matrices are larger than at a start, so that a change of attention shows in the logits; biases
    are not 0 and norms are not 1, so that one that is left out shows, too.
    """
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = normal(name, *parameter.shape)
            if parameter.ndim > 1:
                drawn = drawn * 2 / parameter.shape[-1] ** 0.5
            else:
                drawn = 0.2 * drawn + (1.0 if name.endswith("weight") else 0.0)
            parameter.copy_(drawn)


def normal(name: str, *shape: int) -> Tensor:
    """Normal numbers in float32 that belong to a name."""
    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(*shape, generator=generator)


def tokens_of(model: GPT, batch_size: int, length: int) -> Tensor:
    """(B, T), no row like another."""
    import torch

    row = torch.arange(length)[None] * 37 + torch.arange(batch_size)[:, None] * 11 + 5
    return row % model.config.vocab_size
