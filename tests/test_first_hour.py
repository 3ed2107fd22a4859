"""A first run that cannot work ends in one line, which says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reference_model.command_line import exit_status

NOT_INSTALLED = """
import runpy, sys
sys.modules.update(dict.fromkeys({packages!r}))  # None: importing it fails
sys.argv[1:] = {words!r}
runpy.run_module({module!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "words", "package", "status"),
    [
        ("reports", ["table", "results.json"], "tabulate", 2),
        ("reports.gate", ["--base", "A", "--head", "B"], "packaging", 12),
    ],
)
def test_a_python_without_the_packages_is_told_in_one_line(
    root: Path, module: str, words: list[str], package: str, status: int
) -> None:
    program = NOT_INSTALLED.format(packages=[package], words=words, module=module)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"error: {sys.executable} ")
    assert package in told
    assert told.endswith("run .venv/bin/python, which make setup makes")


def test_a_module_of_ours_that_is_missing_is_no_fault_of_the_users() -> None:
    def command() -> None:
        raise ModuleNotFoundError("No module named 'benchmarks.x'", name="benchmarks.x")

    with pytest.raises(ModuleNotFoundError):
        exit_status(command)


@pytest.mark.parametrize("package", ["benchmarks", "reports"])
def test_a_package_says_which_python_it_needs(root: Path, package: str) -> None:
    text = (root / package / "__init__.py").read_text()
    old = text.replace("sys.version_info", "(3, 10, 13)").replace("sys.executable", "'python3.10'")
    with pytest.raises(SystemExit) as ended:
        exec(compile(old, package, "exec"), {})
    assert str(ended.value).startswith(
        "error: this needs Python 3.11 or newer, and python3.10 is 3.10; run .venv/bin/python"
    )
    exec(compile(text, package, "exec"), {})  # this one is new enough


def test_tests_without_git_end_before_they_begin(root: Path, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    done = subprocess.run(
        [*words, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (told,) = filter(None, done.stderr.splitlines())
    assert "git is not installed; install it" in told


def test_what_the_system_ended_is_told_with_what_may_help(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    killed = '#!/bin/sh\ncase "$*" in *--check) exit 0;; esac\nkill -9 $$\n'
    python.write_text(killed)
    python.chmod(0o755)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "report"], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said == [
        "error: the system ended it with signal 9, as it does when memory runs out; close other "
        "programs and run the same command again"
    ]
