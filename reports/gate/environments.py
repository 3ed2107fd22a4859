"""An environment for each of two commits that need different packages, as options for the gate.

`python -m reports.gate.environments --base REV --head REV` prints `--base-python` and
`--head-python`, a word a line, or nothing where one environment serves both. What pip installs of a
commit's locks, or of the plain list before them, is kept under .venv-gate/ until it was not asked
for in a week.

It is not part of the gate: to install takes longer than a gate may, and needs a network. Whatever
goes wrong here is told and leaves the gate without the options; how it then ends is its own to say.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

from filelock import FileLock
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from benchmarks.data.git import git, top_of
from benchmarks.data.install_failures import explain
from benchmarks.data.locks import TORCH, TORCH_CPU
from benchmarks.set_up import Failed, create, install, python_of
from reference_model.command_line import STATUSES, Parser, exit_status
from reference_model.errors import UserError
from reference_model.printing import say, warn
from reports.gate.revisions import (
    LISTS,
    PINS,
    PROJECT,
    changed_environment,
    commit_of,
    lists_of,
    pinned,
    short,
)

FOLDER = ".venv-gate"  # at the top of the repository
KEPT_SECONDS = 7 * 24 * 3600.0  # an environment takes a gigabyte


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupted)  # so that pip ends, too

    def command() -> None:
        given = _parser().parse_args(arguments)
        try:
            say("\n".join(options(Path.cwd(), given.base, given.head)))
        except Failed as failed:
            warn(f"no environments: {explain(failed.said, Path.cwd()) or failed}")
        except UserError as error:
            warn(f"no environments: {error}")

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate.environments",
        description="Make an environment for each commit where they need different packages.",
        example="--base HEAD~1 --head HEAD",
        statuses=STATUSES | {0: "done; options for the gate are printed, a line each, or none"},
    )
    parser.add_argument("--base", required=True, help="commit to compare with")
    parser.add_argument("--head", required=True, help="commit that is judged")
    return parser


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def options(repository: Path, base: str, head: str) -> list[str]:
    """``--base-python`` and ``--head-python`` where the commits differ in what they need.

    Paths are relative to the current folder: above it a name may hold a line feed, which ends one.
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
        _forget(top / FOLDER)
    told = "one environment serves both" if len(set(pythons)) == 1 else "each has its own"
    warn(f"{changed} differ: {told}")
    return [
        f"--{name}-python={os.path.relpath(python)}"
        for name, python in zip(("base", "head"), pythons, strict=True)
    ]


def _check_python(top: Path, commit: str) -> None:
    """`UserError` where the commit does not run on this Python, of which all environments are."""
    listed = git(top, "ls-tree", "--full-tree", commit, "--", PROJECT)
    text = git(top, "cat-file", "blob", f"{commit}:{PROJECT}") if listed else ""
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
    with FileLock(folder / "lock"):
        yield


def _python(top: Path, commit: str) -> Path:
    """The interpreter of an environment with what the commit pins."""
    lists = lists_of(top, commit)
    if PINS not in lists:
        raise UserError(f"{short(commit)} has no {PINS} to install from")
    pins = pinned(lists)
    if _checked_out(top) == pins and _installed(pins):
        return Path(sys.executable)
    text = "\n".join((sys.version, *sorted(f"{name} {pin}" for name, pin in pins.items())))
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    made = [complete.parent for complete in (top / FOLDER).glob(f"{name}-*/complete")]
    if not made:
        warn(f"installing what {short(commit)} pins")
        # A folder that no other try has: of one that was killed, pip may live on and write.
        made = [Path(tempfile.mkdtemp(prefix=f"{name}-", dir=top / FOLDER))]
        _install(made[0], lists)
    (made[0] / "complete").touch()  # last, so that an interrupted installation is begun again
    return python_of(made[0])


def _install(folder: Path, lists: Mapping[str, str]) -> None:
    try:
        create(folder)
        for name, text in lists.items():
            (folder / name).write_text(text, encoding="utf-8")
        torch = [folder / name for name in (TORCH_CPU, TORCH) if name in lists]
        install(python_of(folder), [folder / PINS], torch)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _checked_out(top: Path) -> dict[str, str]:
    """What the files of the work tree pin."""
    return pinned(
        {name: (top / name).read_text(encoding="utf-8") for name in LISTS if (top / name).is_file()}
    )


def _installed(pins: Mapping[str, str]) -> bool:
    """Whether the running interpreter's environment is the one that was asked for."""
    try:
        return all(
            SpecifierSet(wanted).contains(metadata.version(name), prereleases=True)
            for name, wanted in pins.items()
        )
    except (InvalidSpecifier, ValueError, metadata.PackageNotFoundError):
        return False


def _forget(folder: Path) -> None:
    """Remove what nobody asked for in a week, and what a gate that was killed left half made."""
    for each in folder.iterdir():
        complete = each / "complete"
        if not each.is_dir():
            continue
        if not complete.exists() or time.time() - complete.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(each, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
