"""The standard library's topics as text: split by name, and no passage on two sides."""

from __future__ import annotations

from pydoc_data.topics import topics

import pytest

from benchmarks.instruments.topics import (
    LEAST_SHARED,
    SPLITS,
    split_of,
    split_topics,
    topic_text,
    topic_tokens,
    topics_digest,
    topics_source,
)
from reference_model.checkpoints import reference_tokenizer

PASSAGE = "This passage is long enough that nobody would write it twice by chance."


def passages(text: str) -> set[str]:
    every = (" ".join(passage.split()) for passage in text.split("\n\n"))
    return {passage for passage in every if len(passage) >= LEAST_SHARED}


def of_split(split: str) -> str:
    """A made-up name that falls into a split."""
    return next(name for name in map(str, range(100)) if split_of(name) == split)


def test_each_topic_is_in_one_split_whatever_its_text() -> None:
    splits = split_topics(topics)
    assert sorted(name for texts in splits.values() for name in texts) == sorted(topics)
    assert split_topics(dict.fromkeys(topics, "other"))["test"].keys() == splits["test"].keys()


def test_no_passage_stands_in_two_splits_though_topics_repeat_each_other() -> None:
    whole = [topic for split in SPLITS for topic in split_topics(topics)[split]]
    assert len(whole) == len(topics)
    unsplit = {
        split: passages("\n\n".join(topics[name] for name in split_topics(topics)[split]))
        for split in SPLITS
    }
    assert unsplit["train"] & unsplit["test"]  # by name alone, it would
    parts = [passages(topic_text(split)) for split in SPLITS]
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_a_passage_told_again_with_another_indent_is_dropped_where_it_comes_later() -> None:
    train, test = of_split("train"), of_split("test")
    again = PASSAGE.replace(" nobody", "\n      nobody")
    made = split_topics({train: PASSAGE, test: f"short\n\n{again}\n\nits own"})
    assert made["train"] == {train: PASSAGE}
    assert made["test"] == {test: "short\n\nits own"}


def test_what_is_short_may_stand_in_all_splits() -> None:
    made = split_topics({of_split(split): "See also:" for split in SPLITS})
    assert [list(texts.values()) for texts in made.values()] == [["See also:"]] * 3


def test_the_tokens_of_a_split_spell_its_text() -> None:
    for split in SPLITS:
        tokens = topic_tokens(split)
        assert reference_tokenizer().decode(tokens.tolist()) == topic_text(split)
        assert len(tokens) > 10_000  # enough for the windows that are read


def test_a_source_names_python_and_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.99.1")
    assert topics_digest()[:12] in topics_source()
    assert "3.99.1" in topics_source()
