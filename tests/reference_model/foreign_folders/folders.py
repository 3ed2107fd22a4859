"""Folders of transformers: how they are changed, and what is read of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model.checkpoints import load_huggingface
from reference_model.errors import UserError
from reference_model.model import GPT

TOKENS = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(3))
WTE, HEAD = "transformer.wte.weight", "lm_head.weight"
Tensors = dict[str, Tensor]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


def change(folder: Path, how: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    how(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def edit(folder: Path, *dropped: str, **changes: object) -> None:
    path = folder / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    for name in dropped:
        del content[name]
    path.write_text(json.dumps(content), encoding="utf-8")


def logits_of(model: Any) -> Tensor:
    with torch.no_grad():
        found = model(TOKENS)
    return found if isinstance(found, Tensor) else found.logits


def their_logits(theirs: Any, folder: Path) -> Tensor:
    """Of what transformers makes of the folder."""
    return logits_of(type(theirs).from_pretrained(folder).eval())


def refusal(folder: Path, load: Callable[[Path], GPT] = load_huggingface) -> str:
    with pytest.raises(UserError) as raised:
        load(folder)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


def write_index(folder: Path, content: dict[str, Any]) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(content), encoding="utf-8")
