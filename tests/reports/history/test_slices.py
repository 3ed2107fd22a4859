"""asv measures slice by slice: each benchmark in one, and none again that is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asv.benchmarks import Benchmarks
from asv.config import Config
from asv.environment import get_environments
from asv.results import Results
from asv.runner import BenchmarkResult
from asv.util import write_json

from reports.history.slices import slice_of, slices_to_measure
from tests.reports.history.conftest import described

COMMIT, OTHER, MACHINE = "a" * 40, "b" * 40, "of-ci-smoke"
PARAMETERS = [["'toy'", "'gpt2'"]]
SUITE = {
    name: described(name, "bytes", PARAMETERS)
    for name in ("bench_a.X.track_x", "bench_a.Y.track_y", "bench_a_b.X.track_x", "bench_c.track_z")
}
SLICES = [r"^bench_a\.", r"^bench_a_b\.", r"^bench_c\."]

Store = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Results as asv saves them, of benchmarks whose names a regular expression finds."""
    settings = {"version": 1, "project": "p", "repo": ".", "environment_type": "virtualenv"}
    (tmp_path / "asv.conf.json").write_text(json.dumps(settings))
    config = Config.load(str(tmp_path / "asv.conf.json"))
    config.results_dir = str(tmp_path / ".asv" / "results")
    Benchmarks(config, SUITE.values()).save()
    write_json(f"{config.results_dir}/{MACHINE}/machine.json", {"machine": MACHINE}, 1)
    (environment,) = get_environments(config, None)

    def save(chosen: str, values: Any = (1, 2), version: str = "1", name: str = "") -> None:
        at = ({"machine": MACHINE}, {}, COMMIT, 0, "3", name or environment.name, {})
        results = Results(*at)
        results.load_data(config.results_dir)
        for benchmark in Benchmarks(config, SUITE.values(), regex=chosen).values():
            found = BenchmarkResult(list(values), [None, None], [None, None], 0, "", b"")
            results.add_result({**benchmark, "version": version}, found)
        results.save(config.results_dir)

    return save


def test_a_slice_holds_one_file_and_each_benchmark_is_in_one(store: Store, tmp_path: Path) -> None:
    assert slices_to_measure(tmp_path, MACHINE, COMMIT) == SLICES
    for name in SUITE:  # asv searches in the name with its parameters
        found = [each for each in SLICES if re.search(each, f"{name}('toy', bench_c.)")]
        assert found == [slice_of(name.split(".")[0])]


def test_a_history_that_was_killed_goes_on_with_the_slice_that_was_under_way(
    store: Store, tmp_path: Path
) -> None:
    store(SLICES[0])
    assert slices_to_measure(tmp_path, MACHINE, COMMIT) == SLICES[1:]
    assert slices_to_measure(tmp_path, MACHINE, OTHER) == SLICES
    assert slices_to_measure(tmp_path, "of-ci-quick", COMMIT) == SLICES
    for each in SLICES[1:]:
        store(each)
    assert slices_to_measure(tmp_path, MACHINE, COMMIT) == []


@pytest.mark.parametrize(
    "otherwise",
    [{"values": (1, None)}, {"values": (None, None)}, {"version": "2"}, {"name": "another"}],
    ids=["one failed", "all failed", "another version", "another environment"],
)
def test_what_does_not_count_for_asv_is_measured_again(
    store: Store, tmp_path: Path, otherwise: dict[str, Any]
) -> None:
    store("bench_a.Y", **otherwise)
    store(r"bench_a.X|bench_a_b")
    assert slices_to_measure(tmp_path, MACHINE, COMMIT) == [SLICES[0], SLICES[2]]


def test_what_a_commit_lacks_was_measured(store: Store, tmp_path: Path) -> None:
    store("", values=(float("nan"), 2))
    assert slices_to_measure(tmp_path, MACHINE, COMMIT) == []


@pytest.mark.parametrize("damage", [5, {"a": 1}, True])
def test_results_of_another_shape_are_left_for_asv_to_tell_of(
    store: Store, tmp_path: Path, damage: Any
) -> None:
    store("bench_c")
    (file,) = (tmp_path / ".asv" / "results" / MACHINE).glob("a*.json")
    text = json.loads(file.read_text())
    (row,) = text["results"].values()
    row[text["result_columns"].index("result")] = damage
    file.write_text(json.dumps(text))
    assert slices_to_measure(tmp_path, MACHINE, COMMIT) == SLICES
