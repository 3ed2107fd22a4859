"""The validation: it resumes, injections go where they belong."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reference_model.errors import UserError
from reports.gate.pairs import CONTROL
from reports.gate.validation import __main__ as validation
from reports.gate.validation import designs, lines, peers, real, recording, reorderings, whole
from reports.gate.validation.__main__ import _parser, main
from reports.gate.validation.background_load import beside
from reports.gate.validation.injections import INJECTIONS, inject
from reports.gate.validation.targets import SELF, TOY
from reports.gate.validation.whole import BLOCKS, is_loaded, runs_by
from reports.gate.verdict import Verdict

ONE, TWO = (f"bench_gate.Step.time_step({name})" for name in ("one", "two"))


def pair(**fields: Any) -> dict[str, Any]:
    """A recorded pair."""
    usual = {"stretch": "noon", "neighbour": False, "log_ratios": {ONE: 0.01}, "took": 2.0}
    return {"kind": "pair", **usual, **fields}


def run(**fields: Any) -> dict[str, Any]:
    """A real run of the gate."""
    usual = {"case": "nothing", "neighbour": False, "exit_status": 0, "seconds": 1.0, "exact": None}
    return {"kind": "real", **usual, **fields}


# ---- the plan


@pytest.mark.parametrize("runs", [3, 20, 60])
def test_as_many_real_runs_are_made_as_planned_a_third_of_them_under_load(
    runs: int,
) -> None:
    made = dict.fromkeys((False, True), 0)
    for block in range(BLOCKS):
        made[is_loaded(block)] = runs_by(block, runs)
    assert made == {False: runs - runs // 3, True: runs // 3}
    assert 0 < runs_by(0, runs) < made[False], "they are spread over the blocks"


def test_all_records_what_is_missing_of_the_pairs_by_whatever_blocks_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"
    asked = []

    def record(path: Path, target, block: str, upto: int, background_load: bool, tell) -> None:
        done = len(lines.read(path, kind="pair", stretch=block))
        asked.append((block, background_load, upto - done))
        for _ in range(done, upto):
            lines.append(path, pair(stretch=block, neighbour=background_load))

    monkeypatch.setattr(whole, "record_pairs", record)
    monkeypatch.setattr(whole, "PAIRS_OF_BLOCK", 4)
    monkeypatch.setattr(real, "real_runs", lambda *given, **named: None)
    target = replace(TOY, repository=SELF.repository)
    for background_load, block, pairs in ((False, "monday", 5), (True, "tuesday", 3)):
        for _ in range(pairs):
            lines.append(path, pair(stretch=block, neighbour=background_load))
    for _ in range(2):
        whole.measure(path, target, lambda line: None)
    assert asked == [
        ("stretch 2", False, 3),
        ("stretch 3", True, 1),
        ("stretch 4", False, 4),
        ("stretch 5", False, 4),
        ("stretch 6", True, 4),
    ]


# ---- other tools beside it


@pytest.mark.parametrize(
    ("text", "status", "verdict"),
    [
        ("PERFORMANCE DECREASED.\n", 1, Verdict.REGRESSION),
        ("BENCHMARKS NOT SIGNIFICANTLY CHANGED.\n", 0, Verdict.PASS),
        ("Unknown commit abc\n", 1, Verdict.ERROR),
    ],
)
def test_another_tool_has_found_a_regression_only_where_it_says_so(
    text: str, status: int, verdict: Verdict
) -> None:
    found, reason = peers.judged(text, status, "PERFORMANCE DECREASED")
    assert found == verdict
    assert reason in text


def test_other_tools_stand_in_the_table_of_the_gate_and_are_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.jsonl"
    asked: list[Path] = []

    def tool(clone: Path) -> tuple[Verdict, str]:
        asked.append(clone)
        return Verdict.REGRESSION, "PERFORMANCE DECREASED"

    @contextmanager
    def clone_with(repository: Path, case: str) -> Iterator[Path]:
        yield repository / case

    monkeypatch.setitem(peers.PEERS, "asv continuous", tool)
    monkeypatch.setattr(peers, "clone_with", clone_with)
    monkeypatch.setattr(peers, "git", lambda *arguments: "0" * 40)
    for runs in (1, 2, 2):
        peers.peer_runs(path, tmp_path, "asv continuous", "nothing", runs, lambda line: None)
    assert asked == [tmp_path / "nothing"] * 2
    (row,) = real.tally(path)
    assert (row["tool"], row["case"], row["runs"]) == ("asv continuous", "nothing", 2)
    assert (row["deserved"], row["as deserved"]) == ("pass", 0)
    # Of two alike, Clopper and Pearson's bound is the root of 2.5 %.
    assert row["share as deserved"] == pytest.approx([0, 1 - math.sqrt(0.025)])
    assert row["exact differences"] is None, "it counts nothing exactly"
    assert row["most exact seconds"] is None


def test_a_run_that_ended_before_it_counted_has_no_exact_difference_rather_than_none_found(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lines.jsonl"
    record = run(case="not a number")
    exact = {"compared": 0, "differences": [], "seconds": 0.0}
    lines.append(path, record | {"exit_status": 12, "exact": exact})
    (row,) = real.tally(path)
    assert (row["as deserved"], row["exact differences"], row["most exact seconds"]) == (
        1,
        None,
        None,
    )
    counted = {"compared": 3, "differences": [{}], "seconds": 2.0}
    lines.append(path, record | {"exit_status": 10, "exact": counted})
    (row,) = real.tally(path)
    assert (row["as deserved"], row["exact differences"], row["most exact seconds"]) == (1, 1, 2.0)


def test_a_case_that_was_renamed_since_is_left_out_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for case in ("an old name", "nothing"):
        lines.append(path, run(case=case))
    assert [row["case"] for row in real.tally(path)] == ["nothing"]


# ---- injections


@pytest.mark.parametrize("name", INJECTIONS)
def test_an_injection_edits_the_model_as_it_is_and_leaves_valid_python(
    root: Path, tmp_path: Path, name: str
) -> None:
    for folder in ("reference_model", "benchmarks"):
        shutil.copytree(
            root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.safetensors")
        )
    inject(tmp_path, name)
    for file, _, new in INJECTIONS[name].edits:
        text = (tmp_path / file).read_text()
        compile(text, file, "exec")
        assert new in text


def test_an_injection_whose_place_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reference_model").mkdir()
    (tmp_path / "reference_model" / "model.py").write_text("")
    with pytest.raises(UserError, match="has 0 places"):
        inject(tmp_path, "slower by 3 %")
    with pytest.raises(UserError, match="no injection is called 'x'"):
        inject(tmp_path, "x")


# ---- recording and real runs, on the small repository


def test_pairs_are_recorded_up_to_a_number_and_taken_up_where_they_stopped(
    repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from reports.gate.pairs import Pair, Pairs

    asked = []

    def measure(self, ids):
        asked.append(self.control)
        return Pair(dict.fromkeys((*ids, CONTROL), 0.01), {}, 1.5, {"load": 1.0}, "")

    monkeypatch.setattr(Pairs, "measure", measure)
    monkeypatch.chdir(repository.path)
    path = tmp_path / "lines.jsonl"
    for pairs, new in ((1, 1), (3, 2), (3, 0)):
        asked.clear()
        command = ["record", "--target=self", f"--lines={path}", "--block=noon"]
        assert main([*command, f"--pairs={pairs}"]) == 0
        assert asked == [ONE] * new
    found = lines.read(path, kind="pair", stretch="noon")
    assert [set(record["log_ratios"]) for record in found] == [{ONE, TWO, CONTROL}] * 3
    assert main(["replay", f"--lines={path}", "--runs-replayed=5"]) == 0
    assert json.loads(capsys.readouterr().out)["replay"].keys() == {"all", "quiet"}
    assert main(["replay", f"--lines={path}", "--runs-replayed=5", "--without=*two*"]) == 0
    assert json.loads(capsys.readouterr().out)["scatter"]["all"].keys() == {ONE, CONTROL}


def test_all_measures_once_and_its_own_results_are_no_change_to_what_is_measured(
    repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from reports.gate.pairs import Pair, Pairs

    def ratios(ids: Sequence[str]) -> dict[str, float]:
        return dict.fromkeys(ids, 0.001)

    def one_run(clone: Path, arguments: tuple[str, ...], gate: Path | None) -> dict[str, Any]:
        return {"exit_status": 0, "verdict": "pass", "seconds": 1.0, "exact": None}

    @contextmanager
    def clone_with(repository: Path, *given: object) -> Iterator[Path]:
        yield repository

    for name, few in (("PAIRS_OF_BLOCK", 1), ("OTHERS", 1), ("BLOCKS", 3)):
        monkeypatch.setattr(whole, name, few)
    monkeypatch.setitem(validation.TARGETS, "self", replace(SELF, real={"nothing": 3}))
    monkeypatch.setattr(validation, "DESIGN_PAIRS", 3)
    monkeypatch.setattr(validation, "OF_PEERS", {"nothing": 1})
    design = {"calls": lambda checkouts, ids, rng: (ratios(ids), 1.0)}
    monkeypatch.setattr(designs, "DESIGNS", design)
    monkeypatch.setattr(
        Pairs, "measure", lambda self, ids: Pair(ratios((*ids, CONTROL)), {}, 1.5, {}, "")
    )
    monkeypatch.setattr(real, "one_run", one_run)
    monkeypatch.setattr(recording, "beside", lambda active, seed: beside(False, seed))
    monkeypatch.setattr(real, "beside", lambda active, seed: beside(False, seed))
    monkeypatch.setattr(reorderings, "reorderings", lambda checkout, pattern: [{"order": pattern}])
    for module in (real, peers):
        monkeypatch.setattr(module, "clone_with", clone_with)
    monkeypatch.setattr(peers, "PEERS", {"a tool": lambda clone: (Verdict.PASS, "")})
    monkeypatch.chdir(repository.path)
    path = tmp_path / "lines.jsonl"
    command = ["all", "--target=self", f"--lines={path}", "--runs-replayed=5"]
    command.append("--out=published/gate.json")
    command.append("--html=published/gate.html")
    assert main(command) == 0, capsys.readouterr().err
    names = {"gate.json", "gate.html", "gate_designs.json", "gate_reorderings.json"}
    assert {file.name for file in Path("published").iterdir()} == names
    measured = path.read_text()
    assert main(command) == 0
    assert path.read_text() == measured, "what it has is not measured again"


def test_a_real_run_is_the_gate_of_a_clone_with_the_injection(
    repository, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("reports", "reference_model/command_line.py"):
        source, target = root / package, repository.path / package
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target)
    for name in ("devices.py", "errors.py", "files.py", "printing.py"):
        shutil.copy(root / "reference_model" / name, repository.path / "reference_model")
    for name in ("instruments", "data", "record"):
        shutil.copytree(root / "benchmarks" / name, repository.path / "benchmarks" / name)
    (repository.path / "benchmarks" / "experiments").mkdir()
    experiment = root / "benchmarks" / "experiments" / "experiment.py"
    shutil.copy(experiment, repository.path / "benchmarks" / "experiments")
    suite = (root / "benchmarks" / "gate_suite.py").read_text()
    repository.write("benchmarks/gate_suite.py", suite)
    repository.commit()
    place = ("reference_model/__init__.py", "BYTES = 100", "BYTES = 101")
    grown = replace(INJECTIONS["extra copy"], edits=(place,))
    monkeypatch.setitem(INJECTIONS, "extra copy", grown)
    path = tmp_path / "lines.jsonl"
    for _ in range(2):  # the second finds it done
        real.real_runs(path, repository.path, "extra copy", 1, lambda line: None)
    (record,) = lines.read(path)
    assert (record["exit_status"], record["verdict"]) == (10, "regression"), record["reason"]
    (row,) = real.tally(path)
    assert (row["runs"], row["as deserved"]) == (1, 1)


def test_a_load_has_begun_when_what_it_disturbs_begins_and_ends_with_it() -> None:
    with beside(True, seed=0) as load:
        load.check()
    with pytest.raises(UserError, match="the background load ended by itself, with status -9"):
        load.check()
    with beside(False, seed=0) as nobody:
        nobody.check()


def test_a_load_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="did not start"), beside(True, seed=0):
        pass


# ---- tolerances


def test_the_largest_change_by_another_order_of_sums_is_told_with_its_place(
    repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    # As a kernel without vectors would, a model that adds in another order.
    suite = (repository.path / "benchmarks/gate_suite.py").read_text()
    repository.write("benchmarks/gate_suite.py", suite.replace("tolerance=0.0", "tolerance=0.5"))
    moved = "os.environ.get('ATEN_CPU_CAPABILITY') == 'default'"
    repository.commit(model=f"import os\nBYTES = 100 + 0.25 * ({moved})\n")
    monkeypatch.chdir(repository.path)
    out = tmp_path / "reorderings.json"
    assert main(["reorderings", f"--out={out}"]) == 0
    (row,) = json.loads(out.read_text())
    assert row == {
        "benchmark": "bench_gate.Work.track_flops",
        "tolerance": 0.5,
        "largest change": 0.25,
        "of": "bench_gate.Work.track_flops(held)",
        "order": "ATen without vectors",
    }
    assert main(["reorderings", "--select=*Step*"]) == 2
    assert "matches no exact number with a tolerance" in capsys.readouterr().err


# ---- what still counts


def test_what_was_recorded_counts_after_any_change_that_is_not_of_the_protocol(
    repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    path = tmp_path / "lines.jsonl"
    ratios = dict.fromkeys((ONE, TWO, CONTROL), 0.01)
    lines.append(path, pair(log_ratios=ratios, commit=repository.git("rev-parse", "HEAD")))
    before = path.read_text()
    repository.write("benchmarks/experiments/new/claims.toml", "a new claim\n")
    repository.write("reference_model/codecs/new.py", '"""A new codec."""\n')
    repository.commit(model=(repository.path / "reference_model/__init__.py").read_text() + "# x\n")
    monkeypatch.chdir(repository.path)
    command = ["record", "--target=self", f"--lines={path}", "--block=noon", "--pairs=1"]
    assert main(command) == 0
    assert path.read_text() == before, "it was measured again"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("record", ["--stretch=noon"], ["--block=noon"]),
        ("record", ["--block=noon", "--neighbour"], ["--block=noon", "--background-load"]),
        ("turns", ["--neighbour"], ["--background-load"]),
        ("real", ["--neighbour"], ["--background-load"]),
    ],
)
def test_an_option_is_taken_by_its_old_name_of_which_help_says_nothing(
    command: str, old: list[str], new: list[str], capsys
) -> None:
    known = vars(_parser().parse_args([command, *new]))
    assert vars(_parser().parse_args([command, *old])) == known
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    for option, told in ((old[-1], False), (new[-1], True)):
        assert (option.partition("=")[0] in said) == told


def test_peers_are_asked_by_the_old_command_too_of_which_help_says_nothing(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["rivals", "--help"])
    assert "usage: python -m reports.gate.validation peers" in capsys.readouterr().out
    assert "rivals" not in _parser().format_help()


def test_real_runs_with_an_option_are_not_those_of_the_gate_as_shipped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for arguments, status in ([], 0), (["--budget=5"], 11):
        lines.append(path, run(arguments=arguments, exit_status=status))
    (row,) = real.tally(path)
    assert (row["runs"], row["verdicts"]) == (1, {"0": 1})
