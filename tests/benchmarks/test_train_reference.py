"""The recipe of the checkpoint, on a text and a model so small that it takes a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.instruments import texts
from benchmarks.training import train_reference
from benchmarks.training.train_reference import (
    BATCH_SIZE,
    CONFIG,
    RECIPE,
    compressed_bits_per_byte,
    run,
    train_tokenizer,
)
from reference_model.checkpoints import load, load_tokenizer, reference_card
from reference_model.training import Recipe

TEXTS = {
    "train": "To be, or not to be, that is the question.\n" * 60,
    "validation": "Whether 'tis nobler in the mind to suffer.\n" * 9,
    "test": "The slings and arrows of outrageous fortune.\n" * 9,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace(vocab_size=300, context_length=8, n_layer=1, n_head=2, n_embd=8)
    monkeypatch.setattr(train_reference, "CONFIG", config)
    monkeypatch.setattr(train_reference, "RECIPE", {**RECIPE, "steps": 4, "evaluate_every": 2})
    monkeypatch.setattr(train_reference, "play_texts", lambda split: {"a play": TEXTS[split]})
    monkeypatch.setattr(texts, "joined", TEXTS.__getitem__)


@pytest.mark.usefixtures("small")
def test_a_finished_run_writes_the_same_checkpoint_and_card_again(tmp_path: Path) -> None:
    run(tmp_path / "work", tmp_path / "first")
    run(tmp_path / "work", tmp_path / "second")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == [
        "card.json", "config.json", "model.safetensors", "test_slice.safetensors", "tokenizer.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.usefixtures("small")
def test_the_card_tells_what_was_done(tmp_path: Path) -> None:
    run(tmp_path / "work", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["steps"] == 4
    assert card["tokens_seen"] == 4 * BATCH_SIZE * 8
    assert [point["step"] for point in card["loss_curve"]] == [2, 4]
    assert card["recipe"]["dropout"] == CONFIG.dropout
    assert card["recipe"]["batch_size"] == BATCH_SIZE
    assert load(tmp_path / "out").config.dropout == 0
    ids = load_tokenizer(tmp_path / "out").encode(TEXTS["test"]).ids
    assert card["data"]["tokens"]["test"] == len(ids)


def test_the_shipped_card_tells_the_recipe_of_this_file() -> None:
    told = reference_card()["recipe"]
    assert told.pop("batch_size") == BATCH_SIZE
    assert told.pop("dropout") == CONFIG.dropout
    assert Recipe(**told) == Recipe(**RECIPE)


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = train_tokenizer(TEXTS["train"], 270)
    strange = "Zoë  \t\n→ 木 \x00 'tis"
    assert tokenizer.decode(tokenizer.encode(strange).ids) == strange
    assert tokenizer.get_vocab_size() == 270


def test_compressors_are_told_in_bits_per_byte() -> None:
    found = compressed_bits_per_byte("ab" * 5000)
    assert set(found) == {"bz2", "xz"}
    assert all(0 < bits < 0.2 for bits in found.values())
