"""All changes that are put into the repository, and those of them that are asked for."""

from __future__ import annotations

import fnmatch

from reference_model.errors import UserError
from reports.gate.validation.faults.change import FAULTY, HARMLESS, Change, Group
from reports.gate.validation.faults.instruments import INSTRUMENTS
from reports.gate.validation.faults.memory import MEMORY
from reports.gate.validation.faults.quality import QUALITY
from reports.gate.validation.faults.rewrites import REWRITES
from reports.gate.validation.faults.speed import SPEED
from reports.gate.validation.faults.statistics import STATISTICS

GROUPS: tuple[Group, ...] = (*FAULTY, HARMLESS)
ALL: tuple[Change, ...] = (*SPEED, *MEMORY, *QUALITY, *INSTRUMENTS, *STATISTICS, *REWRITES)


def chosen(group: str | None = None, only: str | None = None) -> list[Change]:
    """Those of a group whose name fits a pattern; `UserError` where there are none."""
    found = [
        change
        for change in ALL
        if group in (None, change.group) and (not only or fnmatch.fnmatchcase(change.name, only))
    ]
    if not found:
        among = f"the group {group}" if group else "any group"
        raise UserError(f"--only {only!r} matches no change of {among}; such as '*cache*' would")
    return found
