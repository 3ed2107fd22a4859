import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from reports.export import as_svgs
from reports.render.page import render_page

HOSTILE = "</script><script>window.hacked = true</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """What the tests ask about: ids, targets of links, and what would load from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif tag == "a" and name == "href":
                self.targets.append(value or "")
            elif name in ("src", "srcset", "href", "xlink:href", "data"):
                self.loads.append((tag, value or ""))


def without_scripts(page: str) -> str:
    return page[: page.index('<script type="text/plain" id="vega">')]


def article_of(page: str, claim: str) -> str:
    start = page.index(f'<article class="claim" id="{claim.replace(".", "-")}"')
    return page[start : page.index("</article>", start)]


def test_every_claim_is_on_the_page_and_links_to_the_place_that_speaks_of_it(
    page: str, results: dict[str, Any]
) -> None:
    outline = Outline(page)
    for claim in results["claims"]:
        anchor = claim["id"].replace(".", "-")
        assert f"#{anchor}" in outline.targets
        assert outline.ids.count(anchor) == 1


def test_the_scale_of_each_tested_claim_stands_beside_its_verdict(
    page: str, results: dict[str, Any]
) -> None:
    rows = re.findall(r'<tr role="row" id=.*?>(.*?)</tr>', page, re.DOTALL)
    for claim in results["claims"]:
        (row,) = [row for row in rows if f">{claim['id']}</a>" in row]
        scale = f"Tested at: {html.escape(claim['scale'], quote=False)}</span>"
        tested = claim["seconds"] is not None
        assert (scale.replace("'", "&#39;") in row) == tested


def test_no_two_elements_share_an_id_and_every_inner_link_leads_somewhere(page: str) -> None:
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    inner = {target[1:] for target in outline.targets if target.startswith("#")}
    assert inner <= set(outline.ids)


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert Outline(page).loads == [("link", "data:,")]
    assert not re.search(r"@import|url\((?!#)", without_scripts(page))


@pytest.mark.K8
def test_no_text_turns_the_reading_around_in_page_chart_or_drawing(
    few_results: dict[str, Any],
) -> None:
    turned = "gpt2 \u202eesrever\u2066"
    few_results["environment"] |= {"cpu": turned, "packages": {turned: turned}}
    for claim in few_results["claims"]:
        claim |= {
            "statement": turned,
            "finding": turned,
            "because": turned,
            "scale": turned,
            "sources": [turned],
        }
    for m in few_results["measurements"]:
        m |= {"option": f"{m['option']} {turned}", "unit": turned, "source": turned}
        m["parameters"] = {f"{key}{turned}": turned for key in m["parameters"]}
    built = render_page(few_results)
    drawn = "".join(as_svgs(few_results).values())
    assert "<svg" in built
    assert "<svg" in drawn
    assert re.findall("[\u202e\u2066]", built + drawn) == []
    assert r"gpt2 \u202eesrever\u2066" in html.unescape(built)


def test_the_page_is_three_megabytes_at_most(page: str) -> None:
    assert len(page.encode()) <= 3_000_000


def test_each_drawing_stands_before_the_scripts_which_are_inert_text_until_the_page_is_painted(
    page: str,
) -> None:
    charts = page.count('<figure class="chart"')
    assert charts >= 12
    assert without_scripts(page).count('class="marks"') == charts
    before = re.findall(r"<script[^>]*>", without_scripts(page))
    assert set(before) == {'<script type="application/json">'}


def test_each_verdict_is_told_by_a_word_and_a_symbol_beside_its_colour(
    page: str, results: dict[str, Any]
) -> None:
    for verdict, symbol in (("confirmed", "✓"), ("refuted", "✗"), ("depends", "◐"), ("open", "○")):
        assert verdict in {claim["verdict"] for claim in results["claims"]}
        badge = f'<span class="badge {verdict}"><span aria-hidden="true">{symbol}</span> {verdict}'
        assert badge in page


def test_each_claim_links_to_its_evidence_and_the_evidence_back_to_its_row(
    page: str, results: dict[str, Any]
) -> None:
    for claim in results["claims"]:
        anchor = claim["id"].replace(".", "-")
        row = page[page.index(f'<tr role="row" id="row-{anchor}"') :].partition("</tr>")[0]
        assert f'data-verdict="{claim["verdict"]}" data-lesson="{claim["lesson"]}"' in row
        assert f'href="#{anchor}"' in row
        assert page.count(f'<a href="#row-{anchor}"') == 1


def test_the_header_counts_the_verdicts(page: str, results: dict[str, Any]) -> None:
    counted = dict(re.findall(r'<div class="(\w+)">\n<dt>.*?</dt>\n<dd><b>(\d+)</b>', page))
    verdicts = [claim["verdict"] for claim in results["claims"]]
    assert counted == {verdict: str(verdicts.count(verdict)) for verdict in counted}
    assert sum(map(int, counted.values())) == len(verdicts)


def test_every_measurement_stands_in_a_table_of_its_claim(
    page: str, results: dict[str, Any]
) -> None:
    for claim in results["claims"]:
        own = [m for m in results["measurements"] if m["claim"] == claim["id"]]
        if own:
            table = re.search(r"<tbody>(.*?)</tbody>", article_of(page, claim["id"]), re.DOTALL)
            assert table is not None
            assert table[1].count("<tr>") == len(own)


def test_exact_numbers_say_so_and_others_have_their_interval_and_n(page: str) -> None:
    exact = article_of(page, "tying.saving-small")
    assert '38,597,376</td><td class="interval">exact</td>' in exact
    estimated = article_of(page, "int8.weights-quality")
    interval = '0.0004</td><td class="interval">[0.0001, 0.0007]</td><td class="right">120</td>'
    assert interval in estimated


def test_each_requirement_has_a_verdict_of_its_own(page: str, results: dict[str, Any]) -> None:
    damage = next(claim for claim in results["claims"] if claim["id"] == "int8.norm-damage")
    shown = re.findall(r'<li><span class="badge (\w+)"', article_of(page, "int8.norm-damage"))
    assert shown == [requirement["verdict"] for requirement in damage["requirements"]]
    assert len(set(shown)) == 3


def test_a_claim_that_was_not_measured_is_one_line_with_its_reason(page: str) -> None:
    item = re.search(r'<li id="lora-rslora-is-a-rate">(.*?)</li>', page, re.DOTALL)
    assert item is not None
    assert "no experiment measures it yet." in item[1]
    assert '<article class="claim" id="lora-rslora-is-a-rate"' not in page


def test_the_command_that_repeats_a_number_names_claim_profile_device_and_seed(page: str) -> None:
    command = (
        ".venv/bin/python -m benchmarks run --fresh --profile quick --only cache.fifteen-tokens "
        "--device cpu --seed 0 --out results.json"
    )
    assert command in article_of(page, "cache.fifteen-tokens")


def test_papers_are_links(page: str) -> None:
    assert '<a href="https://arxiv.org/abs/2106.09685">arXiv:2106.09685</a>' in page


def test_what_a_verdict_means_is_said_for_the_verdict_that_was_reached(
    few_results: dict[str, Any],
) -> None:
    claim = next(c for c in few_results["claims"] if c["id"] == "int8.weights-quality")
    texts = set()
    for verdict in ("confirmed", "refuted", "open"):
        claim["verdict"] = verdict
        article = article_of(render_page(few_results), claim["id"])
        found = re.search(r'<div class="means">.*?<p>(.*?)</p>', article, re.DOTALL)
        texts.add(found[1] if found else None)
    assert len(texts) == 3
    assert any(text and text.startswith("Nothing follows for a choice yet") for text in texts)


def test_the_checkpoints_loss_stands_on_the_page_if_it_was_measured(
    page: str, few_results: dict[str, Any]
) -> None:
    section = page.partition("The reference checkpoint</h3>")[2]
    row = '<th scope="row">held out loss</th><td class="right">2.71</td>'
    assert row + '<td class="interval">[2.69, 2.73]</td>' in section
    few_results["measurements"] = []
    assert "The reference checkpoint</h3>" not in render_page(few_results)
    few_results["environment"]["checkpoint"] = {"parameters": 5_901_312}
    section = render_page(few_results).partition("The reference checkpoint</h3>")[2]
    assert "<dt>parameters</dt><dd>5,901,312</dd>" in section


def test_a_number_in_the_table_stays_on_its_side_of_the_border(
    few_results: dict[str, Any],
) -> None:
    (m,) = [
        m
        for m in few_results["measurements"]
        if m["claim"] == "int8.weights-quality"
        and m["parameters"].get("granularity") == "per channel"
    ]
    m |= {"value": 0.0020004, "interval": None, "n": None}
    article = article_of(render_page(few_results), "int8.weights-quality")
    assert '<td class="right">0.0020004</td>' in article


def test_machine_versions_commit_and_seed_stand_in_the_table_of_the_run(page: str) -> None:
    for name, text in (
        ("CPU", "Example CPU @ 2.10GHz"),
        ("version: torch", "2.13.0"),
        ("commit", "8012a56c0ffee00000000000000000000000beef"),
        ("uncommitted changes", "yes"),
        ("seed", "0"),
    ):
        assert f"<dt>{name}</dt><dd>{text}</dd>" in page


def test_no_text_of_the_results_can_become_markup(few_results: dict[str, Any]) -> None:
    for claim in few_results["claims"]:
        claim["sources"] = [HOSTILE]
        for field in ("statement", "finding", "because", "scale"):
            claim[field] = HOSTILE
    for measurement in few_results["measurements"]:
        measurement["option"] += HOSTILE
        measurement["parameters"][HOSTILE] = HOSTILE
    few_results["environment"]["cpu"] = HOSTILE
    few_results["environment"]["packages"] = {HOSTILE: HOSTILE}
    page = render_page(few_results)
    assert "window.hacked" in page
    assert "<script>window.hacked" not in page
    assert "<img" not in without_scripts(page)


def chart_of(claim: dict[str, Any]) -> dict[str, Any]:
    """The chart that says the finding."""
    (chart,) = [chart for chart in claim["charts"] if chart["title"] == claim["told"]]
    return chart


def test_the_first_chart_of_what_decides_says_the_finding_and_then_what_is_drawn(
    view: dict[str, Any],
) -> None:
    (claim,) = [c for c in view["measured"] if c["id"] == "cache.fifteen-tokens"]
    titles = [chart["title"] for chart in claim["charts"]]
    assert titles.count(claim["told"]) == 1
    chart = chart_of(claim)
    assert chart["note"].startswith("Speed-up by the cache over 15 tokens. ")  # no other prompt's
    others = [chart["title"] for chart in claim["charts"] if chart is not chart_of(claim)]
    assert all(re.search(r": lowest .*\d.*, highest .*\d", title) for title in others), others


def test_each_claim_with_charts_has_one_that_says_its_finding(view: dict[str, Any]) -> None:
    drawn = [claim for claim in view["measured"] if claim["charts"]]
    assert drawn
    for claim in drawn:
        assert sum(chart["title"] == claim["told"] for chart in claim["charts"]) == 1, claim["id"]
