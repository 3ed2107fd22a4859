"""Folders of models: what transformers makes of them is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model.__main__ import main
from reference_model.checkpoints import load_huggingface
from tests.fuzz.commands import call
from tests.fuzz.folders import (
    change_any_json,
    change_bytes,
    compare,
    edit,
    random_gpt2,
    trained_tokenizer,
)
from tests.fuzz.forked import Attempt

CONFIG_CHANGES: tuple[dict[str, Any], ...] = (
    {"hidden_size": 16, "n_embd": None},
    {"num_hidden_layers": 1},
    {"num_attention_heads": 4},
    {"num_attention_heads": 2},
    {"max_position_embeddings": 8},
    {"n_layer": 10**9},
    {"n_embd": 2**40},
    {"n_head": 10**12},
    {"n_inner": 48},
    {"vocab_size": 2**62},
    {"n_positions": 10**15},
    {"layer_norm_epsilon": 0.5},
    {"layer_norm_eps": 0.5},
    {"tie_word_embeddings": False},
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True},
    {"reorder_and_upcast_attn": True},
    {"add_cross_attention": True},
    {"activation_function": "relu"},
    {"model_type": "gpt_neo"},
    {"quantization_config": {"load_in_8bit": True}},
    {"rope_parameters": {"rope_type": "linear"}},
    {"eos_token_id": 7},
    {"eos_token_id": [7, 9]},
    {"attn_pdrop": 0.9},
    {"torch_dtype": "bfloat16"},
    {"dtype": "float16"},
    {"architectures": ["GPT2DoubleHeadsModel"]},
)


class Models:
    """200 folders of GPT-2, tied and untied."""

    name, cases = "model folders", 200

    def __init__(self, folder: Path) -> None:
        self.folders = [folder / "tied", folder / "untied"]
        tokenizer = trained_tokenizer()
        for place, tied in zip(self.folders, (True, False), strict=True):
            model = random_gpt2(tie_word_embeddings=tied)
            model.save_pretrained(place)
            tokenizer.save(str(place / "tokenizer.json"))

    def __call__(self, attempt: Attempt) -> None:
        here = attempt.folder / "model"
        shutil.copytree(attempt.random.choice(self.folders), here)
        changes = (
            _change_tensors,
            _change_tensors,
            _change_config,
            change_any_json,
            change_bytes,
        )
        attempt.what(attempt.random.choice(changes)(here, attempt.random))
        call(
            attempt,
            main,
            ["generate", "--huggingface", str(here), "--prompt", "To", "--tokens", "3"],
        )
        compare(attempt, lambda: load_huggingface(here), lambda: _their_model(here))


def _their_model(folder: Path) -> Callable[[Tensor], Tensor] | None:
    """None where they would draw what is missing."""
    from transformers import GPT2LMHeadModel

    model, info = GPT2LMHeadModel.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        return None  # ours, which reads it, is compared with nothing
    model.eval()
    return lambda tokens: model(tokens).logits


def _change_config(folder: Path, random: Random) -> str:
    changes = random.choice(CONFIG_CHANGES)
    edit(folder / "config.json", changes)
    return f"config.json with {changes}"


def _change_tensors(folder: Path, random: Random) -> str:
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = random.choice(sorted(tensors))
    bare = {name: name.removeprefix("transformer.") for name in tensors}
    way = random.choice((
        "drop", "no prefix", "double prefix", "both spellings", "an equal head", "another head",
        "only the head", "NaN", "another shape", "half", "one bfloat16", "mask", "an extra",
        "scalar", "transposed", "integers", "layer beyond",
    ))  # fmt: skip
    if way == "drop":
        del tensors[name]
    elif way == "no prefix":
        tensors = {bare[name]: tensor for name, tensor in tensors.items()}
    elif way == "double prefix":
        tensors = {f"transformer.{name}": tensor for name, tensor in tensors.items()}
    elif way == "both spellings":
        tensors[bare[name]] = tensors[name] + random.choice((0.0, 1.0))
    elif way in ("an equal head", "another head"):
        wte = tensors["transformer.wte.weight"]
        tensors["lm_head.weight"] = wte.clone() if way == "an equal head" else wte.flip(0)
    elif way == "only the head":
        tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    elif way == "NaN":
        tensors[name].view(-1)[0] = random.choice((float("nan"), float("inf")))
    elif way == "another shape":
        tensors[name] = tensors[name][..., :-1].contiguous()
    elif way == "half":
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    elif way == "one bfloat16":
        tensors[name] = tensors[name].bfloat16()
    elif way == "mask":
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
        tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    elif way == "an extra":
        tensors["transformer.extra.weight"] = torch.ones(2)
    elif way == "scalar":
        tensors[name] = torch.tensor(1.0)
    elif way == "transposed":
        tensors[name] = tensors[name].mT.contiguous() if tensors[name].ndim == 2 else tensors[name]
    elif way == "integers":
        tensors[name] = tensors[name].mul(10).to(torch.int8)
    else:
        tensors["transformer.h.2.ln_1.weight"] = torch.ones(16)
    save_file(tensors, path, metadata={"format": "pt"})
    return f"tensors: {way} ({name})"
