"""The guides' worked examples: applied to a copy of the repository and run, they do what is said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports.gate.revisions import git

# A block of a guide, and the line before it, which names a file that is to be written whole.
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>\w+)\n(?P<text>.*?)\n```", re.DOTALL)
NAMED = re.compile(r"`(?P<name>[\w./]+)`:$")


def follow(guide: Path, copy: Path, section: str = "") -> None:
    """Do in ``copy`` what a guide, or a section of it, says, in its order; fail where it is wrong."""
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
        else:
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
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def copy(tmp_path: Path, root: Path, repository_files: list[Path]) -> Path:
    """The repository as it stands, with a history of its own: one commit."""
    made = tmp_path / "copy"
    for path in repository_files:
        target = made / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for arguments in (
        ("init", "--quiet"),
        ("config", "user.name", "test"),
        ("config", "user.email", "test@example.invalid"),
    ):
        git(made, *arguments)
    return made


def test_a_choice_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "reference_model" / "README.md", copy)


def test_a_claim_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "benchmarks" / "README.md", copy, "How to add a claim")


def test_a_benchmark_is_added_as_the_guide_says(root: Path, copy: Path) -> None:
    follow(root / "benchmarks" / "README.md", copy, "How to add a benchmark")
