"""python -m tests.run_killed [PROFILE]: a run that is ended at 20 random moments, and what is left.

By hand, since it takes as long as a whole run and what 20 starts cost. Kills go by signal in turns
(KILL, TERM, INT, HUP). Exit status 0: no finished cell was measured twice or lost, each end came
within two seconds, and the results equal those of an undisturbed run in all that is no time.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.record.results import read_results
from benchmarks.record.store import Record

MOMENTS = 20
LONGEST_LIFE = 60  # seconds until the next kill, at the most
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OF_A_CLOCK = ("clock", "profiler")


def main(profile: str = "smoke") -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        start = monotonic()
        if command(profile, folder, "undisturbed").wait() != 0:
            return 1
        whole = monotonic() - start
        print(f"undisturbed: {whole:.0f} s", flush=True)
        slowest, draws, finished, part = 0.0, random.Random(0), 0, "part 0"
        for moment in range(MOMENTS):
            run, number = command(profile, folder, part), SIGNALS[moment % len(SIGNALS)]
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(draws.uniform(0, min(whole / 2, LONGEST_LIFE)))
            if run.poll() == 0:  # it was done before its moment: the next begins anew
                finished += 1
                part = f"part {finished}"
                run = command(profile, folder, part)
            run.send_signal(number)
            asked = monotonic()
            run.wait()
            took = monotonic() - asked
            slowest = max(slowest, took)
            record = folder / f"{part}.sqlite"
            kept = len(list(Record(record).lines())) if record.exists() else 0
            told = f"{number.name}, {kept} cells kept, ended in {took:.2f} s"
            print(f"{moment + 1}: {told}", flush=True)
        if command(profile, folder, part).wait() != 0:
            return 1
        twice, same = 0, True
        for index in range(finished + 1):
            lines = Record(folder / f"part {index}.sqlite").lines()
            twice += sum(count - 1 for count in Counter(line.key for line in lines).values())
            expected = results(folder / "undisturbed.json")
            same &= results(folder / f"part {index}.json") == expected
    print(f"measured twice: {twice}; slowest end: {slowest:.2f} s; results equal: {same}")
    return int(bool(twice) or not same or slowest > 2)


def command(profile: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    where = ["--record", folder / f"{name}.sqlite", "--out", folder / f"{name}.json"]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "run", "--profile", profile, *where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_all,
    )


def heed_all() -> None:
    """A shell's background lets its children ignore some signals, which a run would then, too."""
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)


def results(path: Path) -> list[dict[str, Any]]:
    """The measurements that are no times."""
    found = read_results(path)["measurements"]
    return [m for m in found if not any(part in m["source"] for part in OF_A_CLOCK)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
