"""A tokenizer is read as transformers reads it: what its training left in the file is off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from reference_model import reading, tokenizer_file
from reference_model.errors import Notice, UserError
from reference_model.tokenizer_file import decode, encode, load_tokenizer

TEXT = "To be, or not to be"


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """A byte-level BPE, as its file has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    fields: dict[str, Any] = json.loads(tokenizer.to_str())
    return fields


@pytest.fixture
def write(trained: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """write(key=…) → a folder with the tokenizer, changed."""

    def write(**changes: object) -> Path:
        content = json.dumps({**trained, **changes})
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        return tmp_path

    return write


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        encode(load_tokenizer(folder), "aaaa" * 10)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.K2
@pytest.mark.parametrize(
    "changes",
    [
        {
            "truncation": {
                "direction": "Right",
                "max_length": 3,
                "strategy": "LongestFirst",
                "stride": 0,
            }
        },
        {
            "padding": {
                "strategy": {"Fixed": 64},
                "direction": "Left",
                "pad_to_multiple_of": 8,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "!",
            }
        },
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_tokens_are_those_of_transformers(
    transformers: ModuleType, write: Callable[..., Path], changes: dict[str, Any]
) -> None:
    folder = write(**changes)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    assert encode(load_tokenizer(folder), TEXT) == theirs(TEXT).input_ids


@pytest.mark.K2
def test_merges_dropped_at_random_in_training_are_not_dropped_here(
    write: Callable[..., Path], trained: dict[str, Any]
) -> None:
    expected = encode(load_tokenizer(write()), TEXT)
    folder = write(model={**trained["model"], "dropout": 0.9})
    with pytest.warns(Notice, match=r"tokenizer\.json drops merges at random"):
        tokenizer = load_tokenizer(folder)
    assert all(encode(tokenizer, TEXT) == expected for _ in range(5))


@pytest.mark.K2
def test_a_key_that_is_not_known_is_refused_by_its_name(write: Callable[..., Path]) -> None:
    assert "has new_kind=3, and new_kind is not known here" in refusal(write(new_kind=3))


@pytest.mark.K1
def test_settings_beside_the_tokenizer_that_say_otherwise_are_told(
    write: Callable[..., Path],
) -> None:
    folder = write()
    expected = encode(load_tokenizer(folder), TEXT)
    (folder / "tokenizer_config.json").write_text('{"add_prefix_space": true}', encoding="utf-8")
    with pytest.warns(Notice, match=r"add_prefix_space=True and tokenizer\.json has False"):
        tokenizer = load_tokenizer(folder)
    assert encode(tokenizer, TEXT) == expected
    (folder / "tokenizer_config.json").write_text('{"add_prefix_space": false}', encoding="utf-8")
    load_tokenizer(folder)


@pytest.mark.K2
def test_marks_are_part_of_the_text_and_tokens_without_one_are_told(
    write: Callable[..., Path],
) -> None:
    mark = {"id": 280, "content": "<end>", "special": True, "normalized": False}
    mark |= {"single_word": False, "lstrip": False, "rstrip": False}
    tokenizer = load_tokenizer(write(added_tokens=[mark]))
    (end,) = encode(tokenizer, "<end>")
    ids = encode(tokenizer, TEXT)
    assert decode(tokenizer, [*ids, end, *ids]) == f"{TEXT}<end>{TEXT}"
    with pytest.warns(Notice, match=r"2 tokens are not known to the tokenizer, the first is 999"):
        assert decode(tokenizer, [*ids, 999, 1000]) == TEXT


@pytest.mark.K8
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(a+)+$"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            "the tokenizer fails on the text (Onig: Regex search error: retry-limit",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            "tokenizer.json is not a tokenizer (Precompiled",
        ),
        ({"model": {"type": "Unigram", "vocab": [], "unk_id": 5}}, "is not a tokenizer"),
        ({"version": "9.0"}, "is not a tokenizer (Cannot instantiate Tokenizer"),
    ],
    ids=["catastrophic pattern", "damaged table", "no vocabulary", "version"],
)
def test_a_tokenizer_that_fails_is_told_in_one_line_and_nothing_else_is_printed(
    write: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    told: str,
) -> None:
    folder = write(**changes)
    if "pre_tokenizer" in changes:
        # Not only a's: the pattern tries all ways of cutting them before it gives up.
        with pytest.raises(UserError) as raised:
            encode(load_tokenizer(folder), "a" * 30 + "!")
        message = str(raised.value)
    else:
        message = refusal(folder)
    assert told in message
    assert len(message.splitlines()) == 1
    assert capfd.readouterr() == ("", "")
    os.write(2, b"seen")  # the standard error is back
    assert capfd.readouterr().err == "seen"


@pytest.mark.K8
def test_the_size_of_a_tokenizer_is_limited(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write()
    monkeypatch.setattr(tokenizer_file, "MOST_BYTES", 1000)
    assert "holds more than 1,000 bytes" in refusal(folder)
    assert reading.MOST_BYTES > 1000
