"""What leaves for other programs: CSV that reads back as it was, SVG that stands alone."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reports.__main__ import main
from reports.export import as_csv, as_svgs

Results = dict[str, Any]


def test_every_measurement_reads_back_from_its_row_to_the_last_digit(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert len(rows) == len(results["measurements"])
    for row, m in zip(rows, results["measurements"], strict=True):
        for key in ("claim", "metric", "unit", "option", "choice", "direction", "source"):
            assert row[key] == m[key]
        assert float(row["value"]) == m["value"]
        assert json.loads(row["parameters"]) == m["parameters"]
        ends = [float(row["lo"]), float(row["hi"])] if row["lo"] else None
        assert (ends, row["n"]) == (m["interval"], "" if m["n"] is None else str(m["n"]))
    assert {row["verdict"] for row in rows if row["claim"] == "tying.abandoned"} == {"depends"}


def test_a_row_says_what_was_said_and_found_and_shows_its_number_as_the_page_does(
    few_results: Results,
) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(few_results))))
    claims = {claim["id"]: claim for claim in few_results["claims"]}
    for row in rows:
        assert row["statement"] == claims[row["claim"]]["statement"]
        assert row["finding"] == claims[row["claim"]]["finding"]
    shown = [row["shown"] for row in rows if row["claim"] == "int8.weights-quality"]
    assert "0.0004 [0.0001, 0.0007]" in shown


def test_quotes_commas_and_line_ends_in_a_text_stay_in_their_cell(few_results: Results) -> None:
    hostile = 'a "b", c\nd\n;e'
    few_results["measurements"][0]["source"] = hostile
    rows = list(csv.DictReader(io.StringIO(as_csv(few_results), newline="")))
    assert rows[0]["source"] == hostile
    assert len(rows) == len(few_results["measurements"])


@pytest.mark.K8
@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://x.org")',
        "+1",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\n=1",
        " =1",
        "\u3000\xa0=1",
        "＝1",
        " ＋1",
        "－1",
        "＠SUM(1)",
        "﹦1",
    ],
)
def test_a_text_is_no_formula_to_a_spreadsheet_and_a_number_stays_one(
    few_results: Results, text: str
) -> None:
    few_results["measurements"][0] |= {"source": text, "value": -1.5, "interval": [-2.0, -1.0]}
    row = next(csv.DictReader(io.StringIO(as_csv(few_results), newline="")))
    assert row["source"] == f"'{text}"
    assert (row["value"], row["lo"], row["hi"]) == ("-1.5", "-2.0", "-1.0")


@pytest.mark.K8
@pytest.mark.parametrize(
    ("text", "cell"),
    [("\r=1", "\\r=1"), ("\u200b=1", "\\u200b=1"), ("a\x1b[2J\u202eb", "a\\x1b[2J\\u202eb")],
)
def test_what_is_unseen_before_a_formula_or_steers_is_spelled_out(
    few_results: Results, text: str, cell: str
) -> None:
    few_results["measurements"][0]["source"] = text
    row = next(csv.DictReader(io.StringIO(as_csv(few_results), newline="")))
    assert row["source"] == cell


@pytest.mark.K8
def test_parameters_with_what_steers_read_back_as_they_were(few_results: Results) -> None:
    parameters = {"\u202ea": "\U000e0041\x9b\u2028é", "b": -1.5}
    few_results["measurements"][0]["parameters"] = parameters
    text = as_csv(few_results)
    row = next(csv.DictReader(io.StringIO(text, newline="")))
    assert json.loads(row["parameters"]) == parameters
    assert re.findall("[\u202e\U000e0041\x9b\u2028]", text) == []


def test_a_drawing_stands_alone_with_its_title_legend_and_colours(results: Results) -> None:
    claims = [c for c in results["claims"] if c["id"] == "norm.gradient-profile"]
    drawings = as_svgs({**results, "claims": claims})
    assert list(drawings) == [f"norm.gradient-profile-{index}.svg" for index in range(5)]
    svg = drawings["norm.gradient-profile-1.svg"]
    texts = list(ElementTree.fromstring(svg).itertext())
    assert any(text.startswith("Gradient norm by layer, 768 wide, GPT-2's") for text in texts)
    assert any("highest" in text for text in texts)
    assert {"pre · gpt2", "post · gpt2", "deepnorm · deepnorm"} <= set(texts)
    assert not re.search(r"var\(|currentColor|<script|href=", svg)
    assert {"#0072b2", "#d55e00", "#009e73"} <= set(re.findall(r"#\w{6}", svg))


def test_a_claims_id_names_no_other_folder(few_results: Results) -> None:
    claim = next(c for c in few_results["claims"] if c["id"] == "int8.weights-quality")
    for m in few_results["measurements"]:
        if m["claim"] == claim["id"]:
            m["claim"] = "../../etc/x"
    claim["id"] = "../../etc/x"
    names = as_svgs({**few_results, "claims": [claim]})
    assert set(names) == {"..-..-etc-x-0.svg"}


def test_a_claim_whose_chart_cannot_be_drawn_costs_no_other_its_charts(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt, other = "norm.gradient-profile", "tying.saving-small"
    claims = [claim for claim in results["claims"] if claim["id"] in (spoilt, other)]
    results = copy.deepcopy({**results, "claims": claims})
    whole = as_svgs(results)
    for measurement in results["measurements"]:
        if measurement["claim"] == spoilt:
            measurement["parameters"] = {}
    rest = {name for name in whole if name.startswith(other)}
    assert 0 < len(rest) < len(whole)
    assert set(as_svgs(results)) == rest
    assert "no chart of norm.gradient-profile" in capsys.readouterr().err


def test_the_commands_write_whole_files_or_print(
    few_results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(few_results), encoding="utf-8")
    assert main(["csv", str(path)]) == 0
    assert capsys.readouterr().out == as_csv(few_results)
    assert main(["csv", str(path), "--out", str(tmp_path / "all.csv")]) == 0
    assert (tmp_path / "all.csv").read_text(encoding="utf-8") == as_csv(few_results)
    assert main(["svg", str(path), "--out", str(tmp_path / "slides")]) == 0
    assert {p.name for p in (tmp_path / "slides").iterdir()} == set(as_svgs(few_results))
    pipe = tmp_path / "null.csv"
    pipe.symlink_to(os.devnull)
    capsys.readouterr()
    assert main(["csv", str(path), "--out", str(pipe)]) == 0
    assert capsys.readouterr().out == "", "a line more would belong to what went there"
    assert main(["csv", str(tmp_path / "absent.json"), "--out", str(tmp_path / "no.csv")]) == 2
    assert not (tmp_path / "no.csv").exists()
