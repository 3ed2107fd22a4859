"""The guides' worked examples, applied to a copy and run: they do what is said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.data.git import git

ROOT = Path(__file__).parents[1]
# A block of a guide, and the line before it, which names a file that is to be written whole.
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>\w+)\n(?P<text>.*?)\n```", re.DOTALL)
GATE_GUIDE = "How to gate your own repository"
NAMED = re.compile(r"`(?P<name>[\w./]+)`:$")


def follow(guide: Path, copy: Path, section: str = "") -> None:
    """Do in ``copy`` what a guide, or a section of it, says; fail where it is wrong."""
    text = guide.read_text(encoding="utf-8")
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("\n```") // 2 > 0, "a block without an empty line before it"
    said = ""
    for block in blocks:
        if block["kind"] == "diff":
            apply(block["text"], copy)
        elif block["kind"] == "sh":
            said = run(block["text"], copy)
        elif block["kind"] == "text":
            for line in block["text"].splitlines():
                assert " ".join(line.split()) in said, said
        elif block["kind"] != "yaml":
            named = NAMED.search(block["before"])
            assert named is not None, f"where does this go?\n{block['text']}"
            path = copy / named["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{block['text']}\n", encoding="utf-8")


def apply(patch: str, copy: Path) -> None:
    done = subprocess.run(
        ["git", "apply", "--recount", "-"],
        cwd=copy,
        input=f"{patch}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{patch}"


def run(commands: str, copy: Path) -> str:
    """What the commands say, each run of blanks as one blank."""
    done = subprocess.run(
        ["sh", "-ec", commands.replace(".venv/bin/python", sys.executable)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": "", "BENCH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def begin(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "test")
    git(folder, "config", "user.email", "test@example.invalid")
    return folder


@pytest.fixture
def copy(tmp_path: Path, root: Path, repository_files: list[Path]) -> Path:
    """The repository as it stands, every file of it."""
    made = tmp_path / "copy"
    for path in repository_files:
        target = made / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return begin(made)


def test_a_choice_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "reference_model" / "README.md", copy)


def test_a_family_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "reference_model" / "families" / "README.md", copy)


def test_a_claim_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "benchmarks" / "README.md", copy, "How to add a claim")


def test_a_benchmark_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "benchmarks" / "README.md", copy, "How to add a benchmark")


def test_another_repository_is_gated_as_the_guide_says(root: Path, tmp_path: Path) -> None:
    follow(root / "reports" / "gate" / "README.md", begin(tmp_path / "own"), GATE_GUIDE)
