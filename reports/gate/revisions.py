"""Which commits are compared, by git, and what stands against comparing them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.machinery import all_suffixes
from pathlib import Path

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from benchmarks.data import locks
from benchmarks.data.git import Change, answer, changes, git, run_git
from reference_model.errors import UserError
from reports.gate.verdict import NotComparable

MODEL, BENCHMARKS = "reference_model", "benchmarks"
PINS, PROJECT = locks.MAIN, "pyproject.toml"
LISTS = (locks.MAIN, locks.TORCH_CPU, locks.TORCH)  # one list, plain, in commits before the locks
MEASURED = (MODEL, BENCHMARKS, *LISTS, PROJECT)  # at the top of a repository


def check_repository(repository: Path) -> None:
    """`UserError` unless ``repository`` is a whole clone."""
    if git(repository, "rev-parse", "--is-shallow-repository") == "true":
        raise UserError("this is a shallow clone; get the history first: git fetch --unshallow")


def commit_of(repository: Path, revision: str) -> str:
    """The commit that a revision names, in full."""
    done = run_git(
        repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"
    )
    if done.returncode != 0:
        raise UserError(
            f"{revision!r} names no commit of this repository; git log --oneline lists them"
        )
    return answer(done).splitlines()[-1]  # before it, git 2.29 repeats the option


def check_clean(repository: Path, commits: list[str]) -> None:
    """`UserError` where a commit is checked out here and changes to it are not committed.

    They would not be measured, and whoever asked for HEAD most likely means them. What is neither
    measured nor can be imported by it does not matter.
    """
    if git(repository, "rev-parse", "HEAD") not in commits:
        return
    if changed := [change for change in changes(repository) if _matters(change)]:
        aside = " --include-untracked" if any(change.untracked for change in changed) else ""
        raise UserError(
            f"{len(changed)} uncommitted changes, such as {changed[0].path}, would not be "
            f"measured; commit them, or put them aside: git stash{aside}"
        )


def _matters(change: Change) -> bool:
    first = change.path.split("/")[0]
    # What is committed cannot import, elsewhere, a module that git does not know.
    imported = not change.untracked and change.path.endswith(tuple(all_suffixes()))
    return first in MEASURED or imported


def changed_environment(repository: Path, base: str, head: str) -> str | None:
    """What of the environment differs between two commits; None where nothing does."""
    if pinned(lists_of(repository, base)) != pinned(lists_of(repository, head)):
        return f"the pinned versions of {PINS}"
    for name, part in _requirements(repository, base).items():
        if part != _requirements(repository, head)[name]:
            return f"{name} of {PROJECT}"
    return None


def check_environment(repository: Path, base: str, head: str) -> None:
    """`NotComparable` where one environment cannot serve both commits."""
    if changed := changed_environment(repository, base, head):
        raise NotComparable(
            f"{changed} differ: what is faster then is not the model alone; compare in one "
            "environment, or give each commit its own with --base-python and --head-python"
        )


def lists_of(repository: Path, commit: str) -> dict[str, str]:
    """The content of each list of what the commit needs, by name; empty where it has none."""
    return {name: text for name in LISTS if (text := _content(repository, commit, name))}


def pinned(lists: Mapping[str, str]) -> dict[str, str]:
    """Package → versions, of what applies to this Python and system.

    Of the locks of torch it is torch alone: CUDA's libraries come and go with its build, and a
    label such as +cpu names a build, too.
    """
    found = {}
    for name, text in lists.items():
        for line in locks.requirements_of(text):
            package, versions = _requirement(line)
            if versions is not None and (name == PINS or package == "torch"):
                found[package] = versions
    return found


def _requirement(line: str) -> tuple[str, str | None]:
    """Package and versions; the line itself where it is none, None where it does not apply."""
    try:
        each = Requirement(line)
        applies = each.marker is None or each.marker.evaluate({"extra": ""})
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
        return line, ""
    versions = re.sub(r"\+[A-Za-z0-9.]+$", "", str(each.specifier))
    return canonicalize_name(each.name), versions if applies else None


def _requirements(repository: Path, commit: str) -> dict[str, object]:
    """Only what decides what is installed: the rest of the file configures tools."""
    text = _content(repository, commit, PROJECT)
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{PROJECT} of {commit[:12]} cannot be read: {error}") from None
    project = known.get("project", {})
    return {
        "requires-python": project.get("requires-python"),
        "dependencies": project.get("dependencies"),
        "build-system": known.get("build-system"),
    }


def _content(repository: Path, commit: str, path: str) -> str:
    if not git(repository, "ls-tree", "--full-tree", commit, "--", path):
        return ""
    return git(repository, "cat-file", "blob", f"{commit}:{path}")


def short(commit: str) -> str:
    return commit[:12] if re.fullmatch(r"[0-9a-f]{40,64}", commit) else commit
