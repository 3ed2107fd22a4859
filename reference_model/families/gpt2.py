"""GPT-2 of transformers. Its parameters have our names; four linears lie transposed.

Keys and defaults are those of GPT2Config in transformers 5.23.0 and of the older configurations of
GPT-2 that are still in use.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference_model.config import GPTConfig, checked
from reference_model.errors import UserError, notice
from reference_model.families.family import WITHOUT_EFFECT, Family, Source
from reference_model.reading import quoted
from reference_model.settings import ANY, Known, check_settings, read_setting
from reference_model.tensor_files import Names

# Our field → its names in config.json. The second is common to all of transformers' models.
SIZES: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "context_length": ("n_positions", "max_position_embeddings"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_embd": ("n_embd", "hidden_size"),
    "norm_epsilon": ("layer_norm_epsilon",),
}
_READ_BELOW = (
    *(name for names in SIZES.values() for name in names),
    *("n_inner", "n_ctx", "tie_word_embeddings"),
)
_OWN_WITHOUT_EFFECT = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_type", "summary_use_proj"),
    *("summary_activation", "summary_proj_to_labels", "summary_first_dropout", "n_special"),
    "predict_special_tokens",
    "reorder_and_upcast_attn",  # the same sum, in another order and in float32
)
_KNOWN: Known = {
    **WITHOUT_EFFECT,
    **dict.fromkeys((*_READ_BELOW, *_OWN_WITHOUT_EFFECT), ANY),
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
}
# What GPT-2 is: any other value of these choices has no place in its layout.
CHOICES = {
    "position": "learned",
    "embedding_scale": "none",
    "norm": "layernorm",
    "norm_placement": "pre",
    "mlp": "gelu",
    "qk_norm": False,
}
# Kept as Conv1D, (in, out) where a linear has (out, in).
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def config(fields: Mapping[str, Any], source: Path) -> GPTConfig:
    """Our configuration of a `config.json`.

    Raises `UserError` for what it asks for and we cannot represent or do not know, by the key's
    name, and for two names of one size that differ.
    """
    check_settings(fields, _KNOWN, source)
    defaults = GPTConfig()
    sizes = {
        name: read_setting(fields, names, getattr(defaults, name), source)
        for name, names in SIZES.items()
    }
    tied = fields.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise UserError(f"{source} has tie_word_embeddings={quoted(tied)}; use true or false")
    choices = {"head": "tied" if tied else "untied", "d_mlp": fields.get("n_inner")}
    found = checked({**sizes, **choices}, source)
    context = fields.get("n_ctx")
    if context is not None and context != found.context_length:
        notice(
            f"{source} has n_ctx={quoted(context)} and {found.context_length} positions; n_ctx "
            "is left alone, as by transformers"
        )
    return found


def fields(config: GPTConfig) -> dict[str, Any]:
    """What `config.json` says of a model. Raises `UserError` for what is no GPT-2."""
    heads = {"n_kv_head": config.n_head, "d_head": config.n_embd // config.n_head}
    for name, value in {**CHOICES, **heads}.items():
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


def sources(name: str, config: GPTConfig) -> tuple[Source, ...]:
    """Where a parameter of ours lies."""
    return (Source(name, transposed=name.endswith(CONV1D)),)


FAMILY = Family(
    model_types=("gpt2",),
    # Old files carry causal masks as if they were weights, as in h.0.attn.masked_bias.
    names=Names("transformer.", derived=(".attn.bias", ".attn.masked_bias")),
    layers="h.",
    config=config,
    fields=fields,
    sources=sources,
)
