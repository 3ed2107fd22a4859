"""The fork server of asv imports once what its benchmarks need, and nothing else does."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from asv_runner import server

from benchmarks.suite import preload

PROGRAM = """
import gc, json, os, sys
sys.argv[1:] = {words}
from benchmarks import preload
torch = sys.modules.get("torch")
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
threads = len(os.listdir("/proc/self/task"))  # those that the fork did not let end
with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
    children = file.read().split()
print(json.dumps({{
    "missing": [name for name in preload.PACKAGES if name not in sys.modules],
    "torch": torch is not None,
    "cuda": torch is not None and torch.cuda.is_initialized(),
    "tensors": torch and sum(type(each) is torch.Tensor for each in gc.get_objects()),
    "threads": threads,
    "children": children,
}}))
"""


def after_import(root: Path, words: list[str]) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="asv forks on Linux alone")
def test_a_fork_server_has_all_modules_and_computes_and_starts_nothing(root: Path) -> None:
    found = after_import(root, ["run_server", "benchmarks", "socket"])
    assert found == {
        "missing": [], "torch": True, "cuda": False, "tensors": 0, "threads": 1, "children": [],
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="asv forks on Linux alone")
@pytest.mark.parametrize("words", [[], ["discover", "benchmarks", "file"], ["run", "run_server"]])
def test_whatever_else_imports_the_suite_imports_nothing_by_it(
    root: Path, words: list[str]
) -> None:
    found = after_import(root, words)
    assert not found["torch"]
    assert found["missing"] == list(preload.PACKAGES)


def test_what_a_commit_lacks_or_fails_to_import_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_an_old_commit.py").write_text("raise RuntimeError('not by this Python')\n")
    (tmp_path / "of_every_commit.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    names = ("reference_model.no_such_module", "of_an_old_commit", "of_every_commit")
    monkeypatch.setattr(preload, "PACKAGES", names)
    preload.preload()
    assert sys.modules.pop("of_every_commit", None)
    assert "of_an_old_commit" not in sys.modules  # a benchmark that needs it meets the error


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with its parent")
def test_a_fork_server_ends_when_asv_is_killed(root: Path) -> None:
    server = (
        "import time; from benchmarks import preload; preload.end_with_asv(); "
        "print('ready', flush=True); time.sleep(5); print('and waits')"
    )
    asv = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {server!r}])"
    with subprocess.Popen([sys.executable, "-c", asv], cwd=root, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"ready\n"
        killed.kill()
        assert killed.stdout.read() == b""


def test_a_fork_server_takes_little_time_from_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(server, "time", server.time)
    monkeypatch.setattr(preload.time, "sleep", slept.append)
    preload.poll_seldom()
    server.time.sleep(1e-14)
    server.time.sleep(1.0)
    assert slept == [preload.POLL, 1.0]
    assert set(re.findall(r"\btime\.\w+", inspect.getsource(server))) == {"time.sleep"}
