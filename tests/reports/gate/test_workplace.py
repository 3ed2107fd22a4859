"""What ends with a gate: its folder, its processes and what those started, also after kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reference_model.errors import UserError
from reports.gate import guard
from reports.gate.workplace import sweep, workplace
from tests.run_killed import heed_all

pytestmark = pytest.mark.K4
needs_proc = pytest.mark.skipif(not guard.PROCESSES.exists(), reason="no /proc here")

# Of a benchmark that starts a process in a session of its own, and hangs.
HANGS = """
import os, subprocess, sys, time
class Step:
    params = (("one",),)
    def setup(self, name):
        started = subprocess.Popen(["sleep", "600"], start_new_session=True)
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(f"{os.getpid()} {started.pid}\\n")
        time.sleep(600)
    def time_step(self, name):
        pass
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are, and nobody else's."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return made


def lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.02)


@pytest.fixture
def hanging(
    repository, root: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A gate whose benchmarks hang, and its four processes: two of each checkout."""
    repository.commit(bench=HANGS)
    notes = tmp_path / "notes"
    notes.touch()
    gate = subprocess.Popen(
        [sys.executable, "-P", "-m", "reports.gate", "--base=HEAD", "--head=HEAD"],
        cwd=repository.path,
        env={**os.environ, "PYTHONPATH": str(root), "NOTES": str(notes)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=heed_all,
    )
    wait_until(lambda: notes.read_text().count("\n") == 2)
    processes = [int(number) for number in notes.read_text().split()]
    yield gate, processes
    gate.kill()
    gate.wait()
    for process in processes:
        if lives(process):
            os.kill(process, signal.SIGKILL)


def of_guard(place: Path) -> int:
    """The number of the process that guards the only folder there."""
    (folder,) = place.glob("gate-????????")
    wait_until(lambda: bool(guards(folder)))  # a process that has begun has no arguments at first
    (number,) = guards(folder)
    return number


def guards(folder: Path) -> list[int]:
    found = []
    for line in guard.PROCESSES.glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # just gone
            if line.read_bytes().endswith(f"guard.py\0{folder}\0".encode()):
                found.append(int(line.parent.name))
    return found


@needs_proc
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_everything_ends_with_a_gate_that_is_killed(hanging, place: Path, by: int) -> None:
    gate, processes = hanging
    assert all(map(lives, processes))
    os.killpg(gate.pid, by)  # as a terminal does, or a runner of jobs
    assert gate.wait() == (-by if by == signal.SIGKILL else 12)
    wait_until(lambda: not any(map(lives, processes)))
    wait_until(lambda: not list(place.iterdir()))


@needs_proc
def test_where_the_guard_was_killed_too_the_next_gate_clears_up(
    hanging, place: Path, repository
) -> None:
    gate, processes = hanging
    os.kill(of_guard(place), signal.SIGKILL)
    gate.kill()
    gate.wait()
    assert all(map(lives, processes))
    with workplace() as another:
        assert list(place.glob("gate-????????")) == [another]
        wait_until(lambda: not any(map(lives, processes)))
    assert list(place.iterdir()) == []


@needs_proc
def test_a_gate_that_lives_is_left_alone_by_others(hanging, place: Path) -> None:
    _, processes = hanging
    (folder,) = place.glob("gate-????????")
    with workplace(), workplace():
        pass
    assert all(map(lives, processes))
    assert folder.exists()


def test_a_folder_of_no_gate_or_of_another_user_is_left_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "gate-01234567").mkdir()  # without a lock: somebody else's
    sweep(place)
    assert (place / "gate-01234567").exists()
    (place / "gate-01234567.lock").touch()
    monkeypatch.setattr(os, "getuid", lambda: 1 + place.stat().st_uid)
    sweep(place)
    assert (place / "gate-01234567").exists()
    monkeypatch.undo()
    (place / "gate-89abcdef.lock").touch()  # of one that was killed as it began
    sweep(place)
    assert list(place.iterdir()) == []


def test_a_link_in_the_place_of_a_folder_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (place / "gate-01234567").symlink_to(tmp_path / "mine")
    (place / "gate-01234567.lock").touch()
    sweep(place)
    assert (tmp_path / "mine").exists()


def test_a_folder_is_private_and_gone_afterwards(place: Path) -> None:
    with workplace() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "file").touch()
    assert list(place.iterdir()) == []


@needs_proc
def test_a_gate_whose_guard_was_killed_clears_up_itself(place: Path) -> None:
    with workplace():
        os.kill(of_guard(place), signal.SIGKILL)
    assert list(place.iterdir()) == []


def test_no_place_for_temporary_files_is_an_error_in_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(place / "file"))
    with pytest.raises(UserError, match=r"no folder .* can be made .* in TMPDIR"), workplace():
        pass
