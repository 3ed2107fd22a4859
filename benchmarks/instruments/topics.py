"""Text of another domain than the plays: the standard library's own documentation topics.

They come with Python, so nothing is fetched; and they differ between its versions, so whatever is
measured on them says which ones it read.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from pydoc_data.topics import topics as TOPICS

from torch import Tensor

from benchmarks.data.assets import Split
from benchmarks.instruments.texts import encode
from reference_model.checkpoints import reference_tokenizer

# In this order a passage is given to the first split that has it.
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LEAST_SHARED = 40  # letters; what is shorter, such as "See also:", may stand in all splits


def split_of(name: str) -> Split:
    """The split of a topic, by its name alone: three in five train, one each is kept for the rest.

    A new version of Python changes a topic's text, but not on which side it stands.
    """
    remainder = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5
    return "test" if remainder == 0 else "validation" if remainder == 1 else "train"


def split_topics(topics: Mapping[str, str]) -> dict[Split, dict[str, str]]:
    """Split → topic → text, topics in the order of their names, each passage only once.

    Over a third of the text stands in two topics or more (`specialnames` repeats five others), so
    that whole topics held out would still have been read in training.
    """
    seen: set[str] = set()
    result: dict[Split, dict[str, str]] = {split: {} for split in SPLITS}
    for split, texts in result.items():
        for name in sorted(topics):
            if split_of(name) == split:
                passages = topics[name].split("\n\n")
                texts[name] = "\n\n".join(p for p in passages if _is_new(p, seen))
    return result


def _is_new(passage: str, seen: set[str]) -> bool:
    words = " ".join(passage.split())  # the same passage is indented otherwise elsewhere
    if len(words) < LEAST_SHARED:
        return True
    known = words in seen
    seen.add(words)
    return not known


def topic_text(split: Split) -> str:
    """All topics of a split, one after the other."""
    return "\n".join(split_topics(TOPICS)[split].values())


@functools.cache
def topic_tokens(split: Split) -> Tensor:
    """Token ids (N,) int64 of all topics of a split, in the vocabulary of the checkpoint."""
    return encode(reference_tokenizer(), topic_text(split))


@functools.cache
def topics_digest() -> str:
    """SHA-256 of the topics as they are read here, in hexadecimal digits."""
    return hashlib.sha256("\0".join(map(topic_text, SPLITS)).encode()).hexdigest()


def topics_source() -> str:
    """Which text was read: for the source of a measurement."""
    return (
        f"checkpoint on pydoc_data.topics of Python {platform.python_version()}, "
        f"SHA-256 {topics_digest()[:12]}"
    )
