"""Measure the last commits with asv, and write their pages: what `make history` runs.

Results of a run in which something failed are shown, too; the exit status tells. asv saves
what it measured at a commit at the end of that commit, so it is run for one file of the suite after
the other: when it is killed, one file's results of one commit are lost, and the next run goes on
there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from benchmarks.data.git import for_others, git
from benchmarks.data.install_failures import explain
from benchmarks.data.locks import ROOT, versions
from benchmarks.experiments.experiment import PROFILES
from benchmarks.instruments.nvml import driver_version
from benchmarks.instruments.readings import Unavailable
from reference_model.command_line import STATUSES, Parser, exit_status
from reference_model.devices import resolve_device
from reference_model.errors import UserError
from reference_model.files import check_writable, write_whole
from reference_model.printing import warn
from reports.__main__ import main as reports_main

STORE = ROOT / ".asv"
LOG = "set_up.log"  # in the store: what asv said as it made its environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> int:
        given = _parser().parse_args(arguments)
        check_writable(given.out)
        # Profiles are stored apart: what one has measured the other has not.
        measured = _measure(given.commits, given.profile, f"{given.machine}-{given.profile}")
        published = _asv("publish")
        shown = reports_main(["history", str(STORE / "results"), "--out", str(given.out)])
        return published or shown or measured

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.history.measure",
        description="Measure the last commits with asv, and write a page of all series.",
        example="--commits 3 --profile smoke --out history.html",
        statuses=STATUSES
        | {
            1: "asv itself failed; what was measured is kept and shown",
            2: "wrong input, or a benchmark failed: the messages name it",
        },
    )
    told = "how many, from HEAD back along first parents (default: 5)"
    parser.add_argument("--commits", type=_count, default=5, help=told)
    told = "workload of the benchmarks (default: quick)"
    parser.add_argument("--profile", choices=PROFILES, default="quick", help=told)
    told = "name of this machine in the results (default: local)"
    parser.add_argument("--machine", type=_name, default="local", help=told)
    parser.add_argument("--out", type=Path, required=True, help="the page, such as history.html")
    return parser


def _measure(commits: int, profile: str, machine: str) -> int:
    from asv.machine import Machine, MachineCollection

    # asv would call the machine by its host's name, and ask for it.
    MachineCollection.save(machine, {**Machine.get_defaults(), "machine": machine})
    hashes = git(ROOT, "rev-list", "--first-parent", f"--max-count={commits}", "HEAD")
    write_whole(STORE, {"versions.txt": versions().encode()})
    settings = {
        "LLM_DESIGN_BENCH_PROFILE": profile,
        # A history belongs to one machine, which either has a GPU or not.
        "LLM_DESIGN_BENCH_DEVICE": resolve_device("auto"),
        # An address: pip would take a path with a blank for two.
        "PIP_CONSTRAINT": (STORE / "versions.txt").as_uri(),
    }

    words = ("run", "--machine", machine, "--skip-existing-successful", "--show-stderr")

    def run(*more: str, log: Path | None = None) -> int:
        return _asv(*words, *more, "HASHFILE:-", text=f"{hashes}\n", settings=settings, log=log)

    if not (STORE / "env").exists():
        warn("asv makes an environment of its own, which takes a minute or more")
    # By this name asv finds out which benchmarks there are, and measures none.
    log = STORE / LOG
    if run("--bench", "just-discover", log=log):
        why = explain(log.read_text("utf-8", "replace"), STORE)
        why = why or "asv cannot make its environment or find the benchmarks; see what it said"
        raise UserError(f"{why} (all that was said: {log})")
    launch = launch_method()
    statuses = [run(*launch, "--bench", each) for each in slices()]
    return next(filter(None, statuses), 0)


def slices() -> list[str]:
    """Regular expressions that asv searches names by: each finds the benchmarks of one file."""
    return [
        rf"^{path.stem}\." for path in sorted((ROOT / "benchmarks" / "suite").glob("bench_*.py"))
    ]


def launch_method() -> tuple[str, ...]:
    """Words that let asv fork each benchmark from one process, which has imported PyTorch.

    None where there is a GPU, since CUDA does not survive a fork, and none but on Linux, where the
    system's own libraries do: there asv.conf.json has a new interpreter for each.
    """
    if sys.platform != "linux" or not isinstance(driver_version(), Unavailable):
        return ()
    return ("--launch-method", "forkserver")


def _asv(
    *words: str,
    text: str = "",
    settings: dict[str, str] | None = None,
    log: Path | None = None,
) -> int:
    """asv's exit status. What it says goes to the terminal, or into ``log``."""
    command = [sys.executable, "-m", "asv", *words]
    with log.open("w", encoding="utf-8") if log else nullcontext() as output:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=for_others() | (settings or {}),
            input=text,
            text=True,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of commits from 1 on")
    return int(text)


def _name(text: str) -> str:
    """It becomes a folder of results."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a machine: use letters, digits, dots and dashes"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
