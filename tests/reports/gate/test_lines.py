"""The file of evidence: what is read of it, what is never added up, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reference_model.errors import UserError
from reports.gate import protocol
from reports.gate.protocol import NUMBERS
from reports.gate.validation import lines

PAIR = {"kind": "pair", "stretch": "noon", "neighbour": False, "log_ratios": {"a": 0.1}, "took": 2}
REAL = {"kind": "real", "case": "x", "neighbour": False, "exit_status": 0, "seconds": 1}
REAL |= {"exact": None}
PEER = {"kind": "rival", "tool": "t", "case": "x", "neighbour": False, "exit_status": 0}
PEER |= {"seconds": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    lines._say.cache_clear()  # each of them is told once
    return tmp_path / "new" / "lines.jsonl"


def write(path: Path, *records: dict[str, Any]) -> None:
    """As they are: `append` would put today's protocol on them."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def of(measured: int, judged: int, record: dict[str, Any]) -> dict[str, Any]:
    numbers = {"measured": measured, "judged": judged}
    return {"schema": 1, "protocol": numbers, "target": "self", **record}


def test_a_line_carries_its_schema_both_numbers_of_the_protocol_and_its_target(path: Path) -> None:
    assert lines.read(path) == []
    lines.append(path, PAIR | {"target": "toy"})
    (found,) = map(json.loads, path.read_text().splitlines())
    numbers = {"measured": protocol.MEASURED, "judged": protocol.JUDGED}
    assert found == {"schema": 1, "protocol": numbers, **PAIR, "target": "toy"}


def test_a_line_that_was_cut_off_or_does_not_fit_is_named_once_and_skipped_and_no_other(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines.append(path, PAIR)
    with path.open("a") as file:
        file.write('{"kind": "pair", "n"')
    lines.append(path, REAL)
    write(path, {**PAIR, "log_ratios": {"a": "fast"}})
    assert [record["kind"] for record in lines.read(path)] == ["pair", "real"]
    assert [record["case"] for record in lines.read(path, kind="real")] == ["x"]
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"skipped: line 2 of {path} was cut off, or is no record",
        f"skipped: line 4 of {path} does not fit lines.schema.json: log_ratios.a: "
        "'fast' is not of type 'number'",
    ]


@pytest.mark.K7
@pytest.mark.parametrize(
    "line",
    [
        "[]",
        '{"kind": "other"}',
        '{"kind": "real"}',
        json.dumps(of(1, 1, PAIR) | {"schema": 2}),
        json.dumps(of(0, 1, PAIR)),
        json.dumps({"schema": 1, **PAIR}),
        json.dumps(of(1, 1, PAIR) | {"target": "another"}),
        json.dumps(PAIR | {"took": float("nan")}),
    ],
)
def test_what_the_schema_does_not_know_is_no_record(path: Path, line: str) -> None:
    path.parent.mkdir()
    path.write_text(f"{line}\n")
    assert lines.read(path) == []


def test_what_could_not_be_read_again_is_not_written(path: Path) -> None:
    with pytest.raises(ValueError, match=r"could not be read again.*'took' is a required"):
        lines.append(path, {key: value for key, value in PAIR.items() if key != "took"})
    assert not path.exists()


def test_lines_of_another_protocol_are_never_added_up_and_one_line_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lines, "NUMBERS", {"measured": 2, "judged": 5})
    write(path, PAIR, PAIR, of(1, 5, PAIR), of(2, 5, PAIR), PEER)
    for _ in range(2):
        assert lines.read(path) == [of(2, 5, PAIR), PEER]
        assert lines.of_today(path, kind="pair") == [of(2, 5, PAIR)]
    (told,) = capsys.readouterr().err.splitlines()
    assert told == (
        f"left out: lines of {path} that are not of protocol measured 2, judged 5: "
        "2 of the protocol before 1, 1 of protocol measured 1, judged 5"
    )


def test_pairs_are_judged_when_they_are_replayed_and_real_runs_when_they_are_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "NUMBERS", {"measured": 1, "judged": 2})
    write(path, of(1, 1, PAIR), of(1, 1, REAL), of(1, 2, REAL))
    assert lines.read(path) == [of(1, 1, PAIR), of(1, 2, REAL)]


def test_lines_from_before_there_were_numbers_are_read_and_told_as_such_and_not_gone_on_with(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, PAIR, REAL)
    assert lines.read(path) == [PAIR, REAL]
    told = capsys.readouterr().err
    assert told == f"{path} is of the protocol before 1; today's is {lines.named(NUMBERS)}\n"
    assert lines.of_today(path) == []


def test_the_published_evidence_fits_the_schema_and_is_of_the_protocol_before_1(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = root / "reports/published/gate_pairs.jsonl"
    assert len(lines.read(published)) == len(published.read_text().splitlines())
    assert "skipped" not in capsys.readouterr().err
    assert lines.named(lines.protocol_of(published)) == "the protocol before 1"
    assert lines.target_of(published) == "self"


def test_lines_of_several_targets_are_refused(path: Path) -> None:
    lines.check_target(path, "toy")
    lines.append(path, PAIR | {"target": "toy"})
    lines.check_target(path, "toy")
    with pytest.raises(UserError, match="holds lines of the target toy, not self; name a new"):
        lines.check_target(path, "self")
    lines.append(path, PAIR)
    with pytest.raises(UserError, match="of several targets, toy and self; keep those of one"):
        lines.target_of(path)
