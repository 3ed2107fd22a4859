"""Bases as transformers saves them, and an adapter of PEFT to be changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reference_model.foreign_adapters.adapters import write_adapter


@pytest.fixture(scope="session")
def bases(
    tiny_gpt2: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A tied and an untied GPT-2 of two layers, as transformers saves them."""
    sizes = {"vocab_size": 30, "n_positions": 8, "n_embd": 8, "initializer_range": 0.4}
    folders = {}
    for name in ("tied", "untied"):
        folders[name] = tmp_path_factory.mktemp(name)
        model = tiny_gpt2(seed=1, tie_word_embeddings=name == "tied", **sizes)
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def plain_as_saved(
    peft: Any, bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_adapter(peft, bases["tied"], folder, target_modules=["c_attn", "mlp.c_fc"])
    return folder


@pytest.fixture
def plain(plain_as_saved: Path, tmp_path: Path) -> Path:
    """A plain adapter on c_attn and c_fc, to be changed."""
    return Path(shutil.copytree(plain_as_saved, tmp_path / "plain"))
