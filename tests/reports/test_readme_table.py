"""The table of verdicts: made by a command, and as old as the published results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments.catalogue import all_experiments
from benchmarks.judging.claims import load_claims
from reference_model.errors import UserError
from reports.__main__ import main
from reports.merge_results import merge_results
from reports.published_figures import published as published_file
from reports.reading import read
from reports.table import END, MEASUREMENTS, START, measurement_table, put_into, verdict_table

PUBLISHED = Path("reports/published/quick.json")
SMOLLM2 = Path("reports/published/smollm2.json")
PAGE = Path("benchmarks/experiments/README.md")


@pytest.fixture(scope="module")
def published(root: Path) -> dict[str, Any]:
    """Shared: not to be changed."""
    return read(root / PUBLISHED)


def is_left_open(claim: str) -> bool:
    """Whether quick has no time for it, so that it may have been added after the published run."""
    return any(e.claim == claim and e.seconds["quick"] is None for e in all_experiments())


def test_the_lessons_show_all_published_verdicts_of_both_models(root: Path) -> None:
    table = verdict_table(merge_results([root / PUBLISHED, root / PUBLISHED.parent]))
    assert f"{START}\n{table}\n{END}" in (root / PAGE).read_text(encoding="utf-8")


def test_the_page_of_the_codecs_shows_what_is_published(root: Path) -> None:
    results = published_file(root / "reports/published/turboquant.json")
    assert isinstance(results, dict)
    start, end = MEASUREMENTS
    text = (root / "reports/published/kv_codecs.md").read_text(encoding="utf-8")
    metrics = ["format_loss_increase", "format_prediction_kl", "format_top1_agreement"]
    table = measurement_table(results, "turboquant.zero-loss", metrics)
    assert f"{start}\n{table}\n{end}" in text


def test_the_published_run_knows_every_claim_that_it_can_decide_and_decides_fifteen_at_least(
    published: dict[str, Any],
) -> None:
    ids = [claim["id"] for claim in published["claims"]]
    known = [claim.id for claim in load_claims() if claim.id in ids or not is_left_open(claim.id)]
    assert ids == known
    assert sum(claim["verdict"] != "open" for claim in published["claims"]) >= 15
    assert published["environment"]["profile"] == "quick"
    assert published["environment"]["dirty"] is False


def test_the_run_of_smollm2_decides_fifteen_claims_and_names_it_in_each(root: Path) -> None:
    results = read(root / SMOLLM2)
    measured = [claim for claim in results["claims"] if claim["measurements"]]
    assert sum(claim["verdict"] != "open" for claim in measured) >= 15
    assert {claim["subject"]["name"] for claim in measured} == {"SmolLM2-135M (from Q4_1)"}
    assert results["environment"]["dirty"] is False


def test_a_table_replaces_what_stands_between_the_marks_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{START}\nold\n{END}\nafter ä\n", encoding="utf-8")
    put_into(path, "new | table")
    put_into(path, "newer | table")
    assert path.read_text(encoding="utf-8") == (f"before\n{START}\nnewer | table\n{END}\nafter ä\n")


@pytest.mark.K8
def test_the_line_ends_of_the_file_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_bytes(f"before\r\n{START}\r\nold\r\n{END}\r\nafter\r\n".encode())
    put_into(path, "new\ntable")
    put_into(path, "newer\ntable")
    text = f"before\r\n{START}\r\nnewer\r\ntable\r\n{END}\r\nafter\r\n"
    assert path.read_bytes() == text.encode()


@pytest.mark.parametrize("text", ["no marks", START, f"{END} {START}"])
def test_a_file_without_a_place_for_the_table_is_refused_and_left_alone(
    few_results: dict[str, Any],
    tmp_path: Path,
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, results = tmp_path / "page.md", tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    results.write_text(json.dumps(few_results), encoding="utf-8")
    assert main(["table", str(results), "--into", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} has no place for a table")
    assert error.count("\n") == 1
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.K8
@pytest.mark.parametrize(
    "text", [f"{START}\n{END}\n{START}\n{END}\n", f"{START} {START} {END}", f"{START} {END} {END}"]
)
def test_a_file_with_a_mark_twice_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="twice; leave one of each") as raised:
        put_into(path, "table")
    assert "\n" not in str(raised.value)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.K8
def test_no_text_of_the_results_ends_the_table_or_becomes_markup(
    few_results: dict[str, Any], tmp_path: Path
) -> None:
    claim = next(claim for claim in few_results["claims"] if claim["measurements"])
    claim["finding"] = f"{END}\n# mine <img src=x> [a](//b.org) @all #1 | \x1b[2J \u202e"
    path = tmp_path / "page.md"
    path.write_text(f"{START}\n{END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        put_into(path, verdict_table(few_results))
    text = path.read_text(encoding="utf-8")
    assert (text.count(START), text.count(END)) == (1, 1)
    assert text.endswith(f"|\n{END}\nafter\n")
    told = (
        r"&lt;!-- /verdicts --&gt; # mine &lt;img src=x&gt; \[a\](//b.org) @&#8203;all #&#8203;1 \|"
    )
    assert f"| {told} \\\\x1b\\[2J \\\\u202e |" in text


@pytest.mark.K8
@pytest.mark.parametrize("mark", [START, END])
def test_a_table_that_holds_a_mark_is_not_put_anywhere(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"{START}{END}", encoding="utf-8")
    with pytest.raises(UserError, match="the table holds"):
        put_into(path, f"| {mark} |")
    assert path.read_text(encoding="utf-8") == f"{START}{END}"


def test_a_missing_file_is_no_place_for_the_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        put_into(tmp_path / "none.md", "table")


# ---- measurements


def test_a_row_stands_for_each_option_and_a_column_for_each_metric(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, name = tmp_path / "results.json", "turboquant.zero-loss"
    own = {
        "claims": [claim for claim in results["claims"] if claim["id"] == name],
        "measurements": [m for m in results["measurements"] if m["claim"] == name],
    }
    path.write_text(json.dumps(results | own), encoding="utf-8")
    metrics = ["format_loss_increase", "format_prediction_kl"]
    assert main(["measurements", str(path), name, *metrics]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "format loss increase" in lines[0]
    assert len(lines) == 2 + 6  # two formats at three sizes
    assert all(line.count("[") == 2 for line in lines[2:])
    assert main(["measurements", str(path), name, "speed"]) == 2
    assert "these results hold no speed of turboquant.zero-loss" in capsys.readouterr().err
