"""The tokenizer that a GGUF file holds: its rule, its marks, and what cannot be built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reference_model.errors import UserError
from reference_model.families.gguf_tokenizer import ends_of, tokenizer_of


def fields(**changes: object) -> dict[str, Any]:
    alphabet = sorted({*"helo wrd123", "Ġ"} - {" "})
    tokens = ["<s>", "</s>", *alphabet, "he", "Ġw", "12"]
    found = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [3, 3, *[1] * (len(tokens) - 2)],
        "merges": ["h e", "Ġ w", "1 2"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in found.items() if value is not None}


def cut(text: str, **changes: object) -> list[str]:
    return list(tokenizer_of(fields(**changes), Path("a.gguf")).encode(text).tokens)


def test_a_text_is_cut_by_the_rule_that_the_file_names() -> None:
    assert cut("he w12") == ["he", "Ġw", "1", "2"]  # each digit alone
    assert cut("he w12", pre="gpt-2") == ["he", "Ġw", "12"]
    assert cut("he 12", pre="llama-bpe", add_bos_token=False) == ["he", "Ġ", "12"]
    assert cut("he 12", pre="qwen2") == ["he", "Ġ", "1", "2"]


def test_a_first_token_is_added_where_the_file_says_so() -> None:
    assert cut("he") == ["he"]
    assert cut("he", add_bos_token=True) == ["<s>", "he"]
    assert cut("he", pre="llama-bpe") == ["<s>", "he"]  # which llama.cpp does unless told otherwise


def test_marks_are_whole_tokens_and_end_a_text() -> None:
    assert cut("he</s>he") == ["he", "</s>", "he"]
    assert ends_of(fields(), Path("a.gguf")) == (1,)
    assert ends_of(fields(eot_token_id=0), Path("a.gguf")) == (1, 0)
    tokenizer = tokenizer_of(fields(), Path("a.gguf"))
    assert tokenizer.decode(tokenizer.encode("he w12").ids) == "he w12"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "llama"}, "has tokenizer.ggml.model='llama', which cannot be built here"),
        ({"pre": "deepseek-llm"}, "has tokenizer.ggml.pre='deepseek-llm', a rule that is not"),
        ({"pre": None}, "has tokenizer.ggml.pre=None"),
        ({"tokens": ["a", "a"]}, "has one of its tokens twice"),
        ({"tokens": 5}, "has tokenizer.ggml.tokens that are no texts"),
        ({"merges": [1]}, "has tokenizer.ggml.merges that are no texts"),
        ({"merges": ["h h"]}, "has merges of what is no token"),
        ({"merges": ["he"]}, "has merges of what is no token"),
        (
            {"add_bos_token": True, "bos_token_id": 99},
            "has tokenizer.ggml.bos_token_id=99, which is no token's id",
        ),
        ({"add_eos_token": True}, "has add_eos_token=True"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces is not known"),
    ],
    ids=str,
)
def test_a_tokenizer_that_cannot_be_built_is_refused_by_the_key(
    changes: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError) as raised:
        tokenizer_of(fields(**changes), Path("a.gguf"))
    assert told in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
