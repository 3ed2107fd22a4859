"""What a line of evidence means: two numbers, raised by hand when their meaning changes.

Lines are added up where the numbers that matter to them are equal. The model, the suite, the rest
of the gate and every comment are free to change. `tests/reports/gate/test_protocol.py` holds each
number to the digest of the code that it stands for: who changes that code either raises the number
here, or says there that its meaning is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

MEASURED = 1
JUDGED = 1
BEFORE = 0  # of lines from before there were numbers: one gate each, by its commit


@dataclass(frozen=True)
class Meaning:
    """A number, what it stands for in words, and the code that says it exactly.

    ``code`` are names as `benchmarks.record.definitions` takes them; what is ``aside`` words a
    reason or checks what was imported, and is free to change.
    """

    number: int
    words: str
    code: tuple[str, ...]
    aside: tuple[str, ...] = ()


MEANINGS = {
    "measured": Meaning(
        MEASURED,
        "How a pair is measured: fresh processes of base, of head and of base once more as the "
        "control, each with a drawn layout. They hold the same benchmarks and take turns call by "
        "call on one processor, while the next ones start on the others. Turns that settle are "
        "dropped; the rest end by their own scatter. Their log-ratios give one: the middle of "
        "Hodges and Lehmann.",
        (
            "reports.gate.pairs:Pairs",
            "reports.gate.workers:Processes",
            "reports.gate.workers:Worker.__init__",
            "reports.gate.workers:Worker.allow",
            "benchmarks.gate_worker:Worker.prepare",
            "benchmarks.gate_worker:Worker.measure",
        ),
        aside=("check_origin", "_hashing"),
    ),
    "judged": Meaning(
        JUDGED,
        "How pairs are judged: Wilcoxon's signed ranks of each benchmark and of the control, at "
        "looks that are fixed beforehand, against a margin and a slowdown of interest. The levels "
        "are spent over the looks, that of regressions over the benchmarks as well. What is "
        "decided is measured no more, and the budget ends a run.",
        (
            "reports.gate.decision:Rule",
            "reports.gate.decision:decide",
            "reports.gate.timed:run_pairs",
            "reports.gate.compare:BUDGET",
        ),
        aside=("troubles", "_why_open", "UNSTABLE"),
    ),
}
NUMBERS = {name: meaning.number for name, meaning in MEANINGS.items()}
