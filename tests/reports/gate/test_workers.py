"""The processes that measure: what they answer, how they fail, and what they leave behind."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from reference_model.errors import UserError
from reports.gate import workers
from reports.gate.checkouts import checked_out
from reports.gate.workers import Worker, running


def test_a_process_that_crashes_says_so_in_one_line(repository) -> None:
    repository.write("benchmarks/bench_gate.py", "import os\nos._exit(3)\n")
    repository.commit()
    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        worker = Worker(base, "cpu", random.Random(0))
        try:
            with pytest.raises(UserError, match="base: a process crashed: exit status 3"):
                worker.ask("suite")
        finally:
            worker.close()


@pytest.mark.K8
@pytest.mark.parametrize(
    ("worker", "told"),
    [
        ("print('nonsense')", "answered something else"),
        ("print('[1]')", "answered something else"),
        ("print('[' * 100_000)", "answered something else"),
        ("while True: print('x' * 10_000, end='')", "gave an answer of more than 1 MiB"),
        ("import os; os.write(2, b'bad \\xff\\x1b[2J'); os._exit(1)", "a process crashed: bad "),
        ("import os; os.write(2, b'x' * 10_000_000); os._exit(1)", "a process crashed: xxx"),
        ("import sys; sys.exit('y' * 10_000_000)", "a process crashed: yyy"),
    ],
)
def test_a_process_that_answers_otherwise_than_asked_is_an_error_in_one_short_line(
    repository, monkeypatch: pytest.MonkeyPatch, worker: str, told: str
) -> None:
    monkeypatch.setattr(workers, "LONGEST", 1 << 20)
    repository.write("benchmarks/gate_worker.py", worker)
    repository.commit()
    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        asked = Worker(base, "cpu", random.Random(0))
        try:
            with pytest.raises(UserError, match=told) as raised:
                asked.ask("hello")
        finally:
            asked.close()
    assert len(str(raised.value)) < 3000
    assert "\n" not in str(raised.value)


def test_an_interpreter_that_does_not_start_is_named(repository, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    python = str(tmp_path / "python")
    with (
        checked_out(repository.path, "HEAD", "HEAD", python, python) as (base, _),
        pytest.raises(UserError, match=f"^base: {python} does not start: "),
    ):
        Worker(base, "cpu", random.Random(0))


STARTS = """
import subprocess
class Step:
    params = (("one",),)
    def setup(self, name):
        started = subprocess.Popen(["sleep", "600"])
        raise NotImplementedError(started.pid)
    def time_step(self, name):
        pass
"""


@pytest.mark.K4
@pytest.mark.parametrize("ends", ["closed", "crashed"])
def test_what_a_benchmark_started_ends_with_its_process(repository, ends: str) -> None:
    repository.commit(bench=STARTS)
    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        worker = Worker(base, "cpu", random.Random(0))
        started = int(worker.ask("prepare", id="bench_gate.Step.time_step(one)")["skipped"])
        os.kill(started, 0)
        if ends == "crashed":
            os.kill(worker._process.pid, signal.SIGKILL)
            with pytest.raises(UserError, match=r"ended before|crashed: signal 9, which a system"):
                worker.ask("suite")
        else:
            worker.close()
        end = time.monotonic() + 30
        while time.monotonic() < end and lives(started):
            pass
        assert not lives(started)
        worker.close()


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")  # one that nobody waits for has ended as well
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_benchmark_that_fails_is_named_with_its_error(repository) -> None:
    repository.commit(model="def step():\n    raise OSError('no disk')\n")
    with (
        checked_out(repository.path, "HEAD", "HEAD") as checkouts,
        running(checkouts[:1], "cpu", random.Random(0)) as ((worker,), _),
    ):
        id = "bench_gate.Step.time_step(one)"
        worker.ask("suite")
        worker.ask("prepare", id=id)
        with pytest.raises(UserError, match=r"base: bench_gate.*one\) OSError: no disk"):
            worker.ask("measure", id=id, calls=1, warmup=0, processor=0)


def test_layouts_differ_between_processes(repository) -> None:
    from reports.gate.workers import _environment

    with checked_out(repository.path, "HEAD", "HEAD") as (base, _):
        rng = random.Random(0)
        found = [_environment(base, "cpu", rng) for _ in range(2)]
    assert found[0]["PYTHONHASHSEED"] != found[1]["PYTHONHASHSEED"]
    assert len(found[0]["GATE_PADDING"]) != len(found[1]["GATE_PADDING"])
