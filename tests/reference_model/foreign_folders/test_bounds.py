"""A folder as large as somebody likes: sizes, numbers and kinds of file are checked first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from reference_model import reading, tensor_files
from reference_model.checkpoints import load_huggingface
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.tensor_files import Entry
from tests.reference_model.foreign_folders.folders import change, edit, refusal, write_index

pytestmark = pytest.mark.K8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n_layer", "has 2 layers, its config.json asks for 1000000000"),
        ("n_embd", "wte.weight of shape (50, 16), its config.json asks for (50, 1000000000)"),
        ("vocab_size", "wte.weight of shape (50, 16), its config.json asks for (1000000000, 16)"),
        ("n_positions", "wpe.weight of shape (16, 16), its config.json asks for (1000000000, 16)"),
    ],
)
def test_sizes_are_compared_with_the_file_before_a_model_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    edit(folder, **{name: 10**9})
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("built before it refused"))
    assert message in refusal(folder)


def test_a_model_of_very_many_layers_is_refused_before_it_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, lambda t: t.update({f"h.{i}.x": torch.ones(0) for i in range(1001)}))
    edit(folder, n_layer=1001)
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("built before it refused"))
    assert "has 1,001 layers; use at most 1,000" in refusal(folder)


def test_weights_are_read_only_when_all_their_shapes_are_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, lambda t: t.update({"transformer.ln_f.bias": torch.ones(15)}))
    monkeypatch.setattr(Entry, "pieces", lambda *_: pytest.fail("read before it refused"))
    assert "ln_f.bias of shape (15,)" in refusal(folder)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path, stored: torch.dtype) -> None:
    # Attention may hide them: PyTorch's own answers such a query with zeros, on a CPU.
    change(folder, lambda t: t["transformer.h.0.attn.c_attn.bias"][0].fill_(1e5))
    load_huggingface(folder)
    with pytest.raises(UserError, match=r"c_attn\.bias with .* not finite in float16"):
        load_huggingface(folder, torch.float16)
    change(
        folder,
        lambda t: t.update(
            {k: (v / 0).to(stored) for k, v in t.items() if k.endswith("h.0.attn.c_attn.bias")}
        ),
    )
    assert "h.0.attn.c_attn.bias with numbers that are not finite in float32" in refusal(folder)


def test_the_limits_of_a_folder_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MOST_HEADER_BYTES", 1000)
    assert "has a header of" in refusal(folder)
    monkeypatch.setattr(tensor_files, "MOST_SHARDS", 2)
    (folder / "model.safetensors").unlink()
    write_index(folder, {"weight_map": {str(i): f"{i}.safetensors" for i in range(3)}})
    assert "names 3 files, more than 2" in refusal(folder)
    (folder / "config.json").write_bytes(b" " * (reading.MOST_BYTES + 1))
    assert "holds more than 16,777,216 bytes" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_fifo_or_a_folder_is_no_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name} is not a file" in refusal(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{name} is not a file" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"layer_norm_epsilon": NaN}', "contains NaN"),
        ('{"layer_norm_epsilon": -Infinity}', "contains -Infinity"),
        ('{"layer_norm_epsilon": 1e999}', "norm_epsilon=inf is not a finite number"),
        (f'{{"layer_norm_epsilon": 1{"0" * 4000}}}', "is not a finite number"),
        (f'{{"n_layer": 1{"0" * 5000}}}', "digits"),
        (
            f'{{"n_layer": 1{"0" * 4000}}}',
            "is not a size; use a whole number",
        ),
    ],
)
def test_json_that_is_no_configuration_is_told_in_one_line(
    folder: Path, text: str, told: str
) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert told in refusal(folder)
