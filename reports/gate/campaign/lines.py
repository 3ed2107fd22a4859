"""A file of JSON lines that grows by one observation at a time: a campaign can be resumed."""

from __future__ import annotations

import json
import os
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
    """The records with these fields; a line that was cut off is none. Empty without a file."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and all(record.get(k) == v for k, v in wanted.items()):
            records.append(record)
    return records
