"""Measures the cells that the record lacks, and keeps each as soon as it is there."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.executors.executor import Ended, Executor, Task
from benchmarks.experiments.experiment import REFERENCE, Settings
from benchmarks.record.store import Key, Line, Record, canonical
from benchmarks.running.plan import PlannedClaim, grown, machine_of
from benchmarks.running.progress import Progress

OF_THE_CODE = ("commit", "dirty")  # which a copy of it on another machine does not know
MOMENT = 0.5  # seconds between two looks at what has ended


@dataclass(frozen=True)
class Rules:
    """Which lines of the record count for a run.

    With ``fresh`` none that was there before; with ``accept_code`` also those that other code
    measured, with ``any_machine`` also times of other machines, as of records that were merged.
    """

    fresh: bool = False
    accept_code: bool = False
    any_machine: bool = False


@dataclass
class State:
    """What is known of a run's cells: those of the record, and what it could not measure.

    ``planned`` has the cells that follow from what is known, too.
    """

    planned: Sequence[PlannedClaim]
    lines: dict[Key, Line] = field(default_factory=dict)
    unavailable: dict[Key, str] = field(default_factory=dict)


def settings_of(options: Namespace) -> Settings:
    """What a command asks for; UserError where there is no such model, text or device."""
    from benchmarks.subjects.subject import subject_of
    from benchmarks.subjects.transformers_model import PREFIX
    from reference_model.devices import resolve_device  # an old commit's model has none

    prefix = PREFIX if options.model.startswith(PREFIX) else ""
    model = prefix + _resolved(options.model.removeprefix(prefix))
    text = _resolved(options.text) if options.text else None
    device = resolve_device(options.device)
    settings = Settings(options.profile, device, options.seed, model, text, options.dtype)
    if not settings.of_reference:
        subject_of(settings).windows(1)  # before anything long is done
    return settings


def _resolved(name: str) -> str:
    """Where it is, for processes in other folders; a name that is no place stays one."""
    from reference_model.published import SMOLLM2  # an old commit's model has none

    named = name in (REFERENCE, SMOLLM2.name)  # whatever lies here by that name
    return str(Path(name).resolve()) if Path(name).exists() and not named else name


def known(planned: Sequence[PlannedClaim], record: Record, rules: Rules, after: int = 0) -> State:
    """What the record has of the plan, of lines with a number above ``after``."""
    state = State(planned)
    while True:
        for claim in state.planned:
            for _, key in claim.cells:
                line = record.latest(
                    key, any_code=rules.accept_code, any_machine=rules.any_machine, after=after
                )
                if line is not None:
                    state.lines[key] = line
        more = grown(state.planned, state.lines)
        if more is state.planned:
            return state
        state.planned = more


def measure(
    planned: Sequence[PlannedClaim],
    record: Record,
    executor: Executor,
    rules: Rules,
    environment: Mapping[str, Any],
    jobs: int,
    chosen: Callable[[Key], bool] = lambda key: True,
) -> State:
    """Measure every chosen cell of the plan that is not done; a failed one is kept as failed.

    Cells that take times come last and alone. What another run into the same record is measuring
    is waited for, and is not measured twice. UserError where the record cannot be written.
    """
    after = record.last_number if rules.fresh else 0
    state = known(planned, record, rules, after)
    tried: set[Key] = set()
    try:
        while due := _due(state, chosen, tried):
            tried |= {key for _, key in due}
            _measure(due, state, record, executor, rules, environment, jobs, after)
            state.planned = known(state.planned, record, rules, after).planned
    finally:
        executor.close()
    return state


def _due(
    state: State, chosen: Callable[[Key], bool], tried: Container[Key]
) -> list[tuple[Task, Key]]:
    """Each cell once, also one that several claims share."""
    due = {
        key: task
        for claim in state.planned
        for task, key in claim.cells
        if chosen(key)
        and key not in tried
        and (key not in state.lines or state.lines[key].outcome == "failed")
    }
    of_keys = [(task, key) for key, task in due.items()]
    return sorted(of_keys, key=lambda each: (each[0].cell.timed, -each[0].expected))


def _measure(
    due: Sequence[tuple[Task, Key]],
    state: State,
    record: Record,
    executor: Executor,
    rules: Rules,
    environment: Mapping[str, Any],
    jobs: int,
    after: int,
) -> None:
    progress = Progress([task for task, _ in due], jobs)
    turns = _Turns(record.path)
    keys = {id(task): key for task, key in due}
    waiting, running = list(due), 0
    try:
        while waiting or running:
            for task, key in list(waiting):
                if not executor.has_room_for(task):
                    if task.cell.timed:
                        break
                    continue
                if not turns.take(task, key):
                    continue  # another run has it: look again in a moment
                waiting.remove((task, key))
                line = record.latest(key, any_code=rules.accept_code, after=after)
                if line is not None and line.outcome == "done":  # by that other run
                    state.lines[key] = line
                    turns.give_back(task)
                    progress.ended(task, 0.0)
                    continue
                executor.start(task)
                progress.began(task)
                running += 1
            for end in executor.ended(MOMENT):
                running -= 1
                _keep(end, keys[id(end.task)], record, environment, state, progress)
                turns.give_back(end.task)
            progress.show()
    finally:
        turns.close()
        progress.close()


def _keep(
    end: Ended,
    key: Key,
    record: Record,
    environment: Mapping[str, Any],
    state: State,
    progress: Progress,
) -> None:
    answer = end.answer
    if answer.log:
        progress.say(f"{end.task.name}:\n{answer.log.rstrip()}")
    progress.ended(end.task, answer.seconds)
    if answer.kind == "unavailable":
        state.unavailable[key] = answer.found
        return
    if end.environment is not None:  # of another machine
        environment = {**end.environment, **{name: environment[name] for name in OF_THE_CODE}}
    machine = machine_of(environment) if end.task.cell.timed else ""
    line = Line(
        replace(key, machine=machine, threads=answer.threads),
        answer.kind,
        answer.found,
        round(answer.seconds, 3),
        datetime.now(UTC).isoformat(timespec="seconds"),
        dict(environment),
    )
    record.add(line)
    state.lines[key] = line


class _Turns:
    """Who measures what: locks that end with their process, so that no killed run leaves one."""

    def __init__(self, record: Path) -> None:
        self._folder = record.with_name(f"{record.name}.locks")
        self._folder.mkdir(exist_ok=True)
        self._held: dict[int, Any] = {}

    def take(self, task: Task, key: Key) -> bool:
        """Whether it is ours now; never waits."""
        from filelock import FileLock, Timeout

        name = sha256(canonical(vars(key)).encode()).hexdigest()[:32]
        lock = FileLock(self._folder / name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[id(task)] = lock
        return True

    def give_back(self, task: Task) -> None:
        self._held.pop(id(task)).release()

    def close(self) -> None:
        for lock in self._held.values():
            lock.release()


def failures(planned: Sequence[PlannedClaim], state: State) -> Iterator[tuple[str, str]]:
    """Name of each cell that failed, and its error in one line."""
    for claim in planned:
        for task, key in claim.cells:
            line = state.lines.get(key)
            if line is not None and line.outcome == "failed":
                yield task.name, line.found
