"""A file of JSON lines that grows by one observation at a time: a validation can be resumed.

Each line says which target it is of and under which protocol it was recorded (`protocol.py`). What
is added up is of one target and one protocol. lines.schema.json has the fields.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from reference_model.errors import UserError
from reference_model.printing import warn
from reports.gate.protocol import BEFORE, NUMBERS

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("lines.schema.json")
SELF, TOY = "self", "toy"
# Which numbers of the protocol a kind of line depends on, all by default. Recorded pairs are judged
# when they are replayed, by the rule of that day. Peers, which stored lines call rivals, have
# protocols of their own, and faults are found by counting.
MATTERING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("pair", "design", "turns"), ("measured",)),
    **dict.fromkeys(("rival", "change"), ()),
}
MOST_TOLD = 200  # characters of what does not fit

Record = dict[str, Any]
Numbers = Mapping[str, int]


def append(path: Path, record: Record) -> None:
    """One whole line, with today's protocol, on the disk before this returns.

    ``record`` is of this project itself unless it names another target. `ValueError` where it does
    not fit the schema: it would not be read again.
    """
    whole = {"schema": SCHEMA, "protocol": NUMBERS, "target": SELF, **record}
    line = json.dumps(whole, allow_nan=False)
    if fault := _fault(line):
        raise ValueError(f"a line that could not be read again: {fault}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write("\n")  # the line before was cut off
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None


def read(path: Path, **wanted: Any) -> list[Record]:
    """The records with these fields, of one protocol; empty without a file.

    It is today's, or the newest of the file where that has none of today's. One line tells of
    records of any other, and of a protocol that is not today's. A line that was cut off, or does
    not fit the schema, is named on the standard error and skipped.
    """
    return _alike(path, protocol_of(path), wanted)


def of_today(path: Path, **wanted: Any) -> list[Record]:
    """As `read`, of today's protocol alone: what a validation that goes on has already."""
    return _alike(path, NUMBERS, wanted)


def protocol_of(path: Path) -> Numbers:
    """The numbers of the records that `read` gives."""
    records, numbers = _records(path), dict[str, int]()
    for name, today in NUMBERS.items():
        known = {numbers_of(record)[name] for record in records if name in _mattering(record)}
        numbers[name] = today if today in known else max(known, default=today)
        records = [
            record
            for record in records
            if name not in _mattering(record) or numbers_of(record)[name] == numbers[name]
        ]
    return numbers


def target_of(path: Path) -> str:
    """What all records of a file are of, this project itself where there are none.

    `UserError` where they are of several: their error rates would be those of none.
    """
    found = list(dict.fromkeys(record.get("target", SELF) for record in _records(path)))
    if len(found) > 1:
        raise UserError(
            f"{path} holds lines of several targets, {' and '.join(found)}; keep those of one"
        )
    return found[0] if found else SELF


def check_target(path: Path, target: str) -> None:
    """`UserError` where the file's records are of another target."""
    if _records(path) and (known := target_of(path)) != target:
        raise UserError(
            f"{path} holds lines of the target {known}, not {target}; name a new file with --lines"
        )


def numbers_of(record: Record) -> Numbers:
    return record.get("protocol") or dict.fromkeys(NUMBERS, BEFORE)


def named(numbers: Numbers) -> str:
    """In words."""
    if BEFORE in numbers.values():
        return "the protocol before 1"
    return f"protocol {', '.join(f'{name} {number}' for name, number in numbers.items())}"


def _alike(path: Path, numbers: Numbers, wanted: Mapping[str, Any]) -> list[Record]:
    records = _records(path)
    others: dict[str, int] = {}
    found = []
    for record in records:
        theirs = numbers_of(record)
        if any(theirs[name] != numbers[name] for name in _mattering(record)):
            others[named(theirs)] = others.get(named(theirs), 0) + 1
        elif all(record.get(key) == value for key, value in wanted.items()):
            found.append(record)
    if others:
        told = ", ".join(f"{count} of {name}" for name, count in others.items())
        _say(f"left out: lines of {path} that are not of {named(numbers)}: {told}")
    if records and numbers != NUMBERS:
        _say(f"{path} is of {named(numbers)}; today's is {named(NUMBERS)}")
    return found


def _mattering(record: Record) -> tuple[str, ...]:
    return MATTERING.get(record["kind"], tuple(NUMBERS))


def _records(path: Path) -> list[Record]:
    """All that fit."""
    if not path.exists():
        return []
    records = []
    content = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(content.split("\n"), start=1):
        if not line:
            continue
        if fault := _fault(line):
            _say(f"skipped: line {number} of {path} {fault}")
        else:
            records.append(json.loads(line))
    return records


@cache  # a validation reads its lines many times
def _fault(line: str) -> str | None:
    """Why a line is no record; None for one."""
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "was cut off, or is no record"
    error = next(_validator().iter_errors(record), None)
    if error is None:
        return None
    place = ".".join(map(str, error.absolute_path)) or "the line"
    return f"does not fit {SCHEMA_FILE.name}: {place}: {error.message[:MOST_TOLD]}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


@cache
def _say(text: str) -> None:
    """Once."""
    warn(text)
