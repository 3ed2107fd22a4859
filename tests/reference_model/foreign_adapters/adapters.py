"""Adapters that PEFT wrote: how they are made and changed, and what is read of them."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model.checkpoints import load_huggingface
from reference_model.errors import UserError
from reference_model.lora import lora_linears
from reference_model.lora_files import CONFIG_FILE, WEIGHTS_FILE, load_adapters

TOKENS = torch.randint(30, (2, 8), generator=torch.Generator().manual_seed(5))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@functools.cache
def _their_base(folder: Path) -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(folder).eval()


def their_base(folder: Path) -> Any:
    """A model of its own, since PEFT changes the one that it is given."""
    return copy.deepcopy(_their_base(folder))


def write_adapter(peft: Any, base: Path, folder: Path, **choices: Any) -> None:
    """As PEFT saves it, with A and B as large as trained ones."""
    config = peft.LoraConfig(**{"r": 3, "target_modules": ["c_attn"], **choices})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that c_attn is a Conv1D, that the head is saved as well
        model = peft.get_peft_model(their_base(base), config)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder)


def their_logits(peft: Any, base: Path, folder: Path) -> Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logits: Tensor = peft.PeftModel.from_pretrained(their_base(base), folder)(TOKENS).logits
    return logits


def our_logits(base: Path, folder: Path) -> Tensor:
    model = load_huggingface(base)
    load_adapters(model, folder)
    with torch.no_grad():
        logits: Tensor = model(TOKENS)
    return logits


def refusal(base: Path, folder: Path) -> str:
    model = load_huggingface(base)
    with pytest.raises(UserError) as raised:
        load_adapters(model, folder)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    assert not lora_linears(model)
    return message


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")


def change(folder: Path, how: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    how(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)
