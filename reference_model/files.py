"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from reference_model.errors import UserError


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files (name → content) to a folder: beside their places first, then all renamed.

    A full disk or a read-only folder is a `UserError`; what was there before then stays as it was.
    """
    # The process is in the name, so that two that write the same file do not share a part of it.
    parts = {folder / f".{name}.{os.getpid()}.part": folder / name for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, content in zip(parts, files.values(), strict=True):
            part.write_bytes(content)
        for part, place in parts.items():
            os.replace(part, place)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}); free some space or name another folder"
        ) from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
