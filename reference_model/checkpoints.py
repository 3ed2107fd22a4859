"""Weights in and out: our own folders, GPT-2 in the Hugging Face layout, the shipped checkpoint.

Each folder holds `config.json` and `model.safetensors`, or safetensors shards and their index.
"""

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer

from reference_model.config import GPTConfig, checked
from reference_model.errors import UserError, notice
from reference_model.files import write_whole
from reference_model.huggingface import config_from_huggingface
from reference_model.model import GPT
from reference_model.plain import plain_weights, stored
from reference_model.reading import read_json, shown
from reference_model.tensor_files import WEIGHTS_FILE as WEIGHTS_FILE
from reference_model.tensor_files import Entry, read_folder
from reference_model.tokenizer_file import load_tokenizer as load_tokenizer

REFERENCE_FOLDER = Path(__file__).with_name("checkpoint")

CONFIG_FILE = "config.json"

# Hugging Face's GPT-2 keeps these four as Conv1D, (in, out) where a linear has (out, in).
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd")
MOST_LAYERS = 1000  # a name takes no room in a file, and seconds to build from some thousands on
TIED = ("wte.weight", "lm_head.weight")


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
    return _fill(checked(fields, source), folder, dtype)


def load_huggingface(folder: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """GPT-2 from a local folder in the Hugging Face layout. Tells and raises as `load` does."""
    config = config_from_huggingface(read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)
    return _fill(config, folder, dtype, transposed=CONV1D)


def load_reference(dtype: torch.dtype = torch.float32) -> GPT:
    """The shipped checkpoint: a GPT-2 of 5.9 M parameters, trained on plays (see its card)."""
    return load(REFERENCE_FOLDER, dtype)


def reference_tokenizer() -> Tokenizer:
    """The byte-level BPE that the shipped checkpoint was trained with."""
    return load_tokenizer(REFERENCE_FOLDER)


def reference_card() -> dict[str, Any]:
    """The shipped checkpoint's card: data, recipe, tokens seen, losses."""
    return read_json(REFERENCE_FOLDER / "card.json")


def _fill(
    config: GPTConfig, folder: Path, dtype: torch.dtype, transposed: tuple[str, ...] = ()
) -> GPT:
    """The model of a configuration, with the weights of a folder: checked before any is read."""
    entries = read_folder(folder)
    _check(config, entries, folder, transposed)
    tensors = {}
    for name, entry in entries.items():
        tensor = entry.read(dtype)
        tensors[name] = tensor.T.contiguous() if name.endswith(transposed) else tensor
    if config.head == "tied":
        head = tensors.get("lm_head.weight")
        wte = tensors.setdefault("wte.weight", head)  # type: ignore[arg-type]
        if head is not None and not torch.equal(head, wte):
            notice(
                f"{folder} holds an lm_head.weight that differs from wte.weight, but its "
                f"{CONFIG_FILE} ties them; both are kept, and the head is untied"
            )
            config = config.replace(head="untied")
        else:
            tensors["lm_head.weight"] = wte
    model = _without_memory(config)
    model.load_state_dict(tensors, assign=True)
    if config.head == "tied":
        model.lm_head.weight = model.wte.weight
    return model.requires_grad_(True).eval()


def _without_memory(config: GPTConfig) -> GPT:
    with torch.device("meta"):  # draws no random weights only to throw them away
        return GPT(config)


def _check(
    config: GPTConfig, entries: dict[str, Entry], folder: Path, transposed: tuple[str, ...]
) -> None:
    """Raise `UserError` for tensors that are not those that the configuration asks for.

    What sizes the model is compared with the files first: a configuration can ask for more than any
    machine holds.
    """
    layers = {match[1] for name in entries if (match := re.match(r"h\.(\d+)\.", name))}
    if config.n_layer != len(layers):
        raise UserError(
            f"{folder} has {len(layers)} layers, its {CONFIG_FILE} asks for {config.n_layer}; "
            "use weights and configuration of one model"
        )
    if config.n_layer > MOST_LAYERS:
        raise UserError(f"{folder} has {config.n_layer:,} layers; use at most {MOST_LAYERS:,}")
    rows = {"wte.weight": config.vocab_size, "lm_head.weight": config.vocab_size}
    if config.position == "learned":
        rows["wpe.weight"] = config.context_length
    one_is_enough = config.head == "tied" and any(name in entries for name in TIED)

    def compare(expected: dict[str, tuple[int, ...]]) -> None:
        missing = sorted(expected.keys() - entries)
        if one_is_enough:
            missing = [name for name in missing if name not in TIED]
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} tensors that its {CONFIG_FILE} asks for, such as "
                f"{missing[0]}; use weights and configuration of one model"
            )
        for name, asked in expected.items():
            found = entries[name].shape if name in entries else asked
            found = found[::-1] if name.endswith(transposed) else found
            if found != asked:
                raise UserError(
                    f"{folder} has {name} of shape {found}, its {CONFIG_FILE} asks for "
                    f"{asked}; use weights and configuration of one model"
                )

    compare({name: (count, config.n_embd) for name, count in rows.items()})
    weights = _without_memory(config).state_dict()
    compare({name: tuple(weight.shape) for name, weight in weights.items()})
    unknown = sorted(entries.keys() - weights)
    if unknown:
        raise UserError(
            f"{folder} has {len(unknown)} tensors that its {CONFIG_FILE} has no place for, such as "
            f"{shown(unknown[0])}; use weights and configuration of one model"
        )
