"""The results of several runs as those of one, which says of each claim what run measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reference_model.errors import UserError
from reference_model.printing import warn
from reports.reading import read

Results = dict[str, Any]


def merge_results(paths: Sequence[Path]) -> Results:
    """What the files hold together; of a claim that several measured, the last one counts.

    The first file's environment is that of the whole; a claim from another has its own. What a file
    found of another model than the first stands beside it, as ``elsewhere`` of a claim. Files that
    cannot be read are named on the standard error and skipped. UserError where none can be read.
    """
    found: list[Results] = []
    skipped: list[UserError] = []
    for path in paths:
        try:
            found.append(read(path))
        except UserError as error:
            skipped.append(error)
    if not found:
        others = f" (and {len(paths) - 1} more that cannot be used)" if len(paths) > 1 else ""
        raise UserError(f"{skipped[0]}{others}")
    for reason in skipped:
        warn(f"skipped: {reason}")
    if skipped:
        warn(f"skipped {len(skipped)} of {len(paths)} results files")
    whole = found[0]
    for later in found[1:]:
        of_one_model = asked_about(later) == asked_about(whole)
        whole = _with(whole, later) if of_one_model else _beside(whole, later)
    return whole


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
