"""What all importers share: files of results, bounded and checked before they are used.

Whatever is wrong with one of them is `Damaged`, so that its reader can pass it over. The standard
library alone: the job that may push the results has nothing else.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 16_000_000  # of a file; the largest known, pandas', have a tenth of it
MOST_VALUES = 100_000  # of a run: lists of parameters multiply, and a few bytes name billions
LARGEST_NUMBER = 1e300  # what is drawn needs room above it
LONGEST_REASON = 200  # characters
KINDS = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}

Values = dict[str, Any]


class Damaged(Exception):
    """Why a file cannot be used, in one short line; in brackets what differs from file to file."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason.split())[:LONGEST_REASON])


@dataclass(frozen=True)
class Benchmark:
    """What today's suite says of one; ``file`` and ``title`` are what a page calls it."""

    name: str
    version: Any
    unit: str
    parameter_names: list[str]
    file: str
    title: str
    brackets: str = (
        "()"  # around the values of its parameters; none where there are no values: "[]"
    )


@dataclass(frozen=True)
class Measured:
    """What one benchmark gave in one run: beside each combination of its parameters a value.

    None is a failure, NaN what was skipped: so asv stores them. Intervals hold 99 %.
    """

    version: Any
    combinations: list[tuple[str, ...]]
    values: list[float | None]
    intervals: list[tuple[float, float] | None]


@dataclass(frozen=True)
class Run:
    commit: str
    machine: str
    facts: dict[str, str]  # of the machine, its packages and variables
    measured: dict[str, Measured]


@dataclass(frozen=True)
class Results:
    """What an importer reads of a folder. ``suite`` and ``skipped`` may grow with each run."""

    suite: dict[str, Benchmark]
    skipped: list[tuple[str, str]]  # name within the folder, reason
    runs: Iterator[tuple[str, Run]]  # name within the folder; what is newer comes first


def runs_of(
    folder: Path,
    paths: Iterable[Path],
    read: Callable[[Path], Run],
    skipped: list[tuple[str, str]],
) -> Iterator[tuple[str, Run]]:
    """Each that can be read; all others are added to ``skipped``."""
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            yield name, read(path)
        except Damaged as error:
            skipped.append((name, str(error)))


def json_files(folder: Path) -> Iterator[Path]:
    """All that is called *.json in ``folder`` and in the folders in it, ordered by name.

    Links to folders are among them, so that they are named as damaged, and are not entered.
    """
    for entry in _listed(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from (Path(e.path) for e in _listed(Path(entry)) if e.name.endswith(".json"))
        elif entry.name.endswith(".json") or (entry.is_symlink() and entry.is_dir()):
            yield Path(entry)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def read_bytes(path: Path) -> bytes:
    """Of a plain file. Links, FIFOs and devices are `Damaged` without being opened."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise Damaged("a link, which is not followed")
        if not stat.S_ISREG(found.st_mode):
            is_folder = stat.S_ISDIR(found.st_mode)
            raise Damaged("a folder" if is_folder else "a FIFO or device, and no file")
        if found.st_size > MOST_BYTES:
            raise Damaged(f"larger than {MOST_BYTES // 10**6} MB")
        with path.open("rb") as file:
            return file.read(found.st_size)
    except OSError as error:
        raise Damaged(f"not readable ({error.strerror})") from None


def parse(content: bytes) -> Values:
    """The object that ``content`` holds as JSON, with Python's NaN and Infinity."""
    try:
        document = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise Damaged(f"no JSON ({error})") from None
    except UnicodeDecodeError:
        raise Damaged("no UTF-8") from None
    except ValueError:  # Python's own limit
        raise Damaged("it holds a number of thousands of digits") from None
    except RecursionError:
        raise Damaged("nested too deeply") from None
    if not isinstance(document, dict):
        raise Damaged("no object of JSON")
    return document


def numbers_of(values: Any, what: str) -> list[float | None]:
    if not isinstance(values, list):
        raise Damaged(f"{what} that is no list")
    for value in values:
        if value is None or (type(value) is float and -LARGEST_NUMBER <= value <= LARGEST_NUMBER):
            continue
        if type(value) not in (int, float):
            raise Damaged(f"{what} that holds {KINDS[type(value)]} instead of a number")
        if LARGEST_NUMBER < abs(value) < math.inf:
            raise Damaged(f"{what} beyond {LARGEST_NUMBER:g}")
    return [None if value is None else float(value) for value in values]


def object_of(content: Values, key: str) -> Values:
    value = content[key]
    if not isinstance(value, dict):
        raise Damaged(f"{key} that is no object")
    return value


def text_of(content: Values, key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise Damaged(f"{key} that is no text")
    return value


def texts_of(content: Values, key: str) -> list[str]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Damaged(f"{key} that is no list of texts")
    return value
