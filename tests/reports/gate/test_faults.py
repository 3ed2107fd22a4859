"""Faults that are put into the project: the set stays alive, and what was found is counted."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reference_model.errors import UserError
from reports.gate.validation import __main__ as validation
from reports.gate.validation import fault_command, fault_runs, lines, real
from reports.gate.validation.__main__ import main
from reports.gate.validation.edits import Edit, edited
from reports.gate.validation.fault_runs import Judge, finds, run_changes
from reports.gate.validation.fault_table import markdown, summary
from reports.gate.validation.faults.catalogue import ALL, chosen
from reports.gate.validation.faults.change import FAULTY, HARMLESS, UNCHANGED, Change

# ---- the set


def test_what_each_change_edits_stands_once_in_its_file(root: Path) -> None:
    texts: dict[str, str] = {}
    stale = []
    for change in ALL:
        own: dict[str, str] = {}
        for file, old, new in change.edits:
            if file not in texts:
                texts[file] = (root / file).read_text(encoding="utf-8")
            try:
                own[file] = edited(own.get(file, texts[file]), change.name, file, old, new)
            except UserError as error:
                stale.append(str(error))
        assert own, f"{change.name} edits nothing"
        assert all(text != texts[file] for file, text in own.items()), change.name
    assert stale == []


def test_there_are_60_faults_in_five_groups_and_12_rewrites_each_of_its_own_name() -> None:
    counted = Counter(change.group for change in ALL)
    assert counted.keys() == {*FAULTY, HARMLESS}
    assert len(FAULTY) == 5
    assert all(counted[group] >= 14 for group in FAULTY)
    assert sum(counted[group] for group in FAULTY) >= 60
    assert counted[HARMLESS] >= 12
    names = [change.name for change in (UNCHANGED, *ALL)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 72, "a name is the subject of a commit"


def test_a_change_is_told_in_one_short_sentence() -> None:
    for change in ALL:
        assert change.what.endswith("."), change.name
        assert len(change.what.split()) <= 20, change.name


def test_changes_are_chosen_by_group_and_name() -> None:
    assert chosen() == list(ALL)
    assert {change.group for change in chosen("memory")} == {"memory"}
    found = chosen("speed", "*cache*")
    assert found
    assert all(change.group == "speed" and "cache" in change.name for change in found)
    with pytest.raises(UserError, match="'no such' matches no change of the group speed"):
        chosen("speed", "no such")


# ---- asking about them

FAULT, REWRITE = (Change(group, f"a {group}", "It is.", (("f", "a", "b"),)) for group in
                  ("speed", HARMLESS))  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the judges were asked about; both find faults alone."""
    names: list[str] = []

    @contextmanager
    def clone_edited(repository: Path, name: str, edits: Iterable[Edit]) -> Iterator[Path]:
        yield repository / name

    def judge_of(judge: Judge) -> Any:
        def asked(clone: Path) -> dict[str, Any]:
            names.append(f"{judge}: {clone.name}")
            status = 10 * (clone.name == FAULT.name)
            gate = {"reason": "because", "compared": 1, "differences": [{}]}
            return {"exit_status": status, "seconds": 1.0, "failing": [], **gate}

        return asked

    monkeypatch.setattr(real, "clone_edited", clone_edited)
    monkeypatch.setattr(fault_runs, "git", lambda *arguments: "0" * 40)
    monkeypatch.setattr(
        fault_runs, "JUDGES", {judge: judge_of(judge) for judge in fault_runs.JUDGES}
    )
    return names


def ask(path: Path, changes: Sequence[Change], *judges: Judge) -> list[str]:
    said: list[str] = []
    run_changes(path, path.parent, changes, judges, said.append)
    return said


def test_each_change_is_asked_about_once_after_a_clone_without_one(
    asked: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "lines.jsonl"
    told = ask(path, [FAULT], "gate")
    assert asked == ["gate: nothing", "gate: a speed"]
    assert told[1] == "1 of 1, a speed: found (gate, 1 s): because"
    asked.clear()
    ask(path, [FAULT, REWRITE], "gate", "tests")
    wanted = ["tests: nothing", "tests: a speed", "gate: a rewrites", "tests: a rewrites"]
    assert asked == wanted
    asked.clear()
    ask(path, [FAULT, REWRITE], "gate", "tests")
    assert asked == []
    ask(path, [Change("speed", FAULT.name, "It is.", (("f", "a", "c"),))], "gate")
    assert asked == ["gate: a speed"], "what was said of other edits does not count"


def test_the_tests_may_be_asked_only_about_what_the_gate_missed(
    asked: list[str], tmp_path: Path
) -> None:
    judges: tuple[Judge, ...] = ("gate", "tests")
    path = tmp_path / "lines.jsonl"
    run_changes(path, tmp_path, [FAULT, REWRITE], judges, [].append, only_missed=True)
    assert asked == [
        *("gate: nothing", "tests: nothing"),
        *("gate: a speed", "gate: a rewrites", "tests: a rewrites"),
    ]


def test_what_is_found_in_a_clone_without_a_change_ends_it(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"
    found = {"exit_status": 1, "seconds": 2.0, "failing": ["tests/test_a.py::test_b"]}
    monkeypatch.setitem(fault_runs.JUDGES, "tests", lambda clone: found)
    for _ in range(2):
        with pytest.raises(UserError, match=r"without a change: found .*::test_b; mend"):
            ask(path, [FAULT], "gate", "tests")
    assert asked == ["gate: nothing"]


@pytest.mark.parametrize(
    ("judge", "status", "found"),
    [
        ("gate", 0, False),
        ("gate", 10, True),
        ("gate", 12, True),
        ("gate", 13, False),
        ("tests", 0, False),
        ("tests", 1, True),
        ("tests", -9, True),
    ],
)
def test_a_change_is_found_where_the_pull_request_would_fail(
    judge: str, status: int, found: bool
) -> None:
    assert finds({"judge": judge, "exit_status": status}) == found


def test_the_gate_is_asked_for_its_exact_layer_and_has_to_end_with_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differences = [{"id": "a", "kind": "worse", "base": 1.0, "head": 2.0, "because": ""}]
    exact = {"compared": 3, "differences": differences, "seconds": 1.0}
    run: dict[str, Any] = {"exit_status": 10, "seconds": 9.0, "reason": "worse", "exact": exact}
    given = []

    def one_run(clone: Path, arguments: tuple[str, ...]) -> dict[str, Any]:
        given.append(arguments)
        return run

    monkeypatch.setattr(real, "one_run", one_run)
    found = fault_runs.gate_of(tmp_path)
    assert given == [("--select=*.track_*",)]
    assert (found["exit_status"], found["compared"]) == (10, 3)
    assert found["differences"] == differences
    run |= {"exit_status": 12, "exact": None}
    assert fault_runs.gate_of(tmp_path)["differences"] == []
    run |= {"exit_status": -9}
    with pytest.raises(UserError, match="status -9 and no verdict"):
        fault_runs.gate_of(tmp_path)


def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Instead of Python a script runs."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@pytest.mark.parametrize(
    ("failing", "asked"),
    [
        ("test_near", ["tests/test_near.py"]),
        ("micro", ["tests/test_near.py", "tests benchmarks/micro"]),
    ],
)
def test_tests_that_fail_are_named_and_run_as_make_test_runs_them(
    failing: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest ones alone, and then all of them where none of those fails."""
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    script = (
        'echo "$@" $PYTHONHASHSEED:$PYTHONPATH >>asked\n'
        f'case "$*" in *{failing}*)\n'
        "echo 'FAILED tests/test_a.py::test_b[x] - assert 1 == 2'\nexit 2;; esac"
    )
    clone = tmp_path / "clone"
    clone.mkdir()
    pretend(tmp_path, monkeypatch, script)
    monkeypatch.setattr(fault_runs, "nearest", lambda clone: ["tests/test_near.py"])
    found = fault_runs.tests_of(clone)
    assert (found["exit_status"], found["failing"]) == (2, ["tests/test_a.py::test_b[x]"])
    runs = (clone / "asked").read_text().splitlines()
    assert all(run.startswith("-m pytest -q -x ") for run in runs)
    assert all("--ignore-glob=tests/reports/gate/*" in run for run in runs)
    last = [run.partition("_in_browser.py ")[2] for run in runs]
    assert last == [f"{files} 0:" for files in asked]


def test_tests_of_what_was_changed_come_first(repository) -> None:
    repository.write("tests/test_other.py", "from reference_model import bench\n")
    repository.write("tests/test_model_files.py", "import os\n")
    repository.write("tests/deep/test_shape.py", "from reference_model.model import BYTES\n")
    repository.write("tests/reports/gate/test_model.py", "")
    repository.commit()
    repository.write("reference_model/model.py", "BYTES = 2\n")
    repository.commit()
    assert fault_runs.nearest(repository.path) == [
        "tests/test_model_files.py",
        "tests/deep/test_shape.py",
    ]


def test_tests_that_never_end_are_ended_and_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_runs, "nearest", lambda clone: [])
    pretend(tmp_path, monkeypatch, "sleep 60 & wait")
    monkeypatch.setattr(fault_runs, "PATIENCE", 0.05)
    found = fault_runs.tests_of(tmp_path)
    assert found["exit_status"] != 0
    assert found["seconds"] < 10
    assert found["failing"] == ["not done within 0 s"]
    pretend(tmp_path, monkeypatch, "kill -9 $$")
    monkeypatch.setattr(fault_runs, "PATIENCE", 60.0)
    with pytest.raises(UserError, match="signal 9 ended the tests"):
        fault_runs.tests_of(tmp_path)


# ---- counting them


def of_each_group() -> list[Change]:
    """Three of speed, one of quality, and two rewrites."""
    return [*chosen("speed")[:3], *chosen("quality")[:1], *chosen(HARMLESS)[:2]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The gate finds the first of speed, a later one that the tests know nothing of, and a rewrite.

    The tests find the second of speed. Nobody finds that of quality.
    """
    path, (first, second, later, third, *harmless) = tmp_path / "lines.jsonl", of_each_group()
    for change, gate, tests in (
        (first, 10, 0),
        (second, 0, 1),
        (later, 10, None),
        (third, 0, 0),
        (harmless[0], 10, 0),
        (harmless[1], 0, None),
    ):
        common = {"kind": "change", "name": change.name, "edits": change.digest, "seconds": 3.0}
        told = {"reason": "", "compared": 9, "differences": [{}] * (gate > 0)}
        lines.append(path, {**common, "judge": "gate", "exit_status": gate, **told})
        if tests is not None:
            failing = ["tests/test_a.py::test_b"] * tests
            asked = {"judge": "tests", "exit_status": tests, "failing": failing}
            lines.append(path, {**common, **asked})
    stale = {"kind": "change", "name": third.name, "edits": "other", "judge": "gate"}
    lines.append(path, {**stale, "exit_status": 10, "seconds": 1.0, "differences": []})
    return path


def test_shares_are_counted_by_group_over_what_was_asked(path: Path) -> None:
    found = summary(path)
    speed, *_ = found["groups"]
    assert speed["group"] == "speed"
    assert (speed["gate"]["found"], speed["gate"]["asked"]) == (2, 3)
    assert (speed["tests"]["found"], speed["either"]["found"], speed["neither"]) == (1, 3, 0)
    assert (found["all"]["gate"]["found"], found["all"]["gate"]["asked"]) == (2, 4)
    assert found["all"]["gate"]["value"] == pytest.approx(1 / 2)
    low, high = found["all"]["gate"]["interval"]
    assert 0 < low < 1 / 2 < high < 1
    assert (found["all"]["either"]["asked"], found["all"]["neither"]) == (4, 1)
    assert (found["rewrites"]["gate"]["found"], found["rewrites"]["gate"]["asked"]) == (1, 2)
    assert found["rewrites"]["tests"]["asked"] == 1
    memory = next(row for row in found["groups"] if row["group"] == "memory")
    assert (memory["gate"]["asked"], memory["gate"]["value"]) == (0, None)


def test_nothing_is_said_of_neither_while_what_the_gate_missed_waits_for_the_tests(
    tmp_path: Path,
) -> None:
    path, (first, second, *_) = tmp_path / "lines.jsonl", of_each_group()
    for change, status in ((first, 10), (second, 0)):
        common = {"kind": "change", "name": change.name, "edits": change.digest, "judge": "gate"}
        told = {"seconds": 3.0, "reason": "", "compared": 9, "differences": []}
        lines.append(path, {**common, "exit_status": status, **told})
    found = summary(path)
    assert (found["all"]["either"]["asked"], found["all"]["either"]["value"]) == (0, None)


def test_each_change_has_a_row_with_what_the_judges_said(path: Path) -> None:
    rows = {row["name"]: row for row in summary(path)["changes"]}
    assert rows.keys() == {change.name for change in ALL}
    first, second, _, third, *_ = (rows[change.name] for change in of_each_group())
    assert (first["gate"], first["tests"], first["differences"]) == (True, False, 1)
    assert (second["gate"], second["failing tests"]) == (False, ["tests/test_a.py::test_b"])
    assert (third["gate"], third["exit_status"]) == (False, 0), "not by what was said of others"
    last = rows[ALL[-1].name]
    assert (last["gate"], last["tests"], last["failing tests"]) == (None, None, None)


def test_the_tables_tell_groups_first_and_then_each_change(path: Path) -> None:
    text = markdown(summary(path))
    half, most = "1 of 2, 50 % (1–99)", "2 of 3, 67 % (9–99)"
    assert f"\n| speed | {len(chosen('speed'))} | {most} | {half} | 0 of 3 |\n" in text
    first, _, later, third, harmless, _ = of_each_group()
    for change, words in (
        (first, "found | not found"),
        (later, "found | "),
        (third, "not found | not found"),
        (harmless, "failed | passed"),
    ):
        assert f"| {change.name} | {change.what} | {words} |\n" in text
    assert text.count("\n## ") == 6


def test_the_command_asks_and_writes_both_forms(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(path: Path, repository: Path, changes: Sequence[Change], *rest: Any) -> None:
        judges, _, missed = rest
        asked.append(([change.name for change in changes], judges, missed))

    monkeypatch.setattr(fault_command, "run_changes", run)
    monkeypatch.setattr(fault_command, "check_gate", lambda path, repository: None)
    monkeypatch.setattr(validation, "made", lambda path: {"of": path.name})
    name = of_each_group()[0].name
    command = ["faults", f"--lines={path}", "--group=speed", f"--only={name}"]
    out, tables = tmp_path / "faults.json", tmp_path / "faults.md"
    assert main([*command, f"--out={out}"]) == 0
    told = capsys.readouterr().out
    assert main([*command, "--tests", f"--markdown={tables}"]) == 0
    assert main([*command, "--tests", "missed", f"--markdown={tables}"]) == 0
    both = ("gate", "tests")
    assert asked == [([name], ("gate",), False), ([name], both, False), ([name], both, True)]
    assert json.loads(out.read_text()) == {"made": {"of": path.name}, **summary(path)}
    assert tables.read_text() == told == markdown(summary(path))
