"""Sizes, FLOPs and bytes by formula, and which configurations are allowed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import SIZES, chosen
from benchmarks.suite.workloads import check_choices, of_this_commit

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"head": "untied"},
    {"bias": False},
    {"norm": "rmsnorm"},
    {"norm_placement": "double"},
    {"norm_placement": "post", "position": "rope"},
    {"norm_placement": "deepnorm", "position": "none"},
    {"norm": "rmsnorm", "bias": False, "norm_placement": "double", "position": "alibi"},
)
OF_LLAMA: tuple[dict[str, Any], ...] = (
    {"n_kv_head": 1},
    {"d_head": 10, "n_kv_head": 1, "qk_norm": True},
    {"norm": "rmsnorm", "qk_norm": True, "position": "rope", "mlp": "swiglu", "d_mlp": 31},
    {"bias": False, "qkv_bias": True},
    {"qkv_bias": False, "norm_bias": False},
)
TARGETS = ("query", "key", "value", "qkv", "attention_output", "mlp_in", "mlp_out")


@of_this_commit()
def _configs() -> list[Any]:
    from reference_model.config import PRESETS, GPTConfig

    sizes: dict[str, Any] = SIZES
    return [*PRESETS.values(), *(GPTConfig(**{**sizes, **variant}) for variant in VARIANTS)]


@of_this_commit()
def _configs_of_llama() -> list[Any]:
    from reference_model.config import GPTConfig

    sizes: dict[str, Any] = SIZES
    for variant in OF_LLAMA:
        check_choices(variant)
    return [GPTConfig(**{**sizes, **variant}) for variant in OF_LLAMA]


def _costs(configs: Callable[[], list[Any]] = _configs) -> object:
    from reference_model import costs

    kinds: tuple[Any, ...] = ("executed", "useful")
    found: list[object] = []
    for config in configs():
        found += [costs.parameters_by_part(config), costs.parameter_count(config)]
        found += [costs.weight_bytes(config), costs.weight_bytes(config, 2)]
        found += [costs.read_weight_bytes(config), costs.read_weight_bytes(config, 1)]
        for new, past in ((1, 0), (1, 31), (7, 0), (5, 4)):
            for last in (False, True):
                for kind in kinds:
                    flops = costs.forward_flops(config, new, past, last_only=last, attention=kind)
                    found += [flops, flops.total]
        for cached in (False, True):
            found.append(costs.generation_flops(config, 5, 3, use_cache=cached))
        found += [costs.kv_cache_bytes(config, 9), costs.kv_cache_bytes(config, 9, 3, 2)]
        found += [costs.lora_parameters(config, 3, [target]) for target in TARGETS]  # type: ignore[list-item]
    for prompt, new in ((5, 1), (1, 4), (3, 0)):
        found += [
            costs.kv_row_projections(prompt, new, use_cache=cached) for cached in (False, True)
        ]
    return found


def _configurations() -> object:
    """Presets and properties; what is refused, of every field."""
    from reference_model.config import GPTConfig, from_fields, preset

    wrong: tuple[dict[str, Any], ...] = (
        {"position": "relative"},
        {"norm": "batchnorm"},
        {"n_layer": 0},
        {"n_layer": 2.0},
        {"n_head": 5},
        {"n_embd": -42},
        {"vocab_size": True},
        {"bias": 1},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"norm_epsilon": 0.0},
        {"rope_base": -1.0},
        {"rope_base": float("inf")},
        {"dropout": "0.1"},
        {"position": "rope", "n_head": 2},
        {"position": "sinusoidal", "n_embd": 45},
        {"rope_scaling": "ntk"},
        {"position": "rope", "rope_scaling_factor": 2.0},
        {"position": "rope", "rope_scaling": "ntk", "rope_scaling_factor": 0.5},
        {"n_layer": 10**10},
    )
    sizes: dict[str, Any] = SIZES
    found: list[object] = [refusal(partial(GPTConfig, **{**sizes, **each})) for each in wrong]
    found += [refusal(lambda: from_fields({"layers": 2})), refusal(lambda: preset("gpt5"))]
    for config in _configs():
        found += [chosen(config), config.d_head, config.initialization_in_force]
    return [*found, chosen(preset("toy", head="untied").replace(n_layer=7))]


def _scales() -> object:
    from reference_model.norms import deepnorm_gain, residual_scale

    return [[residual_scale(config), deepnorm_gain(config)] for config in _configs()]


NUMBERS = (
    Case(
        "costs by formula",
        "14 configurations, T 1 to 7, past 0 to 31",
        "none",
        "a formula that forgets a part",
        _costs,
    ),
    Case(
        "costs by formula, heads that share keys",
        "5 configurations, T 1 to 7, past 0 to 31",
        "none",
        "a formula that forgets a part",
        partial(_costs, _configs_of_llama),
    ),
    Case(
        "configurations",
        "14 allowed, 22 refused",
        "none",
        "a wrong choice that passes",
        _configurations,
    ),
    Case("scales of DeepNorm", "14 configurations", "none", "an exponent that is off", _scales),
)
