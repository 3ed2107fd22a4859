"""JSON of a file that anyone may have written: plain, finite and printable, or refused."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

# The largest results so far have a million bytes and 47,000 commas and brackets.
MOST_BYTES = 20_000_000
MOST_VALUES = 500_000
MOST_LEVELS = 20
LONGEST_TEXT = 20_000
LARGEST_NUMBER = 1e300  # what is drawn needs room above it
# What no terminal, chart or encoder should be handed: control characters and halves of pairs.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def read_json(path: Path) -> Any:
    """What ``path`` holds; OSError where it cannot be read, ValueError, in one line, on all else
    that is not JSON without repeated keys, endless numbers, control characters or excess.
    """
    with open(path, "rb", opener=_open) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it holds more than {MOST_BYTES // 10**6} MB")
    # Counted before a value is made: a list of three bytes takes up fifty once it is one.
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} commas and brackets")
    try:
        document = json.loads(
            content.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_without_repetition
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep") from None
    _check(document)
    return document


def _open(path: str, flags: int) -> int:
    """A pipe that nobody writes to is empty, instead of being waited for until somebody does."""
    if not hasattr(os, "O_NONBLOCK"):  # Windows, whose pipes have no path
        return os.open(path, flags)
    handle = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    return handle


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}, which is not a measurement")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((repeated, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {_short(repeated)} stands twice in one object")
    return found


def _check(document: Any) -> None:
    level = [document]
    for _ in range(MOST_LEVELS):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.keys()
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                _check_text(value)
            elif isinstance(value, int | float):
                _check_number(value)
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")


def _check_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the text {_short(text)} is longer than {LONGEST_TEXT:,} characters")
    if UNPRINTABLE.search(text):
        raise ValueError(f"the text {_short(text)} contains characters that cannot be printed")


def _check_number(number: float) -> None:
    # A float beyond the largest is read as infinite; an integer may have thousands of digits.
    if abs(number) > LARGEST_NUMBER or not math.isfinite(number):
        raise ValueError(f"it contains a number beyond {LARGEST_NUMBER:g}")


def _short(text: str) -> str:
    return ascii(text if len(text) < 60 else f"{text[:60]}...")
