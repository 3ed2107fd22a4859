"""Figures between marks: what a name leads to, how it is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reference_model.errors import UserError
from reports.__main__ import main
from reports.figures import typed_by_hand, with_figures
from reports.published_figures import figure_text


def speed(value: float, half: float | None, **labels: Any) -> dict[str, Any]:
    interval = None if half is None else [value - half, value + half]
    return {
        "claim": "cache.speed",
        "metric": "speedup",
        "unit": "ratio",
        "value": value,
        "interval": interval,
        "n": None if half is None else 7,
        "option": labels.pop("option", "cached"),
        "parameters": labels,
    }


@pytest.fixture
def published(tmp_path: Path) -> Path:
    share = {"value": 12.5, "interval": None, "n": None, "unit": "percent"}
    share |= {"claim": "lora.share", "metric": "share", "option": "LoRA", "parameters": {}}
    results = {
        "measurements": [
            speed(1.4431, 0.14, tokens=15),
            speed(4.0, 0.5, tokens=128, targets="query,value"),
            speed(0.25, None, option="alpha/r", tokens=2),
            share,
        ],
        "claims": [
            {
                "id": "cache.speed",
                "verdict": "refuted",
                "statement": "Twice as fast.",
                "finding": "Refuted: it is 1.44×.",
            }
        ],
    }
    plain = {
        "rates": {
            "a busy machine": {"share": 0.01, "interval": [0.004, 0.02], "n": 200},
            "quiet": {"share": 0.0, "interval": [0.0, 0.0015]},
        },
        "bytes": 12_345_678,
        "rows": [{"x": 3, "y": 1.5}, {"x": 3.5, "y": 2.5}, {"x": 3, "y": 0.5, "of": "b/c"}],
        "observations": [{"a": 1.0, "b": 2.1}, {"a": 1.0, "b": 1.9}, {"a": 2.0, "b": 4.0}],
    }
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (tmp_path / "plain.json").write_text(json.dumps(plain), encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps(plain["rows"]), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json cache.speed/speedup[tokens=15]", "1.44 (1.30–1.58)"),
        ("results.json cache.speed/speedup[tokens=15] as value", "1.44"),
        ("results.json cache.speed/speedup[tokens=15] as interval", "1.30–1.58"),
        ("results.json cache.speed/speedup[tokens=15] as low", "1.30"),
        ("results.json cache.speed/speedup[tokens=15] as n", "7"),
        ("results.json cache.speed/speedup[targets=query,value,tokens=128]", "4.0 (3.5–4.5)"),
        ("results.json cache.speed/speedup[tokens=128] as inverse", "0.25 (0.22–0.29)"),
        ("results.json cache.speed/speedup[option=alpha/r]", "0.25"),
        ("results.json cache.speed/speedup as most value", "4.0"),
        ("results.json cache.speed/speedup as least", "0.25"),
        ("results.json cache.speed/speedup as count", "3"),
        ("results.json cache.speed as finding", "Refuted: it is 1.44×."),
        ("results.json cache.speed as verdict", "refuted"),
        ("results.json lora.share/share as percent", "12.5 %"),
        ("plain.json rates/a busy machine as percent", "1.0 % (0.4–2.0)"),
        ("plain.json rates/quiet as percent high", "0.15 %"),
        ("plain.json rates/*/share as most", "0.01"),
        ("plain.json bytes as MB", "12.3 MB"),
        ("plain.json bytes", "12,345,678"),
        ("plain.json rows[x=3.5]/y", "2.5"),
        ("plain.json rows[of=b/c]/y", "0.5"),
        ("plain.json rows[x=3]/y as mean", "1"),
        ("plain.json rows[x=3]/y as rms", "1.12"),
        ("plain.json rows[x=3]/y over rows[x=3.5]/y as sum", "0.8"),
        ("plain.json observations/b over observations/a", "2.0 (1.8–2.3)"),
        ("list.json [x=3.5]/y", "2.5"),
    ],
)
def test_a_name_leads_to_a_figure(published: Path, name: str, text: str) -> None:
    assert figure_text(published, name) == text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.json a", "cannot read"),
        ("plain.json rates/fast", "nothing is called 'fast'"),
        ("plain.json rows[x=4]/y", "nothing is called"),
        ("plain.json rates//quiet", "is no step of a path"),
        ("plain.json rates", "is no number"),
        ("plain.json rows/y", "3 figures are called so"),
        ("plain.json rows/y over rows[x=3]/y", "3 figures over 2"),
        ("plain.json bytes as mb", "nothing is called"),
        ("results.json cache.speeds as finding", "knows no claim"),
        ("results.json cache.speed/speedup[tokens=16]", "nothing is called"),
    ],
)
def test_a_name_that_leads_to_no_figure_is_told_in_one_line(
    published: Path, name: str, told: str
) -> None:
    with pytest.raises(UserError) as raised:
        with_figures(f"above\n\nA <!-- = {name} --><!-- / -->", published, "page.md")
    assert str(raised.value).startswith("page.md, line 3: ")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_writes_the_figures_and_leaves_all_else(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = "<!-- = plain.json\n  bytes as MB -->"
    code = "```html\n<!-- = nothing -->\n```\nand `<!-- = x --><!-- / -->`"
    page = published / "page.md"
    page.write_bytes(f"{code}\r\nHeld: {mark}1<!-- / -->; | {mark}<!-- / --> | ä\n".encode())
    assert main(["figures", str(page), "--published", str(published)]) == 0
    assert capsys.readouterr().out == "2 figures in 1 files\n"
    held = f"{mark}12.3 MB<!-- / -->"
    assert page.read_bytes() == f"{code}\r\nHeld: {held}; | {held} | ä\n".encode()


def test_a_mark_that_would_break_its_page_is_refused_and_the_page_left_alone(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = published / "page.md"
    for text, told in (
        ("a\n\nb <!-- = plain.json bytes -->1", "line 3: a mark has no end"),
        ("b <!-- = plain.json bytes -->1 <!-- x --> <!-- / -->", "line 1: a mark has no end"),
        ("a\n- <!-- = plain.json bytes -->1<!-- / -->", "line 2: a mark starts a line"),
    ):
        page.write_text(text, encoding="utf-8")
        assert main(["figures", str(page), "--published", str(published)]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
        assert page.read_text(encoding="utf-8") == text


def test_what_is_typed_by_hand_is_all_but_code_and_marked_figures() -> None:
    text = "1.5 `2.5` <!-- = a b -->3.5<!-- / -->\n```\n4.5\n```\n5.5\n"
    typed = typed_by_hand(text)
    assert len(typed) == len(text)
    assert typed.count("\n") == text.count("\n")
    assert [word for word in ("1.5", "2.5", "3.5", "4.5", "5.5") if word in typed] == ["1.5", "5.5"]
