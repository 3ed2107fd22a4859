"""Whose commits the validation gates: a toy repository, or this project itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.git import changes, git
from reference_model.errors import UserError
from reports.gate.validation import injections, lines, toy
from reports.gate.validation.injections import Injection
from reports.gate.validation.toy import faults

RUNS = Path("runs")  # ignored by git: files beside what is measured would be changes to it
OF_GATE = ("reports/gate/", "benchmarks/", "reference_model/")


@dataclass(frozen=True)
class Target:
    """A repository, what is put into it, and how many real runs the whole validation makes of it.

    ``real``: those whose rates are told, by case; each other case is run a few times. ``gate``:
    where the gate lies that judges it; None: in each commit itself.
    """

    name: str
    repository: Callable[[], AbstractContextManager[Path]]
    injections: Mapping[str, Injection]
    real: Mapping[str, int]
    gate: Path | None = None

    @property
    def lines(self) -> Path:
        """The file that is appended to by default."""
        return RUNS / ("gate_pairs.jsonl" if self.name == lines.SELF else f"gate_{self.name}.jsonl")


@contextmanager
def _here() -> Iterator[Path]:
    yield Path.cwd()


def _of_each(total: int, share: float) -> dict[str, int]:
    """``total`` runs over the toy's functions, each slower by a share."""
    cases = faults.slower(share)
    return {case: total // len(cases) for case in cases}


SELF = Target(
    lines.SELF,
    _here,
    injections.INJECTIONS,
    {"nothing": 60, "slower by 3 %": 20, "slower by 5 %": 20},
)
TOY = Target(
    lines.TOY,
    toy.repository,
    faults.INJECTIONS,
    {"nothing": 60, **_of_each(40, 0.03), **_of_each(40, 0.05)},
    toy.ROOT,
)
TARGETS = {target.name: target for target in (TOY, SELF)}


def gate_commit(target: Target) -> str | None:
    """The commit of the gate that judges; + where files differ from it. None: it has none."""
    folder = target.gate or Path.cwd()
    try:
        commit = git(folder, "rev-parse", "HEAD")
        changed = any(change.path.startswith(OF_GATE) for change in changes(folder))
    except UserError:
        return None
    return f"{commit}{'+' if changed else ''}"
