"""Folders of the Llama type: transformers' logits, in both directions, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_model.cache import KVCache
from reference_model.checkpoints import load_huggingface
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.families import llama
from reference_model.families.family import OF_LLAMA
from reference_model.generate import generate
from reference_model.lora import LoRAConfig, add_adapters
from reference_model.model import GPT
from tests.reference_model.foreign_folders.folders import TOKENS, edit, logits_of, refusal

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LLAMAS_OWN = ("attention_bias", "mlp_bias", "pretraining_tp")  # that other types do not know
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"Llama, {n} heads of keys": ("Llama", {"num_key_value_heads": n}) for n in (1, 2, 3, 6)},
    "Llama, tied, wide heads": ("Llama", {"head_dim": 10, "tie_word_embeddings": True}),
    "Llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "Llama 3": ("Llama", {"rope_parameters": LLAMA3}),
    "Llama, interpolated": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "Llama, YaRN": ("Llama", {"rope_parameters": YARN}),
    "Mistral": ("Mistral", {"sliding_window": None}),
    "Qwen2": ("Qwen2", {}),
    "Qwen3": ("Qwen3", {"head_dim": 8}),
    "Qwen3 with biases": ("Qwen3", {"head_dim": 8, "attention_bias": True}),
}


@pytest.fixture(scope="session")
def tiny_llama(transformers: ModuleType) -> Callable[..., Any]:
    """tiny_llama("Qwen3", **settings) → a model of transformers in evaluation mode, in float32."""

    def build(kind: str, **settings: object) -> Any:
        torch.manual_seed(1)
        config = getattr(transformers, f"{kind}Config")(**{**SIZES, **settings})
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:  # norms that are 1 and biases that are 0 hide faults
                    noise = 0.2 * torch.randn(parameter.shape)
                    parameter.copy_(noise + (0.0 if name.endswith("bias") else 1.0))
        return model

    return build


@pytest.fixture(params=MODELS)
def theirs(request: pytest.FixtureRequest, tiny_llama: Callable[..., Any]) -> Any:
    kind, settings = MODELS[request.param]
    return tiny_llama(kind, **settings)


@pytest.fixture
def folder(tiny_llama: Callable[..., Any], tmp_path: Path) -> Path:
    """A plain Llama's, to be changed."""
    tiny_llama("Llama").save_pretrained(tmp_path)
    return tmp_path


# ---- the same logits


def test_logits_are_those_of_transformers(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    ours = load_huggingface(tmp_path)
    torch.testing.assert_close(logits_of(ours), logits_of(theirs), rtol=0, atol=1e-5)
    cache = KVCache(ours.config, 2, 12)
    with torch.no_grad():
        pieces = [ours(piece, cache) for piece in TOKENS.split([5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), logits_of(theirs), rtol=0, atol=1e-5)


def test_what_we_write_transformers_reads_to_the_same_logits(
    transformers: ModuleType, theirs: Any, tmp_path: Path
) -> None:
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_huggingface(tmp_path / "theirs")
    save_huggingface(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(logits_of(again), logits_of(theirs), rtol=0, atol=1e-5)
    assert load_huggingface(tmp_path / "ours").config == ours.config


def test_greedy_text_is_that_of_transformers(
    tiny_llama: Callable[..., Any], tmp_path: Path
) -> None:
    theirs = tiny_llama("Llama", rope_parameters=LLAMA3)
    theirs.save_pretrained(tmp_path)
    found = generate(load_huggingface(tmp_path), TOKENS, 16)
    expected = theirs.generate(TOKENS, max_new_tokens=16, do_sample=False, eos_token_id=None)
    assert torch.equal(found, expected)


def test_a_smaller_dtype_is_rounded_once(folder: Path) -> None:
    whole, half = load_huggingface(folder), load_huggingface(folder, torch.bfloat16)
    for name, weight in half.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name].bfloat16())


def test_a_large_tensor_is_read_in_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reference_model import tensor_files

    whole = load_huggingface(folder).state_dict()
    monkeypatch.setattr(tensor_files, "MOST_AT_ONCE", 100)  # some rows of each
    for name, weight in load_huggingface(folder).state_dict().items():
        assert torch.equal(weight, whole[name])


def test_merged_adapters_are_written_into_queries_and_values(
    transformers: ModuleType, folder: Path, tmp_path: Path
) -> None:
    from reference_model.lora import merge_adapters

    model = load_huggingface(folder)
    add_adapters(model, LoRAConfig(2, targets=("query", "value"), init_b="gaussian"))
    merge_adapters(model)
    save_huggingface(model, tmp_path / "merged")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits_of(theirs), logits_of(model), rtol=0, atol=1e-5)


# ---- older files


def test_older_names_of_rotary_settings_are_read(
    tiny_llama: Callable[..., Any], folder: Path
) -> None:
    theirs = tiny_llama("Llama", rope_parameters=LLAMA3)
    theirs.save_pretrained(folder)
    told = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    edit(folder, "rope_parameters", rope_theta=500.0, rope_scaling=told)
    torch.testing.assert_close(
        logits_of(load_huggingface(folder)), logits_of(theirs), rtol=0, atol=1e-5
    )
    del told["rope_type"]
    edit(folder, rope_scaling={**told, "type": "llama3"})
    assert load_huggingface(folder).config.rope_scaling == "llama3"


def test_frequencies_that_old_files_carry_are_no_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert load_huggingface(folder).config.n_layer == 2


def test_names_may_lack_what_stands_before_them(folder: Path) -> None:
    expected = logits_of(load_huggingface(folder))
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(logits_of(load_huggingface(folder)), expected)


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "gemma"}, "has model_type='gemma', which the reference model cannot"),
        ({"hidden_act": "gelu"}, "has hidden_act='gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "has rope_type='dynamic'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'linear' without a factor"),
        ({"rope_parameters": {"rope_type": "default", "beta": 2.0}}, "has beta=2.0, and beta is"),
        ({"rope_parameters": {**YARN, "truncate": False}}, "has truncate=False"),
        ({"rope_parameters": {"rope_theta": 9.0}, "rope_theta": 8.0}, "has rope_theta=8.0 and, in"),
        ({"rope_scaling": [2]}, "has rope_scaling=[2]; use an object, or null"),
        ({"partial_rotary_factor": 0.5}, "has partial_rotary_factor=0.5"),
        ({"attention_bias": "yes"}, "has attention_bias='yes'; use true or false"),
        ({"no_rope_layers": [1, 0]}, "has no_rope_layers=[1, 0], and no_rope_layers is not known"),
        ({"num_key_value_heads": 4}, "n_head=6 is no multiple of n_kv_head=4"),
        ({"num_key_value_heads": 3}, "has layers.0.self_attn.k_proj.weight of shape (8, 24)"),
        ({"head_dim": 10}, "has layers.0.self_attn.q_proj.weight of shape (24, 24)"),
        ({"intermediate_size": 41}, "mlp.gate_proj.weight of shape (40, 24)"),
        ({"attention_bias": True}, "lacks 8 tensors that its config.json asks for"),
        ({"model_type": "qwen3"}, "lacks 4 tensors that its config.json asks for"),
        ({"layer_types": 5, "model_type": "qwen2"}, "has layer_types=5"),
        ({"layer_types": ["sliding_attention"] * 2, "model_type": "qwen2"}, "has layer_types="),
        ({"model_type": "mistral", "sliding_window": 8}, "has sliding_window=8"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "has use_sliding_window=True"),
    ],
    ids=str,
)
def test_what_cannot_be_represented_is_refused_by_name(
    folder: Path, changes: dict[str, object], told: str
) -> None:
    if changes.get("model_type") in ("qwen2", "qwen3", "mistral"):
        edit(folder, *LLAMAS_OWN)
    edit(folder, **changes)
    assert told in refusal(folder)


@pytest.mark.parametrize("name", [*llama.SIZES.values(), "num_key_value_heads"])
def test_a_size_that_is_not_told_is_refused(folder: Path, name: str) -> None:
    edit(folder, name, *LLAMAS_OWN, model_type="qwen2")
    assert f"lacks {name}; fetch it again" in refusal(folder)


def test_a_tensor_without_a_place_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.sinks"] = torch.ones(6)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    told = refusal(folder)
    assert "1 tensor that its config.json has no place for" in told
    assert "such as layers.0.self_attn.sinks" in told


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"mlp": "gelu"}, "llama's layout cannot store mlp='gelu', only 'swiglu'"),
        ({"norm_placement": "post"}, "llama's layout cannot store norm_placement='post'"),
        ({"qkv_bias": True, "mlp_bias": True}, "qwen2's layout cannot store mlp_bias=True"),
        (
            {"qk_norm": True, "qkv_bias": True},
            "store attention_output_bias=False, only True",
        ),
        ({"attention_output_bias": True}, "cannot store attention_output_bias=True, only False"),
        ({"rope_scaling": "ntk", "rope_scaling_factor": 2.0}, "only none, interpolation, llama3"),
        ({"dropout": 0.1}, "llama's layout cannot store dropout=0.1, only 0.0"),
        ({"n_head": 5, "d_head": 4, "n_kv_head": 1}, "cannot store n_embd=24 with n_head=5"),
    ],
    ids=str,
)
def test_what_the_layout_cannot_hold_is_refused_by_name(
    tmp_path: Path, choices: dict[str, object], told: str
) -> None:
    sizes = {"vocab_size": 9, "context_length": 8, "n_layer": 1, "n_head": 6, "n_embd": 24}
    fields = {**sizes, **OF_LLAMA, "bias": False, **choices}
    with pytest.raises(UserError) as raised:
        save_huggingface(GPT(GPTConfig(**fields)), tmp_path / "new")
    assert told in str(raised.value)
    assert not (tmp_path / "new").exists()
