"""A model filled with the tensors that a folder or a file holds, piece by piece.

Beside the model, filling takes the memory of a piece. Every tensor is used once, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from reference_model.config import GPTConfig
from reference_model.errors import UserError, notice
from reference_model.families.family import Source
from reference_model.model import GPT
from reference_model.reading import shown

MOST_LAYERS = 1000  # a name takes no room in a file, and seconds to build from some thousands on
WTE, HEAD = "wte.weight", "lm_head.weight"


class Stored(Protocol):
    """A tensor of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, values), a piece at a time, in ``dtype``.

        Raises `UserError` for values that are not finite.
        """


@dataclass(frozen=True)
class Weights:
    """Tensors that a folder or a file holds, by their own names there, and where each of ours lies.

    ``settings``: what says which tensors there should be; ``layers``: before a layer's number.
    """

    place: Path
    settings: str
    entries: Mapping[str, Stored]
    layers: str
    sources: Callable[[str], tuple[Source, ...]]

    def name(self, ours: str) -> str:
        """Of a tensor that lies whole."""
        (source,) = self.sources(ours)
        return source.name

    def pieces(
        self, ours: str, rows: int, dtype: torch.dtype
    ) -> Iterator[tuple[slice, bool, Tensor]]:
        """Yield (rows, transposed, values): pieces of a tensor of ours.

        ``rows`` index our rows, or our columns where it is transposed.
        """
        start = 0
        for source in self.sources(ours):
            for at, piece in self.entries[source.name].pieces(dtype):
                rows_of_ours = slice(start + at.start, start + at.start + len(piece))
                yield rows_of_ours, source.transposed, piece
            start += rows if source.count is None else source.count


@torch.no_grad()
def load_weights(config: GPTConfig, weights: Weights, dtype: torch.dtype) -> GPT:
    """The model of a configuration, in evaluation mode: all tensors are checked before any is read.

    A head that differs from the embedding is kept, also where the configuration ties them, which is
    told. Raises `UserError` for missing, unknown and wrongly shaped tensors, by their names.
    """
    _check(config, weights)
    wte, head = weights.name(WTE), weights.name(HEAD)
    both = {wte, head} <= weights.entries.keys()
    if config.head == "tied" and both and not _same(weights.entries, wte, head, dtype):
        notice(
            f"{weights.place} holds an {head} that differs from {wte}, but its {weights.settings} "
            "ties them; both are kept, and the head is untied"
        )
        config = config.replace(head="untied")
    model = _without_memory(config).to(dtype).to_empty(device="cpu")
    if config.head == "tied":
        model.lm_head.weight = model.wte.weight
    for name, parameter in model.named_parameters():  # a tied head once, as the embedding
        ours = HEAD if name == WTE and wte not in weights.entries else name
        for at, transposed, piece in weights.pieces(ours, len(parameter), dtype):
            (parameter.T if transposed else parameter)[at] = piece
    return model.requires_grad_(True).eval()


def _same(entries: Mapping[str, Stored], one: str, other: str, dtype: torch.dtype) -> bool:
    """Whether two tensors of one shape hold the same numbers."""
    pairs = zip(entries[one].pieces(dtype), entries[other].pieces(dtype), strict=True)
    return all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def _without_memory(config: GPTConfig) -> GPT:
    with torch.device("meta"):  # draws no random weights only to throw them away
        return GPT(config)


def _tensors(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"


def _check(config: GPTConfig, weights: Weights) -> None:
    """Raise `UserError` for tensors that are not those that the configuration asks for.

    What sizes the model is compared with the files first: a configuration can ask for more than any
    machine holds.
    """
    path, entries = weights.place, weights.entries
    number = re.compile(rf"{re.escape(weights.layers)}(\d+)\.")
    layers = {match[1] for name in entries if (match := number.match(name))}
    if config.n_layer != len(layers):
        raise UserError(
            f"{path} has {len(layers)} layers, its {weights.settings} asks for {config.n_layer}; "
            "use weights and configuration of one model"
        )
    if config.n_layer > MOST_LAYERS:
        raise UserError(f"{path} has {config.n_layer:,} layers; use at most {MOST_LAYERS:,}")
    rows = {WTE: config.vocab_size, HEAD: config.vocab_size}
    if config.position == "learned":
        rows["wpe.weight"] = config.context_length
    tied = weights.name(WTE), weights.name(HEAD)
    one_is_enough = config.head == "tied" and any(name in entries for name in tied)

    def compare(ours: dict[str, tuple[int, ...]]) -> None:
        expected = {
            source.name: (source, (source.count or shape[0], *shape[1:]))
            for name, shape in ours.items()
            for source in weights.sources(name)
        }
        missing = sorted(expected.keys() - entries)
        if one_is_enough:
            missing = [name for name in missing if name not in tied]
        if missing:
            raise UserError(
                f"{path} lacks {_tensors(missing)} that its {weights.settings} asks for, such "
                f"as {missing[0]}; use weights and configuration of one model"
            )
        for name, (source, asked) in expected.items():
            found = entries[name].shape if name in entries else asked
            found = found[::-1] if source.transposed and name in entries else found
            if found != asked:
                raise UserError(
                    f"{path} has {name} of shape {found}, its {weights.settings} asks for "
                    f"{asked}; use weights and configuration of one model"
                )

    compare({name: (count, config.n_embd) for name, count in rows.items()})
    shapes = {n: tuple(weight.shape) for n, weight in _without_memory(config).state_dict().items()}
    compare(shapes)
    known = {source.name for name in shapes for source in weights.sources(name)}
    unknown = sorted(entries.keys() - known)
    if unknown:
        raise UserError(
            f"{path} has {_tensors(unknown)} that its {weights.settings} has no place for, such "
            f"as {shown(unknown[0])}; use weights and configuration of one model"
        )
