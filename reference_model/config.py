"""Every design choice of the reference model, one field each; the defaults are GPT-2's."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reference_model.errors import UserError
from reference_model.reading import quoted

LARGEST = 10**9  # any size; far beyond each model that was ever published
FOLLOWS: Any = None  # a field left as this is computed from others, anew in each `replace`

Position = Literal["learned", "sinusoidal", "rope", "alibi", "none"]
RopeScaling = Literal["none", "interpolation", "ntk", "llama3", "yarn"]
EmbeddingScale = Literal["none", "sqrt_width"]
Norm = Literal["layernorm", "rmsnorm"]
NormPlacement = Literal["pre", "post", "double", "deepnorm"]
MLP = Literal["gelu", "swiglu"]
Head = Literal["tied", "untied"]
Initialization = Literal["placement", "gpt2", "xavier", "deepnorm"]


def check_choices(chosen: object) -> None:
    """Raise `UserError` for the first `Literal` field of a dataclass with an unknown value."""
    for name, hint in get_type_hints(type(chosen)).items():
        value, allowed = getattr(chosen, name), get_args(hint)
        if get_origin(hint) is Literal and value not in allowed:
            raise UserError(
                f"{name}={quoted(value)} is not a known choice; use one of {', '.join(allowed)}"
            )


@dataclass(frozen=True)
class GPTConfig:
    """Shape and choices of one model. The defaults are GPT-2 small.

    An exclusive choice is one field whose type lists what is allowed; any other value raises
    `UserError` with the field, the value received and the allowed ones. A field that follows others
    holds their value once the configuration is made, and follows them again in `replace`.
    """

    vocab_size: int = 50257
    context_length: int = 1024  # the longest sequence trained on; only `learned` cannot exceed it
    n_layer: int = 12
    n_head: int = 12  # of queries
    n_kv_head: int = FOLLOWS  # fewer: grouped-query attention (2305.13245); else n_head
    n_embd: int = 768
    d_head: int = FOLLOWS  # width D of a head; else n_embd/n_head
    d_mlp: int = FOLLOWS  # numbers between the MLP's linears; else 4·n_embd

    position: Position = "learned"
    rope_base: float = 10000.0
    rope_scaling: RopeScaling = "none"
    rope_scaling_factor: float = 1.0  # new context over trained context
    rope_original_context: int = FOLLOWS  # before it was scaled; else context_length
    # Pairs that turn fewer times than `low` over that context are interpolated, those that turn
    # more often than `high` are left alone: Llama 3 has 1 and 4, YaRN has 1 and 32.
    rope_low_turns: float = 1.0
    rope_high_turns: float = FOLLOWS
    rope_attention_factor: float = FOLLOWS  # of cos and sin; YaRN's 0.1·ln(factor) + 1
    embedding_scale: EmbeddingScale = "none"  # sqrt_width: token embeddings times √C (1706.03762)
    norm: Norm = "layernorm"
    norm_epsilon: float = 1e-5
    norm_placement: NormPlacement = "pre"
    mlp: MLP = "gelu"  # swiglu: two linears in, one of which gates the other (2002.05202)
    head: Head = "tied"
    qk_norm: bool = False  # QK-norm (2302.05442): each head's queries and keys, before rotation
    bias: bool = True  # in linears and in LayerNorm; the head never has one
    qkv_bias: bool = FOLLOWS  # these four: else bias
    attention_output_bias: bool = FOLLOWS
    mlp_bias: bool = FOLLOWS
    norm_bias: bool = FOLLOWS  # of LayerNorm; RMSNorm never has one
    dropout: float = 0.0  # of embeddings and residual branches; attention weights keep their kernel
    initialization: Initialization = "placement"  # deepnorm's own where the norm is, else gpt2's

    def __post_init__(self) -> None:
        check_choices(self)
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not (name in FOLLOWERS and value is FOLLOWS):
                _check_type(name, hint, value)
        for name, followed in FOLLOWERS.items():
            if getattr(self, name) is FOLLOWS:
                object.__setattr__(self, name, followed(self))
        self._check_widths()
        self._check_numbers()

    def _check_widths(self) -> None:
        if not isinstance(self.d_head, int):
            raise UserError(
                f"n_embd={self.n_embd} is no multiple of n_head={self.n_head}; use an n_head that "
                "divides n_embd, or give d_head"
            )
        if self.n_head % self.n_kv_head:
            raise UserError(
                f"n_head={self.n_head} is no multiple of n_kv_head={self.n_kv_head}; use an "
                "n_kv_head that divides n_head"
            )
        if self.position == "rope" and self.d_head % 2:
            raise UserError(
                f"position='rope' turns pairs of coordinates, but a head is {self.d_head} wide; "
                "use an even d_head"
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            raise UserError(
                f"position='sinusoidal' fills pairs of coordinates, but n_embd={self.n_embd}; "
                "use an even width"
            )

    def _check_numbers(self) -> None:
        for name in ("rope_base", "norm_epsilon", "rope_low_turns", "rope_attention_factor"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name}={getattr(self, name)!r} is too small; use a number > 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout!r} is not a probability; use 0 ≤ dropout < 1")
        if self.rope_scaling_factor < 1:
            raise UserError(
                f"rope_scaling_factor={self.rope_scaling_factor!r} is too small; use a number ≥ 1"
            )
        if self.rope_high_turns <= self.rope_low_turns:
            raise UserError(
                f"rope_high_turns={self.rope_high_turns!r} is not above "
                f"rope_low_turns={self.rope_low_turns!r}; use a larger number"
            )
        if self.rope_scaling != "none" and self.position != "rope":
            raise UserError(
                f"rope_scaling={self.rope_scaling!r} needs position='rope', received "
                f"position={self.position!r}; use rope_scaling='none'"
            )
        for name, (neutral, scalings) in OF_ROPE_SCALING.items():
            value = getattr(self, name)
            if self.rope_scaling not in scalings and value != neutral(self):
                raise UserError(
                    f"{name}={value!r} has no effect with rope_scaling={self.rope_scaling!r}; use "
                    f"rope_scaling={' or '.join(scalings)}, or leave {name} out"
                )

    @property
    def initialization_in_force(self) -> Literal["gpt2", "xavier", "deepnorm"]:
        """What `initialization='placement'` stands for in this model."""
        if self.initialization != "placement":
            return self.initialization
        return "deepnorm" if self.norm_placement == "deepnorm" else "gpt2"

    def replace(self, **changes: Any) -> GPTConfig:
        """This configuration with some fields changed; what follows one of them changes with it."""
        return from_fields({**self.given(), **changes})

    def given(self) -> dict[str, Any]:
        """All fields but those that merely follow others, for `from_fields` and for a file."""
        # What a scaled model was trained on stays what it was, whatever it is used for.
        kept = {"rope_original_context"} if self.rope_scaling in BY_PARTS else set()
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name in kept or name not in FOLLOWERS or value != FOLLOWERS[name](self)
        }


def _check_type(name: str, hint: Any, value: Any) -> None:
    if hint is int and (type(value) is not int or not 1 <= value <= LARGEST):
        raise UserError(f"{name}={quoted(value)} is not a size; use a whole number ≥ 1, up to 10^9")
    if hint is bool and not isinstance(value, bool):
        raise UserError(f"{name}={quoted(value)} is not a switch; use True or False")
    if hint is float and (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not abs(value) <= sys.float_info.max
    ):
        raise UserError(f"{name}={quoted(value)} is not a finite number; use a float")


def _width_of_heads(config: GPTConfig) -> float:
    """A fraction, which is then refused, where heads do not fit into the model's width."""
    whole, rest = divmod(config.n_embd, config.n_head)
    return config.n_embd / config.n_head if rest else whole


def _attention_factor(config: GPTConfig) -> float:
    if config.rope_scaling != "yarn":
        return 1.0
    return 0.1 * math.log(config.rope_scaling_factor) + 1  # 2309.00071, equation 22


# What a field follows that is not given.
FOLLOWERS: dict[str, Callable[[GPTConfig], Any]] = {
    "n_kv_head": lambda config: config.n_head,
    "d_head": _width_of_heads,
    "d_mlp": lambda config: 4 * config.n_embd,
    "rope_original_context": lambda config: config.context_length,
    "rope_high_turns": lambda config: 32.0 if config.rope_scaling == "yarn" else 4.0,
    "rope_attention_factor": _attention_factor,
    **dict.fromkeys(
        ("qkv_bias", "attention_output_bias", "mlp_bias", "norm_bias"), lambda config: config.bias
    ),
}
# Fields of a way of scaling: what they are where they say nothing, and which ways read them.
BY_PARTS = ("llama3", "yarn")
OF_ROPE_SCALING: dict[str, tuple[Callable[[GPTConfig], Any], tuple[str, ...]]] = {
    "rope_scaling_factor": (lambda config: 1.0, ("interpolation", "ntk", *BY_PARTS)),
    "rope_original_context": (FOLLOWERS["rope_original_context"], BY_PARTS),
    "rope_low_turns": (lambda config: 1.0, BY_PARTS),
    "rope_high_turns": (FOLLOWERS["rope_high_turns"], BY_PARTS),
    "rope_attention_factor": (FOLLOWERS["rope_attention_factor"], ("yarn",)),
}


def from_fields(fields: dict[str, Any]) -> GPTConfig:
    """A configuration from a plain dict; an unknown field is named in a `UserError`."""
    known = {field.name for field in dataclasses.fields(GPTConfig)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UserError(
            f"unknown field {quoted(unknown[0])} in the configuration; "
            f"use one of {', '.join(sorted(known))}"
        )
    return GPTConfig(**fields)


def checked(fields: dict[str, Any], source: Path) -> GPTConfig:
    """A configuration from a file, which a `UserError` then names."""
    try:
        return from_fields(fields)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


PRESETS: dict[str, GPTConfig] = {
    "toy": GPTConfig(vocab_size=1024, context_length=256, n_layer=4, n_head=2, n_embd=128),
    # The shipped checkpoint: heads as wide as GPT-2's, so that cache codecs meet the real width.
    "reference": GPTConfig(vocab_size=4096, context_length=512, n_layer=6, n_head=4, n_embd=256),
    "gpt2": GPTConfig(),
    "gpt2-medium": GPTConfig(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": GPTConfig(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": GPTConfig(n_layer=48, n_head=25, n_embd=1600),
}


def preset(name: str, **changes: Any) -> GPTConfig:
    """A named configuration, with some fields changed."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name].replace(**changes)
