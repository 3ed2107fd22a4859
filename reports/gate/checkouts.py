"""Two checkouts that differ in the model alone: each commit's own, measured by head's benchmarks.

One environment serves both, the running interpreter's, unless the commits want different packages:
then the caller names an interpreter for each. Building them here would take longer than a gate may,
and needs a network.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.data.git import git
from benchmarks.data.git_export import LINK, SUBMODULE, Entry, export
from reference_model.errors import UserError
from reports.gate.revisions import (
    BENCHMARKS,
    MODEL,
    check_clean,
    check_environment,
    check_repository,
    commit_of,
    short,
)
from reports.gate.workplace import workplace

WORKER = "benchmarks/gate_worker.py"
ELSEWHERE = b"version https://git-lfs.github.com/spec/"  # how git-lfs begins what it lets git store


@dataclass(frozen=True)
class Checkout:
    """One side of the comparison: what git stores of its commit, and who runs it."""

    name: str  # base or head
    commit: str
    folder: Path
    model_tree: str  # git's hash of the reference_model that it has to import
    python: str
    own_suite: Path | None = None  # a checkout with base's own benchmarks; here head's are in place
    suite_differs: bool = False  # base's from head's
    variables: Mapping[str, str] = field(default_factory=dict)  # of its processes


Checkouts = tuple[Checkout, Checkout]  # base's and head's


@contextmanager
def checked_out(
    repository: Path,
    base: str,
    head: str,
    base_python: str | None = None,
    head_python: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Checkouts]:
    """Two revisions, checked out in a folder that is removed afterwards.

    ``variables`` of the environment are set in all their processes.

    `UserError` for an unknown revision, a shallow clone or uncommitted changes, `NotComparable`
    where the commits need different environments and none are named.
    """
    check_repository(repository)
    commits = {"base": commit_of(repository, base), "head": commit_of(repository, head)}
    check_clean(repository, list(commits.values()))
    pythons = {
        name: _interpreter(f"--{name}-python", given)
        for name, given in (("base", base_python), ("head", head_python))
    }
    if not all(pythons.values()):
        check_environment(repository, commits["base"], commits["head"])
    if not git(repository, "ls-tree", commits["head"], "--", WORKER):
        raise UserError(f"{head} has no {WORKER}: head must not be older than the gate")
    with workplace() as folder:
        yield tuple(  # type: ignore[misc]
            replace(
                _checkout(repository, name, commits, folder, pythons[name]),
                variables=variables or {},
            )
            for name in ("base", "head")
        )


def _checkout(
    repository: Path, name: str, commits: dict[str, str], parent: Path, python: str | None
) -> Checkout:
    # Names of one length: the length of a path is part of a process's layout.
    commit, folder = commits[name], parent / name
    try:
        model_tree = git(repository, "rev-parse", "--verify", f"{commit}:{MODEL}")
    except UserError:
        raise UserError(f"{short(commit)} has no {MODEL}/, and so nothing to measure") from None
    _check_stored(commit, folder, export(repository, commit, folder))
    if name == "base":
        own = parent / "own suite"
        own.mkdir()
        shutil.copytree(folder / MODEL, own / MODEL, symlinks=True)
        if (folder / BENCHMARKS).exists():
            shutil.move(folder / BENCHMARKS, own)
        export(repository, f"{commits['head']}:{BENCHMARKS}", folder / BENCHMARKS)
        suites = [git(repository, "ls-tree", each, "--", BENCHMARKS) for each in commits.values()]
        knows_the_gate = (own / WORKER).exists()
        return Checkout(name, commit, folder, model_tree, python or sys.executable,
                   own if knows_the_gate else None, suites[0] != suites[1])  # fmt: skip
    return Checkout(name, commit, folder, model_tree, python or sys.executable)


def _check_stored(commit: str, folder: Path, entries: Sequence[Entry]) -> None:
    """`UserError` where git does not have what is to be measured, but a pointer to it."""
    for entry in entries:
        if not entry.path.startswith((f"{MODEL}/", f"{BENCHMARKS}/")) or entry.mode == LINK:
            continue
        if entry.mode == SUBMODULE:
            keeper = "a submodule"
        elif _begins_with(folder / entry.path, ELSEWHERE):
            keeper = "kept by git-lfs"
        else:
            continue
        raise UserError(
            f"{entry.path} of {short(commit)} is {keeper}, so that git stores no content of it; "
            "the gate measures what git stores: commit the files themselves"
        )


def _begins_with(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)) == content


def _interpreter(option: str, given: str | None) -> str | None:
    """Its path, since processes run elsewhere; links are kept: a virtual environment's is one."""
    if given is None:
        return None
    found = shutil.which(given)
    if found is None:
        raise UserError(f"{option} {given}: there is no such program")
    return os.path.abspath(found)


def check_origin(checkout: Checkout, hello: dict[str, object]) -> None:
    """`UserError` unless a process of a checkout imported its own packages, unchanged."""
    for package in (MODEL, BENCHMARKS):
        if Path(str(hello[package])) != checkout.folder / package:
            raise UserError(
                f"{checkout.name} imported {package} from {hello[package]}, not from its own "
                "commit; an installed copy stands in the way: uninstall it"
            )
    if hello["tree"] != checkout.model_tree:
        raise UserError(
            f"{checkout.name} imported a {MODEL} whose tree is {hello['tree']}, not "
            f"{checkout.model_tree} of {short(checkout.commit)}; its files were changed meanwhile"
        )
