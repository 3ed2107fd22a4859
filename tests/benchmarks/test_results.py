"""results.json is whole and valid, or a one-line error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments.experiment import Settings
from benchmarks.instruments.environment import environment_stamp
from benchmarks.judging.stats import Estimate
from benchmarks.record import results as results_module
from benchmarks.record.results import Measurement, measured, read_results, write_results
from reference_model.errors import UserError
from tests.benchmarks.inline import nothing_measured


def measurement(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "claim": "cache.fifteen-tokens",
        "metric": "speedup",
        "unit": "ratio",
        "value": 1.84,
        "interval": (1.79, 1.90),
        "n": 7,
        "direction": "higher",
        "choice": "cache",
        "option": "kv",
        "parameters": {"new_tokens": 15},
        "source": "clock",
    }
    return Measurement(**{**fields, **changes})


@pytest.fixture
def results() -> dict[str, Any]:
    record = nothing_measured(Settings("smoke", "cpu", 0))
    entry = next(c for c in record["claims"] if c["id"] == "cache.fifteen-tokens")
    record["measurements"] = [measurement().as_json()]
    entry["measurements"] = [measurement().id]
    return record


def write_raw(path: Path, results: dict[str, Any]) -> Path:
    path.write_text(json.dumps(results), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("found", "fields"),
    [
        (
            Estimate(1.84, (1.79, 1.90), 7, "two plays"),
            {"value": 1.84, "interval": (1.79, 1.90), "n": 7, "population": "two plays"},
        ),
        (np.int64(3), {"value": 3, "interval": None, "n": None, "population": None}),
    ],
)
def test_an_estimate_brings_its_interval_and_a_number_is_exact(
    found: Any, fields: dict[str, Any]
) -> None:
    whole = measurement(**fields)
    others = asdict(whole)
    for field in fields:
        del others[field]
    assert measured(found, **others) == whole


def test_what_is_written_is_what_is_read(tmp_path: Path, results: dict[str, Any]) -> None:
    path = tmp_path / "results.json"
    write_results(path, results)
    assert read_results(path) == results
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_measurement_is_named_by_its_claim_metric_option_and_parameters() -> None:
    assert measurement().id == "cache.fifteen-tokens/speedup[option=kv,new_tokens=15]"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True])
def test_a_measurement_that_is_not_a_finite_number_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        measurement(value=value)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": None},
        {"interval": None},
        {"interval": (2.0, 1.0)},
        {"interval": (math.nan, 1.0)},
        {"n": 0},
    ],
)
def test_an_interval_without_its_n_or_out_of_order_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cache\.fifteen-tokens/speedup"):
        measurement(**changes)


def test_scalars_of_numpy_become_plain_numbers_that_json_can_hold() -> None:
    given = measurement(
        value=np.int64(3),
        interval=(np.float32(2), np.float64(4)),
        n=np.int32(5),
        parameters={"rank": np.int64(8), "tied": np.bool_(True)},
    )
    assert json.loads(json.dumps(given.as_json()))["parameters"] == {"rank": 8, "tied": True}
    assert given.as_json()["interval"] == [2.0, 4.0]


def break_version(results: dict[str, Any]) -> None:
    results["schema"] = 3


def break_verdict(results: dict[str, Any]) -> None:
    results["claims"][0]["verdict"] = "proven"


def break_reference(results: dict[str, Any]) -> None:
    results["claims"][0]["measurements"] = ["nowhere"]


def break_interval(results: dict[str, Any]) -> None:
    results["measurements"][0]["n"] = None


def break_value(results: dict[str, Any]) -> None:
    results["measurements"][0]["value"] = math.nan


def break_id(results: dict[str, Any]) -> None:
    results["measurements"] *= 2


def break_environment(results: dict[str, Any]) -> None:
    del results["environment"]["commit"]


def break_key(results: dict[str, Any]) -> None:
    results["claims"][0]["hostname"] = "here"


def break_owner(results: dict[str, Any]) -> None:
    results["measurements"][0]["claim"] = "nobody.said"


def break_order(results: dict[str, Any]) -> None:
    results["measurements"][0]["interval"] = [2.0, 1.0]


def break_claim_id(results: dict[str, Any]) -> None:
    results["claims"][0]["id"] = "a.b; rm -r ~"


def break_claims(results: dict[str, Any]) -> None:
    results["claims"].append(results["claims"][0])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_owner, "belongs to no claim"),
        (break_order, "ends before it begins"),
        (break_claim_id, "does not match"),
        (break_claims, "a claim stands in it more than once"),
        (
            break_version,
            "schema 3, this program reads 1 and 2; measure again, or use the version that",
        ),
        (break_verdict, "'proven' is not one of"),
        (break_reference, "rests on 'nowhere'"),
        (break_interval, r"\$\.measurements\[0\]"),
        (break_value, "contains NaN"),
        (break_id, "more than once"),
        (break_environment, "'commit' is a required property"),
        (break_key, "'hostname' was unexpected"),
    ],
)
def test_results_that_break_the_schema_are_refused_in_one_line(
    tmp_path: Path, results: dict[str, Any], damage: Any, told: str
) -> None:
    damage(results)
    with pytest.raises(UserError, match=told) as raised:
        read_results(write_raw(tmp_path / "results.json", results))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "measure', b"\xff\xfe", b"[]", b"3"])
def test_a_file_that_is_not_results_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_results(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def of_many_parameters(results: dict[str, Any]) -> None:
    results["measurements"] = [
        measurement(parameters={f"p{n}": 1}).as_json()
        for n in range(results_module.MOST_PARAMETERS + 1)
    ]


def many(kind: str, most: int) -> Any:
    def grow(results: dict[str, Any]) -> None:
        results[kind] = [results[kind][0]] * (most + 1)

    return grow


def of_ids_that_cannot_be_sorted(results: dict[str, Any]) -> None:
    results["claims"][0]["measurements"] = [{"n": n} for n in range(20_000)]


def of_an_id_named_twice(results: dict[str, Any]) -> None:
    entry = next(c for c in results["claims"] if c["measurements"])
    entry["measurements"] *= 2


@pytest.mark.K8
@pytest.mark.parametrize(
    ("grow", "told"),
    [
        (of_many_parameters, "cache.fifteen-tokens have more than 50 parameters together"),
        (many("measurements", 10_000), "10,001 measurements are more than the 10,000"),
        (many("claims", 500), "501 claims are more than the 500"),
        (of_ids_that_cannot_be_sorted, "is not of type 'string'"),
        (of_an_id_named_twice, "cache.fifteen-tokens names a measurement more than once"),
    ],
)
def test_results_that_take_too_long_to_check_or_to_show_are_refused_at_once(
    tmp_path: Path, results: dict[str, Any], grow: Any, told: str
) -> None:
    grow(results)
    path = write_raw(tmp_path / "results.json", results)
    start = process_time()
    with pytest.raises(UserError, match=told):
        read_results(path)
    assert process_time() - start < 5


@pytest.mark.K8
def test_not_every_error_of_a_file_that_is_all_wrong_is_looked_at(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results["schema"] = 7
    (error,) = results_module._validator().iter_errors(results)

    class Endless:
        def iter_errors(self, instance: Any) -> Iterator[Any]:
            yield from [error] * results_module.MOST_ERRORS
            pytest.fail("one more is asked for")

    monkeypatch.setattr(results_module, "_validator", Endless)
    assert "$.schema: 7 is not one of [1, 2]" in str(results_module._first_problem(results))


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of the schema, and what says what it is."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties" and not path.endswith(("/if", "/then")):
                yield from ((f"{path}.{name}", field) for name, field in value.items())
            yield from fields(value, f"{path}/{key}")


def test_every_field_of_the_schema_is_described() -> None:
    schema = json.loads(results_module.SCHEMA_FILE.read_text(encoding="utf-8"))
    found = dict(fields(schema))
    assert len(found) > 60
    for path, field in found.items():
        target = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert "description" in field or "description" in target, path


def test_invalid_results_leave_the_old_file_as_it_was(
    tmp_path: Path, results: dict[str, Any]
) -> None:
    path = tmp_path / "results.json"
    path.write_text("old", encoding="utf-8")
    break_verdict(results)
    with pytest.raises(ValueError, match="proven"):
        write_results(path, results)
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    path.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reference_model.files.os.replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_results(path, results)
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_the_stamp_of_this_machine_fits_the_schema(tmp_path: Path, results: dict[str, Any]) -> None:
    results["environment"] = environment_stamp(Settings("full", "cpu", 3), threads=1)
    write_results(tmp_path / "results.json", results)
