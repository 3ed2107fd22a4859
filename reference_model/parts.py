"""What each module of a model is for: the only place that knows modules by their names.

A model of the GPT-2 type has ours, with or without the prefix that transformers puts before them; a
model of the Llama type has its own. Whoever adapts, rewrites or counts asks for roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from reference_model.errors import UserError

Role = Literal[
    "embedding",
    "positions",
    "query",
    "key",
    "value",
    "attention_output",
    "mlp_in",
    "mlp_gate",
    "mlp_out",
    "norm",
    "head",
]


@dataclass(frozen=True)
class _Type:
    """How the modules of a type of model are called: beside the layers, and within one."""

    layers: str
    beside: Mapping[str, Role]
    within: Mapping[str, tuple[Role, ...]]  # several roles: one module that does them all


GPT2 = _Type(
    layers="h",
    beside={"wte": "embedding", "wpe": "positions", "ln_f": "norm", "lm_head": "head"},
    within={
        "attn.c_attn": ("query", "key", "value"),
        "attn.c_proj": ("attention_output",),
        "mlp.c_gate": ("mlp_gate",),
        "mlp.c_fc": ("mlp_in",),
        "mlp.c_proj": ("mlp_out",),
        **dict.fromkeys(
            ("ln_1", "ln_1_out", "ln_2", "ln_2_out", "attn.q_norm", "attn.k_norm"), ("norm",)
        ),
    },
)
LLAMA = _Type(
    layers="layers",
    beside={"embed_tokens": "embedding", "norm": "norm", "lm_head": "head"},
    within={
        "self_attn.q_proj": ("query",),
        "self_attn.k_proj": ("key",),
        "self_attn.v_proj": ("value",),
        "self_attn.o_proj": ("attention_output",),
        "mlp.gate_proj": ("mlp_gate",),
        "mlp.up_proj": ("mlp_in",),
        "mlp.down_proj": ("mlp_out",),
        **dict.fromkeys(
            ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"),
            ("norm",),
        ),
    },
)
TYPES = (GPT2, LLAMA)


@dataclass(frozen=True)
class Part:
    """A module, or some outputs of one that does several things at once."""

    role: Role
    layer: int | None  # None: beside the layers
    name: str  # of the module
    module: nn.Module
    outputs: slice  # of the module's outputs; all of them where it has one role


def parts_of(model: nn.Module) -> list[Part]:
    """Every module with a known role, in the model's order; empty for another type of model.

    Queries, keys and values of one module are three parts of it, whose widths follow from the
    shapes: queries are as wide as what the attention's output takes in, keys and values share the
    rest. What is below an adapter goes by the name that it has without.
    """
    modules = dict(model.named_modules())
    for name in modules:
        prefix, _, last = name.rpartition(".")
        for kind in TYPES:
            if last == kind.layers and any(f"{name}.0.{each}" in modules for each in kind.within):
                return list(_parts(modules, f"{prefix}." if prefix else "", kind))
    return []


def parts_with(model: nn.Module, role: Role) -> list[Part]:
    """Those of one role, in the order of the layers; `UserError` where there are none."""
    found = [part for part in parts_of(model) if part.role == role]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no module that is known as its {role}; use a model of the "
            "GPT-2 or Llama type"
        )
    return found


def roles_by_name(linear: str) -> tuple[Role, ...]:
    """Of a linear of a layer, by the end of its name; empty for one that no type of model has."""
    for kind in TYPES:
        for name, roles in kind.within.items():
            if linear == name or linear.endswith(f".{name}"):
                return roles
    return ()


def _parts(modules: Mapping[str, nn.Module], prefix: str, kind: _Type) -> Iterator[Part]:
    """``prefix`` is what stands before the names of this type, such as "transformer."."""
    of_layers = f"{prefix}{kind.layers}."
    for name, module in modules.items():
        if not name.startswith(of_layers):
            last = name.rpartition(".")[2]
            above = name.removesuffix(last)
            # The head stands in this part of the model, or beside it.
            home = prefix.startswith(above) if last == "lm_head" else prefix == above
            if last in kind.beside and home:
                yield Part(kind.beside[last], None, name, module, slice(None))
            continue
        number, _, within = name.removeprefix(of_layers).partition(".")
        roles = kind.within.get(within, ())
        if not number.isdecimal() or isinstance(module, nn.Identity):
            continue
        if len(roles) == 1:
            yield Part(roles[0], int(number), name, module, slice(None))
        elif roles:
            output = modules[f"{of_layers}{number}.{_named(kind, 'attention_output')}"]
            for role, outputs in zip(roles, _shares(module, output), strict=True):
                yield Part(role, int(number), name, module, outputs)


def _named(kind: _Type, role: Role) -> str:
    return next(name for name, roles in kind.within.items() if roles == (role,))


def _shares(fused: nn.Module, output: nn.Module) -> tuple[slice, slice, slice]:
    """Which outputs are queries, keys and values; `UserError` where nothing tells how many."""
    shape, of_output = shape_of(fused), shape_of(output)
    bias = getattr(fused, "bias", None)  # of a product that shows no shape
    if shape is None and bias is None:
        raise UserError(
            f"queries, keys and values come from a {type(fused).__name__}, which shows neither its "
            "shape nor a bias; use nn.Linear, Conv1D or INT8"
        )
    total = len(bias) if shape is None else shape[1]  # type: ignore[arg-type]
    queries = total // 3 if of_output is None else of_output[0]
    ends = queries, queries + (total - queries) // 2, total
    return slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2])


# ---- linears


def is_transposed(linear: nn.Module) -> bool:
    """Whether its weight lies as (in, out), as transformers' Conv1D has it."""
    return type(linear).__name__ == "Conv1D"


def shape_of(linear: nn.Module) -> tuple[int, int] | None:
    """Inputs n and outputs d of a linear; None for any other module."""
    if is_transposed(linear):
        inputs, outputs = linear.get_parameter("weight").shape
        return inputs, outputs
    shape = getattr(linear, "in_features", None), getattr(linear, "out_features", None)
    return shape if all(isinstance(size, int) for size in shape) else None  # type: ignore[return-value]
