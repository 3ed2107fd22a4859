"""The exact layer: which differences are told, and which of them fail."""

from __future__ import annotations

import math

import pytest

from benchmarks.gate_suite import EXACT, NOT_COMPARED, TIMED
from reference_model.errors import UserError
from reports.gate import exact
from reports.gate.exact import Difference, Value, fails

BYTES = "bench_precision.Bytes.track_cache_bytes(reference, float16)"
LOSS = "bench_kv_codecs.Loss.track_loss_increase(turboquant 3)"
FINGERPRINT = "bench_gate.Outputs.track_fingerprint(rope)"
OPERATORS = "bench_gate.Work.track_operators(decode)"


def differences(base: dict[str, Value], head: dict[str, Value]) -> list[Difference]:
    """By what the suite says of each."""
    how = {id: EXACT[id.partition("(")[0]] for id in (*base, *head)}
    return exact.differences(base, head, how)


@pytest.mark.parametrize(
    ("id", "before", "after", "kind"),
    [
        (BYTES, 100.0, 101.0, "worse"),
        (BYTES, 100.0, 99.0, "better"),
        (LOSS, 0.01, 0.010009, "within tolerance"),
        (LOSS, 0.01, 0.0101, "worse"),
        (LOSS, 0.01, 0.0099, "better"),
        (FINGERPRINT, 2.0, 2.001, "changed: verify"),
        (FINGERPRINT, 2.0, 1.999, "changed: verify"),
        (FINGERPRINT, 2.0, 2.000001, "within tolerance"),
        (OPERATORS, 100.0, 117.0, "within tolerance"),
        (OPERATORS, 100.0, 118.0, "worse"),
        (OPERATORS, 100.0, 90.0, "better"),
    ],
)
def test_a_difference_is_for_the_worse_by_its_metric_and_its_tolerance(
    id: str, before: float, after: float, kind: str
) -> None:
    (found,) = differences({id: before}, {id: after})
    assert (found.kind, found.base, found.head) == (kind, before, after)
    assert fails([found]) == (kind in ("worse", "changed: verify"))


def test_equal_numbers_and_what_neither_side_has_are_no_difference() -> None:
    skipped = {"skipped": "no GPU"}
    assert differences({BYTES: 1.0, LOSS: skipped}, {BYTES: 1.0, LOSS: skipped}) == []


def test_what_one_side_lacks_is_new_or_gone_and_gone_fails() -> None:
    skipped = {"skipped": "this commit has no rope"}
    (new,) = differences({BYTES: skipped}, {BYTES: 1.0})
    (gone,) = differences({BYTES: 1.0}, {BYTES: skipped})
    assert (new.kind, new.because) == ("new", "this commit has no rope")
    assert (gone.kind, gone.because) == ("gone", "this commit has no rope")
    assert not fails([new])
    assert fails([gone])
    assert differences({BYTES: 1.0}, {})[0].because == "not in the suite"


def test_the_worse_ones_are_told_first() -> None:
    found = differences({LOSS: 1.0, BYTES: 1.0}, {LOSS: 0.5, BYTES: 2.0})
    assert [difference.kind for difference in found] == ["worse", "better"]


def test_a_number_that_is_none_is_an_error_and_not_unchanged() -> None:
    with pytest.raises(UserError, match="base gives nan and head nan; return finite numbers"):
        differences({BYTES: math.nan}, {BYTES: math.nan})


def test_every_benchmark_of_the_suite_is_compared_or_says_why_not() -> None:
    from asv_runner.discovery import disc_benchmarks

    suite = {found.name for found in disc_benchmarks("benchmarks")}
    assert suite == EXACT.keys() | NOT_COMPARED.keys() | set(TIMED)
    assert len(suite) == len(EXACT) + len(NOT_COMPARED) + len(TIMED)
    timed = {name for name in suite if name.rpartition(".")[2].startswith("time_")}
    assert not timed & EXACT.keys()
