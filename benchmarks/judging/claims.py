"""The claims of all lessons, read and checked: what is said, and what must be measured for it.

They stand in claims.toml of each lesson's folder under experiments/, written before anything was
measured. A claim holds if all its requirements do; those that stand "apart" are judged like a
range. A requirement takes every measurement of its ``metric`` that fits ``where`` (option, choice
or a parameter; of a list, any value), and names the region for the numbers: inside and outside =
[from, to], at_least, at_most, or equals. Verdicts follow by the rule in verdicts.py; no file of
claims has one.

How people are told what was found: ``quantity`` is what a requirement measures, as the subject of
a sentence; ``unit`` what follows a number; ``shown_as`` percent or million; ``said`` the number
that was said, inside the region. ``finding``, of a claim or of a requirement that decides, has
words for a verdict where the plain ones do not tell the story; findings.py says what stands in
braces. No number is typed. ``subject`` is the model that was measured, where the words name it:
another one of a run takes its place.

``said_in``: S1 an editorial summary, S2 a long retelling, S3 the article itself, S4 a podcast about
it, S5 a news piece. An empty list: nobody said it, but the others lean on it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.record.results import Measurement, Parameter
from reference_model.errors import UserError

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
CLAIM_ID = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")  # as in results.schema.json
LESSONS = ("L1", "L2", "L3", "L4", "L5", "L6")

Combination = Literal["together", "apart"]
Role = Literal["claim", "instrument"]
RegionKind = Literal["inside", "outside", "at_least", "at_most", "equals"]
REGION_KINDS: tuple[RegionKind, ...] = get_args(RegionKind)
Side = Literal["within", "without", "across"]
Verdict = Literal["confirmed", "refuted", "depends", "open"]
SHOWN_AS = ("percent", "million")
REFERENCE_LABEL = "reference checkpoint"  # of what is measured of a model as it is


@dataclass(frozen=True)
class Region:
    """The values for which a requirement holds; closed, but ``outside``, which is open.

    ``bounds`` are two for ``inside`` and ``outside``, one for the others.
    """

    kind: RegionKind
    bounds: tuple[float, ...]

    def side(self, low: float, high: float) -> Side:
        """Where [low, high] lies: within the region, without it, or across its border."""
        first, last = self._ends
        covered, apart = first <= low and high <= last, high < first or last < low
        if self.kind == "outside":
            covered, apart = apart, covered
        return "within" if covered else "without" if apart else "across"

    def distance(self, value: float) -> float:
        """From ``value`` to the nearest border."""
        return min(abs(value - bound) for bound in self.bounds)

    @property
    def _ends(self) -> tuple[float, float]:
        match self.kind:
            case "inside" | "outside":
                return self.bounds[0], self.bounds[1]
            case "at_least":
                return self.bounds[0], math.inf
            case "at_most":
                return -math.inf, self.bounds[0]
            case "equals":
                return self.bounds[0], self.bounds[0]

    def as_json(self) -> dict[str, Any]:
        return {self.kind: list(self.bounds) if len(self.bounds) > 1 else self.bounds[0]}


@dataclass(frozen=True)
class Words:
    """How a person tells the measurements of a requirement; see benchmarks/judging/findings.py."""

    quantity: str = ""  # what is measured, as the subject of a sentence: "the speed-up"
    unit: str | None = None  # what follows a number, "×"; None: the measurements' own
    shown_as: str = ""  # "percent" or "million", where people count in these
    said: float | None = None  # the number that was said, inside the region
    finding: Mapping[str, str] = field(default_factory=dict)  # by verdict, where this one decides
    subject: str = ""  # which model was measured, "GPT-2 small"


@dataclass(frozen=True)
class Requirement:
    """One condition of a claim: every measurement of ``metric`` that fits ``where`` in the region.

    A value in ``where`` may be a list: any of them fits. An instrument's requirement is a case with
    a known answer: unless it is confirmed, the claim is open, whatever the others say.
    """

    text: str
    metric: str
    where: dict[str, Parameter | list[Parameter]]
    region: Region
    role: Role = "claim"
    words: Words = field(default_factory=Words)

    def matches(self, measurement: Measurement) -> bool:
        labels = {"choice": measurement.choice, **measurement.labels}
        return measurement.metric == self.metric and all(
            key in labels and _fits(labels[key], wanted) for key, wanted in self.where.items()
        )


@dataclass(frozen=True)
class Claim:
    """A sentence that can fail. ``scale`` names the models it speaks of.

    Requirements hold together, or each stands apart: a claim that may hold for one and not for
    another.
    """

    id: str
    lesson: str
    statement: str
    said_in: list[str]
    sources: list[str]
    scale: str
    requirements: list[Requirement]
    requirements_hold: Combination = "together"
    finding: Mapping[str, str] = field(default_factory=dict)  # by verdict

    def about(self, subject: str, scale: str) -> Claim:
        """The same claim, put to another model than the one that claims.toml speaks of."""
        requirements = [
            replace(
                each,
                where={k: subject if v == REFERENCE_LABEL else v for k, v in each.where.items()},
                words=replace(each.words, subject=subject),
            )
            for each in self.requirements
        ]
        return replace(self, scale=scale, requirements=requirements)


def region_of(written: Mapping[RegionKind, Any]) -> Region:
    """A region as results.json has it: {"inside": [1.6, 2.5]}, {"at_most": 0.005}."""
    ((kind, bounds),) = written.items()
    return Region(kind, tuple(bounds) if isinstance(bounds, list) else (bounds,))


def load_claims(folder: Path = EXPERIMENTS) -> list[Claim]:
    """The claims of every lesson's claims.toml in ``folder``, by lesson, in the order of the files.

    UserError, in one line, if a file is not in order, or there is none.
    """
    claims: dict[str, Claim] = {}
    for path in sorted(folder.glob("*/claims.toml")):
        try:
            for claim in _claims(tomllib.loads(path.read_text(encoding="utf-8"))):
                if claims.setdefault(claim.id, claim) is not claim:
                    raise ValueError(f"claim {claim.id} stands in the files more than once")
        except OSError as error:
            raise UserError(
                f"cannot read the claims in {path} ({error.strerror}); restore it with git"
            ) from error
        except ValueError as error:
            raise UserError(f"{path}: {error}; mend the file") from error
    if not claims:
        raise UserError(f"{folder} has no lesson with a claims.toml; restore them with git")
    return sorted(claims.values(), key=lambda claim: claim.lesson)


def select(claims: Sequence[Claim], patterns: str | None) -> list[Claim]:
    """The claims that ``patterns``, ids or globs with commas between them, name; None: all."""
    if patterns is None:
        return list(claims)
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not any(fnmatchcase(claim.id, pattern) for claim in claims):
            raise UserError(
                f"no claim is called {pattern!r}; python -m benchmarks list shows all of them"
            )
    return [c for c in claims if any(fnmatchcase(c.id, pattern) for pattern in wanted)]


def _claims(document: dict[str, Any]) -> list[Claim]:
    _check_keys("the file", document, {"claim": list}, {})
    return [_claim(entry) for entry in document["claim"]]


def _claim(entry: dict[str, Any]) -> Claim:
    name = f"claim {entry.get('id', '(without id)')}"
    keys = {"id": str, "lesson": str, "statement": str, "said_in": list, "sources": list}
    required: dict[str, type] = {**keys, "scale": str, "requirement": list}
    optional: dict[str, type] = {"requirements_hold": str, "finding": dict, "subject": str}
    _check_keys(name, entry, required, optional)
    if not CLAIM_ID.fullmatch(entry["id"]):
        raise ValueError(f"{name}: an id is lesson.name in small letters, digits and hyphens")
    combination = entry.get("requirements_hold", "together")
    if combination not in get_args(Combination):
        allowed = ", ".join(get_args(Combination))
        raise ValueError(f"{name}: requirements_hold is {combination!r}, not one of {allowed}")
    if entry["lesson"] not in LESSONS:
        raise ValueError(f"{name}: lesson is {entry['lesson']!r}, not one of {', '.join(LESSONS)}")
    if not entry["sources"] or not entry["requirement"]:
        raise ValueError(f"{name}: needs one source and one requirement at least")
    subject = entry.get("subject", "")
    requirements = [_requirement(name, part, subject) for part in entry["requirement"]]
    fields = {key: entry[key] for key in (*keys, "scale")}
    return Claim(
        **fields,
        requirements=requirements,
        requirements_hold=combination,
        finding=_finding(name, entry),
    )


def _requirement(claim: str, entry: dict[str, Any], subject: str) -> Requirement:
    name = f"{claim}, requirement {entry.get('text', '(without text)')!r}"
    optional: dict[str, type] = {"where": dict, "role": str, "quantity": str, "unit": str}
    optional |= {"shown_as": str, "said": object, "finding": dict}
    optional |= dict.fromkeys(REGION_KINDS, object)
    _check_keys(name, entry, {"text": str, "metric": str}, optional)
    regions = [_region(name, kind, entry[kind]) for kind in REGION_KINDS if kind in entry]
    if len(regions) != 1:
        raise ValueError(f"{name}: needs exactly one of {', '.join(REGION_KINDS)}")
    role = entry.get("role", "claim")
    if role not in get_args(Role):
        raise ValueError(f"{name}: role is {role!r}, not one of {', '.join(get_args(Role))}")
    words = _words(name, entry, regions[0], subject)
    where = entry.get("where", {})
    return Requirement(entry["text"], entry["metric"], where, regions[0], role, words)


def _words(name: str, entry: dict[str, Any], region: Region, subject: str) -> Words:
    shown_as, said = entry.get("shown_as", ""), entry.get("said")
    if shown_as and shown_as not in SHOWN_AS:
        raise ValueError(f"{name}: shown_as is {shown_as!r}, not one of {', '.join(SHOWN_AS)}")
    if said is not None:
        (number,) = _numbers(name, "said", said, 1)
        if region.side(number, number) != "within":
            raise ValueError(f"{name}: said is {said!r}, which is not in the region")
    quantity, unit = entry.get("quantity", ""), entry.get("unit")
    return Words(quantity, unit, shown_as, said, _finding(name, entry), subject)


def _finding(name: str, entry: dict[str, Any]) -> dict[str, str]:
    texts = entry.get("finding", {})
    _check_keys(f"{name}, finding", texts, {}, dict.fromkeys(get_args(Verdict), str))
    return dict(texts)


def _region(name: str, kind: RegionKind, given: Any) -> Region:
    expected = 2 if kind in ("inside", "outside") else 1
    bounds = _numbers(name, kind, given, expected)
    if expected == 2 and not bounds[0] < bounds[1]:
        raise ValueError(f"{name}: {kind} = {given!r} is empty")
    return Region(kind, bounds)


def _numbers(name: str, key: str, given: Any, expected: int) -> tuple[float, ...]:
    found = tuple(given) if isinstance(given, list) else (given,)
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in found)
    if not numbers or len(found) != expected or not all(map(math.isfinite, found)):
        raise ValueError(f"{name}: {key} takes {expected} finite number(s), got {given!r}")
    return found


def _check_keys(
    name: str, entry: dict[str, Any], required: Mapping[str, type], optional: Mapping[str, type]
) -> None:
    known = {**required, **optional}
    for key, value in entry.items():
        if key not in known:
            raise ValueError(f"{name}: unknown key {key!r}, known are {', '.join(known)}")
        if not isinstance(value, known[key]):
            raise ValueError(f"{name}: {key} must be a {known[key].__name__}, got {value!r}")
    for key in required:
        if key not in entry:
            raise ValueError(f"{name}: {key} is missing")


def _fits(value: Parameter, wanted: Parameter | list[Parameter]) -> bool:
    if isinstance(wanted, list):
        return any(_fits(value, one) for one in wanted)
    # In Python True equals 1.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
