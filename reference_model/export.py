"""A model as a GPT-2 folder in the Hugging Face layout, which transformers reads."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from reference_model.checkpoints import CONFIG_FILE, CONV1D, WEIGHTS_FILE
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.model import GPT
from reference_model.plain import plain_weights, stored

# What GPT-2 is: any other value of these choices has no place in its layout.
GPT2 = {
    "position": "learned",
    "embedding_scale": "none",
    "norm": "layernorm",
    "norm_placement": "pre",
    "mlp": "gelu",
    "qk_norm": False,
}


def save_huggingface(
    model: GPT, folder: Path, dtype: torch.dtype | None = None, eos_token_id: int | None = None
) -> None:
    """Write `config.json` and `model.safetensors`, which transformers reads to the same logits.

    Weights are cast to dtype, if one is given; merged adapters are part of them. Biases that the
    model does not have are written as zeros. ``eos_token_id`` is the token after which
    transformers' `generate` stops; the model does not know its own. Raises `UserError` for what
    GPT-2's layout cannot hold, by the choice's name, and as `checkpoints.save` does.
    """
    config, weights = plain_weights(model)
    fields = huggingface_fields(config)
    if eos_token_id is not None and not 0 <= eos_token_id < config.vocab_size:
        raise UserError(
            f"eos_token_id={eos_token_id!r} is no token of the model; "
            f"use one of 0 … {config.vocab_size - 1}, or None"
        )
    if dtype is None:  # transformers reads all weights in the one that the configuration names
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in weights.values()))
    tensors = {}
    for name, tensor in _with_biases(weights).items():
        turned = tensor.T if name.endswith(CONV1D) else tensor
        there = name if name == "lm_head.weight" else f"transformer.{name}"
        tensors[there] = stored(name, turned, dtype)
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


def huggingface_fields(config: GPTConfig) -> dict[str, Any]:
    """What `config.json` says of a model's shape. Raises `UserError` for what is no GPT-2."""
    heads = {"n_kv_head": config.n_head, "d_head": config.n_embd // config.n_head}
    for name, value in {**GPT2, **heads}.items():
        if getattr(config, name) != value:
            raise UserError(
                f"GPT-2's layout cannot store {name}={getattr(config, name)!r}, only {value!r}; "
                "use checkpoints.save, which writes this project's own layout"
            )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.d_mlp,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": config.head == "tied",
    }


def _with_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With zeros where linears and norms have no bias: GPT-2's always have one."""
    found = dict(weights)
    for name, weight in weights.items():
        bias = f"{name.removesuffix('.weight')}.bias"
        if name.startswith(("h.", "ln_f.")) and name.endswith(".weight") and bias not in weights:
            found[bias] = weight.new_zeros(len(weight))
    return found
