"""python -m reports.gate find --base REV --head REV: which commit of a range made it worse.

First head is gated against base. One benchmark that is worse is followed from there: each commit
that is looked at is gated against base by the same rule, on that benchmark alone. What decides
nothing is measured for longer. At last the commit that was found is gated against the one before
it, since many small steps add up to one that no commit made.
"""

from __future__ import annotations

import glob
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.data.git import git, run_git, top_of
from reference_model.command_line import Parser
from reference_model.errors import UserError
from reference_model.printing import clean, say, warn
from reports.gate.command import GRACE, answered, ask, check_system, end_after, request_of
from reports.gate.compare import BUDGET, Report, Request, compare
from reports.gate.exact import FAILING
from reports.gate.output import percent
from reports.gate.revisions import check_repository, commit_of, short
from reports.gate.search import most_judged, suspects
from reports.gate.verdict import NotComparable, Verdict

SCHEMA = 1
LONGER = (1, 2, 4)  # times the budget, while nothing is decided
NOT_JUDGED = (Verdict.ERROR.words, Verdict.NOT_COMPARABLE.words)
Gate = Callable[[Request], Report]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One gate: of ``commit`` against ``base``."""

    base: str
    commit: str
    verdict: str
    reason: str
    ratio: float | None  # head over base, of what is timed
    seconds: float


@dataclass
class Found:
    """Of which commits one did it, and what was measured on the way to them."""

    base: str
    head: str
    verdict: Verdict
    reason: str
    benchmark: str | None = None
    commits: list[str] = field(default_factory=list)
    alone: Step | None = None  # the commit against the one before it
    steps: list[Step] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""

    def act() -> int:
        from reference_model.files import check_writable

        given = _parser().parse_args(arguments)
        check_system()
        if given.json:
            check_writable(given.json)
        repository = top_of(Path.cwd())
        found = find(repository, request_of(given), warn, _gate(repository))
        say(in_words(repository, found))
        if given.json:
            _write(given.json, found)
        return int(found.verdict)

    return answered(act, _failed)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate find",
        description="Say which commit of a range made the model slower, larger or worse.",
        example="--base v1.0 --head main",
        statuses={
            Verdict.PASS: "nothing is worse at head, so that there is nothing to find",
            Verdict.REGRESSION: "found: one commit, and it is named",
            Verdict.INCONCLUSIVE: "inconclusive: several commits are left, or head is undecided",
            Verdict.ERROR: "error: one line says why nothing was found",
            Verdict.NOT_COMPARABLE: "not comparable: base and head need different packages",
        },
    )
    ask(parser)
    parser.add_argument("--json", type=Path, help="file for what was found, and every step")
    return parser


def _gate(repository: Path) -> Gate:
    def gate(request: Request) -> Report:
        end_after(max(request.budget, BUDGET) + GRACE)
        try:
            return compare(repository, request, lambda line: None)
        finally:
            end_after(0.0)

    return gate


def find(repository: Path, request: Request, tell: Tell, gate: Gate) -> Found:
    """`UserError` where head cannot be judged against base, or does not come after it."""
    check_repository(repository)
    base, head = (commit_of(repository, each) for each in (request.base, request.head))
    if not _comes_after(repository, base, head):
        raise UserError(f"{request.base} is no ancestor of {request.head}; name a commit before it")
    search = _Search(repository, replace(request, base=base, head=head), tell, gate)
    whole = search.gated(base, head)
    if whole["exit_status"] != Verdict.REGRESSION:
        return search.found(Verdict(whole["exit_status"]), whole["reason"])
    search.follow(_worst(whole))
    commits = search.of_range(base, head)
    if len(commits) > 1:
        reason = f"one of {len(commits)} commits did it: those between could not be judged"
        return search.found(Verdict.INCONCLUSIVE, reason, commits)
    return search.confirmed(commits[0])


def _worst(report: Report) -> str:
    """The benchmark that fails first, or the one that is slower by most."""
    failing = [d["id"] for d in report["exact"]["differences"] if d["kind"] in FAILING]
    if failing:
        return str(failing[0])
    slower = [each for each in report["timed"] if each["outcome"] == "regression"]
    return str(max(slower, key=lambda each: each["effect"])["id"])


class _Search:
    """Gates of one range, each remembered."""

    def __init__(self, repository: Path, request: Request, tell: Tell, gate: Gate) -> None:
        self._repository, self._request, self._tell, self._gate = repository, request, tell, gate
        self._benchmark: str | None = None
        self._steps: list[Step] = []

    def follow(self, benchmark: str) -> None:
        """From now on this one alone."""
        self._benchmark = benchmark
        # Its name is meant, whatever of it would be a pattern.
        self._request = replace(self._request, select=glob.escape(benchmark))

    def of_range(self, base: str, head: str) -> list[str]:
        """The commits of which one did it, those that a merge brought among them."""
        commits = _first_parents(self._repository, base, head)
        self._tell(f"{len(commits)} commits, about {most_judged(len(commits))} gates")
        left = suspects(commits, lambda commit: self.worse(base, commit))
        if len(left) > 1:
            return left
        first, *others = _parents(self._repository, left[0])
        for other in others:
            fork = git(self._repository, "merge-base", first, other)
            if self.worse(fork, other):
                return self.of_range(fork, other)
        return left

    def worse(self, base: str, commit: str) -> bool | None:
        """None where it cannot be measured, or nothing is decided after the longest time."""
        verdict = Verdict.ERROR
        for times in LONGER:
            try:
                verdict = Verdict(self.gated(base, commit, times)["exit_status"])
            except UserError:  # it is told as a step
                return None
            if verdict != Verdict.INCONCLUSIVE:
                break
        return {Verdict.REGRESSION: True, Verdict.PASS: False}.get(verdict)

    def gated(self, base: str, commit: str, times: int = 1) -> Report:
        """One step; `UserError` where there is no verdict, which is a step as well."""
        budget = self._request.budget * times
        request = replace(self._request, base=base, head=commit, budget=budget)
        started = time.monotonic()
        try:
            report = self._gate(request)
        except UserError as error:
            kind = Verdict.NOT_COMPARABLE if isinstance(error, NotComparable) else Verdict.ERROR
            self._note(Step(base, commit, kind.words, str(error), None, _since(started)))
            raise
        ratios = [each["effect"] for each in report["timed"] if each["id"] == self._benchmark]
        ratio = ratios[0] if ratios else None
        reason = report["reason"]
        self._note(Step(base, commit, report["verdict"], reason, ratio, _since(started)))
        return report

    def _note(self, step: Step) -> None:
        self._steps.append(step)
        measured = f"{step.verdict}{_told(step.ratio)}"
        self._tell(f"{_named(self._repository, step.commit)}: {measured}, {step.seconds:.0f} s")

    def confirmed(self, commit: str) -> Found:
        """By a gate against the commit before it."""
        (before, *_) = _parents(self._repository, commit)
        worse = self.worse(before, commit)
        alone = self._steps[-1]
        if worse:
            return self.found(Verdict.REGRESSION, alone.reason, [commit], alone)
        reason = (
            f"here the steps since base add up to a regression; against the commit before it "
            f"alone: {alone.verdict}, {alone.reason}"
        )
        return self.found(Verdict.INCONCLUSIVE, reason, [commit], alone)

    def found(
        self,
        verdict: Verdict,
        reason: str,
        commits: Sequence[str] = (),
        alone: Step | None = None,
    ) -> Found:
        return Found(
            self._request.base,
            self._request.head,
            verdict,
            reason,
            self._benchmark,
            list(commits),
            alone,
            self._steps,
        )


def in_words(repository: Path, found: Found) -> str:
    """Each commit on one line, with its subject."""
    words = {Verdict.REGRESSION: "FOUND", Verdict.PASS: "NOTHING TO FIND"}
    lines = [f"{words.get(found.verdict, found.verdict.words.upper())}: {clean(found.reason)}"]
    lines += [_named(repository, commit) for commit in found.commits]
    if found.benchmark:
        lines.append(f"followed by {clean(found.benchmark)}")
    lines += [
        f"not judged: {_named(repository, step.commit)}: {clean(step.reason)}"
        for step in found.steps
        if step.verdict in NOT_JUDGED
    ]
    seconds = sum(step.seconds for step in found.steps)
    lines.append(f"({len(found.steps)} gates, {seconds:.0f} s)")
    return "\n".join(lines)


def _failed(verdict: Verdict, reason: str) -> int:
    warn(f"{verdict.words}: {' '.join(reason.split())}")
    return int(verdict)


def _write(path: Path, found: Found) -> None:
    from reference_model.files import write_whole

    told: dict[str, Any] = {"schema": SCHEMA, **asdict(found)}
    told |= {"verdict": found.verdict.words, "exit_status": int(found.verdict)}
    text = json.dumps(told, indent=1, allow_nan=False) + "\n"
    write_whole(path.parent, {path.name: text.encode()})


def _told(ratio: float | None) -> str:
    return "" if ratio is None else f", {percent(ratio)} against base"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)


# ---- git


def _comes_after(repository: Path, base: str, head: str) -> bool:
    asked = run_git(repository, "merge-base", "--is-ancestor", base, head)
    return base != head and asked.returncode == 0


def _first_parents(repository: Path, base: str, head: str) -> list[str]:
    """From the oldest to the newest; of a merge what it brought is within it."""
    told = git(repository, "rev-list", "--reverse", "--first-parent", f"{base}..{head}")
    return told.split()


def _parents(repository: Path, commit: str) -> list[str]:
    return git(repository, "rev-list", "--parents", "--max-count=1", commit).split()[1:]


def _named(repository: Path, commit: str) -> str:
    return f"{short(commit)} {clean(git(repository, 'show', '--no-patch', '--format=%s', commit))}"
