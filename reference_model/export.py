"""A model as a folder in the Hugging Face layout, of GPT-2 or of the Llama type."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from reference_model.checkpoints import CONFIG_FILE, WEIGHTS_FILE
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.families import gpt2, llama
from reference_model.families.family import Family
from reference_model.files import write_whole
from reference_model.model import GPT
from reference_model.plain import plain_weights, stored


def save_huggingface(
    model: GPT, folder: Path, dtype: torch.dtype | None = None, eos_token_id: int | None = None
) -> None:
    """Write `config.json` and `model.safetensors`, which transformers reads to the same logits.

    Weights are cast to dtype, if one is given; merged adapters are part of them. A model with
    RMSNorm becomes a Llama, Qwen2 or Qwen3, any other a GPT-2, where biases that it does not have
    are written as zeros. ``eos_token_id`` is the token after which transformers' `generate` stops;
    the model does not know its own. Raises `UserError` for what that layout cannot hold, by the
    choice's name, and as `checkpoints.save` does.
    """
    config, weights = plain_weights(model)
    family = family_for(config)
    fields = family.fields(config)
    if eos_token_id is not None and not 0 <= eos_token_id < config.vocab_size:
        raise UserError(
            f"eos_token_id={eos_token_id!r} is no token of the model; "
            f"use one of 0 … {config.vocab_size - 1}, or None"
        )
    if dtype is None:  # transformers reads all weights in the one that the configuration names
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in weights.values()))
    tensors = {}
    held = _with_biases(weights) if family is gpt2.FAMILY else weights
    for name, tensor in held.items():
        sources = family.sources(name, config)
        parts = tensor.split([source.count or len(tensor) for source in sources])
        for source, part in zip(sources, parts, strict=True):
            turned = part.T if source.transposed else part
            tensors[family.full_name(source)] = stored(name, turned, dtype)
    # Tokens that are left out would be GPT-2's own 50256, whatever the vocabulary.
    fields |= {"bos_token_id": None, "eos_token_id": eos_token_id}
    fields |= {"dtype": str(dtype).removeprefix("torch.")}
    write_whole(
        folder,
        {
            WEIGHTS_FILE: safetensors.torch.save(tensors, {"format": "pt"}),
            CONFIG_FILE: (json.dumps(fields, indent=2) + "\n").encode(),
        },
    )


def family_for(config: GPTConfig) -> Family:
    """The one whose layout is nearest: the Llama type's where norms are RMSNorm, else GPT-2's."""
    return llama.FAMILY if config.norm == "rmsnorm" else gpt2.FAMILY


def _with_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With zeros where linears and norms have no bias: GPT-2's always have one."""
    found = dict(weights)
    for name, weight in weights.items():
        bias = f"{name.removesuffix('.weight')}.bias"
        if name.startswith(("h.", "ln_f.")) and name.endswith(".weight") and bias not in weights:
            found[bias] = weight.new_zeros(len(weight))
    return found
