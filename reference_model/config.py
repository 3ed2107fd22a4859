"""Every design choice of the reference GPT-2, one field each."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reference_model.errors import UserError
from reference_model.reading import quoted

LARGEST = 10**9  # any size; far beyond each model that was ever published

Position = Literal["learned", "sinusoidal", "rope", "alibi", "none"]
RopeScaling = Literal["none", "interpolation", "ntk"]
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
    `UserError` with the field, the value received and the allowed ones.
    """

    vocab_size: int = 50257
    context_length: int = 1024  # the longest sequence trained on; only `learned` cannot exceed it
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    d_mlp: int | None = None  # width of the MLP; None: 4·n_embd

    position: Position = "learned"
    rope_base: float = 10000.0
    rope_scaling: RopeScaling = "none"
    rope_scaling_factor: float = 1.0  # new context over trained context
    embedding_scale: EmbeddingScale = "none"  # sqrt_width: token embeddings times √C (1706.03762)
    norm: Norm = "layernorm"
    norm_epsilon: float = 1e-5
    norm_placement: NormPlacement = "pre"
    mlp: MLP = "gelu"  # swiglu: two linears in, one of which gates the other (2002.05202)
    head: Head = "tied"
    bias: bool = True  # in linears and in LayerNorm
    dropout: float = 0.0  # of embeddings and residual branches; attention weights keep their kernel
    initialization: Initialization = "placement"  # deepnorm's own where the norm is, else gpt2's

    def __post_init__(self) -> None:
        check_choices(self)
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if value is None and type(None) in get_args(hint):
                continue
            if int in (hint, *get_args(hint)) and (
                not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST
            ):
                raise UserError(
                    f"{name}={quoted(value)} is not a size; use a whole number ≥ 1, up to 10^9"
                )
            if hint is bool and not isinstance(value, bool):
                raise UserError(f"{name}={quoted(value)} is not a switch; use True or False")
            if hint is float and (
                not isinstance(value, (int, float))
                or isinstance(value, bool)
                or not abs(value) <= sys.float_info.max
            ):
                raise UserError(f"{name}={quoted(value)} is not a finite number; use a float")
        if self.n_embd % self.n_head:
            raise UserError(f"n_embd={self.n_embd} is no multiple of n_head={self.n_head}; use one")
        if self.position == "rope" and self.d_head % 2:
            raise UserError(
                f"position='rope' turns pairs of coordinates, but a head is {self.d_head} wide; "
                "use an even n_embd/n_head"
            )
        if self.position == "sinusoidal" and self.n_embd % 2:
            raise UserError(
                f"position='sinusoidal' fills pairs of coordinates, but n_embd={self.n_embd}; "
                "use an even width"
            )
        for name in ("rope_base", "norm_epsilon"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name}={getattr(self, name)!r} is too small; use a number > 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout!r} is not a probability; use 0 ≤ dropout < 1")
        if self.rope_scaling_factor < 1:
            raise UserError(
                f"rope_scaling_factor={self.rope_scaling_factor!r} is too small; use a number ≥ 1"
            )
        if self.rope_scaling == "none" and self.rope_scaling_factor != 1:
            raise UserError(
                f"rope_scaling_factor={self.rope_scaling_factor!r} has no effect with "
                "rope_scaling='none'; use interpolation or ntk, or leave the factor at 1"
            )
        if self.rope_scaling != "none" and self.position != "rope":
            raise UserError(
                f"rope_scaling={self.rope_scaling!r} needs position='rope', received "
                f"position={self.position!r}; use rope_scaling='none'"
            )

    @property
    def d_head(self) -> int:
        """Width D of one head."""
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """How many numbers stand between the MLP's linears."""
        return 4 * self.n_embd if self.d_mlp is None else self.d_mlp

    @property
    def initialization_in_force(self) -> Literal["gpt2", "xavier", "deepnorm"]:
        """What `initialization='placement'` stands for in this model."""
        if self.initialization != "placement":
            return self.initialization
        return "deepnorm" if self.norm_placement == "deepnorm" else "gpt2"

    def replace(self, **changes: Any) -> "GPTConfig":
        """This configuration with some fields changed."""
        return from_fields({**dataclasses.asdict(self), **changes})


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
