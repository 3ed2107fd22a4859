"""config.json is read by a list of what is known: nothing else is passed over in silence."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.families.gpt2 import config as config_from_huggingface

pytestmark = pytest.mark.K2

SOURCE = Path("folder/config.json")


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(UserError) as raised:
        config_from_huggingface(fields, SOURCE)
    message = str(raised.value)
    assert message.startswith((f"{SOURCE} has ", f"{SOURCE}: "))
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


def test_whatever_transformers_writes_by_default_is_known(transformers: ModuleType) -> None:
    assert config_from_huggingface(transformers.GPT2Config().to_dict(), SOURCE) == GPTConfig()


def test_the_same_settings_are_there_when_the_file_holds_none(transformers: ModuleType) -> None:
    ours, theirs = config_from_huggingface({}, SOURCE), transformers.GPT2Config()
    assert (ours.n_layer, ours.n_head, ours.n_embd) == (12, 12, 768)
    assert (ours.vocab_size, ours.context_length) == (theirs.vocab_size, theirs.n_positions)
    assert ours.norm_epsilon == theirs.layer_norm_epsilon
    assert (ours.head == "tied") == theirs.tie_word_embeddings


@pytest.mark.parametrize(
    "fields",
    [
        # GPT-2 as it was published, and its larger sizes
        {"n_ctx": 1024, "n_special": 0, "predict_special_tokens": True, "output_past": True},
        {"task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}},
        {"architectures": ["GPT2LMHeadModel"], "resid_pdrop": 0.3, "initializer_range": 1.0},
        # what fine-tuning scripts of these years left
        {"unk_token_id": 3, "sep_token_id": 4, "xla_device": True, "is_decoder": True},
        {"gradient_checkpointing": True, "torch_dtype": "float16", "use_cache": False},
        {"id2label": {"0": "a"}, "label2id": {"a": 0}, "_num_labels": 1, "_name_or_path": "x"},
        {"repetition_penalty": 1.2, "max_length": 99, "eos_token_id": [1, 2]},  # of decoding
        # what asks for nothing, by whatever name
        {"rope_scaling": None, "use_moe": False, "pruned_heads": {}, "extra": [], "prefix": ""},
    ],
)
def test_what_does_not_change_the_logits_is_read(fields: dict[str, Any]) -> None:
    assert config_from_huggingface(fields, SOURCE) == GPTConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "llama"),
        ("activation_function", "relu"),
        ("scale_attn_weights", False),
        ("scale_attn_weights", 0),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        # not of GPT-2
        ("layer_norm_eps", 0.1),
        ("sliding_window", 256),
        ("quantization_config", {"quant_method": "gptq"}),
        ("auto_map", {"AutoModelForCausalLM": "modeling.Other"}),
        ("pruned_heads", {"0": [1]}),
        ("colour", "red"),
        ("zero", 0),
    ],
)
def test_what_is_not_known_or_not_neutral_is_refused_by_its_name(name: str, value: object) -> None:
    assert f"has {name}=" in refusal({name: value})


@pytest.mark.K8
@pytest.mark.parametrize("value", [None, "16", [16], {}, True, 16.0, -1, 10**4299 * 9])
@pytest.mark.parametrize("name", ["n_embd", "n_head", "n_positions"])
def test_a_size_that_is_none_is_refused_with_the_file(name: str, value: object) -> None:
    assert f"{SOURCE}: " in refusal({name: value, "n_inner": 64, "n_ctx": 16})


def test_a_message_about_a_strange_setting_is_short_and_plain() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    for fields in (
        {"x" * 10_000: 1},
        {"x": "y" * 10_000},
        {"x": deep},
        {"\x1b[2J\u202e\n": "\x1b"},
    ):
        message = refusal(fields)
        assert message.isprintable()
        assert message.isascii()
