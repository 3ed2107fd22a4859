"""Before a run: how many cells it has, how long they take, and what their design can tell."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.record.store import Key
from benchmarks.running.plan import NOT_SELECTED, PlannedClaim
from benchmarks.running.progress import duration
from benchmarks.running.runner import State

HEADERS = ("claim", "cells", "in the record", "still takes", "what it can tell")
LATER = " and more"  # cells that follow from what others find
REMARK = (
    "Times are of two cores, as declared. A cell that several claims share is measured once and "
    "counted here for each of them."
)


def forecast(state: State) -> Iterator[tuple[str, ...]]:
    """A row for each selected claim; one that would not be measured says why."""
    for each in state.planned:
        if each.absent == NOT_SELECTED:
            continue
        if each.experiment is None or not each.cells:
            yield each.claim.id, "none", "", "", each.absent
            continue
        done = sum(_is_done(key, state) for _, key in each.cells)
        later = LATER if _has_more(each, done) else ""
        yield (
            each.claim.id,
            f"{len(each.cells)}{later}",
            str(done),
            duration(seconds_left(each, state)),
            each.experiment.design,
        )


def seconds_left(planned: PlannedClaim, state: State) -> float:
    """What was declared of two cores, less what its finished cells took."""
    if all(_is_done(key, state) for _, key in planned.cells):
        return 0.0
    assert planned.experiment is not None
    declared = planned.experiment.seconds[planned.cells[0][0].settings.profile] or 0.0
    taken = sum(
        state.lines[key].seconds / (1 if task.cell.timed else 2)
        for task, key in planned.cells
        if _is_done(key, state)
    )
    return max(0.0, declared - taken)


def _is_done(key: Key, state: State) -> bool:
    return key in state.lines and state.lines[key].outcome == "done"


def _has_more(planned: PlannedClaim, done: int) -> bool:
    return planned.further is not None and done < len(planned.cells)
