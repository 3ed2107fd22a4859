"""Results of an older schema: numbers and verdicts stay, sentences are those of today."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.judging.claims import load_claims
from benchmarks.record.results import SCHEMA_VERSION, read_results
from reference_model.errors import UserError
from reports.reading import of_today, read

Results = dict[str, Any]
Write = Callable[[Any], Path]


@pytest.fixture
def old(few_results: Results) -> Results:
    """The same as schema 1 had it: without findings and roles, and in its words."""
    few_results["schema"] = 1
    for claim in few_results["claims"]:
        del claim["finding"]
        claim["because"] = "Not built yet." if not claim["measurements"] else "Metric lies inside."
        for part in claim["requirements"]:
            del part["role"]
            part["because"] = "metric lies inside"
    return few_results


def test_a_file_of_schema_1_is_told_in_the_words_of_today(old: Results, write: Write) -> None:
    before = copy.deepcopy(old)
    found = read(write(old))
    assert found["schema"] == SCHEMA_VERSION
    assert found["measurements"] == before["measurements"]
    claims = {claim["id"]: claim for claim in found["claims"]}
    for claim in before["claims"]:
        for key in ("verdict", "measurements", "scale", "region"):
            assert claims[claim["id"]][key] == claim[key]
    quality = claims["int8.weights-quality"]
    assert quality["finding"].startswith("Confirmed: INT8 weights cost our 6 M model 0.0004 nats")
    assert quality["because"].startswith("The loss by INT8 weights is 0.0004 nats a token (95 %")
    assert claims["lora.rslora-is-a-rate"]["finding"] == "Open: no experiment measures it yet."
    damage = claims["int8.norm-damage"]["requirements"]
    assert {part["role"] for part in damage} == {"claim", "instrument"}


def test_what_is_read_of_an_old_file_is_a_valid_new_one(old: Results, write: Write) -> None:
    found = read(write(old))
    assert read_results(write(found)) == found
    assert read(write(found)) == found


def test_a_file_of_this_schema_keeps_all_but_findings_that_are_reworded(
    few_results: Results,
) -> None:
    assert of_today(few_results) == few_results
    older = copy.deepcopy(few_results)
    for claim in older["claims"]:
        claim["finding"] = "Confirmed: in other words."
    claims = {claim["id"]: claim for claim in of_today(older)["claims"]}
    for claim in few_results["claims"]:
        if claim["measurements"]:
            assert claims[claim["id"]] == claim


def test_a_verdict_that_todays_rule_would_not_give_is_kept_with_its_own_reason(
    old: Results, write: Write
) -> None:
    claim = next(c for c in old["claims"] if c["id"] == "int8.weights-quality")
    claim["verdict"] = claim["requirements"][0]["verdict"] = "refuted"
    found = {c["id"]: c for c in read(write(old))["claims"]}["int8.weights-quality"]
    assert (found["verdict"], found["because"]) == ("refuted", "Metric lies inside.")
    assert found["finding"].startswith("Refuted: INT8 weights cost our 6 M model 0.0004 nats")


def test_a_claim_that_asked_for_something_else_is_told_as_its_file_has_it(
    old: Results, write: Write
) -> None:
    claim = next(c for c in old["claims"] if c["id"] == "int8.weights-quality")
    claim["requirements"][0]["region"] = {"at_most": 0.1}
    claim["statement"] = "What was said then."
    found = {c["id"]: c for c in read(write(old))["claims"]}["int8.weights-quality"]
    assert found["statement"] == "What was said then."
    assert found["finding"].startswith("Confirmed: loss increase (per channel) is 0.0004 nats")


def test_a_claim_that_is_no_longer_made_is_told_too(old: Results, write: Write) -> None:
    for claim in old["claims"]:
        claim["id"] = "gone.claim" if claim["id"] == "lora.rslora-is-a-rate" else claim["id"]
    found = {c["id"]: c for c in read(write(old))["claims"]}
    assert "gone.claim" not in {claim.id for claim in load_claims()}
    assert found["gone.claim"]["finding"] == "Open: no experiment measures it yet."


def test_a_finding_is_demanded_of_this_schema_and_not_of_the_first(
    old: Results, write: Write
) -> None:
    assert read_results(write(old)) == old
    old["schema"] = 2
    with pytest.raises(UserError, match="'finding' is a required property"):
        read_results(write(old))
