"""How numbers become verdicts and words: regions, judgements, rounding, findings, results."""

from __future__ import annotations

import tomllib
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, get_args

from benchmarks.exact_cases.begins import begins_of_experiment, texts_of
from benchmarks.exact_cases.case import Case, refusal

CLAIM = "made.up"
LESSONS = Path(__file__).resolve().parents[1] / "experiments"


def _measurement(value: float, half: float | None = None, **parameters: Any) -> Any:
    from benchmarks.record.results import Measurement

    return Measurement(
        claim=CLAIM,
        metric="ratio",
        unit="ratio",
        value=value,
        interval=None if half is None else (value - half, value + half),
        n=None if half is None else 9,
        direction="lower",
        choice="cache",
        option=str(parameters.pop("option", "cached")),
        parameters=parameters,
        source="simulation",
    )


def _regions() -> object:
    """Sides of intervals and distances, at borders, within and without."""
    from benchmarks.judging.claims import Region

    regions: tuple[tuple[Any, Any], ...] = (
        ("inside", (1.0, 2.0)),
        ("outside", (1.0, 2.0)),
        ("at_least", (1.0,)),
        ("at_most", (2.0,)),
        ("equals", (2.0,)),
        ("inside", (-2.0, -1.0)),
        ("inside", (-1.0, 1.0)),
        ("outside", (-1.0, 1.0)),
        ("at_least", (-1.0,)),
        ("at_most", (-1.0,)),
        ("at_most", (0.0,)),
        ("equals", (0.0,)),
    )
    ends = (-1e9, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 1e9)
    found: list[object] = []
    for kind, bounds in regions:
        region = Region(kind, bounds)
        found += [region.side(low, high) for low, high in product(ends, ends) if low <= high]
        found += [[region.distance(value) for value in ends], region.as_json()]
    return found


SETS: tuple[tuple[tuple[float, float | None], ...], ...] = (
    ((1.5, None),),
    ((2.5, None),),
    ((1.5, 0.1), (1.6, 0.1)),
    ((2.5, 0.1), (3.0, 0.1)),
    ((1.5, 0.1), (2.5, 0.1)),
    ((1.9, 0.3),),
    ((1.5, 0.1), (2.1, 0.3)),
    ((1.5, 0.1), (2.1, 0.3), (2.5, 0.1)),
    ((1.0, 0.0), (2.0, 0.0)),
    (),
)


def _verdicts() -> object:
    """Every way in which measurements of one or two requirements, and an instrument, can lie."""
    from benchmarks.judging.claims import Claim, Region, Requirement
    from benchmarks.judging.verdicts import judge_claim

    holds: tuple[Any, ...] = ("together", "apart")
    roles: tuple[Any, ...] = ("claim", "instrument")
    found: list[object] = []
    for hold, role in product(holds, roles):
        for first, second in product(SETS, SETS):
            requirements = [
                Requirement(
                    "the first", "ratio", {"part": part}, Region("inside", (1.0, 2.0)), given
                )
                for part, given in zip("ab", (roles[0], role), strict=True)
            ]
            claim = Claim(CLAIM, "L5", "It is so.", [], [], "none", requirements, hold)
            measured = [_measurement(v, h, part="a", rank=i) for i, (v, h) in enumerate(first)]
            measured += [_measurement(v, h, part="b", rank=i) for i, (v, h) in enumerate(second)]
            judged, parts = judge_claim(claim, measured)
            found += [judged.verdict, [part.verdict for part in parts], len(judged.measurements)]
    return found


def _matching() -> object:
    """Which measurements a requirement takes."""
    from benchmarks.judging.claims import Region, Requirement, select

    measured = [
        _measurement(1.0, rank=rank, targets=targets, tied=tied)
        for rank, targets, tied in product((4, 8), ("query", "value"), (True, False))
    ]
    wheres: tuple[dict[str, Any], ...] = (
        {},
        {"rank": 8},
        {"rank": [4, 8]},
        {"tied": True},
        {"tied": 1},
        {"rank": 8, "targets": ["value"]},
        {"option": "cached"},
        {"choice": "cache"},
        {"choice": "head"},
        {"depth": 2},
        {"rank": "8"},
    )
    region = Region("at_least", (0.0,))
    found: list[object] = []
    for where in wheres:
        for metric in ("ratio", "share"):
            wanted = Requirement("", metric, where, region)
            found.append([wanted.matches(each) for each in measured])
    return [*found, refusal(partial(select, [], "no.claim"))]


VALUES = (
    0.0,
    1.0,
    -1.0,
    2.5,
    0.04999,
    0.0096,
    1.36,
    99.96,
    1234.5678,
    1e-5,
    -3.2e-7,
    1e7,
    123456789.0,
    4.87e12,
)
HALVES = (0.0, 1e-9, 0.0004, 0.0149, 0.02, 0.19, 0.5, 3.0, 250.0, 1e6)


def _beyond(edge: float, value: float) -> bool:
    return value > edge


def _rounding() -> object:
    """Every kind of number with every kind of interval, and beside a border."""
    from benchmarks.judging import rounding

    found: list[object] = []
    for value in VALUES:
        found += [rounding.number(value), rounding.number(value, 5), rounding.setting(value)]
        found += [rounding.in_full(value), rounding.to_digits(value, 2), rounding.figures(value)]
        for half in HALVES:
            told = rounding.figures(value, (value - half, value + half))
            found += [told, told.interval]
            ends = (value, value - half, value + half)
            for edge in sorted({rounding.to_digits(e, d) for e in ends for d in (1, 2, 3)}):
                near = rounding.figures(value, (ends[1], ends[2]), partial(_beyond, edge))
                found += [near, rounding.number(value, side=partial(_beyond, edge))]
    return found


def _words() -> object:
    """Findings and reasons of a few verdicts: their numbers, signs and verdicts; words are free."""
    import re

    from benchmarks.judging.claims import Claim, Region, Requirement, Words
    from benchmarks.judging.findings import LONGEST, finding
    from benchmarks.judging.verdicts import judge_claim

    found: list[object] = []
    for shown_as, said, of in product(("", "percent", "million"), (None, 1.5), SETS):
        words = Words("the ratio", "×", shown_as, said)
        requirement = Requirement("it is", "ratio", {}, Region("inside", (1.0, 2.0)), words=words)
        claim = Claim(CLAIM, "L5", "It is so.", [], [], "none", [requirement])
        measured = [_measurement(v, h, rank=4**i) for i, (v, h) in enumerate(of)]
        judged, parts = judge_claim(claim, measured)
        told = finding(claim, judged.verdict, parts, measured, judged.because)
        found += [len(told) <= LONGEST, told.partition(":")[0]]
        found += [re.findall(r"[\d.,−×%]+", each) for each in (told, judged.because)]
    return found


# By its value the second is nearest to a border, by its interval the first; and one on each side.
FIGURED = (
    ((1.5, 0.49), (1.2, 0.01)),
    ((1.5, 0.1), (2.5, 0.1), (1.1, 0.05)),
    ((2.5, 0.1), (3.0, 0.2)),
)
NAMES = (
    "value", "number", "interval", "least", "most", "range", "case", "said", "bound", "cases",
    "holding", "failing", "undecided", "holds", "fails", "holds.case", "fails.least", "holds.most",
)  # fmt: skip


def _figures() -> object:
    """Each name that the words of a finding can have, for a verdict of each kind."""
    from benchmarks.judging.claims import Claim, Region, Requirement, Verdict, Words
    from benchmarks.judging.findings import finding
    from benchmarks.judging.verdicts import judge_claim

    found: list[object] = []
    for name, of in product(NAMES, FIGURED):
        texts = dict.fromkeys(get_args(Verdict), f"so {{{name}}}")
        requirement = Requirement("it is", "ratio", {}, Region("inside", (1.0, 2.0)), words=Words())
        claim = Claim(CLAIM, "L5", "It is so.", [], [], "none", [requirement], finding=texts)
        measured = [_measurement(v, h, rank=4**i) for i, (v, h) in enumerate(of)]
        judged, parts = judge_claim(claim, measured)
        found.append(finding(claim, judged.verdict, parts, measured, judged.because))
    return found


def _records() -> object:
    """Measurements to JSON and back; what is no measurement; what JSON may not hold."""
    import tempfile
    from pathlib import Path

    from benchmarks.data.json_files import read_json
    from benchmarks.judging.stats import mean_interval
    from benchmarks.record.results import Measurement, measured

    one = _measurement(1.5, 0.25, rank=8, targets="query,value", tied=True)
    record = partial(
        measured,
        claim=CLAIM,
        metric="ratio",
        unit="1",
        direction="none",
        choice="c",
        option="o",
        source="s",
        parameters={},
    )
    found: list[object] = [
        one.as_json(),
        one.id,
        one.labels,
        Measurement.from_json(one.as_json()) == one,
    ]
    found += [record(3), record(mean_interval([1.0, 2.0, 4.0]))]
    found += [
        refusal(partial(_measurement, float("nan"))),
        refusal(partial(_measurement, 1.0, float("inf"))),
    ]
    texts = (
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        "[1, 2",
        '{"a": "\\u0007"}',
        '{"a": [1e400]}',
        '{"a": [1.5, null]}',
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        for text in texts:
            path.write_text(text)
            found.append(refusal(partial(read_json, path)))
    return found


def _border(claim: str) -> object:
    """What decides a claim: roles, measurements and regions, fixed before they were measured."""
    from benchmarks.judging.claims import load_claims

    (of_claim,) = (each for each in load_claims() if each.id == claim)
    parts = [[r.metric, r.where, r.region, r.role] for r in of_claim.requirements]
    return [of_claim.requirements_hold, parts]


def _splits() -> object:
    """Which play is held out, and the recipe of the checkpoint."""
    from benchmarks.data.assets import SPLIT_FILE
    from benchmarks.training import train_reference

    plays = tomllib.loads(SPLIT_FILE.read_text(encoding="utf-8"))
    return [plays, train_reference.RECIPE, train_reference.CONFIG, train_reference.BATCH_SIZE]


def _claims() -> tuple[str, ...]:
    claims = [
        claim
        for path in sorted(LESSONS.glob("*/claims.toml"))
        for claim in tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
    ]
    return tuple(claim["id"] for claim in sorted(claims, key=lambda claim: claim["lesson"]))


# Untimed experiments of a second or less: what they find in the smoke profile, to the digit.
EXPERIMENTS = (
    "lora.trainable-share",
    "position.parameters",
    "tying.saving-small",
    "tying.saving-large",
    "tying.abandoned",
    "cache.memory-example",
    "int8.norm-share",
)


def _experiment(claim: str) -> object:
    """All that an experiment measures, and the verdict that this leads to."""
    from benchmarks.experiments.catalogue import all_experiments
    from benchmarks.experiments.experiment import Settings
    from benchmarks.judging.claims import load_claims
    from benchmarks.judging.verdicts import judge_claim

    (of_claim,) = (each for each in all_experiments() if each.claim == claim)
    (wanted,) = (each for each in load_claims() if each.id == claim)
    measured = of_claim(Settings("smoke", "cpu", 0))
    judged, _ = judge_claim(wanted, measured)
    # A measurement that is new is none of those that were there.
    return [{m.id: [m.value, m.interval, m.n, m.unit] for m in measured}, judged.verdict]


CASES = (
    Case(
        "regions",
        "12 regions, 66 intervals each",
        "float64",
        "a border on the wrong side",
        _regions,
    ),
    Case(
        "verdicts",
        "400 sets of measurements",
        "float64",
        "a verdict that does not follow",
        _verdicts,
    ),
    Case(
        "what a requirement takes",
        "8 measurements, 22 requirements",
        "none",
        "a measurement that is not looked at",
        _matching,
    ),
    Case(
        "rounding",
        "14 numbers, 10 widths",
        "float64",
        "a digit too many, or a border crossed",
        _rounding,
    ),
    Case(
        "findings", "60 sets of measurements", "float64", "a sentence with another number", _words
    ),
    Case(
        "figures of findings",
        "18 names, 3 sets",
        "float64",
        "a name that stands for another number",
        _figures,
    ),
    Case(
        "records",
        "3 measurements, 6 texts",
        "none",
        "a number that JSON loses or lets in",
        _records,
    ),
    *(
        Case(
            f"border of {claim}",
            "as written",
            "none",
            "a region that moves",
            partial(_border, claim),
            partial(texts_of, claim),
        )
        for claim in _claims()
    ),
    Case("splits and recipe", "38 plays", "none", "text that was trained on is held out", _splits),
    *(
        Case(
            f"experiment {claim}",
            "the smoke profile",
            "float32",
            "an experiment that measures something else",
            partial(_experiment, claim),
            partial(begins_of_experiment, claim),
        )
        for claim in EXPERIMENTS
    ),
)
