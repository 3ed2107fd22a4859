"""`make history`: asv gets words and a plain list of versions; what is wrong is told before."""

from __future__ import annotations

import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from asv.config import Config
from asv.machine import MachineCollection
from packaging.requirements import Requirement

from benchmarks.instruments.readings import Unavailable
from reports.history import measure

pytestmark = pytest.mark.K9

SLICES = ["^bench_a\\.", "^bench_b\\."]
NO_DRIVER = Unavailable("no NVIDIA driver", "NVML")
FORKED = ("--launch-method", "forkserver") if sys.platform == "linux" else ()


class Asv:
    """What asv would be asked, and the statuses that it answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str]] = []
        self.environment: dict[str, str] = {}
        self.says = ""
        self.statuses = {"just-discover": 0, "^bench_a\\.": 0, "^bench_b\\.": 0, "publish": 0}

    def __call__(
        self, command: list[str], *, cwd: Path, env: dict[str, str], **given: Any
    ) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "asv"]
        if command[3] == "run":
            self.environment = env
        if given["stdout"]:
            given["stdout"].write(self.says)
        self.calls.append((command[3:], given["input"]))
        what = command[command.index("--bench") + 1] if command[3] == "run" else command[3]
        return subprocess.CompletedProcess(command, self.statuses[what])


@pytest.fixture
def asv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asv:
    """A project below a name that a shell, or pip, would split."""
    top = tmp_path / 'it\'s a "project"'
    (top / "benchmarks" / "suite").mkdir(parents=True)
    for name in ("bench_b.py", "bench_a.py", "benchmark.py", "workloads.py"):
        (top / "benchmarks" / "suite" / name).touch()
    answers = Asv()
    monkeypatch.setattr(measure, "ROOT", top)
    monkeypatch.setattr(measure, "STORE", top / ".asv")
    monkeypatch.setattr(measure, "git", lambda top, *words: f"{words[-2]}\nb")
    monkeypatch.setattr(measure, "driver_version", lambda: NO_DRIVER)
    monkeypatch.setattr(measure, "resolve_device", {"auto": "cuda"}.__getitem__)
    monkeypatch.setattr(measure, "reports_main", lambda words: 0)
    monkeypatch.setattr(MachineCollection, "save", lambda *given: None)
    monkeypatch.setattr(measure.subprocess, "run", answers)
    return answers


def test_commits_are_measured_slice_by_slice_and_then_published(asv: Asv, tmp_path: Path) -> None:
    page = ["--out", str(tmp_path / "history.html")]
    assert measure.main(["--commits=3", "--machine=of-ci.1", "--profile=smoke", *page]) == 0
    words = ["run", "--machine", "of-ci.1-smoke", "--skip-existing-successful", "--show-stderr"]
    discovered, *slices, published = asv.calls
    assert discovered == (
        [*words, "--bench", "just-discover", "HASHFILE:-"], "--max-count=3\nb\n"
    )  # fmt: skip
    assert slices == [
        ([*words, *FORKED, "--bench", each, "HASHFILE:-"], "--max-count=3\nb\n") for each in SLICES
    ]
    assert published == (["publish"], "")
    assert asv.environment["LLM_DESIGN_BENCH_PROFILE"] == "smoke"
    assert asv.environment["LLM_DESIGN_BENCH_DEVICE"] == "cuda"
    assert "core.hooksPath" in asv.environment.values()  # asv calls git by itself


@pytest.mark.parametrize(
    ("platform", "driver", "launch"),
    [
        ("linux", NO_DRIVER, ("--launch-method", "forkserver")),
        ("linux", "570.133.20", ()),
        ("darwin", NO_DRIVER, ()),
        ("win32", NO_DRIVER, ()),
    ],
)
def test_benchmarks_are_forked_on_linux_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, platform: str, driver: object, launch: tuple[str, ...]
) -> None:
    monkeypatch.setattr(measure.sys, "platform", platform)
    monkeypatch.setattr(measure, "driver_version", lambda: driver)
    assert measure.launch_method() == launch


def test_asv_alone_starts_an_interpreter_for_each_benchmark(root: Path) -> None:
    assert Config.load(str(root / "asv.conf.json")).launch_method == "spawn"


@pytest.mark.parametrize("failing", ["^bench_a\\.", "^bench_b\\.", "publish"])
def test_what_fails_is_the_exit_status_and_all_is_measured_and_shown(
    asv: Asv, tmp_path: Path, failing: str
) -> None:
    asv.statuses[failing] = 3
    assert measure.main(["--commits=2", "--out", str(tmp_path / "history.html")]) == 3
    assert len(asv.calls) == 1 + len(SLICES) + 1


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "WARNING: Network is unreachable\nERROR: No matching distribution found for torch\n",
            "error: no package index was reached (Network is unreachable); connect to a network",
        ),
        ("Traceback: what else", "error: asv cannot make its environment or find the benchmarks"),
    ],
)
def test_an_environment_that_asv_cannot_make_ends_it_in_one_line(
    asv: Asv, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str, told: str
) -> None:
    asv.statuses["just-discover"], asv.says = 3, said
    assert measure.main(["--out", str(tmp_path / "history.html")]) == 2
    assert [words[0] for words, _ in asv.calls] == ["run"]
    _, last = capsys.readouterr().err.splitlines()
    assert last.startswith(told)
    log = measure.STORE / measure.LOG
    assert last.endswith(f"(all that was said: {log})")
    assert log.read_text() == said


def test_pip_is_held_to_a_plain_list_of_all_versions_by_one_word(asv: Asv, tmp_path: Path) -> None:
    assert measure.main(["--out", str(tmp_path / "history.html")]) == 0
    address = asv.environment["PIP_CONSTRAINT"]
    assert not set(address) & set(" '\"")
    path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
    lines = path.read_text(encoding="utf-8").splitlines()
    versions = {each.name: str(each.specifier) for each in map(Requirement, lines)}
    assert versions["torch"] == "==2.13.0"
    assert versions["numpy"].startswith("==2.")
    assert "hash" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["--commits=0"], ["--commits=5 --all"], ["--commits=$(x)"], ["--commits=-1"],
        ["--machine=../../x"], ["--machine=a b"], ["--machine=$(x)"], ["--machine="],
        ["--machine=-x"], ["--profile=slow"], ["--out=/dev/null/history.html"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_word_is_told_before_anything_is_measured(
    asv: Asv, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure.main(["--out", str(tmp_path / "history.html"), *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert asv.calls == []
