"""The tensors of an adapter: what the configuration says of them, and the head beside them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reference_model.checkpoints import load_huggingface
from reference_model.errors import Notice, UserError
from reference_model.lora_files import WEIGHTS_FILE, load_adapters
from tests.reference_model.foreign_adapters.adapters import (
    CLOSE,
    TOKENS,
    change,
    edit,
    our_logits,
    refusal,
    their_logits,
    write_adapter,
)

HEAD = "base_model.model.lm_head.base_layer.weight"


# ---- the configuration and the tensors


@pytest.mark.K1
@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": r".*c_attn"},
        {"target_modules": r".*c_(at|f)"},
        {"target_modules": ["attn", "fc"]},
        {"target_modules": None},
        {"target_modules": []},
        {"exclude_modules": ["c_fc"]},
        {"layers_to_transform": [0]},
        {"layers_to_transform": [1], "layers_pattern": "blocks"},
    ],
    ids=str,
)
def test_an_adapter_that_the_configuration_leaves_out_is_refused(
    bases: dict[str, Path], plain: Path, changes: dict[str, Any]
) -> None:
    edit(plain, **changes)
    message = refusal(bases["tied"], plain)
    assert re.search(r"names no adapter for transformer\.h\.\d\.", message)


@pytest.mark.K1
def test_two_spellings_of_one_adapter_have_to_agree(bases: dict[str, Path], plain: Path) -> None:
    name = "h.0.attn.c_attn.lora_A.weight"
    first, second = f"base_model.model.transformer.{name}", f"base_model.model.{name}"
    expected = our_logits(bases["tied"], plain)
    change(plain, lambda t: t.update({second: t[first].clone()}))
    assert torch.equal(our_logits(bases["tied"], plain), expected)
    change(plain, lambda t: t.update({second: t[first] + 1}))
    assert f"has {name} twice" in refusal(bases["tied"], plain)


# ---- the head that PEFT saves beside its adapter


@pytest.fixture(scope="module", params=["tied", "untied"])
def on_the_head(
    request: pytest.FixtureRequest,
    peft: Any,
    bases: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A base, and PEFT's adapter on its head, with which PEFT saves the head itself."""
    base, folder = bases[request.param], tmp_path_factory.mktemp("head")
    write_adapter(peft, base, folder, target_modules=["lm_head", "c_attn"])
    assert HEAD in load_file(folder / WEIGHTS_FILE)
    return base, folder


@pytest.mark.K1
def test_a_head_saved_beside_its_adapter_is_the_models_own(
    peft: Any, on_the_head: tuple[Path, Path]
) -> None:
    base, folder = on_the_head
    model = load_huggingface(base)
    assert "lm_head" in load_adapters(model, folder)
    with torch.no_grad():
        logits = model(TOKENS)
    torch.testing.assert_close(logits, their_logits(peft, base, folder), **CLOSE)


@pytest.mark.K1
def test_a_head_that_differs_from_the_models_own_is_refused(
    on_the_head: tuple[Path, Path], tmp_path: Path
) -> None:
    base, folder = on_the_head
    folder = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(folder, lambda t: t[HEAD].view(-1)[-1].mul_(1.01))
    assert "differs from the model's own lm_head.weight" in refusal(base, folder)
    change(folder, lambda t: t.update({HEAD: torch.cat([t[HEAD], t[HEAD][:2]])}))
    assert "differs from the model's own lm_head.weight" in refusal(base, folder)


@pytest.mark.K1
def test_a_head_saved_in_half_precision_is_compared_in_it(
    on_the_head: tuple[Path, Path], tmp_path: Path
) -> None:
    base, folder = on_the_head
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy, lambda t: t.update({HEAD: t[HEAD].bfloat16()}))
    assert torch.equal(our_logits(base, copy), our_logits(base, folder))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_what_is_stored_in_eight_bits_is_read_and_compared(
    on_the_head: tuple[Path, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    base, folder = on_the_head
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy, lambda t: t.update({key: tensor.to(dtype) for key, tensor in t.items()}))
    rounded = Path(shutil.copytree(folder, tmp_path / "rounded"))
    change(rounded, lambda t: t.update({k: v.to(dtype).float() for k, v in t.items() if k != HEAD}))
    assert torch.equal(our_logits(base, copy), our_logits(base, rounded))
    change(copy, lambda t: t.update({HEAD: (t[HEAD].float() * 1.5).to(dtype)}))
    assert "differs from the model's own" in refusal(base, copy)


@pytest.mark.K1
def test_a_head_that_cannot_be_compared_is_told(on_the_head: tuple[Path, Path]) -> None:
    base, folder = on_the_head
    model = load_huggingface(base)
    model.lm_head = WithoutWeight()
    with (
        pytest.warns(Notice, match="which is not compared: the model keeps it no more"),
        pytest.raises(UserError, match="WithoutWeight"),
    ):
        load_adapters(model, folder)


class WithoutWeight(torch.nn.Module):
    """Stands for a quantised head."""
