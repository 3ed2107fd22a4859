"""A file of JSON lines that grows by one observation at a time: a campaign can be resumed."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from reference_model.errors import UserError


def append(path: Path, record: dict[str, Any]) -> None:
    """One whole line, on the disk before this returns."""
    line = json.dumps(record, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write("\n")  # the line before was cut off
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None


def read(path: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The records with these fields; empty without a file.

    A line that was cut off, or is no record, is named on the standard error and skipped.
    """
    if not path.exists():
        return []
    records = []
    content = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(content.split("\n"), start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            _say_skipped(path, number)
        elif all(record.get(k) == v for k, v in wanted.items()):
            records.append(record)
    return records


@cache  # a campaign reads its lines many times
def _say_skipped(path: Path, number: int) -> None:
    print(f"skipped: line {number} of {path} was cut off, or is no record", file=sys.stderr)
