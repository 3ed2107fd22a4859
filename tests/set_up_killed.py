"""`make setup` killed with -9 at ten moments and called again; and five pairs at once.

By hand, since it takes half an hour: `python tests/set_up_killed.py` prints what worked and exits
with 1 where something did not. It clones the repository into a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOMENTS = (0.3, 0.5, 0.8, 1.3, 2.0, 3.2, 5.0, 8.0, 12.5, 20.0)  # seconds after the start
PAIRS = 5
WORKS = "import pip, torch, transformers, asv; assert torch.ones(2).sum() == 2"


def start(checkout: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    with (checkout.parent / "log").open("ab") as log:
        return subprocess.Popen(
            ["make", "setup"],
            cwd=checkout,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def works(checkout: Path) -> bool:
    program = [checkout / ".venv/bin/python", "-c", WORKS]
    check = [checkout / ".venv/bin/python", "-m", "pip", "check"]
    return all(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in (program, check)
    )


def killed(checkout: Path, moment: float, everything: bool) -> bool:
    """Whether a second call works, after the first was killed, with all that it had started or not.

    What lives on goes on to write while the second is under way.
    """
    process = start(checkout)
    time.sleep(moment)
    if everything:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    return start(checkout).wait() == 0 and works(checkout)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "a checkout"
        subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
        good = []
        for number, moment in enumerate(MOMENTS):
            shutil.rmtree(checkout / ".venv", ignore_errors=True)
            everything = number % 2 == 0
            good.append(killed(checkout, moment, everything))
            what = "all processes" if everything else "make alone"
            print(
                f"{what} killed after {moment} s: {'works' if good[-1] else 'FAILED'}", flush=True
            )
        pairs = []
        for number in range(1, PAIRS + 1):
            shutil.rmtree(checkout / ".venv", ignore_errors=True)
            both = [start(checkout), start(checkout)]
            pairs.append([each.wait() for each in both] == [0, 0] and works(checkout))
            print(f"pair {number}: {'works' if pairs[-1] else 'FAILED'}", flush=True)
        if not all(good + pairs):
            print((checkout.parent / "log").read_text(errors="replace")[-5000:])
    print(f"{sum(good)} of {len(good)} after a kill, {sum(pairs)} of {len(pairs)} pairs")
    return 0 if all(good + pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
