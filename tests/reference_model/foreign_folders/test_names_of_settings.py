"""Settings under another name, twice or as no plain value: as transformers has them, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reference_model.checkpoints import load_huggingface
from reference_model.errors import Notice
from tests.reference_model.foreign_folders.folders import edit, logits_of, refusal, their_logits


def test_the_names_of_sizes_common_to_transformers_are_read(theirs: Any, folder: Path) -> None:
    edit(
        folder,
        *("n_embd", "n_layer", "n_head", "n_positions"),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("n_embd", "hidden_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
        ("n_positions", "max_position_embeddings"),
    ],
)
def test_two_names_of_one_setting_have_to_agree(folder: Path, name: str, other: str) -> None:
    value = json.loads((folder / "config.json").read_text(encoding="utf-8"))[name]
    edit(folder, **{other: value})
    load_huggingface(folder)
    edit(folder, **{other: 2 * value})
    assert f"has {name}={value} and {other}={2 * value}, two names of one" in refusal(folder)


@pytest.mark.K1
def test_an_older_name_that_transformers_leaves_alone_is_told_where_it_differs(
    theirs: Any, folder: Path
) -> None:
    edit(folder, n_ctx=16)
    load_huggingface(folder)
    edit(folder, n_ctx=8)
    with pytest.warns(Notice, match="n_ctx=8 and 16 positions"):
        model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)


@pytest.mark.K1
@pytest.mark.parametrize("value", ["false", 0, None])
def test_whether_the_head_is_tied_is_no_guess(folder: Path, value: object) -> None:
    edit(folder, tie_word_embeddings=value)
    assert "tie_word_embeddings=" in refusal(folder)


@pytest.mark.K1
def test_a_key_that_stands_twice_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"n_head": 2', '"n_head": 2, "n_head": 4'), encoding="utf-8")
    assert "'n_head' stands twice in one object" in refusal(folder)


@pytest.mark.K2
def test_what_is_known_to_have_no_effect_has_none_in_transformers_either(
    theirs: Any, folder: Path
) -> None:
    odd: dict[str, Any] = {
        **dict.fromkeys(("is_decoder", "xla_device", "model_parallel", "output_past"), True),
        **dict.fromkeys(("use_bfloat16", "torchscript", "gradient_checkpointing"), True),
        **dict.fromkeys(("reorder_and_upcast_attn", "output_hidden_states"), True),
        **dict.fromkeys(("predict_special_tokens", "use_cache", "summary_use_proj"), False),
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "initializer_range"), 0.5),
        **dict.fromkeys(("n_special", "chunk_size_feed_forward", "num_labels", "top_k"), 3),
        **dict.fromkeys(("unk_token_id", "bos_token_id", "pad_token_id", "min_length"), 3),
        "finetuning_task": "x",
        "repetition_penalty": 2.0,
        "task_specific_params": {"text-generation": {"do_sample": True}},
    }
    edit(folder, **odd)
    assert torch.equal(their_logits(theirs, folder), logits_of(theirs))
    torch.testing.assert_close(
        logits_of(load_huggingface(folder)), logits_of(theirs), rtol=0, atol=1e-5
    )
