"""adapter_config.json: read to PEFT's own logits, or refused by the key that forbids it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_model.checkpoints import load_huggingface
from reference_model.lora_files import CONFIG_FILE
from reference_model.peft_settings import read_settings
from tests.reference_model.foreign_adapters.adapters import (
    CLOSE,
    TOKENS,
    edit,
    our_logits,
    refusal,
    their_logits,
    write_adapter,
)

# ---- what is read


def assert_same(peft: Any, base: Path, folder: Path) -> None:
    expected = their_logits(peft, base, folder)
    with torch.no_grad():
        assert (expected - load_huggingface(base)(TOKENS)).abs().max() > 0.1
    torch.testing.assert_close(our_logits(base, folder), expected, **CLOSE)


@pytest.mark.K2
@pytest.mark.parametrize(
    "choices",
    [
        {"init_lora_weights": "mica"},
        {"init_lora_weights": "orthogonal", "r": 4},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"lora_alpha": -4},
        {"lora_alpha": 0.5, "use_rslora": True},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.h\.1\.(attn|mlp)\.c_proj"},
        {"target_modules": ["c_proj"], "exclude_modules": ["attn.c_proj"]},
        {"target_modules": ["c_proj"], "exclude_modules": r".*\.0\..*"},
        {"target_modules": ["c_proj"], "layers_to_transform": [1]},
        {"layers_to_transform": 0, "layers_pattern": "h"},
        {"layers_to_transform": [0, 1], "layers_pattern": ["blocks", "h"]},
        {"rank_pattern": {"^transformer.h.0.attn.c_attn$": 2}, "alpha_pattern": {"c_attn": 5}},
        {"alpha_pattern": {r"h\.[01]\.mlp.*": 3, r"h\.1\..*": -2, "c_attn": 7}},
        {"r": 12},  # more than the width
    ],
    ids=str,
)
def test_what_peft_reads_is_read_to_the_same_logits(
    peft: Any, bases: dict[str, Path], tmp_path: Path, choices: dict[str, Any]
) -> None:
    write_adapter(peft, bases["tied"], tmp_path, **choices)
    assert_same(peft, bases["tied"], tmp_path)


@pytest.mark.K2
def test_whatever_peft_writes_by_default_is_known(peft: Any, tmp_path: Path) -> None:
    peft.LoraConfig(target_modules=["c_attn"]).save_pretrained(tmp_path)
    assert read_settings(tmp_path / CONFIG_FILE).alpha("h.0.attn.c_attn") == 8


@pytest.mark.K2
@pytest.mark.parametrize(
    "fields",
    [
        {"enable_lora": None, "merge_weights": False},  # of PEFT's first versions
        {"base_model_name_or_path": "x", "revision": "y", "task_type": "SEQ_CLS"},
        {"loftq_config": {"loftq_bits": 4}, "megatron_core": "other", "peft_version": "0.1"},
        {"use_a_new_kind": False, "a_new_kind": None},
    ],
)
def test_what_asks_for_nothing_is_read(
    bases: dict[str, Path], plain: Path, fields: dict[str, Any]
) -> None:
    expected = our_logits(bases["tied"], plain)
    edit(plain, **fields)
    assert torch.equal(our_logits(bases["tied"], plain), expected)


# ---- what is refused by its key


@pytest.mark.K2
@pytest.mark.parametrize("target", ["attn.c_proj.weight", "mlp.c_fc.weight"])
def test_an_adapter_of_a_parameter_is_refused_by_that_key(
    peft: Any, bases: dict[str, Path], tmp_path: Path, target: str
) -> None:
    # PEFT reads a Conv1D's weight as a linear's, and would not transpose the product.
    write_adapter(peft, bases["tied"], tmp_path, target_modules=[], target_parameters=[target])
    assert f"has target_parameters=['{target}']" in refusal(bases["tied"], tmp_path)


@pytest.mark.K2
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peft_type", "LOHA"),
        ("bias", "all"),
        ("use_rslora", 1),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "new"),
        ("use_dora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("lora_bias", True),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {"top_k": 3}),
        ("layer_replication", [[0, 2]]),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1]),
        ("ensure_weight_tying", True),
        ("a_new_kind", 3),
        ("target_modules", {"c_attn": 1}),
        ("layers_to_transform", [True]),
        ("lora_alpha", 0),
        ("lora_alpha", True),
        ("lora_dropout", 1.0),
    ],
)
def test_what_is_more_than_ab_or_not_known_is_refused_by_its_name(
    bases: dict[str, Path], plain: Path, name: str, value: object
) -> None:
    edit(plain, **{name: value})
    message = refusal(bases["tied"], plain)
    assert message.startswith(str(plain / CONFIG_FILE))
    assert f"has {name}=" in message


def test_a_type_that_is_not_told_is_refused(bases: dict[str, Path], plain: Path) -> None:
    path = plain / CONFIG_FILE
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["peft_type"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert "has no peft_type" in refusal(bases["tied"], plain)
