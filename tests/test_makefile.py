"""`make` as a newcomer meets it: set-up is done once, and what is missing is named in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Variables of an outer make, under which the tests may run, would change what this one does.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture
def finished_setup(tmp_path: Path) -> Path:
    """A folder that looks to make like a complete environment."""
    (tmp_path / ".installed").touch()
    (tmp_path / ".assets").touch()
    return tmp_path


def test_make_alone_lists_every_target(root: Path) -> None:
    listed = make(root).stdout
    assert [line.split()[1] for line in listed.splitlines()] == [
        "setup", "report", "readme", "test", "fuzz", "lint", "train", "history",
        "gate", "gate-proof", "peers",
    ]  # fmt: skip


def test_setup_is_done_once(root: Path, finished_setup: Path) -> None:
    again = make(root, "--dry-run", "setup", f"VENV={finished_setup}")
    assert again.returncode == 0
    assert "pip" not in again.stdout


def test_setup_is_done_again_when_the_pins_change(root: Path, finished_setup: Path) -> None:
    older = (root / "requirements.txt").stat().st_mtime - 1
    os.utime(finished_setup / ".installed", (older, older))
    again = make(root, "--dry-run", "setup", f"VENV={finished_setup}")
    assert again.stdout.count("pip install") == 1


@pytest.mark.parametrize(
    "target",
    ["report", "readme", "test", "lint", "train", "history", "gate", "gate-proof", "peers"],
)
def test_every_target_does_the_setup_that_it_needs(root: Path, tmp_path: Path, target: str) -> None:
    assert "pip install" in make(root, "--dry-run", target, f"VENV={tmp_path}").stdout


def test_an_old_python_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make(root, "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 2
    assert first == (
        f"error: {old} is missing or older than Python 3.11; name another: make PYTHON=python3.12"
    )
    assert all(line.startswith("make: ***") for line in rest)
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_named(root: Path, tmp_path: Path) -> None:
    done = make(root, "setup", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no-such-python is missing or older than Python 3.11")


def test_a_python_without_venv_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text(
        "#!/bin/sh\n"
        'case "$2" in *venv*) echo "No module named ensurepip" >&2; exit 1;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    bare.chmod(0o755)
    done = make(root, "setup", f"PYTHON={bare}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {bare} cannot create environments")
    assert not (tmp_path / "venv").exists()
