"""An adapter as large as somebody likes: sizes, patterns and numbers are checked first."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model import peft_settings
from reference_model.checkpoints import load_huggingface
from reference_model.lora_files import CONFIG_FILE, WEIGHTS_FILE
from reference_model.model import GPT
from reference_model.peft_settings import read_settings
from tests.reference_model.foreign_adapters.adapters import change, edit, our_logits, refusal

pytestmark = pytest.mark.K8


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "((a|t|r)*)*x",
        "(.*)*c_attn",
        ".*.*.*c_attn",
        ".?" * 30 + "x",
        "(.|t)(.|r)(.|a)c_attn",
        r"(t)\1",
        "(?=t)c_attn",
        "(?i:C_ATTN)",
        "[^]](t+)+",
        "x" * 201,
    ],
)
@pytest.mark.parametrize("setting", ["rank_pattern", "target_modules", "layers_pattern"])
def test_a_pattern_that_may_take_for_ever_is_refused(
    bases: dict[str, Path], plain: Path, setting: str, pattern: str
) -> None:
    edit(
        plain,
        layers_to_transform=[0, 1],
        **{setting: {pattern: 3} if setting == "rank_pattern" else pattern},
    )
    assert re.search(f"has (a )?{setting} (for|of)", refusal(bases["tied"], plain))


def test_the_worst_pattern_that_is_read_matches_within_milliseconds(plain: Path) -> None:
    name = "transformer.h.47.attn.c_attn"
    groups = "|".join("transfo"[:n] for n in range(1, 8))
    worst = f".*({groups}).*({groups})x"
    assert len(worst) < peft_settings.LONGEST_PATTERN
    edit(plain, alpha_pattern={worst: 1}, target_modules=worst)
    settings = read_settings(plain / CONFIG_FILE)
    started = time.perf_counter()
    assert not settings.adapts(name)
    assert settings.alpha(name) == 8
    assert time.perf_counter() - started < 1  # measured: 2 ms


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank_pattern": {str(i): 1 for i in range(2001)}}, "rank_pattern of 2,001 patterns"),
        ({"alpha_pattern": {f"{i}.*": 1 for i in range(17)}}, "with 16 repeats together"),
        ({"target_modules": [str(i) for i in range(2001)]}, "a list of at most 2,000"),
        ({"layers_to_transform": list(range(2001))}, "a list of at most 2,000"),
        ({"rank_pattern": {"[": 1}}, "is no pattern"),
        ({"r": 10**9}, "gives rank 1000000000 for"),
        ({"lora_alpha": 10**4000}, "which scales nothing"),
    ],
)
def test_counts_are_checked_before_anything_is_matched(
    bases: dict[str, Path], plain: Path, changes: dict[str, Any], told: str
) -> None:
    edit(plain, **changes)
    assert told in refusal(bases["tied"], plain)


def test_a_rank_beyond_all_use_is_refused_before_memory_is_taken(
    bases: dict[str, Path], plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = 8 + 24 + 1  # one more than inputs and outputs of c_attn

    def grow(tensors: dict[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            shape = (rank, 8) if "lora_A" in key else (len(tensor), rank)
            tensors[key] = torch.zeros(shape)

    edit(plain, r=rank)
    change(plain, grow)
    monkeypatch.setattr("reference_model.lora_files.LoRALinear", lambda *_: pytest.fail("built"))
    assert "gives rank 33 for transformer.h.0.attn.c_attn" in refusal(bases["tied"], plain)


def test_an_a_that_is_no_matrix_is_refused(bases: dict[str, Path], plain: Path) -> None:
    key = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    change(plain, lambda t: t.update({key: torch.ones(8)}))
    assert f"has {key}, which is no A or B" in refusal(bases["tied"], plain)


@pytest.mark.parametrize("part", ["A", "B"])
def test_adapters_that_are_no_numbers_are_refused(
    bases: dict[str, Path], plain: Path, part: str
) -> None:
    key = f"base_model.model.transformer.h.0.attn.c_attn.lora_{part}.weight"
    change(plain, lambda t: t[key][0].fill_(torch.nan))
    assert f"has {key} with numbers that are not finite" in refusal(bases["tied"], plain)


def test_notes_beyond_a_linears_outputs_are_left_alone(bases: dict[str, Path], plain: Path) -> None:
    expected = our_logits(bases["tied"], plain)
    tensors = load_file(plain / WEIGHTS_FILE)
    name = "transformer.h.0.attn.c_attn"
    note = {"rank": 1, "alpha": 8.0 / 3, "targets": ["query", "key", "value"]}
    for slices in ([[0, 10**30]] * 3, [[0, 16], [8, 24], [16, 24]], [[-8, 0], [0, 8], [8, 16]]):
        notes = json.dumps({name: {**note, "slices": slices}})
        save_file(tensors, plain / WEIGHTS_FILE, {"adapters": notes})
        assert torch.equal(our_logits(bases["tied"], plain), expected)
    # More rows of A than there are, where B has nothing that would tell.
    bare = {key: tensor * ("lora_A" in key) for key, tensor in tensors.items()}
    twice = {"rank": 2, "alpha": 16.0 / 3, "targets": ["query", "key", "value"]}
    notes = json.dumps({name: {**twice, "slices": [[0, 8], [8, 16], [16, 24]]}})
    save_file(bare, plain / WEIGHTS_FILE, {"adapters": notes})
    our_logits(bases["tied"], plain)
    save_file(tensors, plain / WEIGHTS_FILE, {"adapters": "[" * 100_000})
    assert torch.equal(our_logits(bases["tied"], plain), expected)
    assert isinstance(load_huggingface(bases["tied"]), GPT)
