"""The environments that make needs: complete, or not there, also where a set-up was killed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from benchmarks import set_up
from benchmarks.data import locks
from benchmarks.data.install_failures import explain
from benchmarks.set_up import COMPLETE, LOCK, Environment, Failed, python_of
from reference_model.errors import UserError

pytestmark = pytest.mark.K6


PIP = "lib/python3.11/site-packages/pip/__main__.py"


class StandIn:
    """What `run` would do, in no time: environments with a pip, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: Callable[[Sequence[str]], str | None] = lambda command: None

    def __call__(self, command: Sequence[str], held: int | None = None) -> None:
        assert held is None or os.fstat(held)
        self.asked.append(" ".join(command[2:4]) if command[2] == "pip" else command[2])
        said = self.fails(command)
        if "--version" in command and not Path(command[0]).parents[1].joinpath(PIP).exists():
            said = "No module named pip"
        if said:
            failed = Failed("pip failed")
            failed.said = said
            raise failed
        if command[2] == "venv":
            stand_in_environment(Path(command[3]))


def stand_in_environment(folder: Path) -> None:
    for path in (python_of(folder), folder / PIP):
        path.parent.mkdir(parents=True)
        path.touch()
    (folder / "pyvenv.cfg").touch()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(set_up, "run", stand_in)
    return stand_in


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("pip>1\n")
    return path


@pytest.fixture
def environment(tmp_path: Path, wanted: Path) -> Environment:
    return Environment(tmp_path / "environment", [wanted])


LOOK, INSTALL = "pip --version", "pip install"
ANEW = [LOOK, "venv", INSTALL]
AGAIN = ["venv", INSTALL]  # what was begun is not looked at


def test_what_is_complete_is_not_made_again(environment: Environment, ran: StandIn) -> None:
    assert not environment.is_complete()
    environment.make(texts=False)
    assert environment.is_complete()
    environment.make(texts=False)
    assert ran.asked == ANEW


def test_the_mark_is_set_last(environment: Environment, ran: StandIn) -> None:
    def fails(command: Sequence[str]) -> str | None:
        assert not (environment.folder / COMPLETE).exists()
        return "ERROR: no space" if "install" in command else None

    ran.fails = fails
    with pytest.raises(Failed):
        environment.make(texts=False)
    assert not environment.is_complete()


def test_what_was_stopped_half_way_is_made_anew(environment: Environment, ran: StandIn) -> None:
    ran.fails = lambda command: "ERROR: no space" if "install" in command else None
    with pytest.raises(Failed):
        environment.make(texts=False)
    (environment.folder / "lib" / "half").touch()
    ran.fails = lambda command: None
    environment.make(texts=False)
    assert ran.asked == ANEW + AGAIN
    assert not (environment.folder / "lib" / "half").exists()
    assert environment.is_complete()


@pytest.mark.parametrize("pip_runs", [True, False])
def test_an_environment_of_somebody_elses_is_kept_where_its_pip_runs(
    environment: Environment, ran: StandIn, pip_runs: bool
) -> None:
    stand_in_environment(environment.folder)
    (environment.folder / "lib" / "of somebody's").touch()
    ran.fails = lambda command: None if pip_runs or "--version" not in command else "No module"
    environment.make(texts=False)
    assert ran.asked == ([LOOK, INSTALL] if pip_runs else ANEW)
    assert (environment.folder / "lib" / "of somebody's").exists() == pip_runs


@pytest.mark.parametrize("missing", ["bin/python", PIP])
def test_a_complete_one_that_lost_its_pip_or_python_is_made_anew(
    environment: Environment, ran: StandIn, missing: str
) -> None:
    environment.make(texts=False)
    (environment.folder / missing).unlink()
    assert not environment.is_complete()
    ran.fails = lambda command: "No module" if "--version" in command else None
    environment.make(texts=False)
    assert ran.asked == ANEW * 2
    assert environment.is_complete()


def test_another_lock_is_installed_into_what_is_there(
    environment: Environment, ran: StandIn, wanted: Path
) -> None:
    environment.make(texts=False)
    wanted.write_text("pip>2\n")
    assert not environment.is_complete()
    environment.make(texts=False)
    assert ran.asked == [*ANEW, LOOK, INSTALL]


def test_one_that_was_stopped_while_it_changed_is_made_anew_even_if_it_is_changed_back(
    environment: Environment, ran: StandIn, wanted: Path
) -> None:
    environment.make(texts=False)
    wanted.write_text("pip>2\n")
    ran.fails = lambda command: "ERROR: interrupted" if "install" in command else None
    with pytest.raises(Failed):
        environment.make(texts=False)
    wanted.write_text("pip>1\n")
    ran.fails = lambda command: None
    environment.make(texts=False)
    assert ran.asked == [*ANEW, LOOK, INSTALL, *AGAIN]


def test_texts_are_fetched_once_and_told_apart(environment: Environment, ran: StandIn) -> None:
    environment.make(texts=False)
    assert not environment.has_texts()
    for _ in range(2):
        environment.make(texts=True)
    assert environment.has_texts()
    assert ran.asked == [*ANEW, "benchmarks.data.assets"]


def test_a_folder_of_something_else_is_refused_and_left_alone(
    environment: Environment, ran: StandIn
) -> None:
    environment.folder.mkdir()
    (environment.folder / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds something else than an environment of Python"):
        environment.make(texts=False)
    assert os.listdir(environment.folder) == ["thesis.tex"]
    assert ran.asked == []


def test_a_link_to_an_environment_stays_one(
    environment: Environment, ran: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    environment.folder.symlink_to(tmp_path / "disk")
    environment.make(texts=False)
    assert environment.folder.is_symlink()
    assert (tmp_path / "disk" / COMPLETE).exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, wanted: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make .*file.* \(Not a directory\)"):
        Environment(tmp_path / "file" / "environment", [wanted]).make(texts=False)


# ---- torch


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (None, [locks.TORCH_CPU]),
        *((said, [locks.TORCH_CPU, locks.TORCH]) for said in set_up.NOT_FOUND),
    ],
    ids=["found", "not found", "not found under constraints"],
)
def test_the_build_for_the_cpu_is_taken_where_pip_finds_one(
    environment: Environment,
    ran: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    said: str | None,
    taken: list[str],
) -> None:
    asked: list[str] = []

    def run(command: Sequence[str], held: int | None = None) -> None:
        if "install" in command:
            assert "--require-hashes" in command
            asked.append(next(word for word in command if word.startswith("--requirement=")))
            ran.fails = lambda command: said if len(asked) == 1 else None
        ran(command, held)

    monkeypatch.setattr(set_up, "run", run)
    environment.make(texts=False)
    assert [Path(word.partition("=")[2]).name for word in asked] == taken


@pytest.mark.parametrize("said", ["ERROR: hashes do not match", set_up.NOT_FOUND[0]])
def test_what_else_fails_ends_the_set_up(environment: Environment, ran: StandIn, said: str) -> None:
    ran.fails = lambda command: said if "install" in command else None
    with pytest.raises(Failed):
        environment.make(texts=False)
    assert ran.asked.count(INSTALL) == (2 if said in set_up.NOT_FOUND else 1)


def test_a_failure_is_told_by_the_last_error_of_what_was_said() -> None:
    program = "print('ERROR: why'); print('a hint'); raise SystemExit(3)"
    with pytest.raises(Failed, match=r"^-c .* failed: why$") as raised:
        set_up.run([sys.executable, "-c", program])
    assert raised.value.said == "ERROR: why\na hint"


def test_what_was_killed_is_told_by_its_signal() -> None:
    program = "import os; print('a warning', flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(Failed, match=r"failed: ended by signal 9$"):
        set_up.run([sys.executable, "-c", program])


# ---- the command


def test_a_check_does_nothing_and_tells(tmp_path: Path, ran: StandIn) -> None:
    folder = tmp_path / "environment"
    check = [str(folder), "--check"]
    assert set_up.main(check) == 1
    assert not folder.exists()
    assert set_up.main([str(folder)]) == 0
    assert set_up.main(check) == 0
    for more in ("--texts", "--peers", "--ray", "--triton"):
        assert set_up.main([*check, more]) == 1
    assert set_up.main([str(folder), "--texts"]) == 0
    assert set_up.main([*check, "--texts"]) == 0


def test_a_failure_is_one_line_and_all_that_pip_said_is_kept(
    tmp_path: Path, ran: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "environment"
    ran.fails = lambda command: None if "--version" in command else "Collecting\nERROR: unheard of"
    assert set_up.main([str(folder)]) == 2
    begun, told = capsys.readouterr().err.splitlines()
    assert begun.startswith("setting up")
    log = folder / set_up.LOG
    assert told == f"error: pip failed (all that was said: {log})"
    assert log.read_text() == "Collecting\nERROR: unheard of\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "WARNING: Retrying after 'NewConnectionError: Temporary failure in name resolution': "
            "/simple/altair/\nERROR: No matching distribution found for altair",
            r"^no package index was reached \(name resolution\); connect to a network, or name",
        ),
        (
            "ERROR: No matching distribution found for altair==6.0.0",
            r"^the package index has no altair==6.0.0 for this Python and system; take another",
        ),
        (
            "WARNING: Retrying: Read timed out.\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES",
            r"^the package index gave a file whose hash is not the locked one; take another index",
        ),
        (
            "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
            r"^a package has to be compiled here, and no C and C\+\+ compiler works; install one",
        ),
        (
            "CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage",
            r"^a package has to be compiled here, and no C and C\+\+ compiler works; install one",
        ),
        (
            "ERROR: Could not install packages: [Errno 28] No space left on device",
            r"^the disk is full; free 3 GB where .* lies and where temporary files do \(TMPDIR\)",
        ),
        ("MemoryError", r"^the machine has not enough memory to install; free some"),
    ],
    ids=["network", "lacking", "hashes", "gcc", "cmake", "disk", "memory"],
)
def test_a_known_reason_is_told_with_what_to_do(tmp_path: Path, said: str, told: str) -> None:
    explained = explain(said, tmp_path)
    assert explained is not None
    assert re.match(told, explained)
    assert explained.endswith("run the same command again")
    assert "\n" not in explained


def test_an_environment_that_cannot_fit_is_refused_before_anything_is_installed(
    environment: Environment, ran: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9e9, 8e9, 1e9))
    with pytest.raises(UserError, match=r"has 1\.0 GB free, and an environment needs 3 GB; free"):
        environment.make(texts=False)
    assert ran.asked == [LOOK]


# ---- processes

# A set-up whose pip says when it has begun, and waits to be let go on.
SET_UP = """
import signal, sys
signal.alarm(60)  # where it is not let go on, it fails
from pathlib import Path
from benchmarks import set_up
from tests.benchmarks.test_set_up import stand_in_environment
folder, begun, go_on, trace = map(Path, sys.argv[1:])
PIP = '''
import signal, sys
signal.alarm(60)
folder, begun, go_on, trace = sys.argv[1:]
open(begun, "w").close()  # of a pipe, both wait for the other end
open(go_on).close()
open(trace, "a").write(f"{folder} was written to\\\\n")
'''
def create(folder, held):
    trace.open("a").write("anew\\n")
    stand_in_environment(folder)
def install(python, wanted, torch, held):
    set_up.run([sys.executable, "-c", PIP, *sys.argv[1:]], held)
set_up.create, set_up.install = create, install
sys.exit(set_up.main([str(folder)]))
"""


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    for name in ("begun", "go on"):
        os.mkfifo(tmp_path / name)
    places = [tmp_path / name for name in ("environment", "begun", "go on", "trace")]
    return lambda: subprocess.Popen(
        [sys.executable, "-c", SET_UP, *places], cwd=root, stderr=subprocess.PIPE, text=True
    )


def meet(pipe: Path, mode: str) -> None:
    with pipe.open(mode):
        pass


@pytest.mark.parametrize("killed", ["nobody", "the first", "the first and its pip"])
def test_a_second_waits_for_the_first_or_for_what_it_left(
    tmp_path: Path, start: Callable[[], subprocess.Popen[str]], killed: str
) -> None:
    with start() as first:
        meet(tmp_path / "begun", "r")
        if killed == "the first":
            first.kill()
            first.wait()
        with start() as second:
            assert second.stderr
            assert "is under way; waiting for it" in second.stderr.readline()
            if killed == "the first and its pip":
                for process in [*psutil.Process(first.pid).children(), first]:
                    process.kill()
            else:
                meet(tmp_path / "go on", "w")
            if killed != "nobody":  # made anew, by the second
                meet(tmp_path / "begun", "r")
                meet(tmp_path / "go on", "w")
            assert second.wait(timeout=60) == 0
    written = f"{tmp_path / 'environment'} was written to"
    assert (tmp_path / "trace").read_text().splitlines() == {
        "nobody": ["anew", written],
        "the first": ["anew", written, "anew", written],
        "the first and its pip": ["anew", "anew", written],
    }[killed]
    assert (tmp_path / "environment" / COMPLETE).exists()
    assert (tmp_path / "environment" / LOCK).exists()
