"""`make history`: asv gets words and a plain list of versions; what is wrong is told before."""

from __future__ import annotations

import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from reports.history import measure

pytestmark = pytest.mark.K9


class Asv:
    """What asv would be asked, and the statuses that it answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str]] = []
        self.environment: dict[str, str] = {}
        self.statuses = {"run": 0, "publish": 0}

    def __call__(
        self, command: list[str], *, cwd: Path, env: dict[str, str], **given: Any
    ) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "asv"]
        if command[3] == "run":
            self.environment = env
        self.calls.append((command[3:], given["input"]))
        return subprocess.CompletedProcess(command, self.statuses[command[3]])


@pytest.fixture
def asv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asv:
    """A project below a name that a shell, or pip, would split."""
    top = tmp_path / 'it\'s a "project"'
    top.mkdir()
    answers = Asv()
    monkeypatch.setattr(measure, "ROOT", top)
    monkeypatch.setattr(measure, "STORE", top / ".asv")
    monkeypatch.setattr(measure, "git", lambda top, *words: f"{words[-2]}\nb")
    monkeypatch.setattr(measure, "reports_main", lambda words: 0)
    monkeypatch.setattr(measure.MachineCollection, "save", lambda *given: None)
    monkeypatch.setattr(measure.subprocess, "run", answers)
    return answers


def test_commits_are_measured_and_then_published(asv: Asv, tmp_path: Path) -> None:
    page = ["--out", str(tmp_path / "history.html")]
    assert measure.main(["--commits=3", "--machine=of-ci.1", "--profile=smoke", *page]) == 0
    words = ["run", "--machine", "of-ci.1-smoke", "--skip-existing-successful", "--show-stderr"]
    assert asv.calls == [([*words, "HASHFILE:-"], "--max-count=3\nb\n"), (["publish"], "")]
    assert asv.environment["LLM_DESIGN_BENCH_PROFILE"] == "smoke"
    assert "core.hooksPath" in asv.environment.values()  # asv calls git by itself


@pytest.mark.parametrize("failing", ["run", "publish"])
def test_what_fails_is_the_exit_status_and_all_is_shown(
    asv: Asv, tmp_path: Path, failing: str
) -> None:
    asv.statuses[failing] = 3
    assert measure.main(["--out", str(tmp_path / "history.html")]) == 3
    assert [words[0] for words, _ in asv.calls] == ["run", "publish"]


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
