"""A configuration that cannot be is refused with the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from reference_model.config import PRESETS, GPTConfig, from_fields, preset
from reference_model.costs import parameter_count
from reference_model.errors import UserError
from reference_model.model import GPT

CHOICES = {
    name: get_args(hint)
    for name, hint in get_type_hints(GPTConfig).items()
    if get_origin(hint) is Literal
}


def refusal(**fields: object) -> str:
    with pytest.raises(UserError) as raised:
        GPTConfig(**fields)
    message = str(raised.value)
    assert "\n" not in message
    return message


# ---- bad values


def test_the_choices_are_these() -> None:
    assert CHOICES == {
        "position": ("learned", "sinusoidal", "rope", "alibi", "none"),
        "rope_scaling": ("none", "interpolation", "ntk", "llama3", "yarn"),
        "embedding_scale": ("none", "sqrt_width"),
        "norm": ("layernorm", "rmsnorm"),
        "norm_placement": ("pre", "post", "double", "deepnorm"),
        "mlp": ("gelu", "swiglu"),
        "head": ("tied", "untied"),
        "initialization": ("placement", "gpt2", "xavier", "deepnorm"),
    }


@pytest.mark.parametrize("value", ["rotary", None, 3, ["rope"]])
@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_option_is_named_with_its_field_and_the_known_ones(
    name: str, value: object
) -> None:
    message = refusal(**{name: value})
    assert f"{name}={value!r}" in message
    assert message.endswith(", ".join(CHOICES[name]))


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "12", None])
@pytest.mark.parametrize("name", ["vocab_size", "context_length", "n_layer", "n_head", "n_embd"])
def test_a_size_is_a_whole_number_of_at_least_one(name: str, value: object) -> None:
    assert f"{name}={value!r} is not a size" in refusal(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "12"])
@pytest.mark.parametrize("name", ["d_mlp", "d_head", "n_kv_head", "rope_original_context"])
def test_a_size_that_follows_others_is_a_size_where_it_is_given(name: str, value: object) -> None:
    assert f"{name}={value!r} is not a size" in refusal(**{name: value})


def test_what_is_not_given_follows_other_fields_and_goes_on_following_them() -> None:
    config = GPTConfig(n_embd=24, n_head=4, context_length=30)
    followed = (config.d_mlp, config.d_head, config.n_kv_head, config.rope_original_context)
    assert followed == (96, 6, 4, 30)
    assert config.qkv_bias
    changed = config.replace(n_embd=48, n_head=8, bias=False, context_length=60)
    followed = (changed.d_mlp, changed.d_head, changed.n_kv_head, changed.rope_original_context)
    assert followed == (192, 6, 8, 60)
    assert not changed.mlp_bias


def test_what_is_given_stays_as_it_is() -> None:
    config = GPTConfig(n_embd=24, n_head=6, n_kv_head=2, d_head=10, d_mlp=7, qkv_bias=False)
    changed = config.replace(n_embd=48, n_head=4)
    assert (changed.n_kv_head, changed.d_head, changed.d_mlp, changed.qkv_bias) == (2, 10, 7, False)
    odd = GPTConfig(n_embd=25, n_head=6, d_head=4)  # as wide as 25 // 6
    assert odd.replace(n_layer=3).d_head == 4


def test_what_a_scaled_model_was_trained_on_stays_what_it_was() -> None:
    scaled = {"position": "rope", "rope_scaling": "yarn", "rope_scaling_factor": 4.0}
    config = GPTConfig(context_length=64, rope_original_context=64, **scaled)
    longer = config.replace(context_length=256)
    assert longer.rope_original_context == 64
    assert from_fields(longer.given()) == longer


def test_yarn_brings_its_own_numbers() -> None:
    def numbers(config: GPTConfig) -> tuple[float, float, float]:
        return config.rope_low_turns, config.rope_high_turns, config.rope_attention_factor

    plain = GPTConfig(position="rope")
    assert numbers(plain) == (1, 4, 1)
    yarn = plain.replace(rope_scaling="yarn", rope_scaling_factor=math.e)
    assert numbers(yarn) == (1, 32, pytest.approx(1.1))
    assert numbers(yarn.replace(rope_scaling="llama3")) == (1, 4, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bias": 1}, ["bias=1", "True or False"]),
        ({"bias": "yes"}, ["bias='yes'", "True or False"]),
        ({"dropout": 1.0}, ["dropout=1.0", "0 ≤ dropout < 1"]),
        ({"dropout": -0.1}, ["dropout=-0.1", "0 ≤ dropout < 1"]),
        ({"dropout": "0.1"}, ["dropout='0.1'", "number"]),
        ({"dropout": float("nan")}, ["dropout=nan", "number"]),
        ({"rope_base": 0.0}, ["rope_base=0.0", "> 0"]),
        ({"rope_base": float("inf")}, ["rope_base=inf", "finite"]),
        ({"norm_epsilon": -1e-5}, ["norm_epsilon=-1e-05", "> 0"]),
        ({"n_embd": 100, "n_head": 3}, ["n_embd=100", "n_head=3", "multiple"]),
        ({"position": "rope", "n_embd": 63, "n_head": 3}, ["position='rope'", "21", "even"]),
        ({"position": "sinusoidal", "n_embd": 63, "n_head": 3}, ["'sinusoidal'", "63", "even"]),
        ({"position": "rope", "rope_scaling_factor": 0.5}, ["rope_scaling_factor=0.5", "≥ 1"]),
        ({"position": "rope", "rope_scaling_factor": 2.0}, ["no effect", "interpolation or ntk"]),
        ({"rope_scaling": "ntk"}, ["rope_scaling='ntk'", "position='rope'", "'learned'"]),
        ({"position": "rope", "rope_low_turns": 2.0}, ["rope_low_turns=2.0", "llama3 or yarn"]),
        ({"position": "rope", "rope_attention_factor": 1.2}, ["rope_attention_factor=1.2", "yarn"]),
        ({"rope_original_context": 8}, ["rope_original_context=8", "rope_scaling='none'"]),
        (
            {"position": "rope", "rope_scaling": "llama3", "rope_high_turns": 1.0},
            ["rope_high_turns=1.0", "rope_low_turns=1.0"],
        ),
        ({"n_head": 6, "n_kv_head": 4}, ["n_head=6", "n_kv_head=4", "multiple"]),
        ({"mlp_bias": 1}, ["mlp_bias=1", "True or False"]),
    ],
)
def test_values_that_cannot_go_together_are_named(
    fields: dict[str, object], words: list[str]
) -> None:
    message = refusal(**fields)
    for word in words:
        assert word in message


def test_an_odd_head_is_fine_where_nothing_turns_pairs() -> None:
    for position in ("learned", "alibi", "none"):
        assert GPTConfig(position=position, n_embd=63, n_head=3).d_head == 21


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    fields = [field.name for field in dataclasses.fields(GPTConfig)]
    for attempt in (
        lambda: from_fields({"n_layers": 2}),
        lambda: GPTConfig().replace(n_layers=2),
        lambda: preset("toy", n_layers=2),
    ):
        with pytest.raises(UserError, match="unknown field 'n_layers'") as raised:
            attempt()
        assert all(name in str(raised.value) for name in fields)


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown preset 'gpt3'") as raised:
        preset("gpt3")
    assert all(name in str(raised.value) for name in PRESETS)


# ---- good ones


def test_replace_changes_what_it_is_told_and_checks_it() -> None:
    config = GPTConfig(n_layer=3).replace(position="rope")
    assert (config.n_layer, config.position) == (3, "rope")
    with pytest.raises(UserError, match="position='ropes'"):
        config.replace(position="ropes")


def test_a_configuration_survives_a_dict() -> None:
    config = preset("toy", position="rope", rope_scaling="ntk", rope_scaling_factor=2.0)
    assert from_fields(dataclasses.asdict(config)) == config


def test_a_preset_takes_changes() -> None:
    assert preset("gpt2", head="untied") == GPTConfig(head="untied")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_a_preset_of_gpt2_has_as_many_parameters_as_the_published_model(
    name: str, parameters: int
) -> None:
    assert parameter_count(preset(name)) == parameters
    with torch.device("meta"):
        model = GPT(preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(("name", "low", "high"), [("toy", 0.9e6, 1.1e6), ("reference", 5e6, 7e6)])
def test_our_own_presets_have_the_size_they_are_meant_to(
    name: str, low: float, high: float
) -> None:
    assert low <= parameter_count(preset(name)) <= high


def test_heads_of_the_reference_model_are_as_wide_as_those_of_gpt2() -> None:
    assert preset("reference").d_head == preset("gpt2").d_head == 64
