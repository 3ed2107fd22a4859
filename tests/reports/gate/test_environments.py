"""Environments for commits that need different packages. What they pin, every environment has."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from benchmarks.set_up import Failed
from reports.gate import environments
from reports.gate.environments import FOLDER, _installed, main, options
from reports.gate.revisions import changed_environment, pinned

PREFIX = "import sys; print(sys.prefix)"


@pytest.fixture(autouse=True)
def _in_the_repository(repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository.path)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What pip was asked for, which takes seconds: of each environment the lists, by name."""
    asked: list[dict[str, str]] = []

    def create(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)

    def install(python: Path, wanted: list[Path], torch: list[Path]) -> None:
        asked.append({path.name: path.read_text() for path in (*wanted, *torch)})
        if "no-such-package" in wanted[0].read_text():
            failed = Failed("-m pip install failed: No match")
            failed.said = "ERROR: No matching distribution found for no-such-package==1"
            raise failed

    monkeypatch.setattr(environments, "create", create)
    monkeypatch.setattr(environments, "install", install)
    return asked


def test_commits_that_need_the_same_get_no_environments(repository, capsys) -> None:
    repository.commit(pins="pip>1\n")
    repository.commit(pins="pip>1\n# a remark\n", model="BYTES = 1\n")
    assert main(["--base=HEAD~1", "--head=HEAD"]) == 0
    assert capsys.readouterr() == ("\n", "")
    assert not Path(FOLDER).exists()


def test_each_commit_gets_an_environment_of_what_it_pins_which_is_kept(repository, capsys) -> None:
    repository.commit(pins="pip>1\n")
    repository.commit(pins="pip>2\n")
    repository.commit(pins="pip>3\n")  # what is checked out is neither
    assert main(["--base=HEAD~2", "--head=HEAD~1"]) == 0
    told = capsys.readouterr()
    assert "the pinned versions of requirements.txt differ: each has its own" in told.err
    assert told.err.count("installing") == 2
    given = dict(word.split("=") for word in told.out.splitlines())
    assert given.keys() == {"--base-python", "--head-python"}
    for python, pins in zip(given.values(), ("pip>1\n", "pip>2\n"), strict=True):
        folder = Path(python).absolute().parents[1]
        found = subprocess.run([python, "-c", PREFIX], capture_output=True, text=True, check=True)
        assert Path(found.stdout.strip()) == folder
        assert (folder / "requirements.txt").read_text() == pins.rstrip()
    assert repository.git("status", "--porcelain") == "", "the gate wants a clean tree"

    assert main(["--base=HEAD~2", "--head=HEAD~1"]) == 0
    again = capsys.readouterr()
    assert again.out == told.out
    assert "installing" not in again.err


def test_bounds_that_change_nothing_of_what_is_pinned_leave_one_environment(
    repository, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    repository.commit(pins="pip>1\n", project="[project]\n")
    repository.commit(pins="pip>1\n", project='[project]\ndependencies = ["pip"]\n')
    monkeypatch.chdir(repository.path / "benchmarks")  # wherever the command runs
    base, head = options(Path.cwd(), "HEAD~1", "HEAD")
    assert base.partition("=")[2] == head.partition("=")[2]
    told = "dependencies of pyproject.toml differ: one environment serves both\n"
    assert capsys.readouterr().err == told


def test_a_commit_that_does_not_run_on_this_python_leaves_the_gate_without(
    repository, capsys
) -> None:
    repository.commit(pins="pip>1\n", project='[project]\nrequires-python = ">=3"\n')
    repository.commit(project='[project]\nrequires-python = ">=4"\n')
    assert main(["--base=HEAD~1", "--head=HEAD"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "requires Python >=4, and this is 3." in told.err


@pytest.mark.parametrize(
    ("pins", "here"),
    [
        (["pip"], True),
        (["pip>1", "no-such-package==1; python_version < '3'"], True),
        (["pip<1"], False),
        (["no-such-package==1"], False),
        (["--requirement other.txt"], False),
    ],
)
def test_what_is_checked_out_has_to_be_installed_to_be_used(pins: list[str], here: bool) -> None:
    assert _installed(pinned({"requirements.txt": "\n".join(pins)})) == here


def test_what_is_checked_out_runs_as_the_command_does_and_what_nobody_needs_is_removed(
    repository,
) -> None:
    for pins in ("pip>1\n", "pip>2\n"):
        repository.commit(pins=pins)
    known = [Path(FOLDER, name, "complete") for name in ("of today", "of last month")]
    for complete, days in zip(known, (0, 30), strict=True):
        complete.parent.mkdir(parents=True)
        complete.touch()
        os.utime(complete, 2 * (time.time() - days * 24 * 3600,))
    base, head = options(repository.path, "HEAD~1", "HEAD")
    assert os.path.abspath(head.partition("=")[2]) == sys.executable
    assert Path(base.partition("=")[2]).parents[1] in Path(FOLDER).iterdir()
    assert [complete.exists() for complete in known] == [True, False]


def test_what_cannot_be_installed_is_told_and_not_taken_for_an_environment(
    repository, capsys
) -> None:
    repository.commit(pins="pip>1\n")
    repository.commit(pins="no-such-package==1\n")  # what is checked out is not installed either
    assert main(["--base=HEAD", "--head=HEAD~1"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "no environments: the package index has no no-such-package==1 for this Pyth" in told.err
    assert not list(Path(FOLDER).glob("*/")), "so that it is begun again"


def test_a_commit_that_pins_nothing_leaves_the_gate_without(repository, capsys) -> None:
    repository.git("rm", "--quiet", "requirements.txt")
    repository.commit()
    repository.commit(pins="pip>1\n")
    assert main(["--base=HEAD~1", "--head=HEAD"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "has no requirements.txt to install from" in told.err


def test_of_an_unknown_revision_the_gate_alone_complains(capsys) -> None:
    assert main(["--base=nosuch", "--head=HEAD"]) == 0
    assert capsys.readouterr() == ("\n", "")


@pytest.mark.K6
def test_of_two_that_install_at_once_one_waits(repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit(pins="pip>1\n")
    repository.commit(pins="pip>2\n")
    Path(FOLDER).mkdir()
    # To fail is quicker seen than to wait.
    impatient = functools.partial(FileLock, blocking=False)
    monkeypatch.setattr(environments, "FileLock", impatient)
    with FileLock(Path(FOLDER, "lock")), pytest.raises(Timeout):
        options(repository.path, "HEAD~1", "HEAD")
    assert not list(Path(FOLDER).glob("*/"))


# ---- locks

HASHES = " \\\n    --hash=sha256:" + "0" * 64 + " \\\n    --hash=sha256:" + "1" * 64 + "\n"
LOCKED = {
    "requirements.txt": f"# made by a tool\nnumpy==1.0{HASHES}six==1 ; os_name != 'none'{HASHES}"
    f"wheel==3 ; os_name == 'none'{HASHES}",
    "requirements-torch-cpu.txt": f"torch==2.13.0+cpu{HASHES}",
    "requirements-torch.txt": f"cuda==13 ; os_name != 'none'{HASHES}torch==2.13.0{HASHES}",
}


def lock(repository, **changed: str) -> None:
    for name, text in (LOCKED | changed).items():
        repository.write(name, text)
    repository.commit()


@pytest.mark.K9
def test_locks_pin_what_a_plain_list_of_the_same_versions_does(repository) -> None:
    repository.commit(pins="torch==2.13.0\nnumpy==1.0  # of all\nsix==1\n")
    lock(repository)
    assert pinned(LOCKED) == {"numpy": "==1.0", "six": "==1", "torch": "==2.13.0"}
    assert changed_environment(repository.path, "HEAD~1", "HEAD") is None
    for changed in (
        {"requirements.txt": f"numpy==1.1{HASHES}six==1{HASHES}"},
        {"requirements-torch.txt": f"torch==2.14.0{HASHES}"},
    ):
        lock(repository, **changed)
        told = changed_environment(repository.path, "HEAD~1", "HEAD")
        assert told == "the pinned versions of requirements.txt"


@pytest.mark.K9
def test_locks_are_installed_as_they_are_in_the_commit(
    repository, installed: list[dict[str, str]]
) -> None:
    repository.commit(pins="numpy==0.9\n")
    lock(repository)
    base, head = options(repository.path, "HEAD~1", "HEAD")
    assert base != head
    locked = {name: text.rstrip("\n") for name, text in LOCKED.items()}
    assert installed == [{"requirements.txt": "numpy==0.9"}, locked]


@pytest.mark.K6
def test_what_a_killed_gate_left_half_made_is_removed_and_made_elsewhere(repository) -> None:
    repository.commit(pins="numpy==0.9\n")
    repository.commit(pins="numpy==0.8\n")
    options(repository.path, "HEAD~1", "HEAD")
    one, other = Path(FOLDER).glob("*/complete")
    one.unlink()
    options(repository.path, "HEAD~1", "HEAD")
    left = {path.parent for path in Path(FOLDER).glob("*/complete")}
    assert len(left) == 2
    assert other.parent in left
    assert one.parent not in left
    assert not one.parent.exists()


def test_wrong_arguments_are_one_line(capsys) -> None:
    assert main(["--base=HEAD"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
