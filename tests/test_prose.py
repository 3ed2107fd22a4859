"""What people read is short: no sentence of a guide is longer than 35 words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prose import sentences, words

LONGEST = 35


def longest(markdown: str) -> str:
    return max(sentences(markdown), key=words, default="")


def test_no_sentence_of_a_guide_is_longer_than_35_words(
    root: Path, repository_files: list[Path]
) -> None:
    pages = [path for path in repository_files if path.suffix == ".md"]
    names = {str(path.relative_to(root)): path for path in pages}
    assert {
        "README.md",
        "benchmarks/README.md",
        "reports/README.md",
        "tests/README.md",
    } <= names.keys()
    found = {name: longest(path.read_text(encoding="utf-8")) for name, path in names.items()}
    assert {name: each for name, each in found.items() if words(each) > LONGEST} == {}


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("One two. Three four five!\n", ["One two.", "Three four five!"]),
        ("One\ntwo (see `a b`).\n\n```sh\nno prose. at all.\n```\n", ["One two (see a b)."]),
        ("- An item\n- Another. More\n", ["An item", "Another.", "More"]),
        (
            "| a | b |\n|---|---|\n| One cell | 1.5 of them |\n",
            ["a", "b", "One cell", "1.5 of them"],
        ),
        ("A [link](https://example.org/a.b) ends.\n", ["A link ends."]),
    ],
)
def test_sentences_are_found_as_a_reader_meets_them(markdown: str, expected: list[str]) -> None:
    assert list(sentences(markdown)) == expected


def test_a_long_sentence_is_measured() -> None:
    assert words(longest(f"Short. {'word ' * 36}. Short — again.\n")) == 36
    assert words("One — two = 3") == 3
