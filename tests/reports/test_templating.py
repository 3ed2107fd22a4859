"""What all pages share: a policy that knows their own styles and scripts, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from reports.templating import page, templates

pytestmark = pytest.mark.K8
TEMPLATE = "<head>{{ head }}</head><body>{{ text }}{{ scripts }}</body>"


def built(text: object = "", **parts: list[str]) -> str:
    template = templates(Path()).from_string(TEMPLATE)
    return page(template, {"text": text}, **{"styles": [], **parts})


def policy_of(html: str) -> dict[str, list[str]]:
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="(.*?)">', html)
    return {name: sources for name, *sources in (part.split() for part in policy.split(";"))}


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_the_pages_own_styles_and_scripts_and_nothing_else() -> None:
    html = built(styles=["a {}", "é {}"], scripts=["one();", "two();"], later=["library();"])
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    assert (style, script) == ("a {}\né {}", "one();\ntwo();")
    assert policy_of(html) == {
        "default-src": ["'none'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "style-src": [hash_of(style)],
        "script-src": [hash_of(script), hash_of("library();")],
    }


def test_a_page_without_scripts_allows_none() -> None:
    html = built(styles=["a {}"])
    assert "script-src" not in policy_of(html)
    assert "<script" not in html


@pytest.mark.parametrize("text", ["'</script>'", "</STYLE>", "// <!--", "'<script>'"])
@pytest.mark.parametrize("part", ["styles", "scripts"])
def test_what_a_browser_would_end_early_is_refused(part: str, text: str) -> None:
    with pytest.raises(ValueError, match="a browser would end it"):
        built(**{part: [text]})


def test_texts_are_escaped_and_what_would_turn_them_around_is_spelled_out() -> None:
    html = built("<b>\u202etxt\u2028\x1b\ud800\nnext שלום")
    assert "<body>&lt;b&gt;\\u202etxt\\u2028\\x1b\\ud800\nnext שלום</body>" in html
    html.encode()


@pytest.fixture(scope="module")
def sources(root: Path) -> dict[str, str]:
    """Every template, by its place below reports."""
    reports = root / "reports"
    return {
        path.relative_to(reports).as_posix(): path.read_text(encoding="utf-8")
        for path in reports.rglob("*.j2")
    }


def test_every_page_is_under_the_policy(root: Path, sources: dict[str, str]) -> None:
    pages = {name: text for name, text in sources.items() if "<html" in text}
    assert {name.partition("/")[0] for name in pages} == {"gate", "history", "render"}
    under = re.compile(r"<head>.*\{\{ head \}\}.*</head>", re.DOTALL)
    assert [name for name, text in pages.items() if not under.search(text)] == []
    assert "Content-Security-Policy" in (root / "reports/published/gate.html").read_text()


def test_a_template_under_the_policy_has_no_style_script_or_handler_of_its_own(
    sources: dict[str, str],
) -> None:
    own = re.compile(
        r"<style|\sstyle=|\son\w+=|javascript:|<script(?! type=\"(?:application/json|text/plain)\")"
    )
    assert {name: found for name, text in sources.items() if (found := own.findall(text))} == {}
