"""Adapters of the Llama type, under transformers' names: queries, keys and values lie apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.families.family import OF_LLAMA
from reference_model.lora import LoRAConfig, add_adapters, lora_linears, merge_adapters
from reference_model.lora_files import load_adapters, save_adapters
from reference_model.model import GPT
from tests.reference_model.tiny import TOKENS

CHOICES: dict[str, Any] = {**OF_LLAMA, "n_kv_head": 1, "bias": False}
ALL = ("query", "key", "value", "attention_output", "mlp_gate", "mlp_in", "mlp_out")


@pytest.fixture
def ours(tiny_model: Callable[..., GPT]) -> Callable[[], GPT]:
    """ours() → a model of shared heads with the same weights each time."""
    return lambda: tiny_model(**CHOICES)


@pytest.fixture
def theirs(ours: Callable[[], GPT], tmp_path: Path) -> Callable[[], Any]:
    """theirs() → the same as transformers' LlamaForCausalLM, in float64."""
    transformers = pytest.importorskip("transformers")
    save_huggingface(ours(), tmp_path / "model")
    load = transformers.LlamaForCausalLM.from_pretrained
    return lambda: load(tmp_path / "model", dtype=torch.float64).eval()


def merged_weights(model: GPT, folder: Path) -> dict[str, torch.Tensor]:
    """By transformers' names: its own rotation of float64 has the angles of float32."""
    merge_adapters(model)
    save_huggingface(model, folder)
    transformers = pytest.importorskip("transformers")
    read = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return dict(read.state_dict())


def adapted(model: GPT, **choices: Any) -> GPT:
    config = LoRAConfig(**{"rank": 3, "alpha": 5.0, "init_b": "gaussian", **choices})
    add_adapters(model, config, torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("targets", [("query", "value"), ("qkv", "mlp_out"), ALL])
@pytest.mark.parametrize("scaling", ["lora", "rslora", "constant"])
def test_peft_reads_them_on_transformers_llama(
    ours: Callable[[], GPT],
    theirs: Callable[[], Any],
    peft: ModuleType,
    tmp_path: Path,
    targets: Any,
    scaling: Any,
) -> None:
    model = adapted(ours(), targets=targets, scaling=scaling)
    save_adapters(model, tmp_path / "adapters", layout="huggingface")
    read = peft.PeftModel.from_pretrained(theirs(), tmp_path / "adapters").merge_and_unload()
    expected = merged_weights(model, tmp_path / "merged")
    torch.testing.assert_close(dict(read.state_dict()), expected, rtol=0, atol=1e-12)
    told = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert told["fan_in_fan_out"] is False


@pytest.mark.parametrize("targets", [("query", "value"), ("qkv", "mlp_out"), ALL])
def test_they_are_read_back(ours: Callable[[], GPT], tmp_path: Path, targets: Any) -> None:
    model = adapted(ours(), targets=targets)
    save_adapters(model, tmp_path, layout="huggingface")
    again = ours()
    names = load_adapters(again, tmp_path)
    assert set(names) == set(lora_linears(model))
    torch.testing.assert_close(again(TOKENS), model(TOKENS), rtol=0, atol=1e-12)
    if "qkv" not in targets:  # which becomes three adapters that share an A
        for name, linear in lora_linears(model).items():
            slices = [part.outputs for part in linear.parts]
            assert [part.outputs for part in lora_linears(again)[name].parts] == slices


def test_what_peft_trained_on_transformers_llama_loads_here(
    ours: Callable[[], GPT], theirs: Callable[[], Any], peft: ModuleType, tmp_path: Path
) -> None:
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "up_proj"],
        rank_pattern={"v_proj": 2},  # neither rank nor scale of the queries beside it
        alpha_pattern={r"layers\.1\.self_attn\.v_proj": 9},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    trained = peft.get_peft_model(theirs(), config).eval()
    trained.save_pretrained(tmp_path / "adapters", save_embedding_layers=False)
    model = ours()
    assert "h.1.attn.c_attn" in load_adapters(model, tmp_path / "adapters")
    expected = dict(trained.merge_and_unload().state_dict())
    found = merged_weights(model, tmp_path / "merged")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)  # A and B are float32


def test_adapters_on_transformers_own_llama_keep_its_names(
    theirs: Callable[[], Any], peft: ModuleType, tmp_path: Path
) -> None:
    model = theirs()
    add_adapters(model, LoRAConfig(2, init_b="gaussian"), torch.Generator().manual_seed(1))
    save_adapters(model, tmp_path / "adapters", layout="huggingface")
    read = peft.PeftModel.from_pretrained(theirs(), tmp_path / "adapters").eval()
    expected = model(TOKENS).logits
    torch.testing.assert_close(read(TOKENS).logits, expected, rtol=0, atol=1e-11)


def test_the_embedding_that_peft_writes_as_well_is_compared(
    ours: Callable[[], GPT], theirs: Callable[[], Any], peft: ModuleType, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    trained = peft.get_peft_model(theirs(), config)
    trained.save_pretrained(tmp_path / "adapters", save_embedding_layers=True)
    model = ours()
    assert load_adapters(model, tmp_path / "adapters") == ["h.0.attn.c_attn", "h.1.attn.c_attn"]
    other = ours()
    other.wte.weight.data += 1
    with pytest.raises(UserError, match="differs from the model's own"):
        load_adapters(other, tmp_path / "adapters")


def test_what_no_model_of_transformers_is_has_no_names_there(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    model = adapted(tiny_model(norm="rmsnorm"))
    with pytest.raises(UserError, match="llama's layout cannot store position='learned'"):
        save_adapters(model, tmp_path / "new", layout="huggingface")
    assert not (tmp_path / "new").exists()


def test_adapters_of_another_shape_are_refused(
    ours: Callable[[], GPT], tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    save_adapters(adapted(ours(), targets=("key",)), tmp_path, layout="huggingface")
    other = tiny_model(**{**CHOICES, "n_kv_head": 2})
    with pytest.raises(UserError, match=r"for model\.layers\.0\.self_attn\.k_proj, which maps"):
        load_adapters(other, tmp_path)
    assert not lora_linears(other)
