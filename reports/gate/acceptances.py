"""Changes that were accepted: a file of the commit that is judged, reviewed like its code.

`.gate-accepted.csv`, a line each:

| column    | what it is                                                              |
|-----------|-------------------------------------------------------------------------|
| benchmark | an id as the gate prints it, or a pattern                               |
| direction | worse, changed, otherwise, gone or slower                               |
| size      | the most that is accepted: the growth over base (worse, slower), the    |
|           | change (changed, otherwise); empty where something is gone              |
| reason    | why                                                                     |
| commit    | what was accepted; once it is part of base, the line has done its work  |
| expires   | the last day on which the line counts, YYYY-MM-DD                       |

A line that has done its work, is past its day, or fits nothing is told, and changes nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.data.git import git, run_git
from reference_model.errors import UserError
from reports.gate.exact import Difference, Kind, in_order
from reports.gate.pairs import Pair
from reports.gate.timed import Timed

FILE = ".gate-accepted.csv"
Direction = Literal["worse", "changed", "otherwise", "gone", "slower"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
OF_KIND: dict[Kind, Direction] = {
    "worse": "worse",
    "changed: verify": "changed",
    "measured otherwise": "otherwise",
    "gone": "gone",
}
DAYS = 90  # that a line counts, unless it is told


@dataclass(frozen=True)
class Acceptance:
    """One line of the file."""

    benchmark: str
    direction: Direction
    size: float | None
    reason: str
    commit: str
    expires: date

    @property
    def told(self) -> str:
        return f"{self.benchmark} ({self.direction})"

    def fits(self, id: str, direction: Direction, size: float | None) -> bool:
        """Whether a change of so much is accepted. A size is given to six digits."""
        if direction != self.direction or not (
            self.benchmark == id or fnmatchcase(id, self.benchmark)
        ):
            return False
        return self.size is None or size is None or size <= self.size * (1 + 1e-5)


COLUMNS = tuple(field.name for field in fields(Acceptance))


def read_acceptances(repository: Path, commit: str) -> list[Acceptance]:
    """Those of a commit; none without the file. `UserError`, with its line, for what is no line."""
    done = run_git(repository, "cat-file", "blob", f"{commit}:{FILE}")
    if done.returncode != 0:
        return []
    return parse(git(repository, "cat-file", "blob", f"{commit}:{FILE}"))


def parse(text: str) -> list[Acceptance]:
    rows = csv.reader(io.StringIO(text), strict=True)
    found = []
    try:
        for row in rows:
            if row and tuple(row) != COLUMNS:
                found.append(_acceptance(row, rows.line_num))
    except csv.Error as error:
        raise UserError(f"{FILE}, line {rows.line_num}: {error}; write it as accept does") from None
    return found


def _acceptance(row: Sequence[str], line: int) -> Acceptance:
    where = f"{FILE}, line {line}"
    if len(row) != len(COLUMNS):
        raise UserError(f"{where} has {len(row)} columns; give {', '.join(COLUMNS)}")
    benchmark, direction, size, reason, commit, expires = row
    if direction not in DIRECTIONS:
        raise UserError(f"{where}: direction {direction!r} is not one of {', '.join(DIRECTIONS)}")
    if not reason.strip():
        raise UserError(f"{where} gives no reason; say why the change is accepted")
    try:
        most = float(size) if size else None
        day = date.fromisoformat(expires)
    except ValueError as error:
        raise UserError(f"{where}: {error}; a size is a number, a day is YYYY-MM-DD") from None
    if (most is None) != (direction == "gone") or (most is not None and not 0 < most < math.inf):
        raise UserError(f"{where}: size {size!r} is none; give the most that is accepted")
    return Acceptance(benchmark, direction, most, reason, commit, day)


def accepted(
    found: Sequence[Difference], lines: Sequence[Acceptance], repository: Path, base: str
) -> tuple[list[Difference], list[str]]:
    """The differences, of which some are now accepted, and what is to be told of the lines."""
    counting, told = _counting(
        [each for each in lines if each.direction != "slower"], repository, base
    )
    used: set[Acceptance] = set()
    judged = []
    for each in found:
        fitting = _fitting(each, counting)
        if fitting:
            used.add(fitting)
            each = replace(
                each, kind="accepted", because=f"{each.kind}, accepted: {fitting.reason}"
            )
        judged.append(each)
    told += [
        f"the acceptance of {each.told} fits nothing; delete it"
        for each in counting
        if each not in used
    ]
    return in_order(judged), told


def _fitting(each: Difference, lines: Iterable[Acceptance]) -> Acceptance | None:
    direction = OF_KIND.get(each.kind)
    if direction is None:
        return None
    return next((line for line in lines if line.fits(each.id, direction, size_of(each))), None)


def size_of(each: Difference) -> float | None:
    """The growth over base of what got worse, the change of what changed; None: it has no size."""
    if each.base is None or each.head is None:
        return None
    change = abs(each.head - each.base)
    return change / abs(each.base) if each.kind == "worse" and each.base else change


class Slowness:
    """Slowdowns that are accepted: they are taken off what is measured, and the rest is judged."""

    def __init__(
        self, lines: Sequence[Acceptance], ids: Sequence[str], repository: Path, base: str
    ) -> None:
        counting, self._told = _counting(
            [each for each in lines if each.direction == "slower"], repository, base
        )
        self._lines = {id: line for line in counting for id in ids if line.fits(id, "slower", None)}
        unused = [line for line in counting if line not in self._lines.values()]
        self._told += [f"the acceptance of {line.told} fits nothing; delete it" for line in unused]

    def taken_off(self, pair: Pair) -> Pair:
        """The pair as it would be, had head not got slower by what is accepted."""
        ratios = {
            id: ratio - math.log1p(self._lines[id].size or 0.0) if id in self._lines else ratio
            for id, ratio in pair.log_ratios.items()
        }
        return replace(pair, log_ratios=ratios)

    def told(self, found: Timed) -> list[str]:
        """What a reader of the result has to know."""
        told = list(self._told)
        for id, judged in zip(found.ids, found.decision.benchmarks, strict=False):
            if id not in self._lines:
                continue
            size = self._lines[id].size or 0.0
            told.append(
                f"{id} may be {100 * size:.3g} % slower, accepted: {self._lines[id].reason}"
            )
            high = judged.interval[1]
            if high is not None and high * (1 + size) < 1 + size / 2:
                told.append(
                    f"the acceptance of {self._lines[id].told} is no longer needed; delete it"
                )
        return told


def _counting(
    lines: Sequence[Acceptance], repository: Path, base: str
) -> tuple[list[Acceptance], list[str]]:
    """The lines that still count, and why the others do not."""
    counting, told = [], []
    today = datetime.now(UTC).date()
    for line in lines:
        if line.expires < today:
            told.append(f"the acceptance of {line.told} ended on {line.expires}; delete it")
        elif _is_part(repository, line.commit, base):
            told.append(f"the acceptance of {line.told} has done its work, base has it; delete it")
        else:
            counting.append(line)
    return counting, told


def _is_part(repository: Path, commit: str, base: str) -> bool:
    """Whether base has the commit in its history; one that is not known here is no part of it."""
    return run_git(repository, "merge-base", "--is-ancestor", commit, base).returncode == 0


def lines_for(report: dict[str, Any], reason: str, days: int = DAYS) -> list[Acceptance]:
    """A line for each thing that fails in a gate's report; `UserError` where nothing does."""
    commit, expires = report["head"]["commit"], datetime.now(UTC).date() + timedelta(days=days)
    found = []
    for each in report["exact"]["differences"]:
        direction = OF_KIND.get(each["kind"])
        if direction is not None:
            size = size_of(Difference(each["id"], each["kind"], each["base"], each["head"]))
            kept = None if direction == "gone" else _rounded_up(size or 1.0)
            kept_as: Direction = "gone" if size is None else direction
            found.append(
                Acceptance(
                    each["id"], kept_as, None if size is None else kept, reason, commit, expires
                )
            )
    for each in report["timed"]:
        if each["outcome"] == "regression":
            high = each["interval"][1] or each["effect"]
            found.append(
                Acceptance(each["id"], "slower", _rounded_up(high - 1), reason, commit, expires)
            )
    if not found:
        raise UserError(f"this report is a {report['verdict']}: there is nothing to accept")
    return found


def _rounded_up(size: float) -> float:
    """To two digits more than it takes to say it."""
    power = 10.0 ** (math.floor(math.log10(size)) - 1)
    return float(f"{math.ceil(size / power - 1e-9) * power:.6g}")


def as_csv(lines: Sequence[Acceptance], heading: bool) -> str:
    """Lines of the file, under the names of its columns where there are none yet."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if heading:
        rows.writerow(COLUMNS)
    for line in lines:
        rows.writerow("" if value is None else value for value in astuple(line))
    return text.getvalue()
