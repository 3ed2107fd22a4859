"""The stamp on a results file says everything, or why it cannot."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks.data.git import git
from benchmarks.experiments import catalogue
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments import environment
from benchmarks.instruments.environment import StealClock, environment_stamp, usable_cores
from benchmarks.instruments.readings import Unavailable
from benchmarks.record.results import read_results, write_results
from reference_model import checkpoints
from reference_model.errors import UserError
from tests.benchmarks.inline import Inline

SETTINGS = Settings("smoke", "cpu", 11)


def test_the_stamp_has_no_empty_field_and_no_host_name() -> None:
    stamp = environment_stamp(SETTINGS, threads=2)
    assert all(value not in (None, "", {}) for value in stamp.values())
    texts = [value for value in stamp.values() if isinstance(value, str)]
    assert socket.gethostname() not in texts
    assert (stamp["threads"], stamp["seed"], stamp["profile"]) == (2, 11, "smoke")
    assert stamp["packages"]["torch"] == torch.__version__
    assert stamp["python"] == platform.python_version()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "user.name", "a")
    git(tmp_path, "config", "user.email", "a@b.invalid")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    monkeypatch.setattr(environment, "ROOT", tmp_path.resolve())
    return tmp_path


def test_a_change_since_the_commit_makes_the_stamp_dirty(checkout: Path) -> None:
    clean = environment_stamp(SETTINGS, 1)
    assert clean["dirty"] is False
    assert len(clean["commit"]) == 40
    (checkout / "file").write_text("two")
    changed = environment_stamp(SETTINGS, 1)
    assert changed["dirty"] is True
    assert changed["commit"] == clean["commit"]


@pytest.mark.K4
def test_a_checkout_that_git_does_not_read_is_unknown_and_no_folder_is_named(
    checkout: Path,
) -> None:
    (checkout / ".git/HEAD").write_text("nonsense")
    stamp = environment_stamp(SETTINGS, 1)
    reason = "unknown: git cannot read this checkout; git status says why"
    assert stamp["commit"] == stamp["dirty"] == reason


def test_a_copy_inside_some_other_checkout_does_not_claim_its_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = checkout / "unpacked"
    copy.mkdir()
    monkeypatch.setattr(environment, "ROOT", copy.resolve())
    assert environment_stamp(SETTINGS, 1)["commit"] == "unknown: not in a git checkout"


def test_a_machine_without_git_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    stamp = environment_stamp(SETTINGS, 1)
    assert stamp["commit"] == stamp["dirty"] == "unknown: git is not installed"


def test_the_checkpoints_losses_are_on_the_stamp_or_the_reason_why_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = {"loss": {"test": 3.9}, "bits_per_byte": {"test": 2.0}, "tokens_seen": 7, "recipe": {}}
    monkeypatch.setattr(checkpoints, "reference_card", lambda: card)
    stamped = environment_stamp(SETTINGS, 1)["checkpoint"]
    assert stamped == {"tokens_seen": 7, "loss": {"test": 3.9}, "bits_per_byte": {"test": 2.0}}

    def absent() -> None:
        raise UserError("there is no card")

    monkeypatch.setattr(checkpoints, "reference_card", absent)
    assert environment_stamp(SETTINGS, 1)["checkpoint"] == {"card": "unknown: there is no card"}


def test_hyper_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(environment, "_core_of", lambda processor: f"{processor % 2}")
    monkeypatch.setattr(environment, "_cores_granted", lambda _: 64)
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("content", "cores"), [("150000 50000\n", 3), ("50000 100000\n", 1), ("max 100000\n", 4)]
)
def test_a_container_is_granted_no_more_cores_than_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, cores: int
) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text(content)
    monkeypatch.setattr(environment, "CONTAINER_QUOTA", limit)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(environment.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(environment, "_core_of", str)
    assert usable_cores() == cores


# ---- the processor, and who else used it


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "FIRST_PROCESSOR", tmp_path)
    return tmp_path


def test_caches_for_data_are_named_by_level_and_given_in_bytes(processor: Path) -> None:
    kinds = [
        ("1", "Data", "48K"),
        ("1", "Instruction", "32K"),
        ("2", "Unified", "2048K"),
        ("3", "Unified", "36864K"),
    ]
    for place, (level, kind, size) in enumerate(kinds):
        folder = processor / "cache" / f"index{place}"
        folder.mkdir(parents=True)
        for name, content in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(content + "\n")
    stamp = environment_stamp(SETTINGS, 1)
    assert stamp["caches"] == {"L1d": 48 * 1024, "L2": 2 * 2**20, "L3": 36 * 2**20}


def test_the_governor_is_on_the_stamp(processor: Path) -> None:
    (processor / "cpufreq").mkdir()
    (processor / "cpufreq" / "scaling_governor").write_text("powersave\n")
    assert environment_stamp(SETTINGS, 1)["governor"] == "powersave"


def test_a_processor_that_shows_nothing_of_itself_is_a_reason(processor: Path) -> None:
    stamp = environment_stamp(SETTINGS, 1)
    assert stamp["caches"] == "unknown: the system does not show them"
    assert stamp["governor"] == "unknown: the system does not show how it chooses the clock"


def test_the_load_before_the_run_is_on_the_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (1.234, 0.5, 0.0), raising=False)
    assert environment_stamp(SETTINGS, 1)["load_average"] == [1.23, 0.5, 0.0]
    monkeypatch.delattr(environment.os, "getloadavg")
    assert environment_stamp(SETTINGS, 1)["load_average"] == "unknown: the system does not say"


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "PROCESSOR_TICKS", tmp_path / "stat")
    return tmp_path / "stat"


def test_stolen_time_is_a_share_of_all_time_over_the_span_that_is_asked_for(ticks: Path) -> None:
    ticks.write_text("cpu  100 0 100 700 0 0 0 100 90 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert environment_stamp(SETTINGS, 1)["steal_since_boot"] == 0.1  # guest is a part of user
    span = StealClock()
    ticks.write_text("cpu  150 0 130 715 0 2 3 100 90 0\n")
    assert span.share() == 0.0
    ticks.write_text("cpu  150 0 130 715 0 2 3 300 90 0\n")
    assert span.share() == round(200 / 300, 6)


def test_stolen_time_that_is_not_counted_is_a_reason(ticks: Path) -> None:
    uncounted = "unknown: the system does not count stolen time"
    assert StealClock().share() == uncounted  # no such file
    ticks.write_text("cpu  100 0 100 700\n")  # as old kernels write it
    assert environment_stamp(SETTINGS, 1)["steal_since_boot"] == uncounted
    ticks.write_text("cpu  100 0 100 700 0 0 0 100\n")
    assert StealClock().share() == "unknown: shorter than a tick of the system"


@pytest.mark.parametrize("shown", [True, False])
def test_a_run_states_the_time_stolen_while_it_ran_and_its_stamp_fits_the_schema(
    ticks: Path, processor: Path, tmp_path: Path, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shown:
        ticks.write_text("cpu  100 0 100 700 0 0 0 100\n")
    monkeypatch.setattr(catalogue, "all_experiments", list)
    monkeypatch.setattr(command_line, "_executor", lambda *_: Inline())
    path = tmp_path / "results.json"
    record = ["--record", str(tmp_path / "cells.sqlite")]
    assert command_line.main(["run", "--profile", "smoke", "--out", str(path), *record]) == 0
    results = read_results(path)
    reason = "shorter than a tick of the system" if shown else "the system does not count"
    assert reason in results["environment"]["steal_during_run"]
    results["environment"]["steal_during_run"] = 0.25
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


# ---- libraries, threads, driver

NO_LIBRARY = "none: this build of torch does without"


@pytest.mark.parametrize(
    ("build", "blas", "onednn"),
    [
        (
            "  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for\n"
            "  - Intel(R) MKL-DNN v3.12.0 (Git Hash 80afa71)\n  - Build settings: BLAS_INFO=mkl,",
            "MKL 2024.2",
            "3.12.0",
        ),
        ("  - Build settings: BLAS_INFO=accelerate,", "accelerate", NO_LIBRARY),
        ("PyTorch built with:", NO_LIBRARY, NO_LIBRARY),
    ],
)
def test_the_libraries_behind_the_matrix_products_are_on_the_stamp(
    monkeypatch: pytest.MonkeyPatch, build: str, blas: str, onednn: str
) -> None:
    monkeypatch.setattr(torch.__config__, "show", lambda: build)
    packages = environment_stamp(SETTINGS, 1)["packages"]
    assert (packages["blas"], packages["onednn"]) == (blas, onednn)


def test_the_threads_that_torch_was_set_to_are_on_the_stamp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    assert environment_stamp(SETTINGS, 2)["torch_threads"] == {
        "intra_op": 2,
        "inter_op": torch.get_num_interop_threads(),
        "OMP_NUM_THREADS": "7",
        "MKL_NUM_THREADS": "not set",
    }


@pytest.mark.parametrize(
    ("answer", "driver"),
    [
        ("570.86.15", "570.86.15"),
        (Unavailable("no permission for this user", "NVML"), "unknown: no permission"),
    ],
)
def test_the_driver_is_nvmls_word_or_its_reason(
    monkeypatch: pytest.MonkeyPatch, answer: str | Unavailable, driver: str
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(environment.nvml, "driver_version", lambda: answer)
    stamp = environment_stamp(SETTINGS, 1)
    assert stamp["gpu"] == "NVIDIA H100"
    assert stamp["driver"].startswith(driver)
