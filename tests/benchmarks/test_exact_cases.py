"""One number for whatever a case returns: what moves it, by how much, and what does not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks.exact_cases import tables
from benchmarks.exact_cases.__main__ import page
from benchmarks.exact_cases.calls import CALLS, footprint_of
from benchmarks.exact_cases.case import Case, Raised, fingerprint, result_of
from benchmarks.exact_cases.footprint import footprint
from benchmarks.suite import workloads

X = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TABLES = (
    tables.DOUBLE,
    tables.SINGLE,
    tables.ROUNDED,
    tables.HALF,
    tables.NUMBERS,
    tables.KNOWN,
    tables.KNOWN_ROUNDED,
    CALLS,
)


def moved(before: object, after: object) -> float:
    return abs(fingerprint(after) - fingerprint(before))


@pytest.mark.parametrize(
    "changed",
    [X * 1.001, X + 0.001, X.flip(1), X[:, :49], X.view(50, 3), X.float(), X.clone().fill_(0)],
)
def test_a_change_of_values_order_shape_or_dtype_moves_the_number(changed: torch.Tensor) -> None:
    assert moved(X, changed) > 1e-4


def test_rounding_moves_the_number_by_as_much_as_the_numbers_it_is_made_of() -> None:
    noise = 1e-9 * torch.randn(X.shape, dtype=X.dtype, generator=torch.Generator().manual_seed(1))
    assert 1e-12 < moved(X, X + noise) < 1e-8


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        (1, True),
        ("pass", "fail"),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"b": 1}),
        (None, 0),
        (math.inf, -math.inf),
        (torch.tensor([1.0, math.inf]), torch.tensor([math.inf, 1.0])),
        (Raised(ValueError()), Raised(TypeError())),
        (1e-3, 2e-3),
    ],
)
def test_what_is_no_number_moves_it_as_soon_as_it_changes(before: object, after: object) -> None:
    assert moved(before, after) > 1e-3


def test_a_number_that_is_none_is_refused() -> None:
    for value in (math.nan, torch.tensor([1.0, math.nan])):
        with pytest.raises(ValueError, match="NaN is not a measurement"):
            fingerprint(value)


def test_a_case_that_fails_has_a_result_of_its_own_and_one_that_is_missing_is_skipped() -> None:
    def missing() -> None:
        raise NotImplementedError("this commit lacks it")

    failing = Case("a", "", "", "", lambda: 1 / 0)
    assert fingerprint(result_of(failing)) == fingerprint(Raised(ZeroDivisionError()))
    with pytest.raises(NotImplementedError, match="this commit lacks it"):
        result_of(Case("b", "", "", "", missing))


@pytest.mark.parametrize("table", TABLES[:-1])
def test_no_case_fails_on_this_model_so_that_two_failures_never_look_alike(
    table: tables.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "SIZE", workloads.SIZES["gate"])  # one thread, as there
    failed = []
    for case in table:
        try:
            result = result_of(case)
            failed += [case.name] if isinstance(result, Raised) else []
            assert math.isfinite(fingerprint(result))
        except NotImplementedError:  # FBGEMM is not in every build
            assert "packed" in case.name
    assert failed == []


def test_every_case_has_a_name_of_its_own_and_says_its_size_and_what_it_is_for() -> None:
    for table in TABLES:
        names = tables.names(table)
        assert len(set(names)) == len(names)
        assert all(case.sizes and case.dtype and case.against for case in table)


def test_the_page_of_all_cases_is_the_one_that_is_written_from_them(root: Path) -> None:
    assert (root / "benchmarks/exact_cases/README.md").read_text(encoding="utf-8") == page()


def test_a_footprint_sees_a_copy_a_leak_a_wait_and_a_loop() -> None:
    kept: list[torch.Tensor] = []
    x = torch.ones(1000)
    plain = footprint(lambda: x + 1)
    slack = 64  # bytes of the number that is added
    assert 4000 <= plain["peak"] <= plain["allocated"] <= 4000 + slack
    assert (plain["held"], plain["waits"]) == (0, 0)
    assert 8000 <= footprint(lambda: (x + 1).clone())["peak"] <= 8000 + slack
    assert 4000 <= footprint(lambda: kept.append(x + 1))["held"] <= 4000 + slack
    assert footprint(lambda: float((x + 1)[0]))["waits"] == 1


def test_a_call_that_leaves_the_process_as_it_was_leaves_nothing_behind() -> None:
    assert footprint_of("one token")["left behind"] == 0
