"""What an instrument hands back: a figure with its source, or the reason there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One measured figure; ValueError where it is not finite.

    `source` names what was read ("buffers", "allocator", "NVML device, v2"), because figures
    from two sources are not comparable even when they share a unit.
    """

    value: float
    unit: str
    source: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.source} gave {self.value} {self.unit}: no measurement")


@dataclass(frozen=True)
class Unavailable:
    """A figure that could not be read, and why.

    It stands where the `Reading` would: never a 0, and never another source in silence.
    """

    reason: str
    source: str
