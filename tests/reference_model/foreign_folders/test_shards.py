"""The index of a model in several files: it and its shards agree on who holds what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_model.checkpoints import load_huggingface
from reference_model.errors import Notice
from tests.reference_model.foreign_folders.folders import (
    WTE,
    drawn,
    logits_of,
    refusal,
    their_logits,
    write_index,
)


@pytest.fixture
def shards(theirs: Any, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    return tmp_path / "shards"


def index_of(folder: Path) -> dict[str, Any]:
    path = folder / "model.safetensors.index.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_an_index_beside_a_whole_file_is_left_alone_and_told(theirs: Any, folder: Path) -> None:
    write_index(folder, {"weight_map": {"wte.weight": "gone.safetensors"}})
    with pytest.warns(Notice, match=r"model\.safetensors is read"):
        model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)


def test_an_index_that_names_the_wrong_shard_is_refused(shards: Path) -> None:
    index = index_of(shards)
    load_huggingface(shards)
    places = index["weight_map"]
    places[WTE] = next(name for name in places.values() if name != places[WTE])
    write_index(shards, index)
    assert "do not agree on who holds transformer.wte.weight" in refusal(shards)
    del places[WTE]
    write_index(shards, index)
    assert "do not agree on who holds transformer.wte.weight" in refusal(shards)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_refused(shards: Path) -> None:
    other = shards / index_of(shards)["weight_map"]["transformer.ln_f.bias"]
    tensors = load_file(other)
    del tensors["transformer.ln_f.bias"]
    save_file(tensors, other)
    assert "do not agree on who holds transformer.ln_f.bias" in refusal(shards)


def test_a_tensor_in_two_shards_is_refused(shards: Path) -> None:
    places = index_of(shards)["weight_map"]
    other = shards / next(name for name in places.values() if name != places[WTE])
    save_file({**load_file(other), WTE: drawn(50, 16)}, other)
    assert "do not agree on who holds transformer.wte.weight" in refusal(shards)


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "a\0b", "..", ""])
def test_a_shard_lies_in_the_folder(shards: Path, name: str) -> None:
    write_index(shards, {"weight_map": {WTE: name}})
    assert "has no weight_map of file names" in refusal(shards)
