"""What a run has to measure: the cells of the selected claims, and the key of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

from benchmarks.executors.executor import Task
from benchmarks.experiments.experiment import PROFILES, Cell, CellsFound, Experiment, Settings
from benchmarks.judging.claims import Claim
from benchmarks.judging.verdicts import NOT_BUILT
from benchmarks.record.code_digest import code_digest
from benchmarks.record.store import Key, Line, canonical
from benchmarks.subjects.subject import digest_of, subject_of

MACHINE = ("cpu", "cores", "memory_bytes", "gpu", "driver")
NOT_SELECTED = "not selected in this run; --only selects it"
NOT_RUN_HERE = (
    "needs the model to be built here, and transformers runs it: name its folder without hf:"
)
NOT_OF_THIS_MODEL = "says nothing of this model: it trains or builds models of its own, or none"


@dataclass(frozen=True)
class PlannedClaim:
    """A claim and its cells; without cells, ``absent`` says why it is not measured.

    ``further`` are the cells that follow from what those before them found.
    """

    claim: Claim
    experiment: Experiment | None
    cells: list[tuple[Task, Key]]
    absent: str = ""
    subject: dict[str, Any] | None = None  # the model of a run that asks about another
    further: Callable[[CellsFound], list[tuple[Task, Key]]] | None = None

    @property
    def missing_requirement(self) -> str:
        """Why a requirement has no measurement after a run: only longer ones measure more."""
        if self.experiment is None or not self.cells:
            return NOT_BUILT
        profile, seconds = self.cells[0][0].settings.profile, self.experiment.seconds
        now = seconds[profile] or 0.0
        longer = [name for name in PROFILES if (seconds[name] or 0.0) > now]
        if not longer:
            return NOT_BUILT
        where = " or ".join(longer)
        return f"not measured in the {profile} profile; run {where}, unless not built yet"


def plan(
    settings: Settings,
    claims: Sequence[Claim],
    selected: Sequence[Claim],
    experiments: Sequence[Experiment],
    environment: dict[str, Any],
) -> list[PlannedClaim]:
    """All ``claims`` in their order; those not ``selected`` have no cells.

    ``environment`` is the run's stamp: of it a cell's key has the versions and, if it takes times,
    the machine. ValueError on experiments that do not fit the claims.
    """
    by_claim = _by_claim(experiments, claims)
    wanted = {claim.id for claim in selected}
    asked = None if settings.of_reference else subject_of(settings)
    digest, found = digest_of(settings), []
    # By its content, wherever it lies.
    subject = f"{asked.title if asked else settings.model} {digest}"
    told = None
    if asked:
        told = {
            "name": asked.title,
            "parameters": asked.parameters,
            "digest": digest,
        }
    for claim in claims:
        each = by_claim.get(claim.id)
        fits = settings.of_reference or (
            each is not None
            and each.of_any_model
            and (each.as_run_elsewhere or (asked is not None and asked.is_built_here))
        )
        if asked and fits:
            claim = claim.about(asked.title, asked.scale)
        if claim.id not in wanted:
            found.append(PlannedClaim(claim, each, [], NOT_SELECTED))
        elif each is None:
            found.append(PlannedClaim(claim, each, [], NOT_BUILT))
        elif not fits:
            why = NOT_RUN_HERE if each.of_any_model else NOT_OF_THIS_MODEL
            found.append(PlannedClaim(claim, each, [], why))
        elif each.seconds[settings.profile] is None:
            profiles = [name for name, seconds in each.seconds.items() if seconds is not None]
            longer = " or ".join(profiles) or "a longer one"
            why = f"too long for the {settings.profile} profile; run {longer}"
            found.append(PlannedClaim(claim, each, [], why))
        else:
            keyed = partial(_keyed, each, settings, subject, environment)
            further = partial(_further, each, settings, keyed) if each.further else None
            cells = keyed(each.cells(settings))
            found.append(PlannedClaim(claim, each, cells, subject=told, further=further))
    return found


def grown(planned: Sequence[PlannedClaim], lines: Mapping[Key, Line]) -> Sequence[PlannedClaim]:
    """The plan with the cells that follow from what is done; the same one where none do."""
    more = [_grown(each, lines) for each in planned]
    return more if any(new is not old for new, old in zip(more, planned, strict=True)) else planned


def _grown(planned: PlannedClaim, lines: Mapping[Key, Line]) -> PlannedClaim:
    of_cells = [lines.get(key) for _, key in planned.cells]
    done = [line.found for line in of_cells if line is not None and line.outcome == "done"]
    if planned.further is None or not done or len(done) < len(of_cells):
        return planned
    parameters = [task.cell.parameters for task, _ in planned.cells]
    further = planned.further(list(zip(parameters, done, strict=True)))
    return replace(planned, cells=[*planned.cells, *further]) if further else planned


def _further(
    each: Experiment,
    settings: Settings,
    keyed: Callable[[Sequence[Cell]], list[tuple[Task, Key]]],
    found: CellsFound,
) -> list[tuple[Task, Key]]:
    assert each.further is not None
    return keyed(each.further(settings, found))


def _keyed(
    each: Experiment,
    settings: Settings,
    subject: str,
    environment: dict[str, Any],
    cells: Sequence[Cell],
) -> list[tuple[Task, Key]]:
    """Shares are parts of what the first cells have in all."""
    shares = sum(cell.share for cell in each.cells(settings))
    seconds, cores = each.seconds[settings.profile] or 0.0, environment["cores"]
    tasks = [
        Task(each, cell, settings, cores if cell.timed else 1, seconds * cell.share / shares)
        for cell in cells
    ]
    return [(task, key_of(task, subject, environment)) for task in tasks]


def key_of(task: Task, subject: str, environment: dict[str, Any]) -> Key:
    settings, shared = task.settings, task.cell.shared
    versions = {"python": environment["python"], **environment["packages"]}
    return Key(
        claim=shared or task.experiment.claim,
        parameters=canonical(task.cell.parameters),
        subject=subject,
        profile=settings.profile,
        device=settings.device,
        seed=settings.seed,
        threads=task.threads,
        protocol=task.experiment.protocol,
        versions=canonical(versions),
        machine=machine_of(environment) if task.cell.timed else "",
        code=code_digest(shared or task.experiment.module),
    )


def machine_of(environment: Mapping[str, Any]) -> str:
    """What decides times, of a run's stamp, as JSON."""
    return canonical({name: environment[name] for name in MACHINE})


def in_shard(key: Key, index: int, count: int) -> bool:
    """Whether this cell is of part ``index`` (from 1) of ``count``; each is of one part."""
    name = sha256(f"{key.claim} {key.parameters}".encode()).digest()
    return int.from_bytes(name) % count == index - 1


def _by_claim(experiments: Sequence[Experiment], claims: Sequence[Claim]) -> dict[str, Experiment]:
    known = {claim.id for claim in claims}
    found: dict[str, Experiment] = {}
    for each in experiments:
        if each.claim not in known:
            raise ValueError(f"an experiment measures {each.claim}, which no claims.toml has")
        if each.claim in found:
            raise ValueError(f"{each.claim} has more than one experiment")
        found[each.claim] = each
    return found
