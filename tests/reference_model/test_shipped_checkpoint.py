"""The checkpoint in the package is what its card says it is."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from reference_model import checkpoints
from reference_model.config import from_fields, preset
from reference_model.generate import generate
from reference_model.model import GPT
from reference_model.training import mean_loss


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return checkpoints.reference_card()


@pytest.fixture(scope="module")
def model() -> GPT:
    return checkpoints.load_reference()


@pytest.fixture(scope="module")
def slice_tokens(card: dict[str, Any]) -> Tensor:
    """The first 4,096 tokens of the test plays."""
    stored = load_file(checkpoints.REFERENCE_FOLDER / card["test_slice"]["file"])
    assert stored.keys() == {"tokens"}
    assert stored["tokens"].dtype == torch.int16
    return stored["tokens"].long()


def test_the_shipped_weights_reproduce_the_loss_of_their_card(
    model: GPT, card: dict[str, Any], slice_tokens: Tensor
) -> None:
    assert slice_tokens.shape == (card["test_slice"]["tokens"],) == (4096,)
    loss = mean_loss(model, slice_tokens)
    assert loss == pytest.approx(card["test_slice"]["loss"], abs=1e-4)


def test_the_weights_are_of_the_reference_preset(model: GPT, card: dict[str, Any]) -> None:
    assert model.config == preset("reference")
    assert from_fields(card["config"]) == model.config
    assert 5e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 7e6


def test_the_checkpoint_is_small_enough_to_ship(card: dict[str, Any]) -> None:
    files = {path.name: path for path in checkpoints.REFERENCE_FOLDER.iterdir()}
    assert files.keys() - {"README.md"} == {
        "card.json",
        "config.json",
        "model.safetensors",
        "test_slice.safetensors",
        "tokenizer.json",
    }
    assert files["model.safetensors"].stat().st_size <= 14e6
    stored = load_file(files["model.safetensors"])
    assert {tensor.dtype for tensor in stored.values()} <= {torch.float16, torch.bfloat16}


def test_the_card_tells_where_the_weights_come_from(card: dict[str, Any]) -> None:
    assert card["recipe"]["seed"] == 0
    assert card["command"] == "make train"
    assert card["tokens_seen"] > 1e6
    assert card["best_step"] <= card["steps"]
    assert len(card["data"]["sha256"]) == len(hashlib.sha256().hexdigest())
    plays = [set(card["data"]["plays"][split]) for split in ("train", "validation", "test")]
    assert all(plays)
    assert len(set.union(*plays)) == sum(map(len, plays))  # no play is in two splits
    best = min(entry["validation"] for entry in card["loss_curve"])
    # The card's losses are of the weights as rounded for shipping.
    assert card["loss"]["validation"] == pytest.approx(best, abs=0.005)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_bits_per_byte_follow_from_the_loss_of_the_card(card: dict[str, Any], split: str) -> None:
    data = card["data"]
    bits = card["loss"][split] / math.log(2) * data["tokens"][split] / data["bytes"][split]
    assert card["bits_per_byte"][split] == pytest.approx(bits, rel=1e-9)


def test_the_test_plays_cost_fewer_bits_than_the_bars_ask(card: dict[str, Any]) -> None:
    bits = card["bits_per_byte"]["test"]
    assert bits <= 2.10
    assert bits <= (1 - 0.12) * card["compressors_bits_per_byte"]["test"]["bz2"]


@pytest.mark.parametrize(
    "text",
    [
        "ROMEO.\nBut, soft! what light through yonder window breaks?",
        "naïve café — 東京 🎭\tend",
        "  two  spaces\r\n\r\n",
        "",
    ],
)
def test_the_tokenizer_gives_every_text_back(text: str) -> None:
    tokenizer = checkpoints.reference_tokenizer()
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < preset("reference").vocab_size for token in ids)
    assert tokenizer.get_vocab_size() <= preset("reference").vocab_size


def test_the_slice_is_text_of_the_plays(slice_tokens: Tensor) -> None:
    tokenizer = checkpoints.reference_tokenizer()
    text = tokenizer.decode(slice_tokens.tolist())
    assert "�" not in text
    assert tokenizer.encode(text).ids == slice_tokens.tolist()
    words = text.lower().split()
    assert sum(words.count(word) for word in ("the", "and", "to", "of")) > 0.05 * len(words)


def test_the_model_writes_the_same_with_and_without_a_cache(model: GPT) -> None:
    prompt = torch.tensor([checkpoints.reference_tokenizer().encode("My lord, I").ids])
    written = generate(model, prompt, 20)
    assert written[0, prompt.shape[1] :].unique().numel() > 3
    assert torch.equal(written, generate(model, prompt, 20, use_cache=False))
