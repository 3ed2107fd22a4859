"""The protocol's numbers: nobody changes what they stand for in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.record.definitions import definitions_digest
from reports.gate.protocol import BEFORE, MEANINGS, Meaning

# The code that each number stood for. A raised number is a new line here; the old ones stay.
PINNED = {
    "measured": {1: "ca4d9965a1a2271e"},
    "judged": {1: "5c997087c2f52a23"},
}
CHANGED = """\
What {name!r} {number} stands for has changed: {digest}, not {pinned}.
- If a pair is {name} otherwise now: raise {constant} to {next} in reports/gate/protocol.py,
  say there what it means, and pin {next}: "{digest}" beside the others.
  Lines of {number} are not added up with new ones.
- If the code was rewritten and means the same: pin {number}: "{digest}",
  and say why in the commit."""


def complaint(name: str, root: Path, meaning: Meaning | None = None) -> str | None:
    """What to do, where the code is not the one that was pinned."""
    meaning = meaning or MEANINGS[name]
    digest = definitions_digest(meaning.code, root, meaning.aside)
    pinned = PINNED[name].get(meaning.number)
    if digest == pinned:
        return None
    number, constant = meaning.number, name.upper()
    return CHANGED.format(**locals(), next=number + 1)


@pytest.mark.parametrize("name", MEANINGS)
def test_the_code_is_the_one_that_was_pinned_to_its_number(root: Path, name: str) -> None:
    assert complaint(name, root) is None, complaint(name, root)


@pytest.mark.parametrize("name", MEANINGS)
def test_a_number_is_the_highest_that_was_pinned_and_no_two_stand_for_the_same(name: str) -> None:
    assert MEANINGS[name].number == max(PINNED[name]) > BEFORE
    assert len(set(PINNED[name].values())) == len(PINNED[name])
    assert MEANINGS[name].words.endswith(".")


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The gate and its worker, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__", "validation", "campaign.py")
    shutil.copytree(root / "reports/gate", tmp_path / "reports/gate", ignore=ignored)
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(root / "benchmarks/gate_worker.py", tmp_path / "benchmarks")
    return tmp_path


def change(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert text.count(old) == 1, f"{file} has {text.count(old)} places like {old!r}"
    (copy / file).write_text(text.replace(old, new))


PAIRS, WORKER = "reports/gate/pairs.py", "benchmarks/gate_worker.py"
DECISION, TIMED = "reports/gate/decision.py", "reports/gate/timed.py"


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("measured", PAIRS, "MOST_TURNS = 400", "MOST_TURNS = 300"),
        ("measured", PAIRS, "swapped = self._rng.random() < 0.5", "swapped = False"),
        (
            "measured",
            PAIRS,
            "held = list(dict.fromkeys([*ids",
            "held = list(dict.fromkeys([*ids[:1]",
        ),
        ("measured", WORKER, "gc.disable()", "gc.collect()"),
        ("measured", WORKER, "for _ in range(warmup):", "for _ in range(warmup + 1):"),
        ("measured", "reports/gate/workers.py", "PADDING = 4096", "PADDING = 1"),
        ("judged", DECISION, "margin: float = 0.01", "margin: float = 0.02"),
        ("judged", DECISION, ">= of_pass[look]", "> of_pass[look]"),
        ("judged", TIMED, "+ longest > budget", "> budget"),
        ("judged", "reports/gate/compare.py", "BUDGET = 450.0", "BUDGET = 400.0"),
    ],
)
def test_a_change_of_what_a_number_stands_for_is_told_with_what_to_do(
    copy: Path, name: str, file: str, old: str, new: str
) -> None:
    change(copy, file, old, new)
    number = MEANINGS[name].number
    told = complaint(name, copy) or ""
    assert f"raise {name.upper()} to {number + 1} in reports/gate/protocol.py" in told
    (other,) = MEANINGS.keys() - {name}
    assert complaint(other, copy) is None


def test_comments_docstrings_annotations_and_moved_code_change_no_meaning(copy: Path) -> None:
    for file in copy.rglob("*.py"):
        file.write_text(f"# a comment\n{file.read_text()}# another\n")
    change(copy, PAIRS, "def middle(x: Floats) -> float:", "def middle(x):")
    change(copy, PAIRS, '"""Seconds of calls and of asking for them."""', '"""Seconds."""')
    change(copy, DECISION, '"""Wilcoxon\'s sum of', '"""The sum of')
    change(
        copy,
        WORKER,
        '    if not hasattr(os, "sched_setaffinity"):',
        '    # why\n    if not hasattr(os, "sched_setaffinity"):',
    )
    whole = (copy / PAIRS).read_text()
    start = whole.index("def a_processor(")
    end = whole.index("def in_turns(")
    moved = "import os, random\nfrom contextlib import suppress\n\n" + whole[start:end]
    (copy / "reports/gate/processors.py").write_text(moved)
    imported = "from reports.gate.processors import a_processor\n\n"
    (copy / PAIRS).write_text(whole[:start] + imported + whole[end:])
    (copy / "benchmarks/codecs.py").write_text("class ANewCodec: ...\n")
    assert [complaint(name, copy) for name in MEANINGS] == [None, None]
