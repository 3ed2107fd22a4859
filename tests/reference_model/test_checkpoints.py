"""What is saved is what is loaded; what is damaged is named; what fails leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_model import checkpoints
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.model import GPT
from reference_model.training import Recipe, train

CHOICES = [
    {},
    {"head": "untied"},
    {"bias": False},
    {"norm": "rmsnorm"},
    {"initialization": "xavier", "embedding_scale": "sqrt_width"},
    {"dropout": 0.1},
    {"position": "rope", "rope_scaling": "ntk", "rope_scaling_factor": 2.0, "rope_base": 500.0},
    *({"position": position} for position in ("sinusoidal", "alibi", "none")),
    *({"norm_placement": placement} for placement in ("post", "double", "deepnorm")),
]
TOKENS = torch.arange(8)[None]


def logits_of(model: GPT) -> Tensor:
    with torch.inference_mode():
        return model.eval()(TOKENS)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- round trip


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "-".join(map(str, c.values())) or "gpt2")
def test_a_saved_model_comes_back_with_its_choices_and_its_bits(
    tiny_model: Callable[..., GPT], choices: dict[str, object], tmp_path: Path
) -> None:
    model = tiny_model(torch.float32, **choices)
    checkpoints.save(model, tmp_path / "new" / "folder")
    found = checkpoints.load(tmp_path / "new" / "folder")
    assert found.config == model.config
    assert not found.training
    assert torch.equal(logits_of(found), logits_of(model))
    assert names_in(tmp_path / "new" / "folder") == ["config.json", "model.safetensors"]


def test_a_tied_head_is_stored_once_and_an_untied_one_of_its_own(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    for head in ("tied", "untied"):
        checkpoints.save(tiny_model(torch.float32, head=head), tmp_path / head)
    stored = {head: load_file(tmp_path / head / "model.safetensors") for head in ("tied", "untied")}
    assert stored["untied"].keys() - stored["tied"].keys() == {"lm_head.weight"}
    tied, untied = checkpoints.load(tmp_path / "tied"), checkpoints.load(tmp_path / "untied")
    assert tied.lm_head.weight is tied.wte.weight
    assert not torch.equal(untied.lm_head.weight, untied.wte.weight)


def test_a_loaded_model_can_be_trained_further(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    checkpoints.save(tiny_model(torch.float32), tmp_path)
    model = checkpoints.load(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = Recipe(steps=2, learning_rate=1e-2, warmup_steps=0)
    assert len(list(train(model, lambda step: TOKENS, torch.arange(13), recipe))) == 2
    assert all(not torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert model.lm_head.weight is model.wte.weight


def test_weights_may_be_stored_in_half_the_bytes(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    model = tiny_model(torch.float32)
    checkpoints.save(model, tmp_path, torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    found = checkpoints.load(tmp_path)
    for name, tensor in model.state_dict().items():
        assert found.state_dict()[name].dtype == torch.float32
        assert torch.equal(found.state_dict()[name], tensor.half().float())
    assert model.wte.weight.dtype == torch.float32


def test_a_model_may_be_loaded_in_another_dtype(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    checkpoints.save(tiny_model(torch.float32), tmp_path)
    model = checkpoints.load(tmp_path, torch.float64)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert logits_of(model).dtype == torch.float64


def test_loading_draws_no_random_numbers(tiny_model: Callable[..., GPT], tmp_path: Path) -> None:
    checkpoints.save(tiny_model(torch.float32), tmp_path)
    before = torch.get_rng_state()
    checkpoints.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# ---- damage


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def drop_from_config(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config[name]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def keep_bytes(folder: Path, end: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:end])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (
        lambda folder: change_tensors(folder, lambda t: t.pop("h.1.attn.c_proj.weight")),
        r"lacks 1 tensor that its config\.json asks for, such as h\.1\.attn\.c_proj\.weight",
    ),
    "missing embedding": (
        lambda folder: change_tensors(folder, lambda t: t.pop("wte.weight")),
        r"such as .*weight",
    ),
    "unknown tensor": (
        lambda folder: change_tensors(folder, lambda t: t.update(other=torch.ones(1))),
        r"has 1 tensor that its config\.json has no place for, such as other",
    ),
    "wrong shape": (
        lambda folder: change_tensors(
            folder, lambda t: t.update({"wte.weight": torch.ones(9, 16)})
        ),
        r"weight of shape \(9, 16\), its config\.json asks for \(23, 16\)",
    ),
    "more layers in the configuration": (
        lambda folder: change_config(folder, n_layer=3),
        r"has 2 layers, its config\.json asks for 3",
    ),
    "fewer layers in the configuration": (
        lambda folder: change_config(folder, n_layer=1),
        r"has 2 layers, its config\.json asks for 1",
    ),
    "another context in the configuration": (
        lambda folder: change_config(folder, context_length=13),
        r"wpe\.weight of shape \(12, 16\), its config\.json asks for \(13, 16\)",
    ),
    "no number of heads in the configuration": (
        lambda folder: drop_from_config(folder, "n_head"),
        r"config\.json lacks n_head",
    ),
    "whole numbers for weights": (
        lambda folder: change_tensors(
            folder, lambda t: t.update({"ln_f.bias": torch.zeros(16, dtype=torch.int8)})
        ),
        r"has ln_f\.bias as I8, which are no weights",
    ),
    "unknown choice": (
        lambda folder: change_config(folder, position="rotary"),
        r"position='rotary' is not a known choice",
    ),
    "unknown field": (
        lambda folder: change_config(folder, colour="red"),
        r"unknown field 'colour'",
    ),
    "weights without their end": (
        lambda folder: keep_bytes(folder, -1),
        r"model\.safetensors is not a whole safetensors file",
    ),
    "weights without their middle": (
        lambda folder: keep_bytes(folder, 50),
        r"model\.safetensors is not a whole safetensors file",
    ),
    "empty weights": (
        lambda folder: keep_bytes(folder, 0),
        r"model\.safetensors is not a whole safetensors file",
    ),
    "noise for weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(bytes(range(256)) * 9),
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
    "half a configuration": (
        lambda folder: (folder / "config.json").write_text('{"n_layer": '),
        r"config\.json cannot be read",
    ),
    "a configuration that is no text": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
        r"config\.json cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named_in_one_line(
    tiny_model: Callable[..., GPT], damage: str, tmp_path: Path
) -> None:
    break_it, message = DAMAGES[damage]
    checkpoints.save(tiny_model(torch.float32), tmp_path)
    break_it(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        checkpoints.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/config\.json does not exist"):
        checkpoints.load(tmp_path / "nowhere")


# ---- a failed write


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """full_disk(name): writing a file with this in its name ends half-way, as on a full disk."""
    sync = os.fsync

    def fill(name: str) -> None:
        def sync_or_fail(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if name in path.name:
                os.truncate(path, path.stat().st_size // 2)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", sync_or_fail)

    return fill


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_full_disk_leaves_the_older_checkpoint_whole_and_nothing_else(
    tiny_model: Callable[..., GPT], full_disk: Callable[[str], None], file: str, tmp_path: Path
) -> None:
    checkpoints.save(tiny_model(torch.float32), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    full_disk(file)
    with pytest.raises(UserError, match=r"cannot write to .*No space left.*free some space") as e:
        checkpoints.save(tiny_model(torch.float32, head="untied"), tmp_path)
    assert "\n" not in str(e.value)
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_full_disk_leaves_no_half_checkpoint(
    tiny_model: Callable[..., GPT], full_disk: Callable[[str], None], file: str, tmp_path: Path
) -> None:
    full_disk(file)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.save(tiny_model(torch.float32), tmp_path)
    assert names_in(tmp_path) == []


def test_a_full_disk_leaves_the_older_training_state_whole(
    tiny_model: Callable[..., GPT], full_disk: Callable[[str], None], tmp_path: Path
) -> None:
    recipe = Recipe(steps=4, learning_rate=1e-3, evaluate_every=2)
    model = tiny_model(torch.float32)
    steps = train(model, lambda step: TOKENS, torch.arange(13), recipe, tmp_path)
    assert [next(steps).step for _ in range(3)] == [1, 2, 3]
    before = (tmp_path / "state.pt").read_bytes()
    full_disk("state.pt")
    with pytest.raises(UserError, match="No space left"):
        next(steps)
    assert names_in(tmp_path) == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(
    tiny_model: Callable[..., GPT], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot write to .*file/folder"):
        checkpoints.save(tiny_model(torch.float32), tmp_path / "file" / "folder")
    assert names_in(tmp_path) == ["file"]


def test_files_are_written_with_their_content_and_replace_older_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("older and longer", encoding="utf-8")
    write_whole(tmp_path, {"a": b"new", "b": b"\x00\x01"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"new",
        "b": b"\x00\x01",
    }
