"""Weights in and out: our own folders, those of known families, the shipped checkpoint.

Each folder holds `config.json` and `model.safetensors`, or safetensors shards and their index.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor

from reference_model.config import GPTConfig, checked
from reference_model.errors import UserError, notice
from reference_model.families import gpt2, llama
from reference_model.families.family import Family, Source
from reference_model.files import write_whole
from reference_model.model import GPT
from reference_model.plain import plain_weights, stored
from reference_model.reading import quoted, read_json, shown
from reference_model.tensor_files import WEIGHTS_FILE as WEIGHTS_FILE
from reference_model.tensor_files import Entry, Names, read_folder
from reference_model.tokenizer_file import load_tokenizer as load_tokenizer

REFERENCE_FOLDER = Path(__file__).with_name("checkpoint")

CONFIG_FILE = "config.json"

FAMILIES = (gpt2.FAMILY, llama.FAMILY)
SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd")
MOST_LAYERS = 1000  # a name takes no room in a file, and seconds to build from some thousands on
WTE, HEAD = "wte.weight", "lm_head.weight"


def save(model: GPT, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write config and weights (cast to dtype, if one is given); a tied head is stored once.

    Merged adapters are part of the weights. Raises `UserError` for what is no plain model, for
    weights that are not finite, and where the folder cannot be written; it then stays as it was.
    """
    config, weights = plain_weights(model)
    tensors = {name: stored(name, tensor, dtype) for name, tensor in weights.items()}
    fields = json.dumps(config.given(), indent=2) + "\n"
    write_whole(
        folder, {WEIGHTS_FILE: safetensors.torch.save(tensors), CONFIG_FILE: fields.encode()}
    )


def load(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """The model of a folder that `save` wrote, in evaluation mode.

    A head that differs from the embedding is kept, also where the configuration calls it tied: the
    model is then untied, which is told. Raises `UserError` for a missing or damaged file, for
    missing, unknown or wrongly shaped tensors and for different ones of one name, by that name.
    """
    source = folder / CONFIG_FILE
    fields = read_json(source)
    for name in SIZES:
        if name not in fields:  # the default is GPT-2 small's, and no weight tells of n_head
            raise UserError(f"{source} lacks {name}; write the folder again")
    config = checked(fields, source)
    entries = read_folder(folder, Names())
    return _fill(config, _Folder(folder, entries, "h.", lambda name: (Source(name),)), dtype)


def load_huggingface(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """The model of a local folder in the Hugging Face layout, of one of `FAMILIES`.

    Tells and raises as `load` does, and for a setting that is not known, by its name.
    """
    source = folder / CONFIG_FILE
    fields = read_json(source)
    family = family_of(fields, source)
    config = family.config(fields, source)
    entries = read_folder(folder, family.names)
    own = _Folder(folder, entries, family.layers, lambda name: family.sources(name, config))
    return _fill(config, own, dtype)


def family_of(fields: Mapping[str, Any], source: Path) -> Family:
    """Whose `config.json` it is, by its model_type; GPT-2's where it names none.

    `UserError` for one that is not known.
    """
    kind = fields.get("model_type", "gpt2")
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise UserError(
        f"{source} has model_type={quoted(kind)}, which the reference model cannot represent; "
        f"it knows {known}"
    )


def load_reference(dtype: torch.dtype = torch.float32) -> GPT:
    """The shipped checkpoint: a GPT-2 of 5.9 M parameters, trained on plays (see its card)."""
    return load(REFERENCE_FOLDER, dtype)


def reference_tokenizer() -> Tokenizer:
    """The byte-level BPE that the shipped checkpoint was trained with."""
    return load_tokenizer(REFERENCE_FOLDER)


def reference_card() -> dict[str, Any]:
    """The shipped checkpoint's card: data, recipe, tokens seen, losses."""
    return read_json(REFERENCE_FOLDER / "card.json")


@dataclass(frozen=True)
class _Folder:
    """Tensors that a folder holds, by their own names there, and where each of ours lies.

    ``layers``: before a layer's number.
    """

    folder: Path
    entries: Mapping[str, Entry]
    layers: str
    sources: Callable[[str], tuple[Source, ...]]

    def name(self, ours: str) -> str:
        """Of a tensor that lies whole."""
        (source,) = self.sources(ours)
        return source.name

    def pieces(
        self, ours: str, rows: int, dtype: torch.dtype
    ) -> Iterator[tuple[slice, bool, Tensor]]:
        """A tensor of ours, as much at a time as memory is spent on beside the model.

        Each with its rows of ours, or with columns where it lies transposed.
        """
        start = 0
        for source in self.sources(ours):
            for at, piece in self.entries[source.name].pieces(dtype):
                rows_of_ours = slice(start + at.start, start + at.start + len(piece))
                yield rows_of_ours, source.transposed, piece
            start += rows if source.count is None else source.count


@torch.no_grad()
def _fill(config: GPTConfig, folder: _Folder, dtype: torch.dtype) -> GPT:
    """The model of a configuration, with the weights of a folder: checked before any is read."""
    _check(config, folder)
    wte, head = folder.name(WTE), folder.name(HEAD)
    both = {wte, head} <= folder.entries.keys()
    if config.head == "tied" and both and not _same(folder.entries, wte, head, dtype):
        notice(
            f"{folder.folder} holds an {head} that differs from {wte}, but its {CONFIG_FILE} ties "
            "them; both are kept, and the head is untied"
        )
        config = config.replace(head="untied")
    model = _without_memory(config).to(dtype).to_empty(device="cpu")
    if config.head == "tied":
        model.lm_head.weight = model.wte.weight
    for name, parameter in model.named_parameters():  # a tied head once, as the embedding
        ours = HEAD if name == WTE and wte not in folder.entries else name
        for at, transposed, piece in folder.pieces(ours, len(parameter), dtype):
            (parameter.T if transposed else parameter)[at] = piece
    return model.requires_grad_(True).eval()


def _same(entries: Mapping[str, Entry], one: str, other: str, dtype: torch.dtype) -> bool:
    """Whether two tensors of one shape hold the same numbers."""
    pairs = zip(entries[one].pieces(dtype), entries[other].pieces(dtype), strict=True)
    return all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def _without_memory(config: GPTConfig) -> GPT:
    with torch.device("meta"):  # draws no random weights only to throw them away
        return GPT(config)


def _check(config: GPTConfig, folder: _Folder) -> None:
    """Raise `UserError` for tensors that are not those that the configuration asks for.

    What sizes the model is compared with the files first: a configuration can ask for more than any
    machine holds.
    """
    path, entries = folder.folder, folder.entries
    number = re.compile(rf"{re.escape(folder.layers)}(\d+)\.")
    layers = {match[1] for name in entries if (match := number.match(name))}
    if config.n_layer != len(layers):
        raise UserError(
            f"{path} has {len(layers)} layers, its {CONFIG_FILE} asks for {config.n_layer}; "
            "use weights and configuration of one model"
        )
    if config.n_layer > MOST_LAYERS:
        raise UserError(f"{path} has {config.n_layer:,} layers; use at most {MOST_LAYERS:,}")
    rows = {WTE: config.vocab_size, HEAD: config.vocab_size}
    if config.position == "learned":
        rows["wpe.weight"] = config.context_length
    tied = folder.name(WTE), folder.name(HEAD)
    one_is_enough = config.head == "tied" and any(name in entries for name in tied)

    def compare(ours: dict[str, tuple[int, ...]]) -> None:
        expected = {
            source.name: (source, (source.count or shape[0], *shape[1:]))
            for name, shape in ours.items()
            for source in folder.sources(name)
        }
        missing = sorted(expected.keys() - entries)
        if one_is_enough:
            missing = [name for name in missing if name not in tied]
        if missing:
            raise UserError(
                f"{path} lacks {len(missing)} tensors that its {CONFIG_FILE} asks for, such as "
                f"{missing[0]}; use weights and configuration of one model"
            )
        for name, (source, asked) in expected.items():
            found = entries[name].shape if name in entries else asked
            found = found[::-1] if source.transposed and name in entries else found
            if found != asked:
                raise UserError(
                    f"{path} has {name} of shape {found}, its {CONFIG_FILE} asks for "
                    f"{asked}; use weights and configuration of one model"
                )

    compare({name: (count, config.n_embd) for name, count in rows.items()})
    weights = {n: tuple(weight.shape) for n, weight in _without_memory(config).state_dict().items()}
    compare(weights)
    known = {source.name for name in weights for source in folder.sources(name)}
    unknown = sorted(entries.keys() - known)
    if unknown:
        raise UserError(
            f"{path} has {len(unknown)} tensors that its {CONFIG_FILE} has no place for, such as "
            f"{shown(unknown[0])}; use weights and configuration of one model"
        )
