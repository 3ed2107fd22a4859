"""asv's results as series, and the page of them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reference_model.errors import UserError
from reports.__main__ import main
from reports.history.page import build_history, render
from reports.history.series import (
    Commit,
    History,
    Point,
    Series,
    Setting,
    first_parents,
    read_history,
)
from reports.history.view import MOST_NAMES, MOST_ROWS, View, history_view, steps_of

Write = Callable[..., Path]

COUNTED = "bench_cache.CacheBytes.track_cache_bytes"
STEP = [1.0e-3, 1.01e-3, 0.99e-3, 1.0e-3, 1.005e-3, 1.0e-3, 1.3e-3, 1.31e-3, 1.29e-3, 1.3e-3]


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
    series = only_series(read_history(write(STEP), repository))
    (step,) = steps_of(series)
    assert (step.at, step.before, step.after) == (6, 1.0e-3, pytest.approx(1.3e-3))
    assert (series.unit, series.exactness) == ("seconds", None)
    assert series.parameters == (("p0", "'cached'"),)


def test_a_series_without_a_step_has_none(write: Write, repository: Path) -> None:
    assert steps_of(only_series(read_history(write(STEP[:6]), repository))) == []


def test_a_count_that_changes_by_one_is_a_step(write: Write, repository: Path) -> None:
    series = only_series(read_history(write([100, 100, 101], COUNTED), repository))
    assert [(step.at, step.after) for step in steps_of(series)] == [(2, 101)]


def test_what_failed_was_skipped_or_is_absent_is_a_gap_and_never_0(
    write: Write, repository: Path
) -> None:
    values = [1.0, None, math.nan, "absent", 1.0, math.inf]
    series = only_series(read_history(write(values), repository))
    states = ["measured", "failed", "skipped", "not measured", "measured", "failed"]
    assert [point.state for point in series.points] == states
    assert [value for _, value in series.measured] == [1.0, 1.0]
    view = history_view(read_history(write(values), repository))
    (chart,) = charts(view)
    assert chart["gaps"] == ["2 failed", "1 skipped", "1 not measured"]
    drawn = view["data"]["series"][chart["anchor"]]
    assert (drawn["value"], drawn["at"]) == ([1.0, 1.0], [0, -4])  # negative: interrupted
    assert (drawn["failed"], drawn["skipped"]) == ([1, 4], [2])


@pytest.mark.K7
@pytest.mark.parametrize(
    ("newest", "state"), [(None, "failed"), (math.inf, "failed"), (math.nan, "skipped")]
)
def test_a_series_without_a_value_at_its_newest_commit_says_so(
    write: Write, repository: Path, hashes: list[str], newest: float | None, state: str
) -> None:
    folder = write([*STEP[:5], newest, "absent"])
    write(STEP[:6], machine="other-quick")
    view = history_view(read_history(folder, repository))
    failed = int(state == "failed")
    assert view["counts"]["failed_last"] == view["counts"]["failed"] == failed
    assert view["counts"]["skipped_last"] == 1 - failed
    (row,) = view["broken"]
    assert (row["state"], row["hash"]) == (state, hashes[5][:8])
    page = render(view)
    assert f"{state} at <code>{hashes[5][:8]}</code>, its newest commit" in page
    assert ("1 series failed</b> at its newest commit" in page) is (state == "failed")
    assert f'<a href="#{row["anchor"]}"' in page


@pytest.mark.K7
def test_what_failed_before_and_works_again_is_a_gap_and_no_alarm(
    write: Write, repository: Path
) -> None:
    view = history_view(read_history(write([None, 1.0]), repository))
    assert view["broken"] == []
    assert view["counts"]["failed"] == 1
    assert 'id="broken"' not in render(view)


@pytest.mark.K7
def test_a_series_that_never_had_a_value_is_told_among_the_failed(
    write: Write, repository: Path
) -> None:
    view = history_view(read_history(write([None, None]), repository))
    assert view["counts"]["failed_last"] == 1
    assert view["settings"][0]["empty"] == [
        "bench_cache.Decode.time_step('cached') (0 skipped, 2 failed)"
    ]
    assert "<a href" not in render(view).partition('id="broken"')[2].partition("</section>")[0]


def test_a_step_after_a_gap_says_that_others_may_have_made_it(
    write: Write, repository: Path
) -> None:
    folder = write([7, 7, "absent", None, 9], COUNTED)
    view = history_view(read_history(folder, repository))
    ((row,),) = (group["rows"] for group in view["step_groups"])
    assert (row["unmeasured"], row["change"], row["worse"]) == (2, "+28.6 %", True)
    assert "or with one of the 2 commits before, which have no value" in render(view)


def test_a_step_across_a_gap_is_at_the_commit_that_showed_it(
    write: Write, repository: Path
) -> None:
    values = [*STEP[:6], "absent", None, *STEP[6:]]
    (step,) = steps_of(only_series(read_history(write(values), repository)))
    assert step.at == 8


def test_machines_profiles_and_environments_are_never_joined(
    write: Write, repository: Path
) -> None:
    write(STEP[:3])
    write(STEP[:3], machine="local-full")
    write(STEP[:3], machine="other-quick")
    write(STEP[6:], first=6, cpu="another", os="Linux 2")
    folder = write(STEP[6:], first=6, python="3.13")
    settings = read_history(folder, repository).settings
    assert [s.machine for s in settings] == ["local-full", *["local-quick"] * 3, "other-quick"]
    assert [s["machine"] for s in history_view(read_history(folder, repository))["settings"]] == [
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
    assert len(steps_of(only_series(read_history(folder, repository)))) == 1


def test_commits_stand_in_the_order_of_first_parents_with_date_and_message(
    write: Write, repository: Path, hashes: list[str]
) -> None:
    (setting,) = read_history(write(STEP[:3], first=2), repository).settings
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
    history = read_history(folder, repository)
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
    history = read_history(folder, repository)
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
    history = read_history(folder, repository)
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
    history = read_history(folder, repository)
    assert only_series(history).benchmark != COUNTED
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
        read_history(folder, repository)
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
        read_history(folder, repository)


def test_the_same_commit_twice_is_read_once(write: Write, repository: Path) -> None:
    folder = write([1.0])
    (path,) = (folder / "local-quick").glob("*-env.json")
    (path.parent / "zz-copy.json").write_bytes(path.read_bytes())
    history = read_history(folder, repository)
    assert [name for name, _ in history.skipped_files] == ["local-quick/zz-copy.json"]


def test_the_command_writes_the_page_and_names_it(
    write: Write, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write(STEP), tmp_path / "site" / "history.html"
    (folder / "local-quick" / "broken.json").write_text("{")
    arguments = [str(folder), "--out", str(out), "--repository", str(repository)]
    assert main(["history", *arguments]) == 0
    told = capsys.readouterr()
    assert told.out == (
        "1 series, 1 steps, 1 for the worse; 0 series failed at their newest commit\n"
        f"The history: {out.as_uri()}\n"
    )
    assert told.err.startswith("skipped local-quick/broken.json: ")
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "1 file skipped" in page
    assert "+30.0 %" in page


@pytest.mark.K7
def test_the_command_names_what_failed_and_counts_what_is_too_much_to_name(
    write: Write, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write([1.0, None]), tmp_path / "history.html"
    for n in range(23):
        (folder / "local-quick" / f"broken{n:02}.json").write_text("{")
    assert main(["history", str(folder), "--out", str(out), "--repository", str(repository)]) == 0
    told = capsys.readouterr()
    assert "1 series failed at their newest commit" in told.out
    lines = told.err.splitlines()
    assert lines[19].startswith("skipped local-quick/broken19.json: no JSON")
    assert lines[20] == "skipped 3 more"
    assert lines[21].startswith("failed bench_cache.Decode.time_step('cached'), local-quick, at ")
    assert len(lines) == 22


@pytest.mark.parametrize("missing", ["folder", "suite", "broken suite", "repository", "results"])
def test_what_cannot_be_shown_is_refused_in_one_line(
    write: Write, repository: Path, tmp_path: Path, missing: str
) -> None:
    folder = write(STEP[:2])
    if missing == "folder":
        folder = tmp_path / "absent"
    elif missing == "suite":
        (folder / "benchmarks.json").unlink()
    elif missing == "broken suite":
        (folder / "benchmarks.json").write_text('{"a": {"name": "a", "params": 5}, "version": 2}')
    elif missing == "repository":
        repository = tmp_path
    else:
        for path in (folder / "local-quick").glob("*-env.json"):
            path.unlink()
    with pytest.raises(UserError) as refused:
        build_history(folder, tmp_path / "out" / "history.html", repository)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_hostile_texts_are_shown_and_do_nothing(
    write: Write, repository: Path, tmp_path: Path
) -> None:
    folder = write(STEP, cpu="<script>alert(2)</script>")
    (folder / "local-quick" / "<img src=x onerror=alert(3)>.json").write_text("{")
    build_history(folder, tmp_path / "history.html", repository)
    page = (tmp_path / "history.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;window.hacked" in page  # the step's own commit
    assert page.count("<script") == 2  # the data, and what draws them
    assert "<img" not in page


@pytest.mark.K8
def test_marks_that_turn_text_around_and_halves_of_characters_are_spelled_out(
    write: Write, repository: Path, tmp_path: Path
) -> None:
    folder = write(STEP, cpu="\ud800 \u202e\x1b[2J")
    build_history(folder, tmp_path / "history.html", repository)
    page = (tmp_path / "history.html").read_text(encoding="utf-8")
    assert r"\ud800 \u202e\x1b[2J" in page
    assert "\u202e" not in page


def made_up(values: list[float], series: int = 1, text: str = "time_step") -> History:
    """The same values of several series, one a commit."""
    commits = [Commit(f"{n:040x}", "2026-01-01", text, n) for n in range(len(values))]
    points = [Point("measured", value, (0.9 * value, 1.1 * value)) for value in values]
    names = [f"bench_{n % 9}.Decode{n}.{text}" for n in range(series)]
    found = [Series(name, (("past", text),), "seconds", None, points) for name in sorted(names)]
    return History([Setting("local-quick", {"cpu": text}, commits, found)], [], 0, [])


def test_a_page_lists_the_newest_steps_and_counts_the_older_ones() -> None:
    view = history_view(made_up(STEP, series=MOST_ROWS + 7))
    assert sum(len(group["rows"]) for group in view["step_groups"]) == MOST_ROWS
    page = render(view)
    assert "7 older ones are marked in the charts" in page
    assert page.count("<figure id") == MOST_ROWS + 7


@pytest.mark.K8
def test_no_list_of_a_page_is_as_long_as_what_it_is_made_of() -> None:
    history = made_up(STEP, text="W" * 5000)
    history.skipped_files = [(f"{n}.json", "no JSON") for n in range(MOST_NAMES + 5)]
    page = render(history_view(history))
    assert page.count(".json</code>") == MOST_NAMES
    assert "And 5 more." in page
    assert "W" * 200 + "…" in page
    assert len(page) < 100_000


@pytest.mark.K8
def test_a_page_does_not_grow_with_the_number_of_commits() -> None:
    random = np.random.default_rng(0)
    sizes = [
        len(render(history_view(made_up((1 + 0.02 * random.random(n)).tolist()))))
        for n in (1_200, 4_800)
    ]
    names = 3_600 * 35  # what it lists of each commit
    assert sizes[1] - sizes[0] < names


def test_only_first_parents_are_listed(repository: Path, hashes: list[str]) -> None:
    assert [commit.hash for commit in first_parents(repository)] == hashes
