"""Files that others wrote, read and shown within limits."""

import json
import re
import stat
from collections import Counter
from pathlib import Path
from reprlib import Repr
from typing import Any, NoReturn

from reference_model.errors import UserError

# Parsed within a second; an index of 580 tensors, as many as GPT-2 xl has, takes some 50 kB.
MOST_BYTES = 16 * 2**20

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 2
_plain = re.compile(r"[\w.:/-]{1,100}", re.ASCII)


def shown(value: object) -> str:
    """A value that a file holds, for a message: short, on one line, without control characters."""
    if isinstance(value, str) and _plain.fullmatch(value):
        return value
    return quoted(value)


def quoted(value: object) -> str:
    """Like `repr`, but short; a text is quoted whatever it holds."""
    return _short.repr(value).encode("ascii", "backslashreplace").decode("ascii")


def check_file(path: Path) -> None:
    """Raise `UserError` where there is no file: a FIFO or a device would never end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch or write it again") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a file; check the path")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """What a file holds. Raises `UserError` where it is missing, no file or too large."""
    check_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); fetch or write it again") from None
    if len(content) > most:
        raise UserError(f"{path} holds more than {most:,} bytes; fetch or write it again")
    return content


def read_json(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The object that a file holds. Raises `UserError` where it is missing or holds none."""
    content = parse_json(read_bytes(path, most), path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, not an object; write it again")
    return content


def parse_json(content: bytes, path: Path) -> Any:
    """JSON without NaN, without infinities and without a key that stands twice in one object.

    Raises `UserError` with the path for anything else. Of two values of one key, none may win.
    """
    try:
        return json.loads(
            content.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_without_repetition
        )
    except RecursionError:
        raise UserError(f"{path} cannot be read (it is nested too deep); write it again") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}); fetch or write it again") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{quoted(twice)} stands twice in one object")
    return found
