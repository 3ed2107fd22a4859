"""The record of finished cells: lines are whole whatever happens, and found by their key."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.record.command import merge, prune
from benchmarks.record.store import Key, Line, Record
from reference_model.errors import UserError

KEY = Key(
    "cache.memory-law", '{"index": 0}', "reference 12", "smoke", "cpu", 0, 1, 1, "{}", "", "c0"
)
STAMP = {"commit": "a" * 40, "cpu": "one"}


def line(key: Key = KEY, found: Any = (1.5,), **fields: Any) -> Line:
    given = {"outcome": "done", "seconds": 0.25, "utc": "2026-01-01T00:00:00+00:00", **fields}
    return Line(key, found=list(found), environment=STAMP, **given)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "folder" / "cells.sqlite")


def test_a_line_comes_back_as_it_was_to_the_last_bit(record: Record) -> None:
    found = [{"b": 0.1 + 0.2, "a": [5e-324, -0.0, 2**63, "\x1b ü"]}]
    record.add(line(found=found))
    again = Record(record.path).latest(KEY)
    assert again is not None
    assert again == replace(line(found=found), number=1)
    assert list(again.found[0]) == ["b", "a"]  # names of a measurement stand in its order


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32(1)])
def test_what_json_cannot_hold_is_refused(record: Record, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        record.add(line(found=[bad]))
    with pytest.raises(ValueError, match="no duration"):
        record.add(line(seconds=float("nan")))
    assert record.last_number == 0


@pytest.mark.parametrize("name", [name for name in Key.__dataclass_fields__ if name != "code"])
def test_every_part_of_a_key_tells_cells_apart(record: Record, name: str) -> None:
    record.add(line())
    other = 7 if isinstance(getattr(KEY, name), int) else "other"
    assert record.latest(replace(KEY, **{name: other}), any_code=True) is None


def test_a_cell_of_other_code_counts_only_where_it_is_accepted(record: Record) -> None:
    newer = replace(KEY, code="c1")
    record.add(line())
    assert record.latest(newer) is None
    accepted = record.latest(newer, any_code=True)
    assert accepted is not None
    assert accepted.key.code == "c0"
    record.add(line(newer, found=[2]))
    record.add(line(KEY, found=[3]))
    own = record.latest(newer, any_code=True)
    assert own is not None
    assert own.found == [2]


def test_times_of_another_machine_count_only_where_any_machine_does(record: Record) -> None:
    here, there = replace(KEY, machine="here", threads=2), replace(KEY, machine="there", threads=8)
    record.add(line(there))
    assert record.latest(here) is None
    found = record.latest(here, any_machine=True)
    assert found is not None
    assert found.key == there
    record.add(line(here))
    record.add(line(there))
    own = record.latest(here, any_machine=True)
    assert own is not None
    assert own.key == here
    assert record.latest(KEY, any_machine=True) is None  # what times nothing has no machine


def test_a_fresh_run_sees_no_line_from_before_it(record: Record) -> None:
    record.add(line())
    start = record.last_number
    assert record.latest(KEY, after=start) is None
    record.add(line(found=[9]))
    assert record.latest(KEY, after=start) is not None


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cells.sqlite"

    def write(writer: int) -> None:
        own = Record(path)
        for index in range(10):
            own.add(line(replace(KEY, parameters=f"{writer} {index}")))
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len({each.key.parameters for each in Record(path).lines()}) == 40


def test_many_runs_open_one_record_at_the_same_moment(tmp_path: Path) -> None:
    def open_and_close(path: Path) -> int:
        own = Record(path)
        number = own.last_number
        own.close()
        return number

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(20):  # each makes the file, its log and its tables
            path = tmp_path / f"{attempt}.sqlite"
            assert list(pool.map(open_and_close, [path] * 16)) == [0] * 16


def test_the_same_environment_is_kept_once(record: Record) -> None:
    for index in range(5):
        record.add(line(replace(KEY, parameters=str(index))))
    with closing(sqlite3.connect(record.path)) as direct, direct:
        assert direct.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no database at all, but longer than a header of SQLite would be" * 20, "not a database"),
        (None, "a database of something else"),
    ],
)
def test_a_file_that_is_no_record_is_told_in_one_line_and_left_alone(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "other.sqlite"
    if content is None:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TABLE shop (price)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UserError, match=told):
        Record(path)
    assert path.read_bytes()[100:] == before[100:]


def test_a_record_of_a_later_layout_is_refused(record: Record) -> None:
    with closing(sqlite3.connect(record.path)) as later, later:
        later.execute("PRAGMA user_version = 2")
    with pytest.raises(UserError, match="has layout 2, this program reads 1"):
        Record(record.path)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(record: Record) -> None:
    record.add(line())
    pages = record._number("page_count")
    record._sqlite.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UserError, match="full; free some space"):
        record.add(line(found=["x" * 100_000]))
    assert [each.number for each in Record(record.path).lines()] == [1]


def test_records_merge_and_merging_again_adds_nothing(tmp_path: Path) -> None:
    parts = []
    for index in range(3):
        part = Record(tmp_path / f"{index}.sqlite")
        part.add(line(replace(KEY, parameters=f"{index}")))
        part.add(line(KEY))  # what all parts have measured
        parts.append(part.path)
    whole = Record(tmp_path / "whole.sqlite")
    assert merge(whole, parts) == 4
    assert merge(whole, parts) == 0
    with pytest.raises(UserError, match="there is no record"):
        merge(whole, [*parts, tmp_path / "absent.sqlite"])
    assert not (tmp_path / "absent.sqlite").exists()


def test_pruning_leaves_the_last_finished_line_of_each_key(record: Record) -> None:
    other = replace(KEY, code="c1")
    lines = [line(), line(outcome="failed", found="boom"), line(found=[2]), line(other)]
    for each in lines:
        record.add(each)
    record.add(line(replace(KEY, profile="full"), outcome="failed", found="boom"))
    assert prune(record, [KEY.claim]) == 3
    assert [each.number for each in record.lines()] == [3, 4]
