"""python -m benchmarks: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks.__main__ import main
from benchmarks.experiments import catalogue
from benchmarks.experiments.experiment import Settings, Unavailable
from benchmarks.instruments import environment
from benchmarks.judging.claims import load_claims
from benchmarks.record.results import Measurement, read_results
from reference_model.errors import UserError
from tests.benchmarks.inline import Inline, one_cell

SAVING = "tying.saving-large"


@pytest.fixture(autouse=True)
def measured_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Inline:
    """Cells in this process, and a record of the test's own."""
    executor = Inline()
    monkeypatch.setattr(command_line, "RECORD", tmp_path_factory.mktemp("record") / "cells.sqlite")
    monkeypatch.setattr(command_line, "_executor", lambda *_: executor)
    return executor


def command(*arguments: str, folder: Path, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def saved_share(value: float, claim: str = SAVING, option: str = "as published") -> Measurement:
    return Measurement(
        claim,
        "saved_share_of_untied",
        "1",
        value,
        None,
        None,
        "none",
        "head",
        option,
        {},
        "counted",
    )


def give(monkeypatch: pytest.MonkeyPatch, *given: tuple[str, Callable[[Settings], list]]) -> None:
    listed = [one_cell(claim, function) for claim, function in given]
    monkeypatch.setattr(catalogue, "all_experiments", lambda: listed)


def test_list_shows_every_claim_without_loading_torch(tmp_path: Path, root: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = command("list", folder=tmp_path, root=root)
    assert done.returncode == 0, done.stderr
    assert all(claim.id in done.stdout for claim in load_claims())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--only", "cash.*", "--out", "r.json"], "'cash.*'"),
        (["run", "--profile", "slow", "--out", "r.json"], "'slow'"),
        (["run", "--out", "/dev/null/r.json"], "/dev/null/r.json (Not a directory)"),
    ],
)
def test_wrong_input_ends_in_one_line_and_writes_nothing(
    tmp_path: Path, root: Path, arguments: list[str], told: str
) -> None:
    done = command(*arguments, folder=tmp_path, root=root)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["measure"], "'measure'"),
        (["run"], "--out"),
        (["run", "--seed", "-1", "--out", "r.json"], "'-1' is not a whole number"),
        (["run", "--device", "tpu", "--out", "r.json"], "'tpu'"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]+\n", stderr)
    assert told in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    give(monkeypatch, (SAVING, lambda _: pytest.fail("it was measured")))
    assert main(["run", "--device", "cuda", "--out", str(tmp_path / "r.json")]) == 2
    assert "no usable CUDA device; use --device cpu" in capsys.readouterr().err


def test_a_read_only_folder_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, whom no permission bits stop.
    monkeypatch.setattr("reference_model.files.tempfile.TemporaryFile", refused)
    give(monkeypatch, (SAVING, lambda _: pytest.fail("it was measured")))
    assert main(["run", "--out", str(tmp_path / "r.json")]) == 2
    assert re.fullmatch(r"error: cannot write [^\n]+denied[^\n]+\n", capsys.readouterr().err)


def test_a_run_prints_a_table_and_writes_every_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, (SAVING, lambda _: [saved_share(0.0195)]))
    path = tmp_path / "r.json"
    assert main(["run", "--only", "tying.saving-*", "--seed", "3", "--out", str(path)]) == 0
    printed = capsys.readouterr()
    assert re.search(
        rf"{SAVING}\s+Refuted: tying would save 1\.95 % of a model of about 7 B", printed.out
    )
    assert "(at: published shapes of models of about 7 B parameters)" in printed.out
    assert printed.out.count("(at: ") == 1
    assert "1 of 2 claims decided" in printed.out
    results = read_results(path)
    assert [claim["id"] for claim in results["claims"]] == [claim.id for claim in load_claims()]
    told = {claim["id"]: (claim["verdict"], claim["because"]) for claim in results["claims"]}
    assert told[SAVING] == (
        "refuted",
        "The share of a 7 B model that tying would save is 1.95 %, above 0.5 %.",
    )
    assert told["tying.saving-small"] == ("open", "No experiment measures it yet.")
    assert told["cache.memory-law"] == ("open", "Not selected in this run; --only selects it.")
    assert results["environment"]["seed"] == 3
    assert results["environment"]["threads"] == environment.usable_cores()


def test_what_is_too_long_for_a_profile_stays_open_and_says_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = one_cell(SAVING, lambda _: [], {"smoke": None, "quick": 9.0, "full": 9.0})
    monkeypatch.setattr(catalogue, "all_experiments", lambda: [long])
    path = tmp_path / "r.json"
    assert main(["run", "--profile", "smoke", "--out", str(path)]) == 0
    entry = next(claim for claim in read_results(path)["claims"] if claim["id"] == SAVING)
    assert entry["verdict"] == "open"
    assert entry["because"] == "Too long for the smoke profile; run quick or full."


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ("smoke", "not measured in the smoke profile; run quick or full, unless not built yet"),
        ("quick", "no experiment measures it yet"),
        ("full", "no experiment measures it yet"),
    ],
)
def test_what_an_experiment_leaves_out_is_sent_to_the_profiles_that_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, reason: str
) -> None:
    one_way = Measurement(
        claim="int8.norm-damage",
        metric="loss_increase",
        unit="nats/token",
        value=0.001,
        interval=None,
        n=None,
        direction="lower",
        choice="number format",
        option="int8",
        parameters={"way": "gamma and beta per tensor", "model": "reference checkpoint"},
        source="counted",
    )
    seconds = {"smoke": 0.1, "quick": 0.2, "full": 0.2}
    partly = one_cell(one_way.claim, lambda _: [one_way], seconds)
    monkeypatch.setattr(catalogue, "all_experiments", lambda: [partly])
    path = tmp_path / "r.json"
    assert main(["run", "--profile", profile, "--out", str(path)]) == 0
    claims = read_results(path)["claims"]
    requirements = next(c["requirements"] for c in claims if c["id"] == one_way.claim)
    left_out = [r["because"].removeprefix(f"{r['text']}: ") for r in requirements[1:]]
    assert left_out == [reason] * 4


def test_what_an_experiment_lacks_leaves_its_claim_open_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(_: Settings) -> list[Measurement]:
        raise Unavailable("PEFT cannot be imported; pip install peft")

    other = "tying.saving-small"
    give(monkeypatch, (SAVING, without), (other, lambda _: [saved_share(1, other)]))
    path = tmp_path / "r.json"
    assert main(["run", "--out", str(path)]) == 0
    results = read_results(path)
    entry = next(claim for claim in results["claims"] if claim["id"] == SAVING)
    assert entry["verdict"] == "open"
    assert entry["because"] == "PEFT cannot be imported; pip install peft."
    assert [m["claim"] for m in results["measurements"]] == [other]


@pytest.mark.K8
def test_what_a_library_or_the_machine_says_can_be_read_again_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(_: Settings) -> list[Measurement]:
        raise Unavailable("no \x1b[31m\ud800 driver" + "!" * 50_000)

    give(monkeypatch, (SAVING, without))
    stamp = environment.environment_stamp
    monkeypatch.setattr(
        environment, "environment_stamp", lambda *given: {**stamp(*given), "cpu": "Z80\x00\udcff"}
    )
    path = tmp_path / "r.json"
    assert main(["run", "--out", str(path)]) == 0
    results = read_results(path)
    entry = next(claim for claim in results["claims"] if claim["id"] == SAVING)
    assert entry["because"].startswith(r"No \x1b[31m\ud800 driver!!!")
    assert results["environment"]["cpu"] == r"Z80\x00\udcff"


def test_every_experiment_starts_from_the_same_random_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(claim: str) -> Callable[[Settings], list[Measurement]]:
        return lambda _: [saved_share(float(torch.rand(())), claim)]

    give(monkeypatch, *((name, drawn(name)) for name in ("tying.saving-small", SAVING)))
    path = tmp_path / "r.json"
    assert main(["run", "--out", str(path)]) == 0
    first, second = (measurement["value"] for measurement in read_results(path)["measurements"])
    assert first == second


def raise_key_error(_: Settings) -> list[Measurement]:
    raise KeyError("wte")


def raise_user_error(_: Settings) -> list[Measurement]:
    raise UserError("the package index does not answer; set LLM_DESIGN_BENCH_ASSETS")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (raise_key_error, "failed: KeyError: 'wte'"),
        (raise_user_error, "failed: the package index does not answer"),
        (lambda _: [], "failed: ValueError: it measured nothing"),
        (lambda _: [saved_share(1, "tying.quality")], "a measurement of tying.quality"),
        (lambda _: [saved_share(1), saved_share(2)], "more than once"),
    ],
)
def test_an_experiment_that_fails_costs_itself_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: Callable[[Settings], list[Measurement]],
    told: str,
) -> None:
    ran = []
    other = "tying.saving-small"
    give(
        monkeypatch,
        (SAVING, function),
        (other, lambda _: ran.append(other) or [saved_share(1, other)]),
    )
    path = tmp_path / "r.json"
    path.write_text("old")
    assert main(["run", "--out", str(path)]) == 1
    stderr = capsys.readouterr().err
    assert f"error: {SAVING} failed: " in stderr
    assert told in stderr
    assert stderr.rstrip().endswith(f"to repeat: run the same command with --only {SAVING}")
    assert ran == [other]
    results = read_results(path)
    failed = next(claim for claim in results["claims"] if claim["id"] == SAVING)
    assert failed["verdict"] == "open"
    assert failed["because"].startswith("Failed: ")
    assert [m["claim"] for m in results["measurements"]] == [other]


def test_an_interrupted_run_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Settings) -> list[Measurement]:
        raise KeyboardInterrupt

    give(monkeypatch, (SAVING, interrupted))
    assert main(["run", "--out", str(tmp_path / "r.json")]) == 130
    told = "error: interrupted; what was finished is kept, and the same command goes on from there"
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
