"""The rule that turns measurements into verdicts, and the sentences that explain them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.judging.claims import Claim, Combination, Region, Requirement, Role, Words
from benchmarks.judging.verdicts import judge_claim, judge_measurement, judge_requirement
from benchmarks.record.results import Measurement

BETWEEN = Region("inside", (1.6, 2.5))


def measured(value: float, half: float | None = None, **labels: Any) -> Measurement:
    option = labels.pop("option", "kv")
    return Measurement(
        claim="cache.example",
        metric=labels.pop("metric", "speedup"),
        unit=labels.pop("unit", "ratio"),
        value=value,
        interval=None if half is None else (value - half, value + half),
        n=None if half is None else 7,
        direction="higher",
        choice="cache",
        option=option,
        parameters=labels,
        source="clock",
    )


def requires(
    region: Region = BETWEEN, metric: str = "speedup", role: Role = "claim", **where: Any
) -> Requirement:
    return Requirement(f"the {metric} is right", metric, where, region, role)


def claim(*requirements: Requirement, hold: Combination = "together") -> Claim:
    parts = list(requirements)
    return Claim("cache.example", "L5", "It is so.", [], ["a paper"], "any", parts, hold)


@pytest.mark.parametrize(
    ("value", "half", "verdict"),
    [
        (1.8, 0.1, "confirmed"),
        (1.4, 0.1, "refuted"),
        (2.5, 0.1, "open"),
        (2.0, 2.0, "open"),
        (1.6, None, "confirmed"),
        (1.5999, None, "refuted"),
    ],
)
def test_a_measurement_is_judged_by_its_whole_interval(
    value: float, half: float | None, verdict: str
) -> None:
    assert judge_measurement(measured(value, half), BETWEEN) == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.8, 2.0], "confirmed"),
        ([1.2, 3.0], "refuted"),
        ([1.2, 2.0], "depends"),
        ([1.2, 2.0, 1.6], "depends"),
        ([1.2, 1.6], "open"),
        ([2.0, 1.6], "open"),
        ([1.6], "open"),
        ([], "open"),
    ],
)
def test_a_requirement_looks_at_all_its_measurements(values: list[float], verdict: str) -> None:
    cases = [measured(value, 0.05, length=i) for i, value in enumerate(values)]
    assert judge_requirement(requires(), cases).verdict == verdict


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"a": [1.8], "b": [1.8]}, "confirmed"),
        ({"a": [1.8], "b": [9.0]}, "refuted"),
        ({"a": [], "b": [9.0]}, "refuted"),
        ({"a": [1.8], "b": []}, "open"),
        ({"a": [1.8, 9.0], "b": []}, "open"),
        ({"a": [1.8, 9.0], "b": [1.8]}, "depends"),
        ({"a": [1.8, 9.0], "b": [9.0]}, "refuted"),
    ],
)
def test_a_claim_is_as_good_as_its_worst_requirement(
    values: dict[str, list[float]], verdict: str
) -> None:
    cases = [
        measured(value, metric=metric, length=i)
        for metric, row in values.items()
        for i, value in enumerate(row)
    ]
    judgement, parts = judge_claim(claim(requires(metric="a"), requires(metric="b")), cases)
    assert judgement.verdict == verdict
    assert len(parts) == 2
    assert sorted(judgement.measurements) == sorted(m.id for m in cases)


@pytest.mark.parametrize(
    ("known_answer", "claimed", "verdict"),
    [
        (1.8, 1.8, "confirmed"),
        (1.8, 9.0, "refuted"),
        (9.0, 1.8, "open"),
        (9.0, 9.0, "open"),
        (None, 9.0, "open"),
    ],
)
def test_an_instrument_that_misses_its_known_answer_decides_nothing(
    known_answer: float | None, claimed: float, verdict: str
) -> None:
    cases = [measured(claimed, metric="claimed")]
    if known_answer is not None:
        cases.append(measured(known_answer, metric="known"))
    tested = claim(requires(metric="known", role="instrument"), requires(metric="claimed"))
    judgement = judge_claim(tested, cases)[0]
    assert judgement.verdict == verdict
    assert judgement.because.startswith("The instrument is not proven") == (verdict == "open")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"a": [1.8], "b": [1.8]}, "confirmed"),
        ({"a": [9.0], "b": [9.0]}, "refuted"),
        ({"a": [1.8], "b": [9.0]}, "depends"),
        ({"a": [1.8, 9.0], "b": []}, "depends"),
        ({"a": [], "b": [9.0]}, "open"),
        ({"a": [1.8], "b": []}, "open"),
    ],
)
def test_requirements_that_stand_apart_do_not_refute_each_other(
    values: dict[str, list[float]], verdict: str
) -> None:
    cases = [
        measured(value, metric=metric, length=i)
        for metric, row in values.items()
        for i, value in enumerate(row)
    ]
    apart = claim(requires(metric="a"), requires(metric="b"), hold="apart")
    assert judge_claim(apart, cases)[0].verdict == verdict


def test_only_what_fits_metric_option_and_parameters_is_looked_at() -> None:
    wanted = requires(option=["kv", "paged"], new_tokens=15, tied=True)
    fitting = [
        measured(2.0, option="kv", new_tokens=15, tied=True),
        measured(2.0, option="paged", new_tokens=15.0, tied=True),
    ]
    others = [
        measured(9.0, option="none", new_tokens=15, tied=True),
        measured(9.0, option="kv", new_tokens=16, tied=True),
        measured(9.0, option="kv", new_tokens=15, tied=1),
        measured(9.0, option="kv", new_tokens=15),
        measured(9.0, metric="loss", option="kv", new_tokens=15, tied=True),
    ]
    judgement = judge_requirement(wanted, fitting + others)
    assert judgement.measurements == [m.id for m in fitting]
    assert judgement.verdict == "confirmed"


def because(region: Region, *cases: Measurement) -> str:
    return judge_requirement(requires(region), cases).because


def test_one_measurement_is_told_with_its_interval_and_n() -> None:
    told = because(BETWEEN, measured(1.8436, 0.0561, new_tokens=15))
    assert told == "speedup is 1.84 (95 % interval 1.79–1.90, n = 7), within 1.6 to 2.5"


@pytest.mark.K10
def test_what_an_interval_speaks_of_is_named_beside_it() -> None:
    of_plays = replace(measured(1.8436, 0.0561, new_tokens=15), population="the text of 3 plays")
    told = because(BETWEEN, of_plays)
    assert "1.84 (95 % interval 1.79–1.90, n = 7, the text of 3 plays), within" in told


def test_the_part_that_a_requirement_is_about_is_named() -> None:
    wanted = requires(option=["kv", "paged"], new_tokens=15)
    told = judge_requirement(wanted, [measured(2, option="paged", new_tokens=15)]).because
    assert told == "speedup (kv and paged, 15 new tokens) is 2, within 1.6 to 2.5"


def test_a_requirement_is_told_in_its_own_words_and_unit() -> None:
    words = Words("the share saved at rank {rank}", shown_as="percent")
    wanted = replace(requires(Region("at_least", (0.005,)), rank=8), words=words)
    told = judge_requirement(wanted, [measured(0.004, rank=8)]).because
    assert told == "the share saved at rank 8 is 0.4 %, below 0.5 %"


def test_an_exact_count_is_told_in_full() -> None:
    saved = measured(38597376, unit="parameters")
    told = because(Region("equals", (38597376,)), saved)
    assert told == "speedup is exactly 38,597,376 parameters"


def test_rounding_never_carries_a_figure_over_the_border() -> None:
    above = because(Region("at_most", (0.02,)), measured(0.0200004))
    assert above == "speedup is 0.0200004, above 0.02"
    inside = because(Region("inside", (1.6, 2.5)), measured(1.6004, 0.0003))
    assert "1.6001–1.6007" in inside


def test_many_measurements_are_told_by_the_one_nearest_to_the_border() -> None:
    cases = [
        measured(value, 0.01, length=length) for length, value in ((1, 2.0), (2, 1.7), (3, 2.1))
    ]
    told = because(BETWEEN, *cases)
    worst = "1.700 (95 % interval 1.690–1.710, n = 7)"
    assert told == f"speedup: 3 of 3 cases within 1.6 to 2.5; the worst, length 2, has {worst}"


def test_where_all_refute_the_one_that_misses_least_is_told() -> None:
    cases = [measured(value, length=length) for length, value in ((1, 1.2), (2, 1.4))]
    told = because(BETWEEN, *cases)
    assert told == "speedup: none of 2 cases within 1.6 to 2.5; the nearest, length 2, has 1.4"


def test_options_are_named_as_people_call_them() -> None:
    cases = [measured(v, option=option) for option, v in (("rope", 2.0), ("alibi", 3.0))]
    told = because(BETWEEN, *cases)
    assert told == "speedup: within 1.6 to 2.5 for rotary (2), outside 1.6 to 2.5 for ALiBi (3)"
    assert because(Region("equals", (2,)), cases[0], cases[0]) == "speedup: 2 of 2 cases exactly 2"


def test_the_border_is_named_as_a_bound_where_a_number_tells_the_sides_apart() -> None:
    cases = [measured(4.0 / rank, rank=rank, seed=0) for rank in (1, 2, 4, 8)]
    told = because(Region("at_most", (1.5,)), *cases)
    assert told == (
        "speedup: at most 1.5 for rank 4 or more (0.5 to 1), above 1.5 for rank 2 or less (2 to 4)"
    )


def test_the_border_is_named_by_values_where_a_word_tells_the_sides_apart() -> None:
    cases = [measured(v, head=head) for head, v in (("untied", 2.0), ("tied", 3.0))]
    told = because(BETWEEN, *cases)
    assert told.endswith("for an untied head (2), outside 1.6 to 2.5 for a tied head (3)")


def test_the_border_is_a_list_where_no_single_label_tells_the_sides_apart() -> None:
    cases = [
        measured(2.0 if same else 3.0, a=a, b=b)
        for a, b, same in ((0, 0, True), (1, 1, True), (0, 1, False), (1, 0, False))
    ]
    told = because(BETWEEN, *cases)
    assert "for (a 0, b 0) and (a 1, b 1) (2)" in told
    assert told.endswith("for (a 0, b 1) and (a 1, b 0) (3)")


def test_an_interval_that_reaches_across_the_border_is_told_with_what_would_decide_it() -> None:
    across, inside = measured(1.6, 0.1, length=1), measured(2.0, 0.1, length=2)
    alone = "speedup is 1.60 (95 % interval 1.50–1.70, n = 7), across a border of 1.6 to 2.5"
    decide = "; more observations would decide it"
    assert because(BETWEEN, across) == alone + decide
    assert because(BETWEEN, across, inside).endswith(f"a border of 1.6 to 2.5{decide}")
    assert decide not in because(BETWEEN, inside)


def test_what_is_missing_is_named_beside_what_is_decided() -> None:
    parts = claim(requires(metric="a"), requires(metric="b"), requires(metric="c"))
    judgement, _ = judge_claim(parts, [measured(2.0, metric="a"), measured(1.8, metric="b")])
    assert judgement.because == (
        "Confirmed: a is 2, within 1.6 to 2.5. Confirmed: b is 1.8, within 1.6 to 2.5. "
        "Open: the c is right: no experiment measures it yet."
    )


def test_a_claim_without_an_experiment_is_open_for_the_reason_given() -> None:
    judgement, parts = judge_claim(claim(requires()), [], "not selected in this run")
    assert (judgement.verdict, judgement.because) == ("open", "Not selected in this run.")
    assert [part.verdict for part in parts] == ["open"]
