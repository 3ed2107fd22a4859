"""The toy repository that the validation gates, and its faults."""

from __future__ import annotations

import itertools
import shutil
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.data.git import git
from reports.gate.pairs import CONTROL, Pair, Pairs
from reports.gate.validation import __main__ as validation
from reports.gate.validation import lines, real, recording, toy, whole
from reports.gate.validation.__main__ import main
from reports.gate.validation.injections import inject
from reports.gate.validation.targets import TOY
from reports.gate.validation.toy.faults import BODIES, INJECTIONS
from reports.gate.verdict import Verdict

IDS = [f"bench_toy.Step.time_step({name})" for name in BODIES]
EXACT_FAULTS = [name for name, each in INJECTIONS.items() if each.slowdown is None]


def counted_with(folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Every exact number of the toy with a fault, in this process."""
    made = shutil.copytree(toy.FILES, folder / fault.replace(" ", "-"))
    inject(made, fault, INJECTIONS)
    model, bench = types.ModuleType("reference_model"), types.ModuleType("bench_toy")
    for module, file in (
        (model, "reference_model/__init__.py"),
        (bench, "benchmarks/bench_toy.py"),
    ):
        exec(compile((made / file).read_text(), file, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "reference_model", model)
    found = {}
    for benchmark in (bench.Result, bench.Memory, bench.Work):
        for name in benchmark.params[0]:
            one = benchmark()
            one.setup(name)
            (track,) = (each for each in dir(one) if each.startswith("track_"))
            found[f"{track}({name})"] = getattr(one, track)(name)
    return found


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    return counted_with(tmp_path, "nothing", monkeypatch)


def test_the_same_files_make_the_same_commit_with_the_gates_own_worker(root: Path) -> None:
    commits = []
    for _ in range(2):
        with toy.repository() as made:
            commits.append(git(made, "rev-parse", "HEAD"))
            worker = (made / "benchmarks/gate_worker.py").read_text()
            assert git(made, "status", "--porcelain") == ""
        assert not made.exists()
    assert commits[0] == commits[1]
    assert worker == (root / "benchmarks/gate_worker.py").read_text()


def test_each_of_the_toys_functions_is_timed_and_counted(usual: dict[str, float]) -> None:
    suite: dict[str, Any] = {}
    exec((toy.FILES / "benchmarks/gate_suite.py").read_text(), suite)
    compared = {name.rpartition(".")[2] for name in suite["EXACT"]}
    assert {name.partition("(")[0] for name in usual} == compared
    assert {f"track_result({name})" for name in BODIES} <= usual.keys()
    assert suite["TIMED"] == ("bench_toy.Step.time_step",)


@pytest.mark.parametrize("fault", EXACT_FAULTS)
def test_an_exact_fault_shows_in_an_exact_number(
    usual: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    found = counted_with(tmp_path, fault, monkeypatch)
    if INJECTIONS[fault].expected == Verdict.ERROR:
        assert any(value != value for value in found.values())
    elif found.keys() != usual.keys():
        assert found.keys() < usual.keys()
    else:
        worse = [name for name in usual if found[name] != usual[name]]
        assert worse
        assert all(found[name] > usual[name] or "result" in name for name in worse)


@pytest.mark.parametrize("share", [0.03, 0.05, 0.1])
@pytest.mark.parametrize("name", BODIES)
def test_a_slower_function_takes_a_share_longer_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, share: float
) -> None:
    made = shutil.copytree(toy.FILES, tmp_path / "toy")
    inject(made, f"{name} slower by {100 * share:g} %", INJECTIONS)
    model: dict[str, Any] = {}
    exec((made / "reference_model/__init__.py").read_text(), model)
    given = {
        "added": ([[1, 2], [3]],),
        "checked": (b"", 2),
        "ordered": ([2, 1],),
        "allocated": (3, 10),
        "multiplied": (torch.eye(2), torch.eye(2), 2),
    }
    expected = {"added": 6, "checked": 0, "ordered": [1, 2], "allocated": 30}
    expected["multiplied"] = torch.eye(2).tolist()
    readings: list[float] = []
    clock = itertools.chain((0.0, 1.0), itertools.count(1.0, 0.001))
    monkeypatch.setattr(
        model["time"], "perf_counter", lambda: readings.append(next(clock)) or readings[-1]
    )
    assert torch.as_tensor(model[name](*given[name])).tolist() == expected[name]
    assert readings[-1] - readings[0] == pytest.approx(1 + share, abs=0.0015)


def test_a_real_run_of_the_toy_is_the_gate_of_this_project_in_a_clone_of_the_toy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def one_run(clone: Path, arguments: tuple[str, ...], gate: Path | None) -> dict[str, Any]:
        text = (clone / "reference_model/__init__.py").read_text()
        asked.append((gate, "until = now + 0.03" in text))
        return {"exit_status": 10, "verdict": "regression", "seconds": 1.0, "exact": None}

    monkeypatch.setattr(real, "one_run", one_run)
    path = tmp_path / "lines.jsonl"
    command = ["real", f"--lines={path}", "--case=ordered slower by 3 %", "--runs=2"]
    assert main([*command, f"--out={tmp_path / 'tally.json'}"]) == 0
    assert asked == [(toy.ROOT, True)] * 2
    with toy.repository() as made:
        commit = git(made, "rev-parse", "HEAD")
    assert {(line["target"], line["commit"]) for line in lines.read(path)} == {("toy", commit)}


def test_the_whole_validation_of_the_toy_makes_every_planned_run_and_then_has_nothing_to_do(
    repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def one_run(clone: Path, arguments: tuple[str, ...], gate: Path | None) -> dict[str, Any]:
        return {"exit_status": 0, "verdict": "pass", "seconds": 1.0, "exact": None}

    def measure(self: Pairs, ids: Sequence[str]) -> Pair:
        return Pair(dict.fromkeys((*ids, CONTROL), 0.001), {}, 1.5, {}, "")

    @contextmanager
    def alone(active: bool, seed: int) -> Iterator[Any]:
        yield types.SimpleNamespace(check=lambda: None)

    @contextmanager
    def clone_with(*given: object) -> Iterator[Path]:
        yield tmp_path

    @contextmanager
    def small() -> Iterator[Path]:
        yield repository.path

    monkeypatch.setitem(validation.TARGETS, "toy", replace(TOY, repository=small))
    monkeypatch.setattr(Pairs, "measure", measure)
    monkeypatch.setattr(recording, "timed_ids", lambda checkouts, pattern: IDS)
    monkeypatch.setattr(whole, "BLOCKS", 3)
    monkeypatch.setattr(whole, "PAIRS_OF_BLOCK", 2)
    monkeypatch.setattr(real, "one_run", one_run)
    monkeypatch.setattr(real, "clone_with", clone_with)
    monkeypatch.setattr(lines.os, "fsync", lambda handle: None)
    for module in (real, recording):
        monkeypatch.setattr(module, "beside", alone)
        monkeypatch.setattr(module, "gate_commit", lambda target: None)
    monkeypatch.setattr(real, "git", lambda *arguments: "0" * 40)
    path, out = tmp_path / "lines.jsonl", tmp_path / "gate.json"
    command = ["all", f"--lines={path}", "--runs-replayed=2", f"--out={out}"]
    assert main(command) == 0, capsys.readouterr().err
    measured = path.read_text()
    assert len(lines.read(path, kind="pair")) == 6
    runs = [line["case"] for line in lines.read(path, kind="real")]
    of = {share: sum(f"slower by {share} %" in case for case in runs) for share in (3, 5, 10)}
    assert (runs.count("nothing"), of[3], of[5], of[10]) == (60, 40, 40, 3 * len(BODIES))
    assert set(runs) == set(TOY.injections)
    assert main(command) == 0
    assert path.read_text() == measured, "what it has is not measured again"
