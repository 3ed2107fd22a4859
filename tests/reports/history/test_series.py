"""asv's results as series: what was measured, of which machine, and where it stepped."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gate_suite import EXACT
from reference_model.errors import UserError
from reports.history.series import Commit, History, Series, first_parents, read_history
from reports.history.view import View, history_view, steps_of
from tests.reports.history.small_history import COUNTED, STEP

Write = Callable[..., Path]


def charts(view: View) -> list[View]:
    return [
        chart
        for setting in view["settings"]
        for file in setting["files"]
        for kind in file["kinds"]
        for chart in kind["charts"]
    ]


def only_series(history: History) -> Series:
    ((series,),) = (setting.series for setting in history.settings)
    return series


def test_a_step_is_found_at_its_commit(write: Write, repository: Path) -> None:
    series = only_series(read_history(write(STEP), repository, EXACT))
    (step,) = steps_of(series)
    assert (step.at, step.before, step.after) == (6, 1.0e-3, pytest.approx(1.3e-3))
    assert (series.benchmark.unit, series.exactness) == ("seconds", None)
    assert series.parameters == (("p0", "'cached'"),)


def test_a_series_without_a_step_has_none(write: Write, repository: Path) -> None:
    assert steps_of(only_series(read_history(write(STEP[:6]), repository, EXACT))) == []


def test_a_count_that_changes_by_one_is_a_step(write: Write, repository: Path) -> None:
    series = only_series(read_history(write([100, 100, 101], COUNTED), repository, EXACT))
    assert [(step.at, step.after) for step in steps_of(series)] == [(2, 101)]


def test_what_failed_was_skipped_or_is_absent_is_a_gap_and_never_0(
    write: Write, repository: Path
) -> None:
    values = [1.0, None, math.nan, "absent", 1.0, math.inf]
    series = only_series(read_history(write(values), repository, EXACT))
    states = ["measured", "failed", "skipped", "not measured", "measured", "failed"]
    assert [point.state for point in series.points] == states
    assert [value for _, value in series.measured] == [1.0, 1.0]
    view = history_view(read_history(write(values), repository, EXACT))
    (chart,) = charts(view)
    assert chart["gaps"] == ["2 failed", "1 skipped", "1 not measured"]
    drawn = view["data"]["series"][chart["anchor"]]
    assert (drawn["value"], drawn["at"]) == ([1.0, 1.0], [0, -4])  # negative: interrupted
    assert (drawn["failed"], drawn["skipped"]) == ([1, 4], [2])


def test_a_step_across_a_gap_is_at_the_commit_that_showed_it(
    write: Write, repository: Path
) -> None:
    values = [*STEP[:6], "absent", None, *STEP[6:]]
    (step,) = steps_of(only_series(read_history(write(values), repository, EXACT)))
    assert step.at == 8


def test_machines_profiles_and_environments_are_never_joined(
    write: Write, repository: Path
) -> None:
    write(STEP[:3])
    write(STEP[:3], machine="local-full")
    write(STEP[:3], machine="other-quick")
    write(STEP[6:], first=6, cpu="another", os="Linux 2")
    folder = write(STEP[6:], first=6, python="3.13")
    settings = read_history(folder, repository, EXACT).settings
    assert [s.machine for s in settings] == ["local-full", *["local-quick"] * 3, "other-quick"]
    assert [
        s["machine"] for s in history_view(read_history(folder, repository, EXACT))["settings"]
    ] == [
        "local-full",
        "local-quick, cpu another",
        "local-quick, cpu one",
        "local-quick, cpu one, python 3.13",
        "other-quick",
    ]
    assert all(steps_of(series) == [] for s in settings for series in s.series)


def test_an_updated_kernel_is_the_same_machine(write: Write, repository: Path) -> None:
    write(STEP[:6], os="Linux 1")
    folder = write(STEP[6:], first=6, os="Linux 2")
    assert len(steps_of(only_series(read_history(folder, repository, EXACT)))) == 1


def test_commits_stand_in_the_order_of_first_parents_with_date_and_message(
    write: Write, repository: Path, hashes: list[str]
) -> None:
    (setting,) = read_history(write(STEP[:3], first=2), repository, EXACT).settings
    assert setting.commits == [
        Commit(hashes[n], f"1970-01-0{n + 1}", f"Commit {n}", n) for n in (2, 3, 4)
    ]


def test_commits_elsewhere_and_other_versions_of_a_benchmark_are_counted(
    write: Write, repository: Path, hashes: list[str]
) -> None:
    folder = write(STEP[:3])
    write([5.0], COUNTED, machine="old-quick")
    first, second, third = sorted((folder / "local-quick").glob("*-env.json"))
    first.write_text(
        re.sub(r'"commit_hash": "\w+"', f'"commit_hash": "{"f" * 40}"', first.read_text())
    )
    suite = json.loads((folder / "benchmarks.json").read_text())
    suite[COUNTED]["version"] = "2"
    (folder / "benchmarks.json").write_text(json.dumps(suite))
    history = read_history(folder, repository, EXACT)
    assert history.commits_elsewhere == 1
    assert history.other_benchmarks == [COUNTED]
    assert second != third


@pytest.mark.K8
@pytest.mark.parametrize("what", ["{", "a folder", "a dangling link", "a FIFO", "a number", "deep"])
def test_one_damaged_or_strange_entry_is_named_and_all_others_are_shown(
    write: Write, repository: Path, what: str
) -> None:
    folder = write(STEP)
    strange = folder / "local-quick" / "strange.json"
    if what == "a folder":
        strange.mkdir()
    elif what == "a dangling link":
        strange.symlink_to("nowhere")
    elif what == "a FIFO":
        os.mkfifo(strange)
    else:
        strange.write_text({"a number": "5", "deep": "[" * 99_999}.get(what, what))
    history = read_history(folder, repository, EXACT)
    ((name, reason),) = history.skipped_files
    assert name == "local-quick/strange.json"
    assert reason
    assert str(folder) not in reason
    assert len(only_series(history).measured) == len(STEP)


@pytest.mark.K8
def test_a_file_whose_values_are_no_numbers_is_skipped(write: Write, repository: Path) -> None:
    folder = write([1.0, 1.0])
    path = next((folder / "local-quick").glob("*-env.json"))
    stored = json.loads(path.read_text())
    (row,) = stored["results"].values()
    row[0] = ["fast"]
    path.write_text(json.dumps(stored))
    history = read_history(folder, repository, EXACT)
    assert [name for name, _ in history.skipped_files] == [f"local-quick/{path.name}"]
    assert len(only_series(history).measured) == 1


@pytest.mark.K8
def test_a_benchmark_that_the_suite_describes_in_a_strange_way_leaves_the_others(
    write: Write, repository: Path
) -> None:
    write(STEP)
    folder = write([5.0], COUNTED)
    suite = json.loads((folder / "benchmarks.json").read_text())
    suite[COUNTED]["unit"] = None
    (folder / "benchmarks.json").write_text(json.dumps(suite))
    history = read_history(folder, repository, EXACT)
    assert only_series(history).benchmark.name != COUNTED
    assert history.skipped_files == [(f"benchmarks.json, {COUNTED}", "unit that is no text")]
    assert history.other_benchmarks == [COUNTED]


@pytest.mark.K8
@pytest.mark.parametrize("everything", [True, False], ids=["with the suite", "results alone"])
def test_a_history_of_asvs_old_format_is_told_what_brings_it_up_to_date(
    write: Write, repository: Path, everything: bool
) -> None:
    folder = write(STEP)
    for path in folder.rglob("*.json" if everything else "*-env.json"):
        path.write_text(re.sub(r'"version": 2', '"version": 1', path.read_text()))
    (folder / "local-quick" / "broken.json").write_text("{")
    with pytest.raises(UserError, match="old format 1; run asv update") as refused:
        read_history(folder, repository, EXACT)
    assert "make history" not in str(refused.value)
    if not everything:
        assert f"{len(STEP)} of {len(STEP) + 1} files" in str(refused.value)


@pytest.mark.K8
def test_results_of_another_repository_are_told_from_unreadable_ones(
    write: Write, repository: Path
) -> None:
    folder = write(STEP)
    for path in (folder / "local-quick").glob("*-env.json"):
        text = path.read_text()
        path.write_text(re.sub(r'"commit_hash": "\w{8}', '"commit_hash": "ffffffff', text))
    (folder / "local-quick" / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"of 10 other commits .* by --repository"):
        read_history(folder, repository, EXACT)


def test_the_same_commit_twice_is_read_once(write: Write, repository: Path) -> None:
    folder = write([1.0])
    (path,) = (folder / "local-quick").glob("*-env.json")
    (path.parent / "zz-copy.json").write_bytes(path.read_bytes())
    history = read_history(folder, repository, EXACT)
    assert [name for name, _ in history.skipped_files] == ["local-quick/zz-copy.json"]


def test_only_first_parents_are_listed(repository: Path, hashes: list[str]) -> None:
    assert [commit.hash for commit in first_parents(repository)] == hashes
