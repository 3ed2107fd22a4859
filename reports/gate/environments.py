"""An environment for each of two commits that need different packages, as options for the gate.

`python -m reports.gate.environments --base REV --head REV` prints `--base-python` and
`--head-python`, or nothing where one environment serves both. What pip installs from a commit's
requirements.txt is kept under .venv-gate/ until other commits are compared.

It is not part of the gate: to install takes longer than a gate may, and needs a network. Whatever
goes wrong here is told and leaves the gate without the options; how it then ends is its own to say.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_model.command_line import Parser, exit_status
from reference_model.errors import UserError
from reports.gate.revisions import PINS, changed_environment, commit_of, short
from reports.git import git

FOLDER = ".venv-gate"  # of the repository, which ignores it


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> None:
        parser = Parser(prog="python -m reports.gate.environments", description="For the gate.")
        parser.add_argument("--base", required=True, help="revision, as of the gate")
        parser.add_argument("--head", required=True, help="revision, as of the gate")
        given = parser.parse_args(arguments)
        try:
            print(*options(Path.cwd(), given.base, given.head))
        except UserError as error:
            _tell(f"no environments: {error}")

    return exit_status(command)


def options(repository: Path, base: str, head: str) -> list[str]:
    """``--base-python`` and ``--head-python`` where the commits differ in what they need.

    Paths are relative to the current folder: a shell splits them nowhere, whatever lies above it.
    """
    try:
        commits = [commit_of(repository, revision) for revision in (base, head)]
        changed = changed_environment(repository, *commits)
    except UserError:
        return []  # of such revisions the gate itself complains
    if changed is None:
        return []
    _tell(f"{changed} differ: each commit is measured in an environment of its own")
    top = Path(git(repository, "rev-parse", "--show-toplevel"))
    pythons = [_python(top, commit) for commit in commits]
    _forget_all_but(top / FOLDER, pythons)
    return [
        f"--{name}-python={os.path.relpath(python)}"
        for name, python in zip(("base", "head"), pythons, strict=True)
    ]


def _python(top: Path, commit: str) -> Path:
    """The interpreter of an environment with what the commit pins."""
    if not git(top, "ls-tree", commit, "--", PINS):
        raise UserError(f"{short(commit)} has no {PINS} to install from")
    pins = git(top, "show", f"{commit}:{PINS}")
    here = top / PINS
    if here.exists() and here.read_text(encoding="utf-8").strip() == pins:
        return Path(sys.executable)  # `make setup` made it of these
    folder = top / FOLDER / hashlib.sha256(f"{sys.version}\n{pins}".encode()).hexdigest()[:12]
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        _tell(f"installing what {short(commit)} pins")
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        wanted = folder / PINS
        wanted.write_text(f"{pins}\n", encoding="utf-8")
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--requirement", str(wanted))  # fmt: skip
        complete.touch()  # last, so that an interrupted installation is begun again
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command[1:4])} failed: {said[-1] if said else ''}")


def _forget_all_but(folder: Path, pythons: Sequence[Path]) -> None:
    """Environments take a gigabyte each."""
    kept = {python.parents[1] for python in pythons}
    for other in folder.iterdir() if folder.exists() else ():
        if other not in kept:
            shutil.rmtree(other, ignore_errors=True)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
