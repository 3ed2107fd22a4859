"""One page of several results files: the later file counts, and what cannot be read is skipped."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record.results import read_results, write_results
from reports.__main__ import main

SHARED = "int8.weights-quality"  # in both, measured
ALONE = "int8.norm-damage"  # in both, measured in the first only


@pytest.fixture
def both(few_results: dict[str, Any], tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of the same claims: the second on another machine, and with one of them only."""
    second = copy.deepcopy(few_results)
    second["environment"] |= {"cpu": "Another CPU", "profile": "full", "commit": "b" * 40}
    second["measurements"] = [m for m in second["measurements"] if m["claim"] == SHARED]
    for claim in second["claims"]:
        if claim["id"] != SHARED:
            for part in (claim, *claim["requirements"]):
                part["measurements"] = []
        claim["because"] = "as the second run found"
    paths = (tmp_path / "first.json", tmp_path / "second.json")
    for path, results in zip(paths, (few_results, second), strict=True):
        path.write_text(json.dumps(results), encoding="utf-8")
    return paths


def build(out: Path, *paths: Path) -> dict[str, Any]:
    assert main(["build", *map(str, paths), "--out", str(out)]) == 0
    return read_results(out / "results.json")


def claim_of(results: dict[str, Any], name: str) -> dict[str, Any]:
    (claim,) = [claim for claim in results["claims"] if claim["id"] == name]
    return claim


def test_the_later_file_counts_for_what_it_measured_and_the_page_says_where(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = map(read_results, both)
    whole = build(tmp_path / "site", *both)
    assert whole["environment"] == first["environment"]
    assert claim_of(whole, SHARED)["because"] == "as the second run found"
    assert claim_of(whole, SHARED)["environment"] == second["environment"]
    assert claim_of(whole, ALONE) == claim_of(first, ALONE)
    ids = sorted(measurement["id"] for measurement in whole["measurements"])
    assert ids == sorted(measurement["id"] for measurement in first["measurements"])
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    article = page.partition('id="int8-weights-quality"')[2].partition("</article>")[0]
    assert "full, Another CPU, 2 cores, commit <code>bbbbbbbbbbbb</code>" in article
    assert f"--profile full --only {SHARED}" in article
    assert page.count("in another run") == 1


def test_the_order_of_the_files_decides(both: tuple[Path, Path], tmp_path: Path) -> None:
    whole = build(tmp_path / "site", *reversed(both))
    assert whole["environment"]["cpu"] == "Another CPU"
    assert claim_of(whole, SHARED)["because"] != "as the second run found"


def test_of_a_folder_the_fuller_profile_counts_and_other_files_are_no_results(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    both[0].rename(folder / "z.json")  # quick
    both[1].rename(folder / "a.json")  # full
    (folder / "other.json").write_text('{"rows": []}')
    (folder / "cut.json").write_text('{"claims": ')
    whole = build(tmp_path / "site", folder)
    assert (
        whole["environment"]["profile"] == read_results(folder / "z.json")["environment"]["profile"]
    )
    assert claim_of(whole, SHARED)["because"] == "as the second run found"
    told = capsys.readouterr().err.splitlines()
    assert "cut.json" in told[0]
    assert told[1:] == ["skipped 1 of 3 results files"]


def test_a_folder_without_results_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(tmp_path), "--out", str(tmp_path / "site")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} holds no results" in line
    assert not (tmp_path / "site").exists()


def test_what_was_merged_once_can_be_merged_again(both: tuple[Path, Path], tmp_path: Path) -> None:
    whole = build(tmp_path / "site", *both)
    assert build(tmp_path / "again", both[0], tmp_path / "site" / "results.json") == whole


def test_files_that_cannot_be_read_are_named_skipped_and_counted(
    both: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, foreign = tmp_path / "cut.json", tmp_path / "foreign.json"
    cut.write_bytes(both[0].read_bytes()[:1000])
    foreign.write_text('{"commits": {}}')
    whole = build(tmp_path / "site", cut, both[0], foreign)
    assert whole == read_results(both[0])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert "cut.json" in told[0]
    assert "foreign.json" in told[1]
    assert told[2] == "skipped 2 of 3 results files"


def test_where_none_can_be_read_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [tmp_path / "bad.json", tmp_path / "absent.json"]
    bad[0].write_text("[")
    assert main(["build", *map(str, bad), "--out", str(tmp_path / "site")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "bad.json" in line
    assert "1 more" in line
    assert not (tmp_path / "site").exists()


def test_the_page_marks_a_claim_whose_code_has_changed_and_names_its_commits(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    results = read_results(both[0])
    claim_of(results, SHARED).update(stale=True, commits=["c" * 40, "d" * 40])
    write_results(both[0], results)
    build(tmp_path / "site", both[0])
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count("the code has changed since some of it was measured") == 1
    assert f"<code>{'c' * 12}</code>, <code>{'d' * 12}</code>" in page


# ---- another model


@pytest.fixture
def of_another_model(few_results: dict[str, Any], tmp_path: Path) -> Path:
    """A run that put one of the claims to a model called tiny, which refutes it."""
    other = copy.deepcopy(few_results)
    other["environment"]["model"] = "models/tiny"
    other["measurements"] = [m for m in other["measurements"] if m["claim"] == SHARED]
    for claim in other["claims"]:
        if claim["id"] == SHARED:
            claim |= {
                "subject": {"name": "tiny", "parameters": 5, "digest": "ab"},
                "verdict": "refuted",
                "finding": "Refuted: on tiny it is not so.",
                "scale": "tiny, 5 parameters",
            }
        else:
            for part in (claim, *claim["requirements"]):
                part["measurements"] = []
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(other), encoding="utf-8")
    return path


def test_what_another_model_gave_stands_beside_and_changes_no_verdict(
    both: tuple[Path, Path], of_another_model: Path, tmp_path: Path
) -> None:
    whole = build(tmp_path / "site", both[0], of_another_model)
    first = read_results(both[0])
    claim = dict(claim_of(whole, SHARED))
    (other,) = claim.pop("elsewhere")
    assert claim == claim_of(first, SHARED)
    assert whole["measurements"] == first["measurements"]
    assert (other["subject"]["name"], other["verdict"]) == ("tiny", "refuted")
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert ">on tiny</th>" in page
    row = page.partition('id="row-int8-weights-quality"')[2].partition("</tr>")[0]
    assert "Refuted: on tiny it is not so." in row
    (opening,) = re.findall(r'<tr[^>]*id="row-int8-weights-quality"[^>]*>', page)
    assert 'data-agreement="differ"' in opening
    article = page.partition('id="int8-weights-quality"')[2].partition("</article>")[0]
    assert "Tested at: tiny, 5 parameters." in article


def test_the_last_file_of_a_model_counts_and_tables_have_a_column_for_it(
    both: tuple[Path, Path], of_another_model: Path, tmp_path: Path, capsys: Any
) -> None:
    again = tmp_path / "again.json"
    text = of_another_model.read_text(encoding="utf-8").replace("is not so", "is so after all")
    again.write_text(text, encoding="utf-8")
    paths = [str(both[0]), str(of_another_model), str(again)]
    assert main(["table", *paths, "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("| tested at | on tiny |")
    (row,) = (line for line in lines if f"`{SHARED}`" in line)
    assert row.endswith("| Refuted: on tiny it is so after all. |")
    assert all(line.endswith("| |") for line in lines[2:] if line and f"`{SHARED}`" not in line)


def test_a_page_of_another_model_alone_is_about_it(of_another_model: Path, tmp_path: Path) -> None:
    build(tmp_path / "site", of_another_model)
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "<dt>model</dt><dd>tiny</dd>" in page
    assert "All of them were put to tiny." in page
    assert "--model models/tiny --out results.json" in page
    assert ">on tiny</th>" not in page
