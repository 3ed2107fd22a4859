"""Logits of every choice: at once, batched, through caches, at the edges of the context."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import SIZES, normal, small_model, tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from reference_model.model import GPT

BATCH, PROMPT, PIECES = 3, 7, (3, 1, 3)
BEYOND = 40  # tokens, more than the context has


def outputs(model: GPT) -> dict[str, object]:
    """Logits of a prompt read in every way that the model has."""
    import torch

    from reference_model.cache import KVCache, StaticKVCache

    context, dtype = model.config.context_length, model.wte.weight.dtype
    tokens = tokens_of(model, BATCH, PROMPT)
    with torch.inference_mode():
        found: dict[str, object] = {
            "at once": model(tokens),
            "last": model(tokens, last_only=True),
            "one token": model(tokens[:1, :1]),
            "whole context": model(tokens_of(model, 1, context)),
            "beyond it": refusal(lambda: model(tokens_of(model, 1, BEYOND))),
        }
        for kind in (KVCache, StaticKVCache):
            cache = kind(model.config, BATCH, PROMPT + 2, dtype)
            found[kind.__name__] = in_pieces(model, tokens, cache)
    return found


def in_pieces(model: GPT, tokens: Tensor, cache: Any) -> object:
    """Logits (B, T, V) of a prompt that is read into a cache piece by piece, and its counters."""
    import torch

    with torch.inference_mode():
        logits = [model(piece, cache) for piece in tokens.split(PIECES, dim=1)]
    return [torch.cat(logits, 1), cache.length, cache.nbytes, cache.nbytes_used]


def _of(dtype: str, **choices: Any) -> object:
    return outputs(small_model(dtype, **choices))


def _gradients(**choices: Any) -> object:
    """Of a loss, with respect to every parameter."""
    import torch.nn.functional as F

    model = small_model(**choices)
    tokens = tokens_of(model, BATCH, PROMPT + 1)
    logits = model(tokens[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def _dropped(training: bool) -> object:
    """With dropout; drawn by torch's own generator."""
    import torch

    model = small_model(dropout=0.3).train(training)
    torch.manual_seed(0)
    return model(tokens_of(model, BATCH, PROMPT))


def _initialized(**choices: Any) -> object:
    """All weights as they are drawn by one generator, and the logits that they give.

    These are small, as a model's are at its start: there an ε of a norm shows.
    """
    import torch

    model = small_model(**choices)
    model.initialize(torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = model.double()(tokens_of(model, 1, PROMPT))
    return [logits, dict(model.named_parameters())]


def _embedded(**choices: Any) -> object:
    """The stream that enters the first block, from the start and from elsewhere."""
    model = small_model("float64", **choices)
    tokens = tokens_of(model, BATCH, PROMPT)
    return [model.embed(tokens), model.embed(tokens, 5)]


def _attention() -> object:
    """`attend` with no mask, a boolean and an added one; one query, and as many as keys."""
    import torch

    from reference_model.attention import attend

    q, k, v = (normal(name, 2, 3, 5, 6).double() for name in "qkv")
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    added = normal("bias", 3, 5, 5).double().masked_fill(~seen, -torch.inf)
    return [
        attend(q, k, v),
        attend(q[:, :, :1], k, v),
        attend(q, k, v, seen),
        attend(q, k, v, added),
    ]


def _positions() -> object:
    """Tables and slopes alone, from the start and from elsewhere, of odd numbers of heads."""
    import torch

    from reference_model.config import GPTConfig
    from reference_model.positions import alibi_bias, alibi_slopes, rotary_angles, rotate

    sizes: dict[str, Any] = SIZES
    scalings: tuple[tuple[Any, float], ...] = (("none", 1.0), ("interpolation", 3.0), ("ntk", 3.0))
    found: list[object] = [alibi_slopes(heads) for heads in range(1, 21)]
    found += [alibi_bias(3, start, 4, "cpu", start + 4) for start in (0, 6)]
    for scaling, factor in scalings:
        config = GPTConfig(
            **sizes, position="rope", rope_scaling=scaling, rope_scaling_factor=factor
        )
        angles = rotary_angles(config, 5, 6, "cpu")
        found += [angles, rotate(normal("x", 1, 3, 6, 14), angles.cos(), angles.sin())]
    found.append(rotary_angles(GPTConfig(**sizes, position="rope"), torch.tensor(5), 1, "cpu"))
    return found


CHOICES: dict[str, dict[str, Any]] = {
    "as GPT-2": {},
    "sinusoidal": {"position": "sinusoidal"},
    "sinusoidal, scaled embedding": {"position": "sinusoidal", "embedding_scale": "sqrt_width"},
    "rope": {"position": "rope"},
    "rope, base 500": {"position": "rope", "rope_base": 500.0},
    "rope, interpolation": {
        "position": "rope",
        "rope_scaling": "interpolation",
        "rope_scaling_factor": 2.0,
    },
    "rope, ntk": {"position": "rope", "rope_scaling": "ntk", "rope_scaling_factor": 4.0},
    "alibi, three heads": {"position": "alibi"},
    "alibi, two heads": {"position": "alibi", "n_head": 2},
    "alibi, seven heads": {"position": "alibi", "n_head": 7},
    "no positions": {"position": "none"},
    "one layer, one head": {"n_layer": 1, "n_head": 1},
    "rmsnorm": {"norm": "rmsnorm"},
    "post": {"norm_placement": "post"},
    "double": {"norm_placement": "double"},
    "deepnorm": {"norm_placement": "deepnorm"},
    "rmsnorm, double": {"norm": "rmsnorm", "norm_placement": "double"},
    "rmsnorm, deepnorm": {"norm": "rmsnorm", "norm_placement": "deepnorm"},
    "norm epsilon 0.1": {"norm_epsilon": 0.1},
    "untied": {"head": "untied"},
    "no bias": {"bias": False},
    "rmsnorm, no bias, rope, untied": {
        "norm": "rmsnorm",
        "bias": False,
        "position": "rope",
        "head": "untied",
    },
    "alibi, post, no bias": {"position": "alibi", "norm_placement": "post", "bias": False},
    "swiglu": {"mlp": "swiglu"},
    "swiglu, 31 wide, no bias": {"mlp": "swiglu", "d_mlp": 31, "bias": False},
    "mlp 31 wide": {"d_mlp": 31},
    "one head of keys": {"n_kv_head": 1},
    "two heads of keys for six, alibi": {"n_head": 6, "n_kv_head": 2, "position": "alibi"},
    "heads 10 wide, rope": {"d_head": 10, "position": "rope"},
    "normed queries and keys, rope": {"qk_norm": True, "position": "rope"},
    "biases of queries, keys and values alone": {"bias": False, "qkv_bias": True},
    "biases of all others": {"qkv_bias": False},
    "rope, llama3": {
        "position": "rope",
        "rope_scaling": "llama3",
        "rope_scaling_factor": 4.0,
        "rope_original_context": 30,
    },
    "rope, yarn": {
        "position": "rope",
        "rope_scaling": "yarn",
        "rope_scaling_factor": 4.0,
        "rope_original_context": 30,
        "rope_high_turns": 4.0,
    },
}
HALVES = (
    "as GPT-2",
    "rope",
    "alibi, three heads",
    "rmsnorm, double",
    "deepnorm",
    "no bias",
    "swiglu",
)
TRAINED = (
    *("as GPT-2", "rmsnorm, double", "alibi, post, no bias", "rmsnorm, no bias, rope, untied"),
    "swiglu, 31 wide, no bias",
)
STARTS = {
    "gpt2": {"initialization": "gpt2"},
    "xavier": {"initialization": "xavier", "head": "untied"},
    "deepnorm": {"norm_placement": "deepnorm"},
    "rmsnorm, xavier, double": {
        "initialization": "xavier",
        "norm": "rmsnorm",
        "norm_placement": "double",
    },
}
READ = "B 3, T 7, at once and in pieces of 3, 1 and 3; T 1, 33 and 40; 3 heads, 42 wide"

DOUBLE = (
    *tuple(
        Case(
            f"logits, {name}",
            READ,
            "float64",
            "another number from a choice",
            partial(_of, "float64", **chosen),
        )
        for name, chosen in CHOICES.items()
    ),
    Case(
        "attention alone",
        "T 1 and 5, S 5",
        "float64",
        "a mask that is ignored or turned round",
        _attention,
    ),
    Case(
        "embedding, sinusoidal",
        "B 3, T 7 from 0 and 5",
        "float64",
        "positions off by one",
        partial(_embedded, position="sinusoidal", embedding_scale="sqrt_width"),
    ),
    Case(
        "embedding, learned", "B 3, T 7 from 0 and 5", "float64", "positions off by one", _embedded
    ),
)
SINGLE = (
    *(
        Case(
            f"logits, {name}",
            READ,
            "float32",
            "a path that one dtype alone takes",
            partial(_of, "float32", **CHOICES[name]),
        )
        for name in HALVES
    ),
    *(
        Case(
            f"gradients, {name}",
            "B 3, T 7",
            "float32",
            "a gradient that is lost",
            partial(_gradients, **CHOICES[name]),
        )
        for name in TRAINED
    ),
    *(
        Case(
            f"at the start, {name}",
            "B 1, T 7",
            "float32",
            "another draw, or an ε that is lost",
            partial(_initialized, **chosen),
        )
        for name, chosen in STARTS.items()
    ),
    Case(
        "dropout in training",
        "B 3, T 7",
        "float32",
        "dropout that is lost",
        partial(_dropped, True),
    ),
    Case(
        "dropout in evaluation",
        "B 3, T 7",
        "float32",
        "dropout that stays",
        partial(_dropped, False),
    ),
    Case(
        "positions alone", "1 to 20 heads", "float32", "slopes and angles of odd sizes", _positions
    ),
)


def _autocast(norm: str, placement: str, adapted: bool = False) -> object:
    """Logits, dtypes of what norms give, and their gradients, in a forward pass under autocast."""
    import torch

    from reference_model import lora

    model: Any = small_model(norm=norm, norm_placement=placement)
    if adapted:
        generator = torch.Generator().manual_seed(0)
        lora.add_adapters(model, lora.LoRAConfig(2, init_b="gaussian"), generator)
        model.requires_grad_(True)
    dtypes: list[str] = []
    for name, module in model.named_modules():
        if "ln_" in name:
            module.register_forward_hook(lambda _, x, y: dtypes.append(str(y.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens_of(model, 2, 7))
    logits.float().square().mean().backward()
    found = {name: p.grad for name, p in model.named_parameters() if "ln_" in name}
    return [logits, dtypes, found]


AUTOCAST = tuple(
    Case(
        f"autocast, {', '.join(map(str, given))}",
        "B 2, T 7",
        "bfloat16 by autocast",
        "a path that one dtype alone takes",
        partial(_autocast, *given),
    )
    # What a sublayer gives is narrow, and what is beside it is not: norms have both.
    for given in (
        ("layernorm", "pre", True),
        ("layernorm", "double"),
        ("rmsnorm", "pre"),
        ("rmsnorm", "post"),
        ("rmsnorm", "double"),
    )
)
HALF = tuple(
    Case(
        f"logits, {name}, {dtype}",
        READ,
        dtype,
        "a path that one dtype alone takes",
        partial(_of, dtype, **CHOICES[name]),
    )
    for dtype in ("bfloat16", "float16")
    for name in HALVES
)
