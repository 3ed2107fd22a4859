"""Texts from elsewhere in Markdown: they stay text, and call for nobody."""

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from reports.gate.compare import Request, Verdict, failed
from reports.gate.output import markdown
from reports.markdown import APART, code, text

pytestmark = pytest.mark.K8
HOSTILE = [
    "<img src=x onerror=alert(1)> & &lt; &#64;",
    "[click](https://x.org) ![i](//x.org/i.png) [a]: b [^1] <https://x.org>",
    "`code` ``two`` *em* **strong** ~~gone~~ $x$",
    "__init__ _em_ a_b_c snake_case_",
    "a | b \\| c \\",
    "# heading",
    "- item",
    "+ item",
    "12. item",
    "1. item",
    "1) item",
    "3) item",
    "1.2 is no item",
    "---",
    "===",
    "-1.02 to -0.98",
    "> quote",
    "* item",
    "\tcode\n    code",
    "```\nfence",
]


def rendered(source: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source)


def plain(value: str) -> str:
    return " ".join(value.split())


@pytest.mark.parametrize("value", HOSTILE)
def test_in_a_paragraph_a_text_reads_as_it_was_and_is_nothing_else(value: str) -> None:
    for before in ("", "before\n"):
        page = rendered(f"{before}{text(value)}")
        inside = re.fullmatch(f"<p>{before}(.*)</p>\n", page)
        assert inside, page
        assert "<" not in inside[1]
        assert html.unescape(inside[1]).replace("\u200b", "") == plain(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_in_a_cell_a_text_reads_as_it_was_and_the_table_keeps_its_shape(value: str) -> None:
    page = rendered(f"| a | b |\n|---|---|\n| {text(value)} | {text(value)} |")
    cells = re.findall("<td>(.*?)</td>", page, re.DOTALL)
    assert len(cells) == 2
    for cell in cells:
        assert "<" not in cell
        assert html.unescape(cell).replace("\u200b", "") == plain(value)


@pytest.mark.parametrize(
    "value", ["@octocat", "see #12", "a/b#3", "GH-7", "https://x.org", "www.x.org", "a@x.org"]
)
def test_what_github_would_link_to_or_call_is_parted(value: str) -> None:
    mark = re.search("[@#:]|GH-|www", value)
    assert mark
    assert text(value) == f"{value[: mark.end()]}{APART}{value[mark.end() :]}"


def test_what_steers_is_spelled_out_in_one_line() -> None:
    assert text("a\n\x1b[2J\u202eb") == r"a \\x1b\[2J\\u202eb"
    assert code("a`b\n\x1bc") == r"`a'b \x1bc`"


def test_the_gates_summary_calls_for_nobody_whatever_a_commit_is_named_or_says() -> None:
    hostile = "@all #12 <img src=x> \x1b[2J\u202e | [a](//b.org)\n# heading `"
    summary = markdown(failed(Request(hostile, hostile), Verdict.ERROR, hostile))
    assert rf"@{APART}all #{APART}12 &lt;img src=x&gt; \\x1b\[2J\\u202e \|" in summary
    assert r"`@all #12 <img src=x> \x1b[2J\u202e | [a](//b.org) # heading '`" in summary
    page = rendered(summary)
    assert re.findall("<(?:img|a|h1)|[\x1b\u202e]", page) == []
    outside = re.sub("<code>.*?</code>", "", page)
    assert "@all" not in outside
    assert "#12" not in outside


def test_ordinary_sentences_are_left_alone() -> None:
    sentence = (
        "Update norm (step = 0) = 0 in 4 cases, at kaiming_uniform, -1.0 (95 % -2 to 1): ±1e-05"
    )
    assert text(sentence) == sentence
