"""A commit's subject fits a line of a log: 72 letters at most, since this file was added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data.git import git
from reference_model.errors import UserError

MOST = 72
FILE = "tests/test_commits.py"


def subjects(top: Path) -> list[str] | None:
    """Of all commits after the one that added the file; None where the history does not tell."""
    try:
        if git(top, "rev-parse", "--is-shallow-repository") == "true":
            return None
        added = git(top, "log", "--diff-filter=A", "--format=%H", "--", FILE).split()
        if not added:
            return None
        # A merge on a server names both commits in full.
        return git(top, "log", "--no-merges", "--format=%s", f"{added[-1]}..HEAD").splitlines()
    except UserError:  # no repository, such as an archive of the files
        return None


def too_long(of: list[str]) -> list[str]:
    return [subject for subject in of if len(subject) > MOST]


def test_no_subject_is_longer_than_72_letters(root: Path) -> None:
    found = subjects(root)
    if found is None:
        pytest.skip("the history is missing, shallow, or older than this test")
    assert too_long(found) == []


@pytest.fixture
def commit(tmp_path: Path) -> Callable[[str], None]:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.name", "test")
    git(tmp_path, "config", "user.email", "test@example.invalid")

    def made(subject: str) -> None:
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", subject)

    return made


def test_only_commits_after_the_one_that_adds_the_file_are_asked(
    tmp_path: Path, commit: Callable[[str], None]
) -> None:
    commit("long before " * 8)
    assert subjects(tmp_path) is None
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).touch()
    commit("the file itself " * 8)
    assert subjects(tmp_path) == []
    for subject in ("x" * 73, "x" * 72):
        commit(subject)
    assert subjects(tmp_path) == ["x" * 72, "x" * 73]
    assert too_long(["x" * 72, "x" * 73]) == ["x" * 73]


def test_without_a_repository_nothing_is_asked(tmp_path: Path) -> None:
    assert subjects(tmp_path) is None
