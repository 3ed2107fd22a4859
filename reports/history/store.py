"""The results of `make history` on a branch of their own, which several machines push to at once.

``python -m reports.history.store bring | keep``: asv's result files, from the branch into the
folder and from the folder onto the branch. Nothing that was measured is lost: files that both sides
have are merged benchmark by benchmark, and a push that came too late is merged and pushed again.
Only two processors under one machine's name are not merged.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data.git import git, run_git, told
from benchmarks.data.git_export import export
from reference_model.command_line import Parser, exit_status
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.printing import say, warn
from reports.history.asv_files import MACHINE, SUITE, as_run
from reports.history.result_files import Damaged, json_files, parse, read_bytes

BRANCH, RESULTS = "asv-results", Path(".asv/results")
TRIES = 40  # pushes; each that came too late means that another one's arrived
UNMOVED = 5  # refusals in a row while the branch stays where it was: not a race
AT_ONCE = 500  # files named on one command line
LONGEST_PAUSE = 2.0  # seconds; drawn anew each time, so that two do not meet again and again

Content = dict[str, Any]


def bring(repository: Path, remote: str, results: Path) -> int:
    """Merge what the branch has into the folder of results; the number of files that changed."""
    tip = _tip(repository, remote)
    if tip is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        export(repository, tip, Path(folder))
        return _merge_folder(Path(folder), results)


def keep(
    repository: Path,
    remote: str,
    results: Path,
    message: str,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Put the folder of results onto the branch; False where the branch has all of it already.

    `UserError` where the remote refuses although nobody else pushed, or the folder is not there.
    """
    if not results.is_dir():
        raise UserError(f"{results} is not there; make history writes it")
    tip, unmoved = _tip(repository, remote), 0
    for _ in range(TRIES):
        commit = _commit(repository, tip, results, message)
        if commit is None:
            return False
        # Never forced: what the branch has got meanwhile would be lost.
        pushed = run_git(repository, "push", "--quiet", remote, f"{commit}:refs/heads/{BRANCH}")
        if pushed.returncode == 0:
            return True
        pause(random.uniform(0, LONGEST_PAUSE))
        before, tip = tip, _tip(repository, remote)
        unmoved = unmoved + 1 if tip == before else 0
        if unmoved == UNMOVED:
            raise UserError(f"{remote} refuses {BRANCH}: {told(pushed)}")
    raise UserError(
        f"others pushed {BRANCH} {TRIES} times meanwhile; run it again, nothing is lost"
    )


def merged(ours: Content, theirs: Content) -> Content:
    """Two of asv's result files of one commit and environment, benchmark by benchmark.

    The later measurement stays, unless it has fewer numbers of the same benchmark: a failure
    replaces no result. Of two processors under one machine's name only one file stays, the fuller,
    and a line says so: nobody could tell their rows apart.
    """
    if _processor(ours) != _processor(theirs):
        commit = str(ours.get("commit_hash"))[:8]
        warn(
            f"two processors use one machine's name at {commit}; make history MACHINE=NAME sets it"
        )
        return max(ours, theirs, key=lambda side: len(side["results"]))
    columns = list(dict.fromkeys([*ours["result_columns"], *theirs["result_columns"]]))
    rows = {}
    for name in {**theirs["results"], **ours["results"]}:
        sides = [
            dict(zip(side["result_columns"], side["results"][name], strict=False))
            for side in (ours, theirs)  # `max` takes the first of equals
            if name in side["results"]
        ]
        same = len({json.dumps([row.get("version"), row.get("params")]) for row in sides}) == 1
        best = max(sides, key=lambda row: ((_numbers(row) if same else 0), _started(row)))
        row = [best.get(column) for column in columns]
        while row and row[-1] is None:  # as asv writes them
            row.pop()
        rows[name] = row
    return {**theirs, **ours, "result_columns": columns, "results": rows}


def _processor(content: Content) -> list[Any]:
    params = content.get("params")
    return [params.get(key) for key in ("cpu", "num_cpu")] if isinstance(params, dict) else []


def _numbers(row: dict[str, Any]) -> int:
    result = row.get("result")
    values = result if isinstance(result, list) else [result]
    # asv stores a skipped one as NaN.
    return sum(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _started(row: dict[str, Any]) -> float:
    return row.get("started_at") or 0.0


def _merge_folder(source: Path, target: Path) -> int:
    """Merge every file of ``source`` into ``target``; the number of files that changed there."""
    changed = 0
    for path in json_files(source):
        name = path.relative_to(source)
        other = target / name
        text, before = _bytes(path, name), None
        # The writer follows links, and a branch of results may hold one to anywhere.
        if not Path(os.path.realpath(other)).is_relative_to(os.path.realpath(target)):
            warn(f"skipped {name.as_posix()}: it leads out of the folder of results")
            continue
        if os.path.lexists(other):
            before = _bytes(other, name)
            if before is None:
                continue  # nothing of asv's: not ours to replace
        if text is None or text == before:
            continue
        ours = _content(text, name)
        if ours is None:
            continue  # what the other side has stays
        theirs = None if before is None else _content(before, name)
        if theirs is not None:
            text = (json.dumps(_of_both(path.name, ours, theirs), indent=1) + "\n").encode()
        if text != before:
            write_whole(other.parent, {other.name: text})
            changed += 1
    return changed


def _of_both(name: str, ours: Content, theirs: Content) -> Content:
    if name == SUITE:
        return {**theirs, **ours}
    if name == MACHINE:
        return ours  # what the machine is now
    return merged(ours, theirs)


def _bytes(path: Path, name: Path) -> bytes | None:
    """None, and a line about it, for what is no plain file."""
    try:
        return read_bytes(path)
    except Damaged as error:
        warn(f"skipped {name.as_posix()}: {error}")
        return None


def _content(text: bytes, name: Path) -> Content | None:
    """None, and a line about it, for what asv did not write."""
    try:
        content = parse(text)
        if name.name not in (SUITE, MACHINE):
            as_run(content)
    except Damaged as error:
        warn(f"skipped {name.as_posix()}: {error}")
        return None
    return content


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _tip(repository: Path, remote: str) -> str | None:
    """The commit that the remote's branch is at, fetched; None as long as there is no branch."""
    listed = git(repository, "ls-remote", "--heads", remote, f"refs/heads/{BRANCH}")
    if not listed:
        return None
    tip = listed.split()[0]
    # By its hash, and not by FETCH_HEAD, which another one in the same clone may write meanwhile.
    wanted = ("--no-tags", "--no-write-fetch-head", remote, f"refs/heads/{BRANCH}")
    fetched = run_git(repository, "fetch", "--quiet", *wanted)
    if fetched.returncode != 0:
        raise UserError(f"{BRANCH} cannot be fetched from {remote}: {told(fetched)}")
    return tip


def _commit(repository: Path, tip: str | None, results: Path, message: str) -> str | None:
    """A commit on top of ``tip`` with the folder merged into it; None where nothing is new."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        files.mkdir()
        if tip is not None:
            export(repository, tip, files)
        changed = _merge_folder(results, files)
        if not changed and tip is not None:
            return None
        tree = _stored(repository, files, Path(folder) / "index")
        parents = ["-p", tip] if tip else []
        return git(repository, "commit-tree", tree, *parents, "-m", message)


def _stored(repository: Path, files: Path, index: Path) -> str:
    """The tree of a folder, each byte as it stands there, by an index of its own."""
    paths = [path for path in sorted(files.rglob("*")) if _is_plain(path)]
    hashes: list[str] = []
    for start in range(0, len(paths), AT_ONCE):
        some = map(str, paths[start : start + AT_ONCE])
        hashes += git(repository, "hash-object", "-w", "--no-filters", "--", *some).split()
    lines = [
        f"100644 {name}\t{path.relative_to(files).as_posix()}\0"
        for name, path in zip(hashes, paths, strict=True)
    ]
    own = {"GIT_INDEX_FILE": str(index)}
    git(repository, "update-index", "-z", "--index-info", environment=own, given="".join(lines))
    return git(repository, "write-tree", environment=own)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    return exit_status(lambda: _act(_parser().parse_args(arguments)))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.history.store",
        description="Fetch asv's results from their branch, or push them onto it.",
        example="bring --remote origin",
    )
    told = "bring: from the branch into the folder; keep: from the folder onto the branch"
    parser.add_argument("command", choices=("bring", "keep"), help=told)
    parser.add_argument("--remote", default="origin", help="git remote (default: origin)")
    told = "asv's folder of results (default: .asv/results)"
    parser.add_argument("--results", type=Path, default=RESULTS, help=told)
    told = "message of the commit (default: Results of make history)"
    parser.add_argument("--message", default="Results of make history", help=told)
    return parser


def _act(given: argparse.Namespace) -> None:
    here = Path.cwd()
    if given.command == "bring":
        say(f"{bring(here, given.remote, given.results)} files of results came from {BRANCH}")
    elif keep(here, given.remote, given.results, given.message):
        say(f"{given.results} is on {BRANCH} of {given.remote}")
    else:
        say(f"{BRANCH} of {given.remote} has all of {given.results} already")


if __name__ == "__main__":
    sys.exit(main())
