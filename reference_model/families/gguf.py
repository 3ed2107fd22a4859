"""Models in GGUF files: the Llama type, as llama.cpp names its settings and tensors.

Every tensor is used once, every key is known or refused: what a reader passes over in silence, such
as scaled positions, changes the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reference_model.config import GPTConfig, checked
from reference_model.errors import UserError
from reference_model.families.family import OF_LLAMA, LlamaNames, Source
from reference_model.filling import Weights, load_weights
from reference_model.gguf_file import GGUFTensor, read_gguf
from reference_model.model import GPT
from reference_model.positions import rotary_angles
from reference_model.reading import quoted
from reference_model.settings import ANY, Known, check_settings

ARCHITECTURE = "general.architecture"
# Whether rows of queries and keys are permuted, as llama.cpp rotates those of this architecture.
ARCHITECTURES = {"llama": True, "qwen2": False, "qwen3": False}
SIZES = {
    "context_length": "context_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_embd": "embedding_length",
    "d_mlp": "feed_forward_length",
    "norm_epsilon": "attention.layer_norm_rms_epsilon",
}
HEADS = {"n_kv_head": "attention.head_count_kv", "d_head": "attention.key_length"}
_SCALINGS = {"none": "none", "linear": "interpolation", "yarn": "yarn"}
_OF_ARCHITECTURE: Known = {
    **dict.fromkeys((*SIZES.values(), *HEADS.values()), ANY),
    **dict.fromkeys(("attention.value_length", "rope.dimension_count", "vocab_size"), ANY),
    **dict.fromkeys(("rope.freq_base", "rope.scaling.type", "rope.scaling.factor"), ANY),
    **dict.fromkeys(("rope.scaling.original_context_length", "rope.scaling.finetuned"), ANY),
    "rope.scaling.attn_factor": (1.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
}
# Of the file, the conversion, the tokenizer and chats.
_WITHOUT_EFFECT = ("general.", "tokenizer.", "quantize.imatrix.", "split.", "mradermacher.")
EMBEDDING, HEAD, FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
NAMES = LlamaNames(
    layers="blk.",
    beside={"wte": "token_embd", "ln_f": "output_norm", "lm_head": "output"},
    within={
        "ln_1": "attn_norm",
        "attn.c_proj": "attn_output",
        "attn.q_norm": "attn_q_norm",
        "attn.k_norm": "attn_k_norm",
        "ln_2": "ffn_norm",
        "mlp.c_gate": "ffn_gate",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    },
    qkv=("attn_q", "attn_k", "attn_v"),
)
# Llama 3's, whose files hold what becomes of them and not themselves.
LLAMA3 = {"rope_original_context": 8192, "rope_low_turns": 1.0, "rope_high_turns": 4.0}


def load_gguf(path: Path, dtype: torch.dtype = torch.float32) -> GPT:
    """The model of a file, decoded to floating point, in evaluation mode.

    Raises `UserError` for what is no whole file, for a setting that we cannot represent or do not
    know, by its key, and for missing, unknown and wrongly shaped tensors, by their names.
    """
    metadata, tensors = read_gguf(path)
    config = config_of(metadata, tensors, path)
    entries = {name: tensor for name, tensor in tensors.items() if name != FACTORS}
    if ARCHITECTURES[metadata[ARCHITECTURE]]:
        entries = {name: _of_heads(tensor, config) for name, tensor in entries.items()}

    def where(name: str) -> tuple[Source, ...]:
        return NAMES.sources(name, config)

    return load_weights(config, Weights(path, "metadata", entries, NAMES.layers, where), dtype)


def _of_heads(tensor: GGUFTensor, config: GPTConfig) -> GGUFTensor:
    heads = {"attn_q": config.n_head, "attn_k": config.n_kv_head}
    count = heads.get(tensor.name.rpartition(".")[0].rpartition(".")[2])
    fits = count is not None and tensor.shape[0] == count * config.d_head
    return replace(tensor, permuted_heads=count) if fits else tensor


def config_of(
    metadata: Mapping[str, Any], tensors: Mapping[str, GGUFTensor], path: Path
) -> GPTConfig:
    """Our configuration of a file; biases, a head and norms of queries are there if tensors are."""
    kind = metadata.get(ARCHITECTURE)
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UserError(
            f"{path} has {ARCHITECTURE}={quoted(kind)}, which the reference model cannot "
            f"represent; it knows {', '.join(ARCHITECTURES)}"
        )
    fields = {
        name: value for name, value in metadata.items() if not name.startswith(_WITHOUT_EFFECT)
    }
    known = {f"{kind}.{name}": allowed for name, allowed in _OF_ARCHITECTURE.items()}
    check_settings(fields, known, path)
    for name in (*(f"{kind}.{size}" for size in SIZES.values()), EMBEDDING):
        if name not in tensors and name not in fields:
            raise UserError(f"{path} lacks {name}; fetch it again")
    told = {name.removeprefix(f"{kind}."): value for name, value in fields.items()}

    def has(name: str) -> bool:
        return f"blk.0.{name}" in tensors

    config = checked(
        {
            **{ours: told[theirs] for ours, theirs in SIZES.items()},
            **{ours: told.get(theirs) for ours, theirs in HEADS.items()},
            **_rotary(told, path),
            **OF_LLAMA,
            "vocab_size": tensors[EMBEDDING].shape[0],
            "head": "untied" if HEAD in tensors else "tied",
            "qk_norm": has("attn_q_norm.weight"),
            "bias": False,
            "qkv_bias": has("attn_q.bias"),
            "attention_output_bias": has("attn_output.bias"),
            "mlp_bias": has("ffn_down.bias"),
        },
        path,
    )
    _check_same(told, config, path)
    return _with_factors(config, tensors[FACTORS], path) if FACTORS in tensors else config


def _rotary(told: Mapping[str, Any], path: Path) -> dict[str, Any]:
    # llama.cpp takes a factor without a type for interpolation.
    kind = told.get("rope.scaling.type", "linear" if "rope.scaling.factor" in told else "none")
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise UserError(
            f"{path} has rope.scaling.type={quoted(kind)}, which the reference model cannot "
            f"represent; it knows {', '.join(_SCALINGS)}"
        )
    found = {"rope_base": told.get("rope.freq_base", 10_000.0), "rope_scaling": _SCALINGS[kind]}
    if kind != "none":
        if "rope.scaling.factor" not in told:
            raise UserError(
                f"{path} has rope.scaling.type={kind!r} without rope.scaling.factor; fetch it again"
            )
        found["rope_scaling_factor"] = told["rope.scaling.factor"]
    if kind == "yarn":
        found["rope_original_context"] = told.get("rope.scaling.original_context_length")
    return found


def _check_same(told: Mapping[str, Any], config: GPTConfig, path: Path) -> None:
    """Sizes that the file tells twice, of which we have one."""
    for name, ours in (
        ("attention.value_length", config.d_head),
        ("rope.dimension_count", config.d_head),
        ("vocab_size", config.vocab_size),
    ):
        if told.get(name, ours) != ours:
            raise UserError(
                f"{path} has {name}={quoted(told[name])}, but its other keys and its tensors give "
                f"{ours}; use another file of this model"
            )


def _with_factors(config: GPTConfig, tensor: GGUFTensor, path: Path) -> GPTConfig:
    """Scaled as in Llama 3, if what the file divides each pair's angle by is that."""
    (_, factors), *_ = tensor.pieces(torch.float32)
    if tensor.shape == (config.d_head // 2,) and factors.min() >= 1:
        factor = float(factors.max())
        scaled = config.replace(rope_scaling="llama3", rope_scaling_factor=factor, **LLAMA3)
        plain, ours = (rotary_angles(each, 1, 1)[0] for each in (config, scaled))
        if torch.allclose((plain / ours).float(), factors, rtol=1e-4, atol=0):
            return scaled
    raise UserError(
        f"{path} has a {FACTORS} that is not Llama 3's scaling; use another file of this model"
    )
