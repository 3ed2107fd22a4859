"""The stamp on a results file says everything, or why it cannot."""

from __future__ import annotations

import platform
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.experiment import Settings
from benchmarks.instruments import environment
from benchmarks.instruments.environment import environment_stamp, usable_cores
from reference_model import checkpoints
from reference_model.errors import UserError

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
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--message", "one")
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
