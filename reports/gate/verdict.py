"""What a gate may say, and the exit status that says it.

Python, argparse and make use 1 and 2 for failures of their own, so that neither is used here.
"""

from __future__ import annotations

from enum import IntEnum

from reference_model.errors import UserError


class Verdict(IntEnum):
    PASS = 0
    REGRESSION = 10
    INCONCLUSIVE = 11
    ERROR = 12
    NOT_COMPARABLE = 13

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


class NotComparable(UserError):
    """Nothing is wrong, but what differs between the commits is not the model alone."""
