"""A model by its name: whichever way it lies, it is the same model with its own tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from reference_model import checkpoints
from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.models import open_model

TOKENS = torch.tensor([[5, 6, 7]])


@pytest.fixture
def huggingface(tmp_path: Path) -> Path:
    """The shipped model as a folder of GPT-2, with its tokenizer and an end."""
    save_huggingface(checkpoints.load_reference(), tmp_path, eos_token_id=3)
    shutil.copy(checkpoints.REFERENCE_FOLDER / "tokenizer.json", tmp_path)
    return tmp_path


def test_our_folder_and_that_of_transformers_are_told_apart(huggingface: Path) -> None:
    ours, theirs = open_model("reference"), open_model(huggingface)
    assert ours.place == checkpoints.REFERENCE_FOLDER
    with torch.no_grad():
        assert torch.equal(ours.model(TOKENS), theirs.model(TOKENS))
    assert theirs.find_ends() == (3,)
    assert ours.tokenizer.to_str() == theirs.tokenizer.to_str()


def test_what_decoding_is_asked_for_is_of_no_matter_until_it_decodes(huggingface: Path) -> None:
    (huggingface / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.05}))
    opened = open_model(huggingface)
    with pytest.raises(UserError, match=r"repetition_penalty=1\.05"):
        opened.find_ends()


def test_a_tokenizer_that_knows_more_tokens_than_the_model_is_refused(huggingface: Path) -> None:
    path = huggingface / "tokenizer.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    added = {"special": False, "single_word": False, "lstrip": False, "rstrip": False}
    fields["added_tokens"].append({"id": 4096, "content": "<more>", "normalized": False, **added})
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(UserError, match=r"a tokenizer of 4,097 tokens for a model of 4,096"):
        open_model(huggingface)
