"""Pairs of a commit with itself, recorded as the gate measures them, the control included."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from reference_model.errors import UserError
from reports.gate.checkouts import checked_out
from reports.gate.compare import CONTROLLED_BY, timed_ids
from reports.gate.pairs import CONTROL, Pairs
from reports.gate.validation import lines
from reports.gate.validation.background_load import beside
from reports.gate.validation.targets import Target, gate_commit


def record_pairs(
    path: Path,
    target: Target,
    block: str,
    upto: int,
    background_load: bool,
    tell: Callable[[str], None],
    select: str = "*",
) -> None:
    """One block of pairs, up to so many of them; those of today's protocol in the file count.

    `UserError` where the file's pairs are of other benchmarks.
    """
    # Stored lines have "stretch" for a block, and "neighbour" for a background load.
    done = len(lines.of_today(path, kind="pair", stretch=block))
    with ExitStack() as stack:
        repository = stack.enter_context(target.repository())
        checkouts = stack.enter_context(checked_out(repository, "HEAD", "HEAD"))
        noise = stack.enter_context(beside(background_load, seed=done))
        ids = timed_ids(checkouts, select)
        for earlier in lines.of_today(path, kind="pair")[:1]:
            if earlier["log_ratios"].keys() != {*ids, CONTROL}:
                raise UserError(f"{path} holds pairs of other benchmarks; use their --select")
        control = CONTROLLED_BY if CONTROLLED_BY in ids else ids[0]
        pairs = stack.enter_context(Pairs(checkouts, "cpu", random.Random(), control))
        stamp = {
            "kind": "pair",
            "target": target.name,
            "stretch": block,
            "neighbour": background_load,
            "commit": checkouts[0].commit,
            "gate": gate_commit(target),
        }
        for number in range(done, upto):
            pair = pairs.measure(ids)
            noise.check()
            record = stamp | {
                "utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "log_ratios": {id: round(ratio, 6) for id, ratio in pair.log_ratios.items()},
                "took": pair.took,
                "machine": pair.machine,
            }
            lines.append(path, record)
            tell(f"{block}, pair {number + 1} of {upto}: {pair.took:.1f} s")
