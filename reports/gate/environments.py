"""An environment for each of two commits that need different packages, as options for the gate.

`python -m reports.gate.environments --base REV --head REV` prints `--base-python` and
`--head-python`, or nothing where one environment serves both. What pip installs from a commit's
requirements.txt is kept under .venv-gate/ until it was not asked for in a week.

It is not part of the gate: to install takes longer than a gate may, and needs a network. Whatever
goes wrong here is told and leaves the gate without the options; how it then ends is its own to say.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from benchmarks.git import git, top_of
from reference_model.command_line import Parser, exit_status
from reference_model.errors import UserError
from reference_model.printing import say, warn
from reports.gate.revisions import PINS, PROJECT, changed_environment, commit_of, short

FOLDER = ".venv-gate"  # at the top of the repository
KEPT_SECONDS = 7 * 24 * 3600.0  # an environment takes a gigabyte


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupted)  # so that pip ends, too

    def command() -> None:
        parser = Parser(prog="python -m reports.gate.environments", description="For the gate.")
        parser.add_argument("--base", required=True, help="revision, as of the gate")
        parser.add_argument("--head", required=True, help="revision, as of the gate")
        given = parser.parse_args(arguments)
        try:
            say(" ".join(options(Path.cwd(), given.base, given.head)))
        except UserError as error:
            warn(f"no environments: {error}")

    return exit_status(command)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def options(repository: Path, base: str, head: str) -> list[str]:
    """``--base-python`` and ``--head-python`` where the commits differ in what they need.

    Paths are relative to the current folder: a shell splits words at spaces, which may be above it.
    """
    try:
        top = top_of(repository)
        commits = [commit_of(top, revision) for revision in (base, head)]
        changed = changed_environment(top, *commits)
    except UserError:
        return []  # the gate meets the same, and says so
    if changed is None:
        return []
    for commit in commits:
        _check_python(top, commit)
    with _alone(top / FOLDER):
        pythons = [_python(top, commit) for commit in commits]
        _forget_old(top / FOLDER)
    told = "one environment serves both" if len(set(pythons)) == 1 else "each has its own"
    warn(f"{changed} differ: {told}")
    return [
        f"--{name}-python={os.path.relpath(python)}"
        for name, python in zip(("base", "head"), pythons, strict=True)
    ]


def _check_python(top: Path, commit: str) -> None:
    """`UserError` where the commit does not run on this Python, of which all environments are."""
    text = git(top, "show", f"{commit}:{PROJECT}") if _has(top, commit, PROJECT) else ""
    wanted = tomllib.loads(text).get("project", {}).get("requires-python", "")
    here = ".".join(map(str, sys.version_info[:3]))
    try:
        suits = SpecifierSet(wanted).contains(here)
    except InvalidSpecifier:
        raise UserError(f"requires-python of {short(commit)} is no range: {wanted!r}") from None
    if not suits:
        raise UserError(f"{short(commit)} requires Python {wanted}, and this is {here}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of two gates that install at once, one waits."""
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")  # to the gate, it is no change of the repository
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _python(top: Path, commit: str) -> Path:
    """The interpreter of an environment with what the commit pins."""
    if not _has(top, commit, PINS):
        raise UserError(f"{short(commit)} has no {PINS} to install from")
    pins = _pins(git(top, "show", f"{commit}:{PINS}"))
    here = top / PINS
    if here.exists() and _pins(here.read_text(encoding="utf-8")) == pins and _installed(pins):
        return Path(sys.executable)
    name = hashlib.sha256("\n".join((sys.version, *pins)).encode()).hexdigest()[:12]
    folder = top / FOLDER / name
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        warn(f"installing what {short(commit)} pins")
        try:
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            wanted = folder / PINS
            wanted.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
            _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                 "--requirement", str(wanted))  # fmt: skip
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    complete.touch()  # last, so that an interrupted installation is begun again
    return python


def _has(top: Path, commit: str, path: str) -> bool:
    return bool(git(top, "ls-tree", "--full-tree", commit, "--", path))


def _pins(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _installed(pins: Sequence[str]) -> bool:
    """Whether the running interpreter's environment is the one that was asked for."""
    try:
        wanted = [Requirement(pin) for pin in pins]
        return all(
            each.specifier.contains(metadata.version(each.name), prereleases=True)
            for each in wanted
            if each.marker is None or each.marker.evaluate()
        )
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{' '.join(command[1:4])} failed: {said[-1] if said else ''}")


def _forget_old(folder: Path) -> None:
    for complete in folder.glob("*/complete"):
        if time.time() - complete.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(complete.parent, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
