"""Commits that are signed are commits like all others, also where the user wants to see who did."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data.git import git
from benchmarks.gate_suite import EXACT
from reports.history.series import read_history

pytestmark = pytest.mark.K4

WHO = "N <n@example.invalid> 86400 +0000"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six signed commits, in a repository that asks for signatures to be shown."""
    folder = tmp_path_factory.mktemp("signed")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "log.showSignature", "true")
    tree, parent = git(folder, "mktree"), ""
    for n in range(6):
        text = f"tree {tree}\n{parent}author {WHO}\ncommitter {WHO}\ngpgsig one\n\nSigned {n}\n"
        commit = git(folder, "hash-object", "-t", "commit", "-w", "--stdin", given=text)
        parent = f"parent {commit}\n"
    git(folder, "update-ref", "refs/heads/main", commit)
    return folder


@pytest.fixture(scope="module")
def hashes(repository: Path) -> list[str]:
    return git(repository, "rev-list", "--reverse", "HEAD").split()


def test_six_of_six_signed_commits_are_shown(repository: Path, write) -> None:
    history = read_history(write([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]), repository, EXACT)
    (setting,) = history.settings
    assert [commit.subject for commit in setting.commits] == [f"Signed {n}" for n in range(6)]
    assert [value for _, value in setting.series[0].measured] == [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    assert history.commits_elsewhere == 0
