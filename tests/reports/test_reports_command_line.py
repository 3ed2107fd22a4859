import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import reports
from reports.__main__ import main

REPOSITORY = Path(reports.__file__).parents[1]
Write = Callable[[Any], Path]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a refused command prints."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err)
    return captured.err


def test_build_writes_the_page_and_the_results_it_was_made_of(
    few_results: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    path, out = write(few_results), tmp_path / "new" / "site"
    assert main(["build", str(path), "--out", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["index.html", "results.json"]
    assert (out / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (out / "results.json").read_bytes() == path.read_bytes()


def test_results_that_lie_in_the_folder_already_stay_as_they_are(
    few_results: dict[str, Any], write: Write
) -> None:
    path = write(few_results)
    before = path.stat()
    assert main(["build", str(path), "--out", str(path.parent)]) == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["index.html", "results.json"]
    assert path.stat().st_ino == before.st_ino


@pytest.mark.K8
@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="this system's pipes have no path")
def test_results_from_a_pipe_are_kept_beside_the_page(
    few_results: dict[str, Any], tmp_path: Path
) -> None:
    taken, given = os.pipe()
    few = {**few_results, "claims": few_results["claims"][:1], "measurements": []}
    few["claims"][0]["measurements"] = []
    for requirement in few["claims"][0]["requirements"]:
        requirement["measurements"] = []
    os.write(given, json.dumps(few).encode())  # less than a pipe holds
    os.close(given)
    assert main(["build", f"/dev/fd/{taken}", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "results.json").read_bytes()) == few
    os.close(taken)


def test_the_modules_command_line_ends_with_one_line_and_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reports", "build", "absent.json", "--out", str(tmp_path / "site")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*absent\.json.*\n", done.stderr)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "content", ["", "{", '{"schema": 1', '{"schema": NaN}', "[]", '{"schema": 1}', "\x00"]
)
def test_a_corrupt_results_file_is_named_and_nothing_is_written(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content, encoding="utf-8")
    assert "broken.json" in refused(capsys, "build", path, "--out", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_results_of_another_schema_are_refused_with_both_versions(
    few_results: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write({**few_results, "schema": 7})
    line = refused(capsys, "build", path, "--out", tmp_path / "site")
    assert "7" in line
    assert not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_made_is_refused(
    few_results: dict[str, Any], write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    line = refused(capsys, "build", write(few_results), "--out", file / "site")
    assert str(file / "site") in line
    assert file.read_text() == "in the way"


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder that nobody may write into; root may, into any that is on a disk."""
    if os.geteuid() == 0:
        return Path("/proc/self")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder


def test_a_read_only_folder_is_refused(
    few_results: dict[str, Any], write: Write, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "build", write(few_results), "--out", read_only)
    assert str(read_only) in line
    assert not (read_only / "index.html").exists()


def test_a_write_that_fails_half_way_leaves_the_old_page_and_no_scraps(
    few_results: dict[str, Any],
    write: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("old page")

    def full_disk(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    line = refused(capsys, "build", write(few_results), "--out", out)
    assert "No space left on device" in line
    assert [file.name for file in out.iterdir()] == ["index.html"]
    assert (out / "index.html").read_text() == "old page"


@pytest.mark.parametrize("arguments", [[], ["bulid"], ["build", "results.json"]])
def test_wrong_arguments_are_told_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--help" in refused(capsys, *arguments)


def test_the_table_has_a_row_per_claim_and_survives_pipes(
    few_results: dict[str, Any], write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = few_results["claims"]
    claims[0]["finding"] = "a | b\nand c"
    assert main(["table", str(write(few_results)), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(claims)
    assert "a \\| b and c" in lines[2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    for claim, line in zip(claims, lines[2:], strict=True):
        assert f" {claim['statement']} " in line
        assert f" {claim['scale']} " in line


def test_in_a_terminal_the_table_is_text_no_wider_than_it(
    few_results: dict[str, Any],
    write: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    few_results["claims"][0]["statement"] = "any\nPASS: all is well"
    assert main(["table", str(write(few_results))]) == 0
    table, _, counts = capsys.readouterr().out.rstrip().rpartition("\n\n")
    assert "|" not in table
    assert "\nPASS" not in table, "a text does not begin a line"
    assert max(map(len, table.splitlines())) <= 110
    for claim in few_results["claims"]:
        assert claim["id"] in table
    assert counts == "2 depends, 1 open, 1 confirmed"


@pytest.mark.K8
@pytest.mark.parametrize("out", ["", "--out /dev/stdout"])
def test_a_reader_that_closes_the_pipe_early_sees_no_traceback(
    results: dict[str, Any], write: Write, out: str
) -> None:
    path = write(results)
    command = f"{sys.executable} -m reports csv {path} {out} | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("claim,")
