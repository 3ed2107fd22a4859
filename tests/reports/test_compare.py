"""Results side by side: what is matched, what is said of two values, and how files are named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from reports.__main__ import main
from reports.compare import ABSENT, UNMEASURED, as_text, change, compare

Results = dict[str, Any]


def measured(value: float, half: float | None = None) -> dict[str, Any]:
    interval = None if half is None else [value - half, value + half]
    return {"value": value, "interval": interval, "n": None if half is None else 5}


@pytest.mark.parametrize(
    ("first", "other", "said"),
    [
        (measured(2), measured(2), "same"),
        (measured(2), measured(3), "×1.5, apart"),
        (measured(-2, 0.1), measured(-1, 0.1), "×0.5, apart"),
        (measured(2, 0.6), measured(3, 0.6), "×1.5"),
        (measured(0), measured(0.25), "+0.25, apart"),
        (measured(0.5, 2), measured(-0.5, 2), "−1"),
        (measured(10_000_000), measured(10_000_001), "+1, apart"),
        (measured(1e-10), measured(1e300), "+10³⁰⁰, apart"),
    ],
)
def test_values_are_compared_by_their_ratio_or_difference_and_told_apart_by_intervals(
    first: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    assert change(first, other) == said


@pytest.fixture
def other(few_results: Results) -> Results:
    """The same on another machine, where a verdict, a value and two cases are others."""
    other = copy.deepcopy(few_results)
    other["environment"] |= {"cpu": "Other CPU", "device": "cuda", "gpu": "Some GPU"}
    other["environment"]["checkpoint"] = {"loss": {"test": 3.5}}
    claim = next(c for c in other["claims"] if c["id"] == "tying.abandoned")
    claim |= {"verdict": "refuted", "finding": "Refuted: all of them do."}
    changed, added = (m for m in other["measurements"] if m["parameters"].get("family") == "LLaMA")
    changed["value"] = 5
    added["parameters"] = dict(reversed({**added["parameters"], "size": 3}.items()))
    return other


def rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_machine_device_checkpoint_commit_and_profile_of_each_file_stand_first(
    few_results: Results, other: Results
) -> None:
    text = as_text(compare([("one.json", few_results), ("two.json", other)]), everything=False)
    for field, one, two in (
        ("file", "one.json", "two.json"),
        ("machine", "Example CPU @ 2.10GHz, 2 cores", "Other CPU, 2 cores"),
        ("device", "cpu, 2 threads", "cuda, 2 threads"),
        ("GPU", "none: this build of torch has no CUDA", "Some GPU"),
        ("checkpoint", "none", "test loss 3.5"),
        ("commit", "8012a56c0ffe with uncommitted changes", "8012a56c0ffe with"),
        ("profile", "quick, seed 0", "quick, seed 0"),
    ):
        (row,) = rows(text, f"{field} ")
        assert one in row
        assert two in row
    assert text.index("machine") < text.index("Findings") < text.index("metric")


def test_the_verdicts_of_each_file_stand_beside_each_other(
    few_results: Results, other: Results
) -> None:
    fewer = {**other, "claims": [c for c in other["claims"] if c["id"] == "tying.abandoned"]}
    verdicts = dict(compare([("a", few_results), ("b", other), ("c", fewer)]).verdicts)
    assert verdicts["tying.abandoned"] == ["depends", "refuted", "refuted"]
    assert verdicts["int8.weights-quality"] == ["confirmed", "confirmed", ABSENT]
    assert verdicts["lora.rslora-is-a-rate"] == [UNMEASURED, UNMEASURED, ABSENT]


def test_what_each_file_found_is_told_in_plain_sentences(
    few_results: Results, other: Results
) -> None:
    text = as_text(compare([("a", few_results), ("b", other)]), everything=False)
    assert "\n\nThe verdict differs for 1 claim: tying.abandoned.\n\n" in text
    entry = next(c for c in few_results["claims"] if c["id"] == "tying.abandoned")
    paragraph = [
        f"tying.abandoned: {entry['statement']}",
        f"  A: {entry['finding']}",
        "  B: Refuted: all of them do.",
        "  The verdicts differ; 1 of 3 measurements differs; 2 measurements are not in every file.",
    ]
    assert "\n".join(paragraph) in text
    same = next(c for c in few_results["claims"] if c["id"] == "int8.weights-quality")
    assert f"  A and B: {same['finding']}\n  None of 4 measurements differs.\n" in text
    assert "\nNo file measured: lora.rslora-is-a-rate.\n" in text
    again = as_text(compare([("a", few_results), ("b", few_results)]), everything=False)
    assert "\nNo verdict differs.\n" in again


def test_cases_are_matched_by_what_they_are_of_whatever_the_order_of_their_parameters(
    few_results: Results,
) -> None:
    other = copy.deepcopy(few_results)
    for m in other["measurements"]:
        m["parameters"] = dict(reversed(m["parameters"].items()))
        m["id"] = "anything"
    comparison = compare([("a", few_results), ("b", other)])
    assert len(comparison.cases) == len(few_results["measurements"])
    assert not any(case.differs for case in comparison.cases)
    other["measurements"][0]["unit"] = "another"
    assert compare([("a", few_results), ("b", other)]).only_in == [("A", 1), ("B", 1)]


def test_what_differs_is_listed_and_what_agrees_is_counted_unless_all_is_asked_for(
    few_results: Results, other: Results
) -> None:
    comparison = compare([("a", few_results), ("b", other)])
    count = len(few_results["measurements"])
    text = as_text(comparison, everything=False)
    assert len(rows(text, "tied")) == 3
    assert "×5, apart" not in text  # from 0
    assert "+5, apart" in text
    assert text.count(ABSENT) == 2
    assert f"{count + 1} measurements: 1 only in A, 1 only in B; {count - 2} are not" in text
    whole = as_text(comparison, everything=True)
    assert len(rows(whole, "tied")) == 5
    assert "not listed" not in whole


def test_a_claim_that_one_file_did_not_measure_is_one_line(few_results: Results) -> None:
    claim = "int8.weights-quality"
    without = copy.deepcopy(few_results)
    without["measurements"] = [m for m in without["measurements"] if m["claim"] != claim]
    text = as_text(compare([("a", few_results), ("b", without)]), everything=False)
    assert f"\n{claim}: 4 measurements, none of them in B\n" in text


def write(folder: Path, *contents: Results) -> list[str]:
    paths = [folder / f"{index}.json" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return list(map(str, paths))


def test_the_command_prints_text_or_markdown_or_writes_a_page(
    few_results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy.deepcopy(few_results)
    other["measurements"][0]["value"] += 1
    other["environment"]["cpu"] = "<b>a | b</b>\nc"
    paths = write(tmp_path, few_results, other)
    assert main(["compare", *paths]) == 0
    assert "<b>a | b</b> c, 2 cores" in capsys.readouterr().out
    assert main(["compare", *paths, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "## Findings" in lines
    assert any("&lt;b&gt;a \\| b&lt;/b&gt; c, 2 cores" in line for line in lines)
    page = tmp_path / "new" / "page.html"
    assert main(["compare", *paths, "--out", str(page)]) == 0
    written = page.read_text(encoding="utf-8")
    assert "<b>a" not in written
    assert written.count('<tr class="differs">') == 1
    assert written.count("<tr") >= len(few_results["measurements"]) + len(few_results["claims"])


def test_one_file_alone_or_one_that_cannot_be_read_is_refused_in_a_line(
    few_results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one, seventh) = write(tmp_path, few_results, {**few_results, "schema": 7})
    for arguments, told in (([one], "needs 2 to 26"), ([one, seventh], seventh)):
        assert main(["compare", *arguments, "--out", str(tmp_path / "page.html")]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
