"""Each fault and each rewrite as a commit of a clone: what the gate says of it, and the tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from benchmarks.data.git import git
from reference_model.errors import UserError
from reports.gate.validation import lines, real
from reports.gate.validation.faults.change import UNCHANGED, Change
from reports.gate.verdict import Verdict

Judge = Literal["gate", "tests"]
Record = dict[str, Any]
Key = tuple[str, str, str]  # judge, name, digest of the edits

# The exact layer alone: it times nothing.
SELECT = "*.track_*"
# The gate's own tests measure for minutes and are about no fault; a browser sees none either.
LEFT_OUT = ("tests/reports/gate/*", "*_in_browser.py")
# As `make test` sets them.
VARIABLES = {
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
PATIENCE = 1800.0  # seconds for the tests, which take a fifth of it
# Both fail a pull request; of NaN, for one, the gate says that it is an error.
FINDS = (Verdict.REGRESSION, Verdict.ERROR)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def run_changes(
    path: Path,
    repository: Path,
    changes: Sequence[Change],
    judges: Sequence[Judge],
    tell: Callable[[str], None],
    only_missed: bool = False,
) -> None:
    """Ask every judge about every change; what the file has already is not asked again.

    ``only_missed``: no judge is asked about what one before it found.

    First about a clone without a change. `UserError` where a judge finds something in that: what it
    found elsewhere would then say nothing.
    """
    commit, known = git(repository, "rev-parse", "HEAD"), recorded(path)
    for number, change in enumerate((UNCHANGED, *changes)):
        keys = {judge: key_of(judge, change) for judge in judges}
        missing = [judge for judge in judges if keys[judge] not in known]
        if missing and not (only_missed and _found(known, keys.values())):
            with real.clone_edited(repository, change.name, change.edits) as clone:
                for judge in missing:
                    if only_missed and _found(known, keys.values()):
                        break
                    record = {
                        "kind": "change",
                        "judge": judge,
                        "group": change.group,
                        "name": change.name,
                        "edits": change.digest,
                        "commit": commit,
                        **JUDGES[judge](clone),
                    }
                    lines.append(path, record)
                    known[keys[judge]] = record
                    which = f"{number} of {len(changes)}, {change.name}" if number else "unchanged"
                    tell(f"{which}: {told(record)}")
        if change is UNCHANGED:
            _check_control(path, known, judges)


def recorded(path: Path) -> dict[Key, Record]:
    """What the judges said last of each change, by its edits: of others it says nothing."""
    found = lines.read(path, kind="change")
    return {(each["judge"], each["name"], each["edits"]): each for each in found}


def _found(known: Mapping[Key, Record], keys: Iterable[Key]) -> bool:
    return any(finds(known[key]) for key in keys if key in known)


def key_of(judge: Judge, change: Change) -> Key:
    return judge, change.name, change.digest


def finds(record: Record) -> bool:
    """Whether the judge would stop such a commit."""
    if record["judge"] == "gate":
        return record["exit_status"] in FINDS
    return record["exit_status"] != 0


def told(record: Record) -> str:
    """A record in a line: by whom it was found, and how."""
    by = f"{record['judge']}, {record['seconds']:.0f} s"
    how = record.get("reason") or ", ".join(record.get("failing", ())) or "nothing failed"
    return f"{'found' if finds(record) else 'not found'} ({by}): {how}"


def _check_control(path: Path, known: Mapping[Key, Record], judges: Sequence[Judge]) -> None:
    for judge in judges:
        record = known[key_of(judge, UNCHANGED)]
        if finds(record):
            raise UserError(
                f"in a clone without a change: {told(record)}; mend that, and delete its line in "
                f"{path}"
            )


def gate_of(clone: Path) -> Record:
    """The exact layer of the clone's own gate; `UserError` where it ended without a verdict."""
    found = real.one_run(clone, (f"--select={SELECT}",))
    if found["exit_status"] not in set(Verdict):
        raise UserError(
            f"the gate ended with status {found['exit_status']} and no verdict; run it again"
        )
    exact = found["exact"] or {"compared": 0, "differences": []}
    return {
        "exit_status": found["exit_status"],
        "seconds": found["seconds"],
        "reason": found["reason"],
        "compared": exact["compared"],
        "differences": exact["differences"],
    }


def tests_of(clone: Path) -> Record:
    """The clone's own tests, until one fails; its name in ``failing``. The nearest ones come first.

    Tests that are not done in time have failed; `UserError` where somebody else ended them.
    """
    started = time.monotonic()
    # In a run of their own: pytest leaves out a file that lies in another argument's folder.
    for files in (nearest(clone), ["tests", "benchmarks/micro"]):
        status, failing = _pytest(clone, files, started + PATIENCE) if files else (0, [])
        if status != 0:
            break
    seconds = round(time.monotonic() - started, 1)
    return {"exit_status": status, "seconds": seconds, "failing": failing}


def _pytest(clone: Path, files: Sequence[str], until: float) -> tuple[int, list[str]]:
    """Exit status, and what failed first; ``until`` is by `time.monotonic`."""
    command = (
        sys.executable, "-m", "pytest", "-q", "-x", "-n2", "--dist=loadfile",
        "--no-loadscope-reorder", "-p", "no:cacheprovider",
        *(f"--ignore-glob={pattern}" for pattern in LEFT_OUT),
        *files,
    )  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        command,
        cwd=clone,
        env={**inherited, **VARIABLES, "TMPDIR": str(clone.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its workers can be ended with it
    )
    try:
        said, _ = process.communicate(timeout=max(0.0, until - time.monotonic()))
        failing = FAILED.findall(said)
        if process.returncode < 0:
            raise UserError(f"signal {-process.returncode} ended the tests; run them again")
    except subprocess.TimeoutExpired:
        failing = [f"not done within {PATIENCE:.0f} s"]
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, failing


def nearest(clone: Path) -> list[str]:
    """Files of tests, nearest first, of what the clone's last commit changed.

    Those named after a changed module, then those that import it.
    """
    changed = git(clone, "diff", "--name-only", "HEAD~1", "HEAD").splitlines()
    stems = [Path(file).stem for file in changed if file.endswith(".py")]
    named, importing = [], []
    for path in sorted((clone / "tests").rglob("test_*.py")):
        file = path.relative_to(clone).as_posix()
        if any(fnmatchcase(file, pattern) for pattern in LEFT_OUT):
            continue  # named outright, pytest would ask them
        if any(stem in path.stem for stem in stems):
            named.append(file)
        elif any(
            re.search(rf"import.*\b{stem}\b|\.{stem} import", path.read_text("utf-8"))
            for stem in stems
        ):
            importing.append(file)
    return named + importing


JUDGES: dict[Judge, Callable[[Path], Record]] = {"gate": gate_of, "tests": tests_of}
