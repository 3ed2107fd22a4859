"""A module that has moved can be imported by its old name for one version, with a warning."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.moved import NEW_NAMES


@pytest.mark.parametrize("old", sorted(set(NEW_NAMES) - {"benchmarks.preload"}))
def test_an_old_name_is_the_module_by_its_new_name_and_warns(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"^{old} is {NEW_NAMES[old]} now"):
        module = import_module(old)
    assert module is import_module(NEW_NAMES[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == NEW_NAMES[old]


def test_an_old_command_still_runs(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_reference", "--help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Train the reference checkpoint" in done.stdout


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"benchmarks\.statistics"):
        import_module("benchmarks.statistics")
