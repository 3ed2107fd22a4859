"""asv's files: read to what asv itself reads, and what is not of its shape is told in one line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asv.results import Results
from asv.runner import BenchmarkResult

from reports.history.asv_files import as_run, read_run, read_suite
from reports.history.result_files import (
    MOST_BYTES,
    Damaged,
    Measured,
    json_files,
    parse,
    read_bytes,
)
from tests.reports.history.small_history import with_another

pytestmark = pytest.mark.K8

RUN: dict[str, Any] = {
    "version": 2,
    "commit_hash": "a" * 40,
    "params": {"machine": "local", "cpu": "one"},
    "env_vars": {"THREADS": "2"},
    "requirements": {},
    "date": 0,
    "python": "3.12",
    "env_name": "env",
    "result_columns": [
        "result", "params", "version", "started_at", "stats_ci_99_a", "stats_ci_99_b",
    ],
    "results": {"time_step": [[1.0, 2.0], [["'a'", "'b'"]], "1", 5, [0.9, None], [1.1]]},
}  # fmt: skip
changed = partial(with_another, RUN)


def row(**cells: Any) -> dict[str, Any]:
    """RUN with its one row made of these."""
    return {**RUN, "result_columns": list(cells), "results": {"time_step": list(cells.values())}}


def only(content: dict[str, Any]) -> Measured:
    (measured,) = as_run(parse(json.dumps(content).encode())).measured.values()
    return measured


def test_what_asv_writes_reads_as_asv_reads_it(tmp_path: Path) -> None:
    def described(name: str, *params: list[str]) -> dict[str, Any]:
        return {"name": name, "version": "7", "params": list(params)}

    written = Results(
        {"machine": "local", "cpu": "one"}, {}, "a" * 40, 0, "3.12", "env", {"V": "w"}
    )
    samples = [[0.5 + n / 100 for n in range(10)], None, None, [2.0, 2.5]]
    for benchmark, result, numbers in (
        (
            described("time_all", ["'a'", "'b'"], ["1", "2"]),
            [1.0, None, math.nan, 2.0],
            [3, None, None, 1],
        ),
        (described("track_one"), [7], [None]),
        (described("track_failed", ["1", "2"]), [None, None], [None, None]),
        (described("track_nothing", []), [], []),
    ):  # fmt: skip
        given = [s if n else None for s, n in zip(samples, numbers, strict=False)]
        written.add_result(
            benchmark,
            BenchmarkResult(result, given, numbers, 0, "", b""),
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            record_samples=True,
        )
    written.save(str(tmp_path))
    (path,) = (tmp_path / "local").glob("*.json")
    ours, asvs = read_run(path), Results.load(str(path), machine_name="local")
    assert (ours.commit, ours.machine, ours.facts) == ("a" * 40, "local", {"cpu": "one", "V": "w"})
    assert ours.measured.keys() == asvs.get_all_result_keys()
    for name, measured in ours.measured.items():
        params = asvs.get_result_params(name)
        assert repr(measured.values) == repr(
            [v if v is None else float(v) for v in asvs.get_result_value(name, params)]
        )
        assert measured.intervals == [
            (s["ci_99_a"], s["ci_99_b"]) if s and math.isfinite(s["ci_99_a"]) else None
            for s in asvs.get_result_stats(name, params)
        ]
        assert measured.version == "7"
    assert ours.measured["time_all"].combinations[1] == ("'a'", "2")
    assert ours.measured["track_failed"].values == [None, None]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (row(result=None, params=[["1", "2"]]), [None, None]),
        (row(result=[1.5]), [1.5]),
        (row(result=[1.5], params=None), [1.5]),
        (row(result=[], params=[[]]), []),
        (row(version="1", result=[2], novelty={"of": "another asv"}), [2.0]),
        (row(result=[1e300]), [1e300]),
        (row(result=[-math.inf]), [-math.inf]),
        (row(params=[[1, None, True]], result=[1, 2, 3]), [1.0, 2.0, 3.0]),
        ({**RUN, "results": {"time_step": [[1.5]]}}, [1.5]),
    ],
)
def test_columns_may_be_absent_short_or_new(content: dict[str, Any], values: list[Any]) -> None:
    assert only(content).values == values


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        ([0.9, 1.9], [1.1, 2.1], [(0.9, 1.1), (1.9, 2.1)]),
        ([0.9], [1.1, 2.1], [(0.9, 1.1), None]),
        ([0.9, 1.9, 5.0], [1.1, 2.1], [(0.9, 1.1), (1.9, 2.1)]),
        (None, [1.1, 2.1], [None, None]),
        ([-math.inf, 1.9], [1.1, math.nan], [None, None]),
        ([-math.inf, 1.9], [math.inf, None], [None, None]),
    ],
)
def test_an_interval_without_both_ends_is_none(low: Any, high: Any, found: list[Any]) -> None:
    content = row(result=[1, 2], params=[["1", "2"]], stats_ci_99_a=low, stats_ci_99_b=high)
    assert only(content).intervals == found


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (changed("version"), "no version of its format"),
        (changed("version", to="2"), "no version of its format"),
        (changed("version", to=True), "no version of its format"),
        (changed("version", to=1), "stored in asv's old format 1; run asv update on a copy of all"),
        (changed("version", to=3), "stored in a newer format of asv than 2"),
        (changed("requirements"), "it lacks requirements"),
        (changed("results"), "it lacks results"),
        (changed("commit_hash", to=[]), "commit_hash that is no text"),
        (changed("params", to=[]), "params that is no object"),
        (changed("params", "machine"), "machine that is no text"),
        (changed("env_vars", to="x"), "env_vars that is no object"),
        (changed("results", to=[]), "results that is no object"),
        (changed("result_columns", to="result"), "result_columns that is no list of texts"),
        (changed("result_columns", 0, to=[]), "result_columns that is no list of texts"),
        (changed("result_columns", 0, to="rEsult"), "no column of results"),
        (changed("results", "time_step", to={}), "a row that is no list (time_step)"),
        (changed("results", "time_step", 0, to=1.0), "result that is no list (time_step)"),
        (changed("results", "time_step", 0, to=[1.0]), "values and parameters of different number"),
        (changed("results", "time_step", 0, 0, to="fast"), "result that holds a text instead of"),
        (changed("results", "time_step", 0, 0, to=True), "result that holds true or false instead"),
        (changed("results", "time_step", 0, 0, to=[1]), "result that holds a list instead of"),
        (changed("results", "time_step", 0, 0, to={"a": 1}), "result that holds an object instead"),
        (changed("results", "time_step", 0, 0, to=10**400), "result beyond 1e+300"),
        (changed("results", "time_step", 0, 0, to=-1.1e300), "result beyond 1e+300"),
        (changed("results", "time_step", 1, to=5), "parameters that are no lists"),
        (changed("results", "time_step", 1, 0, to="ab"), "parameters that are no lists"),
        (changed("results", "time_step", 3, to="soon"), "started_at that holds a text instead of"),
        (changed("results", "time_step", 4, to="low"), "ci_99 that is no list"),
        (changed("results", "time_step", 4, 0, to=[]), "ci_99 that holds a list instead of"),
    ],
)  # fmt: skip
def test_what_is_not_of_asvs_shape_is_told_in_a_few_words(
    content: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Damaged) as refused:
        only(content)
    assert str(refused.value).startswith(reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON (Expecting value"),
        (b'{"version": 2', "no JSON (Expecting"),
        (b"\xff\xfe{}", "no UTF-8"),
        (b"[]", "no object of JSON"),
        (b"null", "no object of JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b"9" * 5000, "it holds a number of thousands of digits"),
    ],
)
def test_what_is_no_json_is_told_in_a_few_words(content: bytes, reason: str) -> None:
    with pytest.raises(Damaged) as refused:
        parse(content)
    assert str(refused.value).startswith(reason)


@pytest.mark.parametrize(
    "rows",
    [
        {"time_step": [None, [["1"] * 2000] * 3]},
        {f"time_{n}": [None, [["1"] * 30, ["1"] * 20]] for n in range(2)},
        {f"time_{n}": [[], [[]]] for n in range(1001)},
    ],
    ids=["of one", "of several", "of ones without a value"],
)
def test_parameters_that_would_multiply_to_billions_are_counted_before(
    monkeypatch: pytest.MonkeyPatch, rows: dict[str, Any]
) -> None:
    monkeypatch.setattr("reports.history.asv_files.MOST_VALUES", 1000)
    with pytest.raises(Damaged, match="more than 1,000 values"):
        as_run({**RUN, "result_columns": ["result", "params"], "results": rows})


def test_a_reason_is_one_short_line_whatever_a_benchmark_is_called() -> None:
    with pytest.raises(Damaged) as refused:
        only({**RUN, "results": {"a\nb" * 1000: 5}})
    assert len(str(refused.value)) == 200
    assert "\n" not in str(refused.value)


def a_link(path: Path) -> None:
    path.symlink_to(path.parent / "whole.json")


def a_link_out(path: Path) -> None:
    (path.parent.parent / "outside.json").write_text(json.dumps(RUN))
    path.symlink_to(path.parent.parent / "outside.json")


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("nowhere"), "a link, which is not followed"),
        (lambda path: path.symlink_to(path.name), "a link, which is not followed"),
        (a_link, "a link, which is not followed"),
        (a_link_out, "a link, which is not followed"),
        (lambda path: path.mkdir(), "a folder"),
        (os.mkfifo, "a FIFO or device, and no file"),
        (too_large, "larger than 16 MB"),
        (lambda path: None, "not readable (No such file or directory)"),
    ],
    ids=["dangling", "to itself", "within", "out", "folder", "FIFO", "large", "gone"],
)
def test_what_is_no_plain_file_of_a_bearable_size_is_not_opened(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "whole.json").write_text(json.dumps(RUN))
    make(folder / "strange.json")
    assert read_run(folder / "whole.json").commit == "a" * 40
    with pytest.raises(Damaged) as refused:
        read_bytes(folder / "strange.json")
    assert str(refused.value) == reason


def test_a_file_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "closed.json"
    path.touch(mode=0o000)

    def closed(*_: Any, **__: Any) -> None:  # the superuser may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(Damaged, match=r"not readable \(Permission denied\)"):
        read_bytes(path)


def test_files_are_listed_by_name_and_no_link_to_a_folder_is_entered(tmp_path: Path) -> None:
    results, other = tmp_path / "results", tmp_path / "other"
    for folder in (results / "b", results / "a" / "deep", other):
        folder.mkdir(parents=True)
        (folder / "1.json").touch()
    (results / "b" / "0.json").touch()
    (results / "b" / "notes.txt").touch()
    (results / "benchmarks.json").touch()
    (results / "c").symlink_to(other)
    names = [path.relative_to(results).as_posix() for path in json_files(results)]
    assert names == ["b/0.json", "b/1.json", "benchmarks.json", "c"]
    assert list(json_files(tmp_path / "absent")) == []


def test_a_benchmark_that_is_described_in_a_strange_way_is_named_and_the_others_stay(
    tmp_path: Path,
) -> None:
    whole = {"name": "a", "version": "1", "unit": "s", "param_names": ["n"], "params": [["1"]]}
    described = {
        "a": whole,
        "b": {**whole, "name": 5},
        "c": None,
        "d": {**whole, "name": "d", "param_names": [1]},
        "e": {**whole, "name": "e", "unit": None},
        "version": 2,
    }
    (tmp_path / "benchmarks.json").write_text(json.dumps(described))
    found, skipped = read_suite(tmp_path)
    assert list(found) == ["a"]
    assert (found["a"].unit, found["a"].parameter_names) == ("s", ["n"])
    assert skipped == [
        ("benchmarks.json, b", "name that is no text"),
        ("benchmarks.json, c", "no description of a benchmark"),
        ("benchmarks.json, d", "param_names that is no list of texts"),
        ("benchmarks.json, e", "unit that is no text"),
    ]


def test_a_run_in_the_folder_of_another_machine_is_refused_as_asv_does(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path = tmp_path / "other" / "run.json"
    path.write_text(json.dumps(RUN))
    with pytest.raises(Damaged, match="of another machine than its folder"):
        read_run(path)
