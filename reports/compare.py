"""Two or more results files side by side: who measured, the verdicts, and every measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from benchmarks.judging.rounding import MINUS, number
from reference_model.errors import UserError
from reports import markdown
from reports.render.formats import label, moment, shown, words

Results = dict[str, Any]
Measurement = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ABSENT, UNMEASURED = "not in it", "not measured"
APART = "apart"  # what is said of two values whose intervals do not overlap
EXPLAINED = (
    f"Changes are those against A. “{APART}”: the 95 % intervals do not overlap, or exact values "
    "differ. Intervals say how sure each file is of its own value; machines differ, too."
)


@dataclass(frozen=True)
class Case:
    """One measurement as the files have it: the same claim, metric, option, parameters and unit."""

    claim: str
    metric: str
    labels: str
    unit: str
    found: tuple[Measurement | None, ...]

    @property
    def values(self) -> list[str]:
        return [ABSENT if m is None else _value(m) for m in self.found]

    @property
    def changes(self) -> list[str]:
        """Of each file but the first, against the first."""
        first = self.found[0]
        return [change(first, other) if first and other else "" for other in self.found[1:]]

    @property
    def differs(self) -> bool:
        """Are values apart, in any of the files, or missing?"""
        return None in self.found or any(text.endswith(APART) for text in self.changes)


@dataclass(frozen=True)
class Comparison:
    names: tuple[str, ...]  # of the files
    letters: str  # what the columns are called
    runs: list[tuple[str, list[str]]]  # (field, its text in each file)
    verdicts: list[tuple[str, list[str]]]  # (claim, its verdict in each file)
    statements: dict[str, str]  # what each claim says
    findings: dict[str, list[str]]  # what each file found of it
    cases: list[Case]

    @property
    def claims(self) -> list[tuple[str, list[Case]]]:
        """(claim, its cases) of every claim that any of the files measured."""
        by_claim: dict[str, list[Case]] = {}
        for case in self.cases:
            by_claim.setdefault(case.claim, []).append(case)
        return list(by_claim.items())

    @property
    def only_in(self) -> list[tuple[str, int]]:
        """(letter, cases that no other file has) of each file."""
        alone = [
            [m is not None for m in case.found].index(True)
            for case in self.cases
            if sum(m is not None for m in case.found) == 1
        ]
        return [(letter, alone.count(index)) for index, letter in enumerate(self.letters)]


def compare(files: Sequence[tuple[str, Results]]) -> Comparison:
    """``files`` are (name, valid results); UserError on fewer than two, or more than letters."""
    if not 2 <= len(files) <= len(LETTERS):
        raise UserError(
            f"a comparison needs 2 to {len(LETTERS)} results files, {len(files)} given; "
            "name them one after the other"
        )
    every = [results for _, results in files]
    tables = [{_key(m): m for m in results["measurements"]} for results in every]
    keys = dict.fromkeys(key for table in tables for key in table)
    claims = dict.fromkeys(claim["id"] for results in every for claim in results["claims"])
    verdicts = [{c["id"]: _verdict(c) for c in results["claims"]} for results in every]
    findings = [{c["id"]: str(c["finding"]) for c in results["claims"]} for results in every]
    said = {c["id"]: str(c["statement"]) for r in reversed(every) for c in r["claims"]}
    cases = []
    for key in keys:
        found = tuple(table.get(key) for table in tables)
        one = next(m for m in found if m is not None)
        cases.append(Case(one["claim"], one["metric"], _labels(one), one["unit"], found))
    return Comparison(
        names=tuple(name for name, _ in files),
        letters=LETTERS[: len(files)],
        runs=[
            (field, [text(name, results["environment"]) for name, results in files])
            for field, text in FIELDS.items()
        ],
        verdicts=[(claim, [v.get(claim, ABSENT) for v in verdicts]) for claim in claims],
        statements=said,
        findings={claim: [f.get(claim, ABSENT) for f in findings] for claim in claims},
        cases=cases,
    )


def disagree(verdicts: Sequence[str]) -> bool:
    """Do those that measured the claim say different things of it?"""
    return len(set(verdicts) - {ABSENT, UNMEASURED}) > 1


def change(first: Measurement, other: Measurement) -> str:
    """The ratio to the first value; the difference where a ratio has no meaning, or rounds to 1."""
    a, b = first["value"], other["value"]
    if a == b:
        amount = "same"
    elif a * b > 0:
        ratio = b / a
        is_told = math.isfinite(ratio) and ratio > 0 and abs(ratio - 1) >= 5e-4
        amount = f"×{number(ratio)}" if is_told else _signed(b - a)
    else:
        amount = _signed(b - a)
    (a_low, a_high), (b_low, b_high) = (m["interval"] or [m["value"]] * 2 for m in (first, other))
    return f"{amount}, {APART}" if a_high < b_low or b_high < a_low else amount


def as_text(comparison: Comparison, everything: bool, layout: str = "simple") -> str:
    """Tables for a terminal, or for Markdown with the layout "github".

    Without ``everything`` only the measurements that differ are listed and the others counted, and
    a claim that a single file measured is one line.
    """
    heading = "## " if layout == "github" else ""
    letters = list(comparison.letters)
    headers = ["metric", "of", "unit", *letters, *_change_heads(letters)]
    parts = [
        _table([[f, *texts] for f, texts in comparison.runs], ["", *letters], layout),
        f"{heading}Findings",
        *_findings(comparison, everything, layout),
    ]
    listed = 0
    for claim, cases in comparison.claims:
        without = _letters_without(cases, letters)
        alone = sum(any(c.found[at] for c in cases) for at in range(len(letters))) == 1
        if without and alone and not everything:
            parts.append(f"{claim}: {len(cases)} measurements, none of them in {without}")
            continue
        shown = [case for case in cases if everything or case.differs]
        rows = [
            [words(c.metric), c.labels, "" if c.unit == "1" else c.unit, *c.values, *c.changes]
            for c in shown
        ]
        listed += len(shown)
        if rows:
            parts.append(f"{heading}{claim}\n\n{_table(rows, headers, layout)}")
    return "\n\n".join([*parts, summary(comparison, listed)])


def summary(comparison: Comparison, listed: int) -> str:
    alone = ", ".join(f"{count} only in {letter}" for letter, count in comparison.only_in)
    hidden = len(comparison.cases) - listed
    rest = f"; {hidden} are not listed (--all lists every one)" if hidden else ""
    return f"{len(comparison.cases)} measurements: {alone}{rest}. {EXPLAINED}"


def _letters_without(cases: Sequence[Case], letters: Sequence[str]) -> str:
    """The files that have none of the cases."""
    held = [any(case.found[index] for case in cases) for index in range(len(letters))]
    return " and ".join(letter for letter, holds in zip(letters, held, strict=True) if not holds)


def _findings(comparison: Comparison, everything: bool, layout: str) -> list[str]:
    """First which verdicts differ, then a paragraph for each claim that several files measured."""
    cases = dict(comparison.claims)
    told, alone = [], dict[str, list[str]]()
    for claim, verdicts in comparison.verdicts:
        having = _letters(verdict not in (ABSENT, UNMEASURED) for verdict in verdicts)
        if len(having) < 2 and not everything:
            alone.setdefault(having, []).append(claim)
        else:
            told.append(_finding(comparison, claim, verdicts, cases.get(claim, []), layout))
    for letter, claims in sorted(alone.items(), reverse=True):
        who = f"Only {letter} measured" if letter else "No file measured"
        told.append(f"{who}: {', '.join(claims)}.")
    return [_differing(comparison), *told]


def _differing(comparison: Comparison) -> str:
    found = [claim for claim, verdicts in comparison.verdicts if disagree(verdicts)]
    if not found:
        return "No verdict differs."
    named = ", ".join(found)
    return f"The verdict differs for {len(found)} claim{'s' if len(found) > 1 else ''}: {named}."


def _finding(
    comparison: Comparison, claim: str, verdicts: Sequence[str], cases: Sequence[Case], layout: str
) -> str:
    """What is said, what each file found, and how much of what was measured differs."""
    escaped = markdown.text if layout == "github" else _one_line
    name = markdown.code(claim) if layout == "github" else claim
    by_text: dict[str, list[str]] = {}
    for letter, text in zip(comparison.letters, comparison.findings[claim], strict=True):
        by_text.setdefault(text, []).append(letter)
    lines = [f"{' and '.join(who)}: {escaped(text)}" for text, who in by_text.items()]
    if cases:
        lines.append(_differences(verdicts, cases))
    head = f"{name}: {escaped(comparison.statements[claim])}"
    if layout == "github":
        return "\n\n".join([head, "\n".join(f"- {line}" for line in lines)])
    return "\n".join([head, *(f"  {line}" for line in lines)])


def _differences(verdicts: Sequence[str], cases: Sequence[Case]) -> str:
    """In a sentence: "The verdicts differ; 2 of 4 measurements do; 3 are not in every file."."""
    shared = [case for case in cases if None not in case.found]
    apart, missing = sum(case.differs for case in shared), len(cases) - len(shared)
    told = ["the verdicts differ"] if disagree(verdicts) else []
    if shared:
        verb = "differ" if apart > 1 else "differs"
        told.append(f"{apart or 'none'} of {_counted(len(shared))} {verb}")
    if missing:
        told.append(f"{_counted(missing)} {'is' if missing == 1 else 'are'} not in every file")
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}."


def _counted(count: int) -> str:
    return f"{count} measurement{'' if count == 1 else 's'}"


def _letters(marked: Iterable[bool]) -> str:
    return "".join(letter for letter, is_marked in zip(LETTERS, marked, strict=False) if is_marked)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _change_heads(letters: Sequence[str]) -> list[str]:
    return [f"{letter} against {letters[0]}" for letter in letters[1:]]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], layout: str) -> str:
    if layout == "github":
        flat = [[markdown.text(cell) for cell in row] for row in rows]
    else:
        flat = [[" ".join(cell.split()) for cell in row] for row in rows]
    return tabulate(flat, headers, tablefmt=layout, disable_numparse=True)


def _verdict(claim: dict[str, Any]) -> str:
    return str(claim["verdict"]) if claim["measurements"] else UNMEASURED


def _key(m: Measurement) -> tuple[str, ...]:
    """The order in which parameters were written does not matter, nor does the id."""
    parameters = sorted(f"{key}={value!r}" for key, value in m["parameters"].items())
    return (m["claim"], m["metric"], m["unit"], m["option"], *parameters)


def _labels(m: Measurement) -> str:
    named = [f"{words(key)} {label(value)}" for key, value in m["parameters"].items()]
    return " · ".join([label(m["option"]), *named])


def _value(m: Measurement) -> str:
    return shown(m) if m["interval"] is None else f"{shown(m)}, n = {number(m['n'])}"


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else f"{MINUS}{number(-value)}"


def _machine(environment: dict[str, Any]) -> str:
    return f"{environment['cpu']}, {environment['cores']} cores"


def _commit(environment: dict[str, Any]) -> str:
    changed = " with uncommitted changes" if environment["dirty"] is True else ""
    return f"{environment['commit'][:12]}{changed}"


def _checkpoint(environment: dict[str, Any]) -> str:
    """A checkpoint has no name: its loss tells it from others."""
    losses = environment.get("checkpoint", {}).get("loss")
    if not isinstance(losses, dict):
        return "none"
    return ", ".join(f"{words(key)} loss {label(value)}" for key, value in losses.items())


FIELDS: dict[str, Callable[[str, dict[str, Any]], str]] = {
    "file": lambda name, _: name,
    "machine": lambda _, e: _machine(e),
    "device": lambda _, e: f"{e['device']}, {e['threads']} threads",
    "GPU": lambda _, e: str(e["gpu"]),
    "profile": lambda _, e: f"{e['profile']}, seed {e['seed']}",
    "commit": lambda _, e: _commit(e),
    "checkpoint": lambda _, e: _checkpoint(e),
    "torch": lambda _, e: str(e["packages"].get("torch", "unknown")),
    "date": lambda _, e: moment(e["utc"]),
}
