"""Llama of transformers, and what differs from it by fields: Mistral, Qwen2 and Qwen3.

Keys and defaults are those of their configurations in transformers 5.23.0, and of the older files
that name the rotary base `rope_theta` and its scaling `rope_scaling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference_model.config import GPTConfig, checked
from reference_model.errors import UserError
from reference_model.families.family import OF_LLAMA, WITHOUT_EFFECT, Family, LlamaNames
from reference_model.reading import quoted
from reference_model.settings import ANY, Known, check_settings
from reference_model.tensor_files import Names

SIZES = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "d_mlp": "intermediate_size",
}
# Their defaults follow other fields, as ours do, or differ from type to type.
HEADS = {"n_kv_head": "num_key_value_heads", "d_head": "head_dim"}
REQUIRED: dict[str, tuple[str, ...]] = {
    "llama": (),
    "mistral": ("num_key_value_heads", "sliding_window"),
    "qwen2": ("num_key_value_heads",),
    "qwen3": ("num_key_value_heads", "head_dim"),
}
_WINDOWS: Known = {
    "use_sliding_window": (False, None),
    "sliding_window": ANY,
    "max_window_layers": ANY,
}
_OF_TYPE: dict[str, Known] = {
    "llama": {
        **dict.fromkeys(("attention_bias", "mlp_bias", "pretraining_tp"), ANY),
        "is_llama_config": ANY,
        "rope_interleaved": (False, None),
    },
    "mistral": {"sliding_window": (None,)},
    "qwen2": {**_WINDOWS, "use_mrope": (False, None)},
    "qwen3": {**_WINDOWS, "attention_bias": ANY},
}
_KNOWN: Known = {
    **WITHOUT_EFFECT,
    **dict.fromkeys((*SIZES.values(), *HEADS.values(), "rms_norm_eps", "layer_types"), ANY),
    **dict.fromkeys(("rope_theta", "rope_scaling", "rope_parameters", "model_type"), ANY),
    **dict.fromkeys(("tie_word_embeddings", "attention_dropout", "transformers.js_config"), ANY),
    "hidden_act": ("silu", "swish"),
    "is_encoder_decoder": (False,),
    "partial_rotary_factor": (None, 1.0, 1),
}
# rope_type → our rope_scaling, and their keys → our fields. `factor` is required where keys are.
_FACTOR = {"factor": "rope_scaling_factor"}
_TRAINED = {"original_max_position_embeddings": "rope_original_context"}
_SCALINGS: dict[str, tuple[str, dict[str, str]]] = {
    "default": ("none", {}),
    "linear": ("interpolation", _FACTOR),
    "llama3": (
        "llama3",
        {
            **_FACTOR,
            **_TRAINED,
            "low_freq_factor": "rope_low_turns",
            "high_freq_factor": "rope_high_turns",
        },
    ),
    "yarn": (
        "yarn",
        {
            **_FACTOR,
            **_TRAINED,
            "beta_slow": "rope_low_turns",
            "beta_fast": "rope_high_turns",
            "attention_factor": "rope_attention_factor",
        },
    ),
}
_BASE = "rope_theta"
_OF_ROTARY: Known = {
    **dict.fromkeys(("rope_type", "type", _BASE), ANY),
    "partial_rotary_factor": (None, 1.0, 1),
    "truncate": (True, None),
    "mscale": (None,),
    "mscale_all_dim": (None,),
}


def config(fields: Mapping[str, Any], source: Path) -> GPTConfig:
    """Our configuration of a `config.json`.

    Raises `UserError` for what it asks for and we cannot represent or do not know, by the key's
    name, and for what it lacks.
    """
    kind = fields["model_type"]
    check_settings(fields, {**_KNOWN, **_OF_TYPE[kind]}, source)
    for name in (*SIZES.values(), *REQUIRED[kind]):
        if name not in fields:
            raise UserError(f"{source} lacks {name}; fetch it again")
    layers = fields.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise UserError(
            f"{source} has layer_types={quoted(layers)}, which the reference model cannot "
            "represent; it knows 'full_attention' in all layers"
        )
    in_attention = _switch(fields, "attention_bias", source)
    return checked(
        {
            **{ours: fields[theirs] for ours, theirs in SIZES.items()},
            **{ours: fields.get(theirs) for ours, theirs in HEADS.items()},
            **rotary(fields, source),
            **OF_LLAMA,
            "norm_epsilon": fields.get("rms_norm_eps", 1e-6),
            "head": "tied" if _switch(fields, "tie_word_embeddings", source) else "untied",
            "qk_norm": kind == "qwen3",
            "bias": False,
            "qkv_bias": in_attention or kind == "qwen2",
            "attention_output_bias": in_attention,
            "mlp_bias": _switch(fields, "mlp_bias", source),
        },
        source,
    )


def _switch(fields: Mapping[str, Any], name: str, source: Path) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise UserError(f"{source} has {name}={quoted(value)}; use true or false")
    return value


def rotary(fields: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Base and scaling, which newer files keep in one object and older ones beside each other."""
    told: dict[str, Any] = {}
    if fields.get(_BASE) is not None:
        told[_BASE] = fields[_BASE]
    for place in ("rope_scaling", "rope_parameters"):
        within = fields.get(place)
        if within is not None and not isinstance(within, dict):
            raise UserError(f"{source} has {place}={quoted(within)}; use an object, or null")
        for name, value in (within or {}).items():
            if told.setdefault(name, value) != value:
                raise UserError(
                    f"{source} has {name}={quoted(told[name])} and, in {place}, {quoted(value)}; "
                    "delete the wrong one"
                )
    kind = told.get("rope_type", told.get("type", "default"))
    if not isinstance(kind, str) or kind not in _SCALINGS:
        raise UserError(
            f"{source} has rope_type={quoted(kind)}, which the reference model cannot represent; "
            f"it knows {', '.join(_SCALINGS)}"
        )
    scaling, names = _SCALINGS[kind]
    check_settings(told, {**_OF_ROTARY, **dict.fromkeys(names, ANY)}, source)
    found = {ours: told[theirs] for theirs, ours in names.items() if told.get(theirs) is not None}
    if names and "rope_scaling_factor" not in found:
        raise UserError(f"{source} has rope_type={kind!r} without a factor; fetch it again")
    base = told.get(_BASE)
    return {"rope_base": 10_000.0 if base is None else base, "rope_scaling": scaling, **found}


def fields(config: GPTConfig) -> dict[str, Any]:
    """What `config.json` says of a model. Raises `UserError` for what is none of these types."""
    kind = _kind(config)
    same = {"attention_output_bias": config.qkv_bias} if kind != "qwen2" else {}
    of_kind = {} if kind == "llama" else {"mlp_bias": False}
    for name, value in {**OF_LLAMA, "dropout": 0.0, **same, **of_kind}.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{kind}'s layout cannot store {name}={getattr(config, name)!r}, only {value!r}; "
                "use checkpoints.save, which writes this project's own layout"
            )
    if config.n_embd % config.n_head:
        raise UserError(
            f"{kind}'s layout cannot store n_embd={config.n_embd} with n_head={config.n_head}, "
            "only a multiple; use checkpoints.save, which writes this project's own layout"
        )
    their_scalings = {ours: theirs for theirs, (ours, _) in _SCALINGS.items()}
    if config.rope_scaling not in their_scalings:
        raise UserError(
            f"{kind}'s layout cannot store rope_scaling={config.rope_scaling!r}, only "
            f"{', '.join(their_scalings)}; use checkpoints.save, which writes this project's own "
            "layout"
        )
    rotary = their_scalings[config.rope_scaling]
    found = {
        "architectures": [f"{_CLASSES[kind]}ForCausalLM"],
        "model_type": kind,
        **{theirs: getattr(config, ours) for ours, theirs in {**SIZES, **HEADS}.items()},
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.head == "tied",
        "rope_parameters": {
            "rope_type": rotary,
            _BASE: config.rope_base,
            **{theirs: getattr(config, ours) for theirs, ours in _SCALINGS[rotary][1].items()},
        },
    }
    if kind != "qwen2":
        found["attention_bias"] = config.qkv_bias
    if kind == "llama":
        found["mlp_bias"] = config.mlp_bias
    else:
        found["use_sliding_window"] = False
    return found


_CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def _kind(config: GPTConfig) -> str:
    if config.qk_norm:
        return "qwen3"
    return "qwen2" if config.qkv_bias and not config.attention_output_bias else "llama"


NAMES = LlamaNames(
    layers="layers.",
    beside={"wte": "embed_tokens", "ln_f": "norm", "lm_head": "lm_head"},
    within={
        "ln_1": "input_layernorm",
        "attn.c_proj": "self_attn.o_proj",
        "attn.q_norm": "self_attn.q_norm",
        "attn.k_norm": "self_attn.k_norm",
        "ln_2": "post_attention_layernorm",
        "mlp.c_gate": "mlp.gate_proj",
        "mlp.c_fc": "mlp.up_proj",
        "mlp.c_proj": "mlp.down_proj",
    },
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)

FAMILY = Family(
    model_types=tuple(REQUIRED),
    # Old files carry frequencies as if they were weights.
    names=Names("model.", derived=(".self_attn.rotary_emb.inv_freq",)),
    layers=NAMES.layers,
    config=config,
    fields=fields,
    sources=NAMES.sources,
)
