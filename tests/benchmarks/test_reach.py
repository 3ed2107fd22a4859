"""What a piece of code rests on: all that it reaches by name, and nothing else."""

from __future__ import annotations

import os
import sys
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks.exact_cases.begins import begins
from benchmarks.record.reach import Reach

SMALL = {
    "__init__.py": "",
    "sums.py": (
        "from benchmarks.helpers import half\nfrom benchmarks import tables\n"
        "ADDED = 1\n"
        "def total(x):\n    return half(x) + ADDED\n"
        "def other(x: 'ADDED'):\n    return tables.row(x)\n"
        "def in_a_process():\n    return run('benchmarks.helpers:half')\n"
        "def read():\n    return open('numbers.csv')\n"
        "class Kind:\n    base = ADDED\n    def total(self):\n        return total(self)\n"
    ),
    "helpers.py": "def half(x):\n    return x / 2\ndef double(x):\n    return 2 * x\n",
    "tables.py": "def row(x):\n    from benchmarks.helpers import double\n    return double(x)\n",
    "data/numbers.csv": "1\n",
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to(**changed: str) -> Reach:
        for name, text in (SMALL | {f"{k}.py": v for k, v in changed.items()}).items():
            (tmp_path / "benchmarks" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "benchmarks" / name).write_text(text)
        return Reach(tmp_path, "benchmarks", ("benchmarks.sums:aside",))

    return to


def changes(write: Any, start: str, **changed: str) -> bool:
    return write().digest([start]) != write(**changed).digest([start])


def test_a_function_rests_on_what_it_calls_in_another_module_and_on_no_more(write) -> None:
    other = SMALL["helpers.py"].replace("2 * x", "3 * x")
    called = SMALL["helpers.py"].replace("x / 2", "x / 3")
    assert changes(write, "benchmarks.sums:total", helpers=called)
    assert not changes(write, "benchmarks.sums:total", helpers=other)
    assert changes(write, "benchmarks.sums:total", sums=SMALL["sums.py"].replace("= 1", "= 2"))


def test_an_import_inside_a_function_and_through_a_module_is_followed(write) -> None:
    other = SMALL["helpers.py"].replace("2 * x", "3 * x")
    assert changes(write, "benchmarks.sums:other", helpers=other)


def test_an_annotation_is_not_what_a_function_rests_on(write) -> None:
    assert not changes(write, "benchmarks.sums:other", sums=SMALL["sums.py"].replace("= 1", "= 2"))


def test_a_class_is_reached_whole(write) -> None:
    called = SMALL["helpers.py"].replace("x / 2", "x / 3")
    assert changes(write, "benchmarks.sums:Kind", helpers=called)


def test_a_text_that_names_a_function_leads_to_it(write) -> None:
    called = SMALL["helpers.py"].replace("x / 2", "x / 3")
    assert changes(write, "benchmarks.sums:in_a_process", helpers=called)


def test_what_a_module_does_when_it_is_imported_belongs_to_all_of_it(write) -> None:
    louder = SMALL["helpers.py"] + "half.__doc__ = None\n"
    assert changes(write, "benchmarks.sums:total", helpers=louder)
    assert write(helpers=louder).by_itself("benchmarks.helpers") == "half.__doc__ = None"
    guarded = SMALL["helpers.py"] + "if __name__ == '__main__':\n    half(1)\n"
    assert write(helpers=guarded).by_itself("benchmarks.helpers") == ""


def test_a_data_file_that_is_named_belongs_to_it_unless_it_is_aside(write, tmp_path: Path) -> None:
    aside = SMALL["sums.py"] + "def aside():\n    return open('numbers.csv'), half(1)\n"
    reach, called = write(sums=aside), SMALL["helpers.py"].replace("x / 2", "x / 3")
    named, left = (reach.digest([f"benchmarks.sums:{name}"]) for name in ("read", "aside"))
    (tmp_path / "benchmarks/data/numbers.csv").write_text("2\n")
    again = Reach(tmp_path, "benchmarks", ("benchmarks.sums:aside",))
    assert again.digest(["benchmarks.sums:read"]) != named
    assert again.digest(["benchmarks.sums:aside"]) == left
    assert write(sums=aside, helpers=called).digest(["benchmarks.sums:aside"]) != left


def test_a_start_that_is_not_there_is_an_error(write) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.gone is not there"):
        write().digest(["benchmarks.gone:total"])


def _twice(function: Any) -> Any:
    @wraps(function)
    def doubled(x: float) -> float:
        return 2 * function(x)

    return doubled


@_twice
def _plain(x: float) -> float:
    return x


def test_code_begins_at_a_function_at_what_it_is_given_and_at_what_stands_around_it() -> None:
    assert list(begins(partial(_plain, 3))) == [
        "3 of",
        f"{__name__}:_twice",
        f"{__name__}:_plain",
        "3",
        "0 of",
    ]


def test_what_does_not_say_all_that_it_is_has_no_beginning() -> None:
    for value, why in ((lambda x: x, "no place of its own"), (object(), "does not say")):
        with pytest.raises(ValueError, match=why):
            list(begins(value))


# How the ids begin of a number of each kind.
IDS = (
    "bench_gate.Outputs.track_cached_deviation(deepnorm)",
    "bench_exact.Double.track_fingerprint(logits, rope, base 500)",
    "bench_exact.KnownAnswers.track_fingerprint(border of norm.quality)",
    "bench_exact.KnownAnswers.track_fingerprint(micro suite, int8)",
    "bench_exact.KnownAnswers.track_fingerprint(experiment lora.trainable-share)",
    "bench_exact.Timed.track_work(bench_cache.Decode",
    "bench_exact.Footprint.track_flops(one token)",
)


def test_every_function_that_a_number_runs_is_one_that_its_code_reaches(root: Path) -> None:
    from benchmarks import gate_suite
    from benchmarks.exact_cases import calls, tables
    from benchmarks.gate_worker import Worker
    from reports.gate.same_code import SAYING

    worker, reach = Worker(), Reach(root, "benchmarks", gate_suite.ASIDE)
    folder = f"{root / 'benchmarks'}{os.sep}"
    told = worker.begins()["begins"]
    for once in (calls.footprint_of, tables._fingerprint):  # another test may have asked
        once.cache_clear()
    assert set(told) == set(worker.suite()["exact"])
    for begin in IDS:
        id = next(each for each in told if each.startswith(begin))
        run: set[tuple[str, str]] = set()

        def note(frame: FrameType, event: str, _: object, run: Any = run) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(folder):
                run.add((code.co_filename[len(folder) :], code.co_qualname.partition(".")[0]))

        sys.setprofile(note)
        try:
            worker.exact([id])
        finally:
            sys.setprofile(None)
        places = reach.places(start for start in told[id] if start.startswith("benchmarks."))
        reached = {
            (name.removeprefix("benchmarks.").replace(".", "/"), top) for name, top in places
        }
        by_name = {each for each in run if each[0] not in SAYING and "<" not in each[1]}
        missed = {(file.removesuffix(".py"), top) for file, top in by_name} - reached
        assert by_name, id
        assert not missed, id
