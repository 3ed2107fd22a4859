"""A commit of which it is known beforehand whether it does harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reports.gate.validation.edits import Edit

# Faults are in five groups; a rewrite computes the same, and the control changes nothing.
Group = Literal["speed", "memory", "quality", "instruments", "statistics", "rewrites", "control"]
FAULTY: tuple[Group, ...] = ("speed", "memory", "quality", "instruments", "statistics")
HARMLESS: Group = "rewrites"


@dataclass(frozen=True)
class Change:
    """Edits that make one commit; ``what`` says in a sentence what is different afterwards."""

    group: Group
    name: str  # the subject of the commit as well
    what: str
    edits: tuple[Edit, ...]

    @property
    def digest(self) -> str:
        """Tells edits of one name apart: what was recorded of others is not about these."""
        return hashlib.sha256(json.dumps(self.edits).encode()).hexdigest()[:16]


def of_group(group: Group) -> Callable[..., Change]:
    """What makes a change of this group from its name, its sentence and its edits."""

    def made(name: str, what: str, *edits: Edit) -> Change:
        return Change(group, name, what, edits)

    return made


UNCHANGED = Change("control", "nothing", "Nothing is changed.", ())
