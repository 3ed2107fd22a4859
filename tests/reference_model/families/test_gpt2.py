"""Our model is GPT-2: the same weights give the same logits as the common implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_model.checkpoints import load_huggingface
from reference_model.errors import UserError
from reference_model.generate import generate

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "odd": {"vocab_size": 97, "n_positions": 37, "n_embd": 63, "n_layer": 3, "n_head": 3},
    "untied": {
        "vocab_size": 50,
        "n_positions": 32,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
    },
}
MOST = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(scope="module")
def theirs(tiny_gpt2: Callable[..., Any]) -> Callable[..., Any]:
    """theirs(shape, dtype) → their model, its weights so large that logits are of order one."""
    built: dict[tuple[str, torch.dtype], Any] = {}

    def build(shape: str, dtype: torch.dtype = torch.float32) -> Any:
        if (shape, dtype) not in built:
            # "eager" is their plain attention, written out as matrix products and a softmax.
            model = tiny_gpt2(**SHAPES[shape], attn_implementation="eager").to(dtype)
            generator = torch.Generator().manual_seed(2)
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                spread = parameter.shape[0] ** -0.5 if "c_" in name and noise.ndim == 2 else 0.3
                middle = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
                parameter.data.copy_(middle + spread * noise)
            built[shape, dtype] = model
        return built[shape, dtype]

    return build


@pytest.fixture
def saved(theirs: Callable[..., Any], tmp_path: Path) -> Path:
    """A folder with the tiny model as they write it."""
    theirs("tiny").save_pretrained(tmp_path)
    return tmp_path


def prompt_for(shape: str) -> torch.Tensor:
    size = (2, SHAPES[shape]["n_positions"])
    return torch.randint(
        SHAPES[shape]["vocab_size"], size, generator=torch.Generator().manual_seed(3)
    )


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


# ---- the same logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_the_common_implementation(
    theirs: Callable[..., Any], shape: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    reference = theirs(shape, dtype)
    reference.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype)
    tokens = prompt_for(shape)
    with torch.no_grad():
        expected, logits = reference(tokens).logits, model(tokens)
    assert logits.dtype == dtype
    assert 0.5 < expected.std() < 20
    assert (logits - expected).abs().max() <= MOST[dtype]


@pytest.mark.parametrize("layout", ["sharded", "without prefix", "with the masks of old files"])
def test_every_layout_of_the_same_weights_loads_the_same_model(
    theirs: Callable[..., Any], saved: Path, layout: str, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    if layout == "sharded":
        theirs("tiny").save_pretrained(folder, max_shard_size="4KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
    elif layout == "without prefix":
        theirs("tiny").transformer.save_pretrained(folder)
        assert "wte.weight" in load_file(folder / "model.safetensors")
    else:
        theirs("tiny").save_pretrained(folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
        tensors["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
        save_file(tensors, folder / "model.safetensors")
    expected, found = load_huggingface(saved).state_dict(), load_huggingface(folder).state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_tied_head_stays_tied_and_an_untied_one_apart(
    theirs: Callable[..., Any], saved: Path, tmp_path: Path
) -> None:
    tied = load_huggingface(saved)
    theirs("untied").save_pretrained(tmp_path / "untied")
    untied = load_huggingface(tmp_path / "untied")
    assert tied.lm_head.weight is tied.wte.weight
    assert not torch.equal(untied.lm_head.weight, untied.wte.weight)


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_tokens_equal_those_of_the_common_implementation(
    theirs: Callable[..., Any], use_cache: bool, tmp_path: Path
) -> None:
    reference = theirs("untied", torch.float64)
    reference.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, torch.float64)
    prompt = prompt_for("untied")[:, :5]
    expected = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20
    )
    assert expected.shape == (2, 25)
    assert expected[:, 5:].unique().numel() > 5  # not the same over and over
    assert torch.equal(generate(model, prompt, 20, use_cache=use_cache), expected)


# ---- what cannot be loaded is named


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def replace_by_index(folder: Path, content: object) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (
        lambda folder: change_tensors(folder, lambda t: t.pop("transformer.h.1.mlp.c_fc.bias")),
        r"lacks 1 tensor.*h\.1\.mlp\.c_fc\.bias",
    ),
    "unknown tensor": (
        lambda folder: change_tensors(folder, lambda t: t.update(extra=torch.ones(2))),
        r"1 tensor that .*no place for.*extra",
    ),
    "wrong shape": (
        lambda folder: change_tensors(
            folder, lambda t: t.update({"transformer.wpe.weight": torch.ones(31, 16)})
        ),
        r"wpe\.weight of shape \(31, 16\).*\(32, 16\)",
    ),
    "another width": (
        lambda folder: edit_json(folder / "config.json", n_embd=18),
        r"wte\.weight of shape \(50, 16\).*asks for \(50, 18\)",
    ),
    "truncated weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:-100]
        ),
        r"model\.safetensors is not a whole safetensors file",
    ),
    "corrupt weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 1000),
        r"model\.safetensors is not a whole safetensors file",
    ),
    "empty weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        r"model\.safetensors is not a whole safetensors file",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"model\.safetensors does not exist",
    ),
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        r"config\.json does not exist",
    ),
    "broken configuration": (
        lambda folder: (folder / "config.json").write_text('{"n_embd": 16,'),
        r"config\.json cannot be read",
    ),
    "configuration without an object": (
        lambda folder: (folder / "config.json").write_text("[]"),
        r"config\.json holds list, not an object",
    ),
    "another activation": (
        lambda folder: edit_json(folder / "config.json", activation_function="relu"),
        r"activation_function='relu'.*gelu_new",
    ),
    "another family": (
        lambda folder: edit_json(folder / "config.json", model_type="gemma"),
        r"model_type='gemma'.*gpt2",
    ),
    "another attention": (
        lambda folder: edit_json(folder / "config.json", scale_attn_by_inverse_layer_idx=True),
        r"scale_attn_by_inverse_layer_idx=True",
    ),
    "another width of the MLP": (
        lambda folder: edit_json(folder / "config.json", n_inner=48),
        r"h\.0\.mlp\.c_fc\.weight of shape \(64, 16\).*\(48, 16\)",
    ),
    "impossible heads": (
        lambda folder: edit_json(folder / "config.json", n_head=3),
        r"n_embd=16 is no multiple of n_head=3",
    ),
    "index without shards": (
        lambda folder: replace_by_index(folder, {}),
        r"model\.safetensors\.index\.json has no weight_map",
    ),
    "index of no files": (
        lambda folder: replace_by_index(folder, {"weight_map": {"wte.weight": 1}}),
        r"model\.safetensors\.index\.json has no weight_map",
    ),
    "missing shard": (
        lambda folder: replace_by_index(
            folder, {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors"}}
        ),
        r"model-00001-of-00002\.safetensors does not exist",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_loaded_is_named_in_one_line(saved: Path, damage: str) -> None:
    break_it, message = DAMAGES[damage]
    load_huggingface(saved)
    break_it(saved)
    with pytest.raises(UserError, match=message) as raised:
        load_huggingface(saved)
    assert "\n" not in str(raised.value)
