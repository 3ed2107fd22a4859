"""A model by its name, with its tokenizer: the shipped one, a folder, a GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from reference_model import checkpoints, published
from reference_model.errors import UserError
from reference_model.families.decoding import read_ends
from reference_model.model import GPT
from reference_model.reading import read_json
from reference_model.tokenizer_file import load_tokenizer

REFERENCE = "reference"


@dataclass(frozen=True)
class OpenedModel:
    """``place``: for messages; ``find_ends`` gives the tokens that end a text.

    It raises `UserError` for what the files ask of decoding and is not done here.
    """

    place: Path
    model: GPT
    tokenizer: Tokenizer
    find_ends: Callable[[], tuple[int, ...]]


def open_model(name: str | Path, dtype: torch.dtype = torch.float32) -> OpenedModel:
    """``reference``, ``smollm2``, a folder in our layout or Hugging Face's, or a file .gguf.

    SmolLM2 is fetched once. Raises `UserError` where there is no such model, for a family or a
    setting that is not known, and where the tokenizer has more tokens than the model.
    """
    if name == published.SMOLLM2.name:
        place = published.path_of(published.SMOLLM2)
    else:
        place = checkpoints.REFERENCE_FOLDER if name == REFERENCE else Path(name)
    if place.suffix == ".gguf":
        opened = _gguf(place, dtype)
    elif not place.is_dir():
        raise UserError(
            f"there is no model {str(name)!r}; use {REFERENCE}, {published.SMOLLM2.name}, a folder "
            "with config.json and model.safetensors, or a .gguf file"
        )
    else:
        ours = {"n_layer", "position"} <= read_json(place / checkpoints.CONFIG_FILE).keys()
        opened = of_folder(place, checkpoints.load if ours else checkpoints.load_huggingface, dtype)
    known, size = opened.tokenizer.get_vocab_size(), opened.model.config.vocab_size
    if known > size:
        raise UserError(
            f"{place} has a tokenizer of {known:,} tokens for a model of {size:,}; use its own"
        )
    return opened


def of_folder(
    folder: Path,
    load: Callable[[Path, torch.dtype], GPT],
    dtype: torch.dtype = torch.float32,
) -> OpenedModel:
    """The model of a folder, by one way of reading it."""
    return OpenedModel(
        folder, load(folder, dtype), load_tokenizer(folder), partial(read_ends, folder)
    )


def _gguf(path: Path, dtype: torch.dtype) -> OpenedModel:
    from reference_model.families.gguf import load_gguf
    from reference_model.families.gguf_tokenizer import ends_of, tokenizer_of
    from reference_model.gguf_file import read_gguf

    metadata, _ = read_gguf(path)
    tokenizer = tokenizer_of(metadata, path)  # before anything long is done
    return OpenedModel(path, load_gguf(path, dtype), tokenizer, partial(ends_of, metadata, path))
