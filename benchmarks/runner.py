"""Runs the experiments of the chosen claims, and puts every claim with its verdict on record."""

from __future__ import annotations

import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.claims import Claim
from benchmarks.experiment import PROFILES, Experiment, Settings, Unavailable
from benchmarks.instruments.environment import StealClock, environment_stamp, usable_cores
from benchmarks.results import SCHEMA_VERSION, Measurement
from benchmarks.verdicts import NOT_BUILT, judge_claim
from reference_model.errors import UserError
from reference_model.printing import ErrorsForProgress, clean

NOT_SELECTED = "not selected in this run; --only selects it"
LONGEST_REASON = 2000  # letters


@dataclass(frozen=True)
class Outcome:
    """What became of one claim's experiment; without measurements, ``absent`` says why."""

    measurements: list[Measurement]
    seconds: float | None
    absent: str


class ExperimentsFailed(Exception):
    """Experiments that raised, or measured nothing: an error of the run, never an open verdict.

    The message has one line for each, naming it.
    """


def resolve_device(wanted: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; UserError where there is no CUDA."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no usable CUDA device; use --device cpu")
    return wanted


def run(
    settings: Settings,
    claims: Sequence[Claim],
    selected: Sequence[Claim],
    experiments: Sequence[Experiment],
) -> dict[str, Any]:
    """results.json of a run: all ``claims``, those not ``selected`` open.

    Raises ExperimentsFailed, after all have run, where an experiment raised or measured nothing.
    """
    import torch
    from tqdm import tqdm

    threads = usable_cores()
    torch.set_num_threads(threads)
    environment = _cleaned(environment_stamp(settings, threads))
    steal = StealClock()
    by_claim = _by_claim(experiments, claims)
    wanted = {claim.id for claim in selected}
    outcomes = {
        claim.id: _outlook(by_claim.get(claim.id), claim.id in wanted, settings) for claim in claims
    }
    due = [e for name, e in by_claim.items() if outcomes[name].absent == ""]
    failures = []
    total = sum(_seconds(e, settings) for e in due)
    layout = "{percentage:3.0f}% |{bar:30}| {elapsed} {desc}"
    errors = ErrorsForProgress()
    with tqdm(total=total, bar_format=layout, dynamic_ncols=True, file=errors) as bar:
        for each in due:
            bar.set_description_str(each.claim)
            try:
                outcomes[each.claim] = _measure(each, settings)
            except Unavailable as reason:
                outcomes[each.claim] = Outcome([], None, _one_line(reason))
            except Exception as error:  # the others still run, and all failures are told at once
                if not isinstance(error, UserError):
                    bar.write(clean(traceback.format_exc(), lines=True), file=errors)
                failures.append(f"{each.claim} failed: {_one_line(error)}")
            bar.update(_seconds(each, settings))
        bar.set_description_str("done")
    if failures:
        raise ExperimentsFailed("\n".join(failures))
    return {
        "schema": SCHEMA_VERSION,
        "environment": environment | {"steal_during_run": steal.share()},
        "measurements": [m.as_json() for o in outcomes.values() for m in o.measurements],
        "claims": [claim_entry(claim, outcomes[claim.id]) for claim in claims],
    }


def _by_claim(experiments: Sequence[Experiment], claims: Sequence[Claim]) -> dict[str, Experiment]:
    known = {claim.id for claim in claims}
    found: dict[str, Experiment] = {}
    for each in experiments:
        if each.claim not in known:
            raise ValueError(f"an experiment measures {each.claim}, which claims.toml lacks")
        if each.claim in found:
            raise ValueError(f"{each.claim} has more than one experiment")
        found[each.claim] = each
    return found


def _outlook(each: Experiment | None, selected: bool, settings: Settings) -> Outcome:
    """Before the run: why nothing will be measured, or an empty reason."""
    if not selected:
        return Outcome([], None, NOT_SELECTED)
    if each is None:
        return Outcome([], None, NOT_BUILT)
    if each.seconds[settings.profile] is None:
        profiles = [name for name, seconds in each.seconds.items() if seconds is not None]
        longer = " or ".join(profiles) or "a longer one"
        return Outcome([], None, f"too long for the {settings.profile} profile; run {longer}")
    return Outcome([], None, "")


def _measure(each: Experiment, settings: Settings) -> Outcome:
    _seed_everything(settings.seed)
    start = perf_counter()
    measurements = each(settings)
    seconds = perf_counter() - start
    if not measurements:
        raise ValueError("it measured nothing")
    ids = [m.id for m in measurements]
    for m in measurements:
        if m.claim != each.claim:
            raise ValueError(f"it returned a measurement of {m.claim}")
        if ids.count(m.id) > 1:
            raise ValueError(f"it returned {m.id} more than once")
    return Outcome(measurements, seconds, _missing(each, settings))


def _missing(each: Experiment, settings: Settings) -> str:
    """Why an experiment that ran has nothing for a requirement: only longer runs measure more."""
    now = _seconds(each, settings)
    longer = [name for name in PROFILES if (each.seconds[name] or 0.0) > now]
    if not longer:
        return NOT_BUILT
    where = " or ".join(longer)
    return f"not measured in the {settings.profile} profile; run {where}, unless not built yet"


def _seed_everything(seed: int) -> None:
    """Every experiment starts from the same state, whichever ones ran before it."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def claim_entry(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    """What stands in results.json about a claim."""
    judgement, parts = judge_claim(claim, outcome.measurements, outcome.absent)
    return {
        "id": claim.id,
        "lesson": claim.lesson,
        "statement": claim.statement,
        "said_in": claim.said_in,
        "sources": claim.sources,
        "scale": claim.scale,
        "region": "; ".join(requirement.text for requirement in claim.requirements),
        "verdict": judgement.verdict,
        "because": judgement.because,
        "measurements": judgement.measurements,
        "requirements": [
            {
                "text": requirement.text,
                "metric": requirement.metric,
                "where": requirement.where,
                "region": requirement.region.as_json(),
                "verdict": part.verdict,
                "because": part.because,
                "measurements": part.measurements,
            }
            for requirement, part in zip(claim.requirements, parts, strict=True)
        ],
        "seconds": None if outcome.seconds is None else round(outcome.seconds, 3),
    }


def _seconds(each: Experiment, settings: Settings) -> float:
    return each.seconds[settings.profile] or 0.0


def _cleaned(value: Any) -> Any:
    """What a machine says of itself, as results.json can hold it."""
    if isinstance(value, dict):
        return {key: _cleaned(inner) for key, inner in value.items()}
    return clean(value) if isinstance(value, str) else value


def _one_line(error: Exception) -> str:
    """Short and printable, whatever library raised it: it may go into results.json."""
    text = clean(" ".join(str(error).split()))[:LONGEST_REASON]
    return (
        text if isinstance(error, (UserError, Unavailable)) else f"{type(error).__name__}: {text}"
    )
