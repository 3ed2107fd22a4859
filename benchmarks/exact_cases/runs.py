"""A run of small experiments: what is planned, kept, taken up again, assembled and written."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.exact_cases.begins import texts_of
from benchmarks.exact_cases.case import Case, refusal

# A stamp of no machine: of it a key has the versions and, where times are taken, the machine.
STAMP: dict[str, Any] = {
    "commit": "c0ffee",
    "dirty": False,
    "python": "3.11.0",
    "packages": {"torch": "2.13.0", "numpy": "2.0.0"},
    "cpu": "made up",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "gpu": "none",
    "driver": "none",
    "platform": "made up",
    "profile": "smoke",
    "device": "cpu",
    "threads": 2,
    "seed": 7,
    "utc": "2026-01-01T00:00:00+00:00",
}
DRAWN, TIMED, BROKEN, ABSENT = (
    "tying.saving-small",
    "cache.fifteen-tokens",
    "cache.memory-law",
    "lora.peft-agrees",
)
WANTED, OTHER = (DRAWN, TIMED, BROKEN, ABSENT, "position.parameters"), "lora.rank-pays"


class _Here:
    """An executor that measures in this process, a task at a time; it stops after ``most``."""

    def __init__(self, most: int) -> None:
        self.begun: list[list[object]] = []
        self._due: list[Any] = []
        self._most = most

    def has_room_for(self, task: Any) -> bool:
        return not self._due

    def start(self, task: Any) -> None:
        if len(self.begun) == self._most:
            raise KeyboardInterrupt
        self.begun.append([task.name, task.threads, round(task.expected, 9)])
        self._due.append(task)

    def ended(self, within: float) -> Sequence[Any]:
        from benchmarks.executors.cell import measure_cell
        from benchmarks.executors.executor import Ended

        due, self._due = self._due, []
        return [Ended(t, measure_cell(t.order, lambda _, each=t: each.experiment)) for t in due]  # type: ignore[misc]

    def close(self) -> None:
        pass


def _experiments() -> list[Any]:
    import torch

    from benchmarks.experiments.experiment import PROFILES, Cell, Experiment, Unavailable
    from benchmarks.record.results import Measurement

    def number(claim: str, value: float, **labels: Any) -> Measurement:
        return Measurement(
            claim, "number", "1", value, None, None, "none", "head", "any", labels, "counted"
        )

    def drawn(settings: Any, index: int) -> object:
        return [settings.seed, index, float(torch.rand(())), torch.get_num_threads()]

    def broken(settings: Any, index: int) -> object:
        if index == 1:
            raise ValueError("this one breaks")
        return [index]

    def absent(settings: Any) -> object:
        raise Unavailable("a library is missing")

    def cells(count: int, timed: bool = False) -> Any:
        return lambda settings: [Cell({"index": i}, 1 + i, timed) for i in range(count)]

    def combined(claim: str) -> Any:
        return lambda settings, found: [
            number(claim, float(sum(values)), **labels) for labels, values in found
        ]

    seconds = dict.fromkeys(PROFILES, 0.6)
    here = __name__
    return [
        Experiment(DRAWN, here, drawn, cells(3), combined(DRAWN), seconds),  # type: ignore[arg-type]
        Experiment(TIMED, here, drawn, cells(2, True), combined(TIMED), seconds),  # type: ignore[arg-type]
        Experiment(BROKEN, here, broken, cells(2), combined(BROKEN), seconds),  # type: ignore[arg-type]
        Experiment(ABSENT, here, absent, lambda s: [Cell()], combined(ABSENT), seconds),  # type: ignore[arg-type]
    ]


def _run() -> object:
    """A run that is ended after four cells, taken up again, done once more, and begun afresh."""
    import torch

    from benchmarks.experiments.experiment import Settings
    from benchmarks.judging.claims import load_claims
    from benchmarks.record.results import read_results, write_results
    from benchmarks.record.store import Record
    from benchmarks.running.assembling import results_of
    from benchmarks.running.plan import in_shard, plan
    from benchmarks.running.runner import Rules, failures, known, measure

    settings, threads = Settings("smoke", "cpu", 7), torch.get_num_threads()
    claims = [claim for claim in load_claims() if claim.id in (*WANTED, OTHER)]
    selected = [claim for claim in claims if claim.id in WANTED]
    planned = plan(settings, claims, selected, _experiments(), STAMP)
    found: list[object] = [
        [p.claim.id, p.absent, [[t.name, _told(k), in_shard(k, 1, 2)] for t, k in p.cells]]
        for p in planned
    ]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        record = Record(Path(folder) / "record.sqlite")
        for most, rules in ((4, Rules()), (99, Rules()), (99, Rules()), (99, Rules(fresh=True))):
            executor = _Here(most)
            try:
                state = measure(planned, record, executor, rules, STAMP, 1)
            except KeyboardInterrupt:
                state = known(planned, record, rules)
            results = results_of(planned, state, settings, STAMP)
            found += [executor.begun, sorted(failures(planned, state)), _assembled(results)]
        path = Path(folder) / "results.json"
        write_results(path, results)
        found.append(_assembled(read_results(path)))
        path.write_text(path.read_text().replace('"value"', '"worth"'))
        found.append(refusal(lambda: read_results(path)))
    torch.set_num_threads(threads)
    return found


def _told(key: Any) -> object:
    """Of a cell's key, all but digests, which are of this commit."""
    return [v for name, v in vars(key).items() if name not in ("code", "subject")]


def _assembled(results: Any) -> object:
    """Numbers and verdicts of results.json: what is told beside them is free."""
    numbers = [[m["id"], m["value"], m["interval"], m["n"]] for m in results["measurements"]]
    return [numbers, [[each["id"], each["verdict"]] for each in results["claims"]]]


CASES = (
    Case(
        "a run",
        "6 claims, 8 cells, ended once",
        "none",
        "a cell that is lost, measured twice, or of another question",
        _run,
        partial(texts_of, *WANTED, OTHER),
    ),
)
