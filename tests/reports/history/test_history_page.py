"""The page of a history: what it says of failures and steps, and how long it may become."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gate_suite import EXACT
from reference_model.errors import UserError
from reports.__main__ import main
from reports.history.page import build_history, render
from reports.history.series import Commit, History, Point, Series, Setting, read_history
from reports.history.view import MOST_NAMES, MOST_ROWS, history_view
from tests.reports.history.small_history import COUNTED, STEP, benchmark_of_asv

Write = Callable[..., Path]


@pytest.mark.K7
@pytest.mark.parametrize(
    ("newest", "state"), [(None, "failed"), (math.inf, "failed"), (math.nan, "skipped")]
)
def test_a_series_without_a_value_at_its_newest_commit_says_so(
    write: Write, repository: Path, hashes: list[str], newest: float | None, state: str
) -> None:
    folder = write([*STEP[:5], newest, "absent"])
    write(STEP[:6], machine="other-quick")
    view = history_view(read_history(folder, repository, EXACT))
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
    view = history_view(read_history(write([None, 1.0]), repository, EXACT))
    assert view["broken"] == []
    assert view["counts"]["failed"] == 1
    assert 'id="broken"' not in render(view)


@pytest.mark.K7
def test_a_series_that_never_had_a_value_is_told_among_the_failed(
    write: Write, repository: Path
) -> None:
    view = history_view(read_history(write([None, None]), repository, EXACT))
    assert view["counts"]["failed_last"] == 1
    assert view["settings"][0]["empty"] == [
        "bench_cache.Decode.time_step('cached') (0 skipped, 2 failed)"
    ]
    assert "<a href" not in render(view).partition('id="broken"')[2].partition("</section>")[0]


def test_a_step_after_a_gap_says_that_others_may_have_made_it(
    write: Write, repository: Path
) -> None:
    folder = write([7, 7, "absent", None, 9], COUNTED)
    view = history_view(read_history(folder, repository, EXACT))
    ((row,),) = (group["rows"] for group in view["step_groups"])
    assert (row["unmeasured"], row["change"], row["worse"]) == (2, "+28.6 %", True)
    assert "or with one of the 2 commits before, which have no value" in render(view)


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
        build_history(folder, tmp_path / "out" / "history.html", repository, EXACT)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_hostile_texts_are_shown_and_do_nothing(
    write: Write, repository: Path, tmp_path: Path
) -> None:
    folder = write(STEP, cpu="<script>alert(2)</script>")
    (folder / "local-quick" / "<img src=x onerror=alert(3)>.json").write_text("{")
    build_history(folder, tmp_path / "history.html", repository, EXACT)
    page = (tmp_path / "history.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;window.hacked" in page  # the step's own commit
    assert page.count("<script") == 2  # the data, and what draws them
    assert "<img" not in page


@pytest.mark.K8
def test_marks_that_turn_text_around_and_halves_of_characters_are_spelled_out(
    write: Write, repository: Path, tmp_path: Path
) -> None:
    folder = write(STEP, cpu="\ud800 \u202e\x1b[2J")
    build_history(folder, tmp_path / "history.html", repository, EXACT)
    page = (tmp_path / "history.html").read_text(encoding="utf-8")
    assert r"\ud800 \u202e\x1b[2J" in page
    assert "\u202e" not in page


def made_up(values: list[float], series: int = 1, text: str = "time_step") -> History:
    """The same values of several series, one a commit."""
    commits = [Commit(f"{n:040x}", "2026-01-01", text, n) for n in range(len(values))]
    points = [Point("measured", value, (0.9 * value, 1.1 * value)) for value in values]
    names = [f"bench_{n % 9}.Decode{n}.{text}" for n in range(series)]
    found = [
        Series(benchmark_of_asv(name), (("past", text),), None, points) for name in sorted(names)
    ]
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
