"""What every test may rely on: a fixed seed, and where the repository lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from benchmarks.data.git import git

ROOT = Path(__file__).resolve().parents[1]

# The same examples in each run: a failure can be repeated, and a pass means the same everywhere.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("repeatable")


# What breaks on input that comes from elsewhere, by kind; tests/README.md says what each asks for.
FAULTS = {
    "K1": "weights and settings of a folder contradict each other",
    "K2": "a foreign configuration holds what we do not know",
    "K3": "rewrites of a model work one by one and not together",
    "K4": "git answers by the user's settings",
    "K6": "a half-finished file or folder is taken for a whole one",
    "K7": "numbers that are not numbers",
    "K8": "files from elsewhere are not bounded",
    "K9": "a value becomes shell text",
    "K10": "an interval says more than its sample",
}


def pytest_configure(config: pytest.Config) -> None:
    if shutil.which("git") is None:
        raise pytest.UsageError(
            "the tests make repositories, and git is not installed; install it "
            "(Debian: apt install git)"
        )
    for kind, meaning in FAULTS.items():
        config.addinivalue_line("markers", f"{kind}: {meaning}")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """A model built without a seed of its own is the same in each run and in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_from_the_start() -> None:
    """For what whole files share, and so is made before any test of theirs."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Models this small are slower on two threads, and sums in one order are the same each time."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def repository_files(root: Path) -> list[Path]:
    """Every file that is in the repository or is about to be: generated ones are left out."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [root / name for name in listed.split("\0") if name and (root / name).is_file()]
