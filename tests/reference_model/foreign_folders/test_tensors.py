"""Tensors that contradict each other: the head and the embedding, and one tensor's many names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_model

from reference_model import checkpoints
from reference_model.checkpoints import load_huggingface
from reference_model.config import GPTConfig
from reference_model.errors import Notice
from reference_model.model import GPT
from tests.reference_model.foreign_folders.folders import (
    HEAD,
    WTE,
    Tensors,
    change,
    drawn,
    edit,
    logits_of,
    refusal,
    their_logits,
)

# ---- the head and the embedding


@pytest.mark.K1
@pytest.mark.parametrize("silent", [False, True])
def test_a_head_that_differs_from_the_embedding_is_kept_and_told(
    theirs: Any, folder: Path, silent: bool
) -> None:
    change(folder, lambda t: t.update({HEAD: drawn(50, 16)}))
    edit(folder, *(["tie_word_embeddings"] if silent else []))
    with pytest.warns(Notice, match=r"differs from wte\.weight.*the head is untied"):
        model = load_huggingface(folder)
    assert model.config.head == "untied"
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)
    assert (logits_of(model) - logits_of(theirs)).abs().max() > 1


def test_a_head_that_equals_the_embedding_stays_tied(theirs: Any, folder: Path) -> None:
    change(folder, lambda t: t.update({HEAD: t[WTE].clone()}))
    model = load_huggingface(folder)
    assert model.lm_head.weight is model.wte.weight
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


def test_a_head_that_equals_the_embedding_in_the_dtype_asked_for_stays_tied(folder: Path) -> None:
    change(folder, lambda t: t.update({HEAD: t[WTE].bfloat16()}))
    model = load_huggingface(folder, torch.bfloat16)
    assert model.lm_head.weight is model.wte.weight
    with pytest.warns(Notice, match="untied"):
        assert load_huggingface(folder).config.head == "untied"


def test_a_tied_folder_may_store_the_head_alone(theirs: Any, folder: Path) -> None:
    change(folder, lambda t: t.update({HEAD: t.pop(WTE)}))
    model = load_huggingface(folder)
    assert model.lm_head.weight is model.wte.weight
    torch.testing.assert_close(logits_of(model), their_logits(theirs, folder), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_what_save_model_leaves_of_tied_tensors_is_read(
    theirs: Any, folder: Path, tied: bool
) -> None:
    save_model(theirs, str(folder / "model.safetensors"))
    assert WTE not in load_file(folder / "model.safetensors")
    edit(folder, tie_word_embeddings=tied)
    model = load_huggingface(folder)
    assert model.config.head == ("tied" if tied else "untied")
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


def test_an_untied_folder_without_its_head_is_refused(folder: Path) -> None:
    edit(folder, tie_word_embeddings=False)
    assert "lacks 1 tensor that its config.json asks for, such as lm_head.weight" in refusal(folder)
    change(folder, lambda t: t.update({HEAD: t.pop(WTE)}))
    assert "lacks 1 tensor that its config.json asks for, such as wte.weight" in refusal(folder)


@pytest.fixture(scope="module")
def own_as_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    sizes = {"vocab_size": 50, "context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 16}
    torch.manual_seed(2)
    checkpoints.save(GPT(GPTConfig(**sizes)), folder)
    return folder


@pytest.fixture
def own_folder(own_as_saved: Path, tmp_path: Path) -> Path:
    """What `save` wrote, to be changed."""
    return Path(shutil.copytree(own_as_saved, tmp_path / "own"))


def test_our_own_folders_are_read_by_the_same_rules(own_folder: Path) -> None:
    whole = checkpoints.load(own_folder)
    change(own_folder, lambda t: t.update({HEAD: t["wte.weight"].clone()}))
    assert checkpoints.load(own_folder).config.head == "tied"
    change(own_folder, lambda t: t.pop("wte.weight"))
    assert torch.equal(logits_of(checkpoints.load(own_folder)), logits_of(whole))
    head = drawn(50, 16)
    change(own_folder, lambda t: t.update({"wte.weight": t[HEAD], HEAD: head}))
    with pytest.warns(Notice, match="the head is untied"):
        model = checkpoints.load(own_folder)
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.wte.weight, whole.wte.weight)
    checkpoints.save(model, own_folder)
    assert torch.equal(logits_of(checkpoints.load(own_folder)), logits_of(model))


# ---- one name for each tensor


def rename(how: Callable[[str], str]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for key in list(tensors):
            tensors[how(key)] = tensors.pop(key)

    return change


@pytest.mark.parametrize(
    "how",
    [
        lambda key: key.removeprefix("transformer."),
        lambda key: f"base_model.model.{key}",
        lambda key: f"base_model.model.{key.replace('c_attn.', 'c_attn.base_layer.')}",
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
    ],
    ids=["bare", "PEFT", "PEFT's linears", "data parallel", "compiled"],
)
def test_wrappers_are_no_part_of_a_name(
    theirs: Any, folder: Path, how: Callable[[str], str]
) -> None:
    change(folder, rename(how))
    model = load_huggingface(folder)
    torch.testing.assert_close(logits_of(model), logits_of(theirs), rtol=0, atol=1e-5)


@pytest.mark.K1
@pytest.mark.parametrize("name", ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"])
def test_two_spellings_of_one_tensor_have_to_agree(theirs: Any, folder: Path, name: str) -> None:
    change(folder, lambda t: t.update({name: t[f"transformer.{name}"].clone()}))
    torch.testing.assert_close(
        logits_of(load_huggingface(folder)), logits_of(theirs), rtol=0, atol=1e-5
    )
    change(folder, lambda t: t[name].view(-1)[-1].add_(1))
    assert f"has {name} twice, as" in refusal(folder)
    change(folder, lambda t: t.update({name: t[name][:-1].clone()}))
    assert f"has {name} twice, as" in refusal(folder)
