"""Edits of files, by what stands there once: how a case becomes a commit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reference_model.errors import UserError

Edit = tuple[str, str, str]  # file, what stands there once, what takes its place


def edit(worktree: Path, name: str, edits: Iterable[Edit]) -> None:
    """Edit the files of a worktree, one edit after the other, for the case of this name.

    Raises `UserError` where what is to be edited is not there once.
    """
    for file, old, new in edits:
        path = worktree / file
        path.write_text(edited(path.read_text(encoding="utf-8"), name, file, old, new), "utf-8")


def edited(text: str, name: str, file: str, old: str, new: str) -> str:
    """A file's text with one edit made; raises as `edit` does."""
    if text.count(old) != 1:
        raise UserError(
            f"{name}: {file} has {text.count(old)} places like {old.strip()!r}, not one; the "
            "file has changed, and so must the edit"
        )
    return text.replace(old, new)
