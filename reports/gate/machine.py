"""What the machine did beside the work: stolen time, load, clock and throttling, pair by pair."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.instruments.environment import StealClock

CPUS, CPU_INFO = Path("/sys/devices/system/cpu"), Path("/proc/cpuinfo")
MUCH_STOLEN = 0.02  # of all processor time
OWN_LOAD = 4  # the gate's own share: one process steps while the three of the next pair start


class Watch:
    """From its making to `reading`."""

    def __init__(self) -> None:
        self._steal, self._throttles = StealClock(), _throttles()

    def reading(self) -> dict[str, Any]:
        """None for what the system does not show."""
        stolen, throttles = self._steal.share(), _throttles()
        counted = None not in (throttles, self._throttles)
        return {
            "stolen": stolen if isinstance(stolen, float) else None,
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "megahertz": _megahertz(),
            "throttled": throttles - self._throttles if counted else None,  # type: ignore[operator]
        }


def _throttles() -> int | None:
    """How often the processors were slowed down since boot, for their heat."""
    counts = [_int(path) for path in CPUS.glob("cpu*/thermal_throttle/core_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _int(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _megahertz() -> float | None:
    try:
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", CPU_INFO.read_text(), flags=re.MULTILINE)
    except OSError:
        return None
    return round(statistics.fmean(map(float, found)), 1) if found else None


def troubles(readings: Sequence[dict[str, Any]]) -> list[str]:
    """What of the readings explains that pairs scatter, in words."""
    found = []
    stolen = [r["stolen"] for r in readings if r["stolen"] is not None]
    if stolen and statistics.fmean(stolen) > MUCH_STOLEN:
        found.append(f"{100 * statistics.fmean(stolen):.0f} % of the time went to other machines")
    loads = [r["load"] for r in readings if r["load"] is not None]
    cores = os.cpu_count() or 1
    if loads and statistics.median(loads) > cores + OWN_LOAD - 1:
        found.append(f"a load of {statistics.median(loads):.1f} on {cores} processors")
    throttled = sum(r["throttled"] or 0 for r in readings)
    if throttled:
        found.append(f"the processor was throttled {throttled} times")
    clocks = [r["megahertz"] for r in readings if r["megahertz"]]
    if clocks and max(clocks) > 1.1 * min(clocks):
        found.append(f"a clock between {min(clocks):.0f} and {max(clocks):.0f} MHz")
    return found
