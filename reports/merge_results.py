"""The results of several runs as those of one, which says of each claim what run measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data.json_files import read_json
from benchmarks.experiments.experiment import PROFILES
from reference_model.errors import UserError
from reference_model.printing import warn
from reports.reading import read

Results = dict[str, Any]
WRITTEN = "a results.json that python -m benchmarks run wrote"


def merge_results(paths: Sequence[Path]) -> Results:
    """What the files hold together; of a claim that several measured, the last one counts.

    The first file's environment is that of the whole; a claim from another has its own. What a file
    found of another model than the first stands beside it, as ``elsewhere`` of a claim. A folder is
    the results in it: those of fuller profiles after the others, and of one profile by date. Files
    that cannot be read are named on the standard error and skipped. UserError where none can be.
    """
    files = {path: _results_in(path) if path.is_dir() else [path] for path in paths}
    count = sum(map(len, files.values()))
    found: list[Results] = []
    skipped: list[UserError] = []
    for path, each in files.items():
        of_path = []
        for file in each:
            try:
                of_path.append(read(file))
            except UserError as error:
                skipped.append(error)
        found += sorted(of_path, key=_fullness) if path.is_dir() else of_path
    if not found:
        others = f" (and {count - 1} more that cannot be used)" if count > 1 else ""
        raise UserError(f"{skipped[0]}{others}")
    for reason in skipped:
        warn(f"skipped: {reason}")
    if skipped:
        warn(f"skipped {len(skipped)} of {count} results files")
    whole = found[0]
    for later in found[1:]:
        of_one_model = asked_about(later) == asked_about(whole)
        whole = _with(whole, later) if of_one_model else _beside(whole, later)
    return whole


def _results_in(folder: Path) -> list[Path]:
    """JSON files of another kind are none; one that is broken may be."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            held = read_json(path)
        except (OSError, ValueError):
            found.append(path)
            continue
        if isinstance(held, dict) and {"claims", "measurements"} <= held.keys():
            found.append(path)
    if not found:
        raise UserError(f"{folder} holds no results; name {WRITTEN} or a folder of such files")
    return found


def _fullness(results: Results) -> tuple[int, str]:
    run = results["environment"]
    return PROFILES.index(run["profile"]), run["utc"]


def asked_about(results: Results) -> tuple[str, str, str]:
    """Model, text and dtype of a run; empty for the reference on the plays in float32."""
    run = results["environment"]
    return run.get("model", ""), run.get("text", ""), run.get("dtype", "")


def _beside(whole: Results, later: Results) -> Results:
    """``whole``, with what ``later`` found of its model; that of the last file by each name."""
    found = {claim["id"]: claim for claim in later["claims"] if claim.get("subject")}
    claims = []
    for claim in whole["claims"]:
        other = found.get(claim["id"])
        if other is None:
            claims.append(claim)
            continue
        kept = {k: other[k] for k in ("subject", "verdict", "finding", "because", "scale")}
        name = other["subject"]["name"]
        elsewhere = [e for e in claim.get("elsewhere", ()) if e["subject"]["name"] != name]
        claims.append({**claim, "elsewhere": [*elsewhere, kept]})
    return {**whole, "claims": claims}


def _with(whole: Results, later: Results) -> Results:
    """``whole``, with the claims that only ``later`` knows or that it measured."""
    claims = {claim["id"]: claim for claim in whole["claims"]}
    measured = {measurement["claim"] for measurement in later["measurements"]}
    run = later["environment"]
    stamp = {} if run == whole["environment"] else {"environment": run}
    taken = {
        claim["id"]: {**stamp, **claim}
        for claim in later["claims"]
        if claim["id"] in measured or claim["id"] not in claims
    }
    kept = [m for m in whole["measurements"] if m["claim"] not in taken]
    new = [m for m in later["measurements"] if m["claim"] in taken]
    return {
        **whole,
        "measurements": [*kept, *new],
        "claims": list((claims | taken).values()),
    }
