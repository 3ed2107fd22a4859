"""Weights in and out: our own folders, those of known families, the shipped checkpoint.

Each folder holds `config.json` and `model.safetensors`, or safetensors shards and their index.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer

from reference_model.config import checked
from reference_model.errors import UserError
from reference_model.families import gpt2, llama
from reference_model.families.family import Family, Source
from reference_model.files import write_whole
from reference_model.filling import Weights, load_weights
from reference_model.model import GPT
from reference_model.plain import plain_weights, stored
from reference_model.reading import quoted, read_json
from reference_model.tensor_files import WEIGHTS_FILE as WEIGHTS_FILE
from reference_model.tensor_files import Names, read_folder
from reference_model.tokenizer_file import load_tokenizer as load_tokenizer

REFERENCE_FOLDER = Path(__file__).with_name("checkpoint")

CONFIG_FILE = "config.json"

FAMILIES = (gpt2.FAMILY, llama.FAMILY)
SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd")


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
    own = Weights(folder, CONFIG_FILE, entries, "h.", lambda name: (Source(name),))
    return load_weights(config, own, dtype)


def load_huggingface(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """The model of a local folder in the Hugging Face layout, of one of `FAMILIES`.

    Tells and raises as `load` does, and for a setting that is not known, by its name.
    """
    source = folder / CONFIG_FILE
    fields = read_json(source)
    family = family_of(fields, source)
    config = family.config(fields, source)
    entries = read_folder(folder, family.names)

    def sources(name: str) -> tuple[Source, ...]:
        return family.sources(name, config)

    return load_weights(
        config, Weights(folder, CONFIG_FILE, entries, family.layers, sources), dtype
    )


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
