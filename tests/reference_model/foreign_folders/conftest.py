"""A model of transformers, and its folder to be changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def theirs(tiny_gpt2: Callable[..., Any]) -> Any:
    """transformers' GPT-2 of two layers, tied, with weights of some size."""
    return tiny_gpt2(seed=1, initializer_range=0.3)


@pytest.fixture(scope="session")
def as_saved(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(as_saved: Path, tmp_path: Path) -> Path:
    """What transformers saved, to be changed."""
    return Path(shutil.copytree(as_saved, tmp_path / "folder"))
