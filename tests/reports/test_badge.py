"""Badges: small SVGs of verdicts that can be read without colour, by a screen reader and safely."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reference_model.errors import UserError
from reports.__main__ import main
from reports.badge import GATE, LEFT, LOOKS, badge, text_width

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [str(each.text) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_badge_says_the_claim_and_its_verdict_by_word_and_symbol() -> None:
    svg = badge("cache.fifteen-tokens", "refuted", "Said. Refuted: 1.36×, not 2×.")
    assert texts(svg) == ["cache.fifteen-tokens", "✗ refuted"]
    tree = ElementTree.fromstring(svg)
    (title,) = tree.iter(f"{SVG}title")
    assert title.text == tree.attrib["aria-label"] == "Said. Refuted: 1.36×, not 2×."
    assert tree.attrib["role"] == "img"


def test_a_badge_is_as_wide_as_its_texts() -> None:
    short, long = (
        int(ElementTree.fromstring(badge(name, "open", "t")).attrib["width"])
        for name in ("a.b", "a.b-of-a-longer-name")
    )
    assert long - short == text_width("a.b-of-a-longer-name") - text_width("a.b")
    for each in ElementTree.fromstring(badge("a.b", "open", "t")).iter(f"{SVG}text"):
        assert int(each.attrib["textLength"]) == text_width(str(each.text))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_white_text_can_be_read_on_every_badge() -> None:
    for colour in (LEFT, *(colour for _, colour in LOOKS.values())):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_a_badge_holds_no_markup_of_a_text_and_stays_small() -> None:
    svg = badge("<b>&\u202e" + "x" * 500, "open", '"><script>alert(1)</script>\n\x1b[2J')
    assert "<script" not in svg
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    assert texts(svg)[0].endswith("…")
    assert len(texts(svg)[0]) <= 80


def test_a_verdict_that_nothing_gives_is_refused() -> None:
    with pytest.raises(UserError, match="no badge for the verdict 'maybe'"):
        badge("a.b", "maybe", "")


def test_the_command_writes_a_badge_for_each_claim_or_for_one(
    few_results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "results.json", tmp_path / "badges"
    path.write_text(json.dumps(few_results), encoding="utf-8")
    assert main(["badge", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"4 badges in {out}\n"
    assert {p.name for p in out.iterdir()} == {f"{c['id']}.svg" for c in few_results["claims"]}
    one = tmp_path / "one"
    assert main(["badge", str(path), "--claim", "tying.abandoned", "--out", str(one)]) == 0
    assert [p.name for p in one.iterdir()] == ["tying.abandoned.svg"]
    assert "◐ depends" in (one / "tying.abandoned.svg").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["badge", str(path), "--claim", "a.b", "--out", str(one)]) == 2
    assert re.fullmatch(r"error: .*has no claim 'a.b'; [^\n]+\n", capsys.readouterr().err)


@pytest.mark.parametrize("verdict", GATE)
def test_the_command_writes_the_badge_of_the_gate(
    verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "gate.json", tmp_path / "badges"
    report = {"schema": 1, "verdict": verdict, "exit_status": 0, "reason": "12 & more compared"}
    path.write_text(json.dumps(report), encoding="utf-8")
    assert main(["badge", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"1 badge in {out}\n"
    svg = (out / "gate.svg").read_text(encoding="utf-8")
    assert texts(svg) == ["gate", f"{LOOKS[verdict][0]} {verdict}"]
    assert f"Gate: {verdict}. 12 &amp; more compared" in svg


def test_a_file_of_another_kind_is_refused_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "other.json", tmp_path / "badges"
    path.write_text('{"verdict": "pass"}', encoding="utf-8")
    assert main(["badge", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
