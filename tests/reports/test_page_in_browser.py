"""The page in headless Chromium, opened from disk, with the network switched off."""

import copy
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from benchmarks.record.results import write_results
from reports.compare import compare
from reports.gate.compare import Request, Verdict, failed
from reports.gate.page import render as render_gate
from reports.reading import read
from reports.render.comparison import render_comparison
from reports.render.page import render_page
from tests.reports.in_browser import HOSTILE, PATIENCE, fits, open_page, violations


@pytest.fixture(scope="module")
def address(page: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("site") / "index.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def opened(browser: Browser, address: str) -> tuple[Page, list[str]]:
    return open_page(browser, address, viewport={"width": 1280, "height": 900})


@pytest.fixture
def tab(opened: tuple[Page, list[str]]) -> Page:
    return opened[0]


def test_the_page_opens_without_a_network_an_error_or_a_claim_missing(
    opened: tuple[Page, list[str]], results: dict[str, Any]
) -> None:
    tab, troubles = opened
    assert troubles == []
    text = tab.inner_text("body")
    assert [c["id"] for c in results["claims"] if c["id"] not in text] == []


def test_every_chart_becomes_one_that_answers_the_pointer(opened: tuple[Page, list[str]]) -> None:
    tab, troubles = opened
    figures = tab.locator("figure[data-chart]")
    assert figures.count() >= 12
    assert tab.locator("figure[data-live] .live svg").count() == figures.count()
    dot = tab.locator("#int8-weights-quality .live svg path[aria-roledescription=point]").first
    dot.scroll_into_view_if_needed()
    dot.hover()
    tooltip = tab.locator("#vg-tooltip-element.visible")
    tooltip.wait_for(timeout=PATIENCE)
    assert "[0.0001, 0.0007]" in tooltip.inner_text()
    assert troubles == [], "its expressions are interpreted: the policy has no eval"


@pytest.mark.K8
def test_a_script_that_got_onto_a_page_would_not_run_nor_reach_the_network(
    browser: Browser, few_results: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "index.html"
    files = compare([("a.json", few_results), ("b.json", changed(few_results))])
    path.write_text(render_comparison(files), encoding="utf-8")
    tab, troubles = open_page(browser, path.as_uri(), ready="th button")
    assert troubles == [], "its own script ran"
    found = tab.evaluate(BREAK_IN)
    assert tab.evaluate("window.hacked") is None
    assert sorted(set(found)) == [
        "base-uri",
        "connect-src",
        "form-action",
        "frame-src",
        "img-src",
        "script-src",  # eval
        "script-src-attr",
        "script-src-elem",
        "style-src-attr",
        "style-src-elem",
    ]


def test_without_scripts_the_page_is_whole(browser: Browser, address: str) -> None:
    tab = browser.new_context(offline=True, java_script_enabled=False).new_page()
    tab.goto(address)
    drawings = tab.locator("figure[data-chart] .still svg")
    assert drawings.count() >= 12
    assert all(drawings.nth(i).is_visible() for i in range(drawings.count()))


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_nothing_is_wider_than_the_screen(tab: Page, width: int) -> None:
    fits(tab, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_page_and_charts_stands_out_from_the_background(tab: Page, scheme: Any) -> None:
    tab.emulate_media(color_scheme=scheme)
    selectors = ["h3", ".because", ".badge.confirmed", ".badge.refuted", ".live svg text", "code"]
    for selector in selectors:
        assert tab.evaluate(CONTRAST, selector) >= 4.5, selector
    for index in range(1, 7):
        assert tab.evaluate(SERIES_CONTRAST, index) >= 3, f"series {index}"


def test_a_column_sorts_by_its_numbers_from_the_keyboard_up_down_and_back(tab: Page) -> None:
    article = tab.locator("#tying-saving-large")
    values = article.locator("tbody td:nth-last-child(4)")
    recorded = values.all_inner_texts()
    article.locator("details").evaluate("details => { details.open = true; }")
    head = article.locator("thead th", has_text="value")
    seen = []
    for _ in range(3):
        head.locator("button").press("Enter")
        seen.append((head.get_attribute("aria-sort"), values.all_inner_texts()))
    up = ["0.0181", "0.0194", "0.0654"]
    assert seen == [("ascending", up), ("descending", up[::-1]), (None, recorded)]
    assert recorded not in (up, up[::-1])


def test_a_phone_sorts_the_claims_too(tab: Page) -> None:
    tab.set_viewport_size({"width": 390, "height": 844})
    table = tab.locator("#claims-table")
    verdicts = table.locator("tbody:not(.unmeasured) .badge")
    recorded = verdicts.all_inner_texts()
    button = table.locator("thead th", has_text="verdict").locator("button")
    button.click()
    groups = [verdict for verdict, _ in groupby(verdicts.all_inner_texts())]
    assert sorted(groups) == sorted(set(recorded)), "each verdict's claims stand together"
    assert len(list(groupby(recorded))) > len(groups)
    for _ in range(2):
        button.click()
    assert verdicts.all_inner_texts() == recorded


@pytest.mark.parametrize(
    ("cells", "ordered"),
    [
        (["1,024", "9", "−3.5", "3.0 × 10⁻¹⁵", "7 × 10⁸"], "−3.5|3.0 × 10⁻¹⁵|9|1,024|7 × 10⁸"),
        (["[0.3, 0.4]", "exact", "[−2, 5]", ""], "[−2, 5]|[0.3, 0.4]|exact|"),
        (["layer 10", "", "layer 9", "rank"], "layer 9|layer 10|rank|"),
    ],
)
def test_cells_sort_as_a_reader_orders_them(tab: Page, cells: list[str], ordered: str) -> None:
    tab.evaluate(SORTED_BY_HAND, cells)
    tab.locator("#by-hand th button").click()
    assert "|".join(tab.locator("#by-hand td").all_inner_texts()) == ordered


def test_claims_are_filtered_by_verdict_lesson_and_model_and_a_link_to_a_hidden_one_shows_it(
    tab: Page, results: dict[str, Any]
) -> None:
    def shown() -> set[str]:
        return set(tab.locator("#claims-table .id a:visible").all_inner_texts())

    def expected(**wanted: str) -> set[str]:
        return {c["id"] for c in results["claims"] if wanted.items() <= c.items()}

    sources = ((m["claim"], m["source"]) for m in results["measurements"])
    read_checkpoint = {claim for claim, source in sources if source.startswith("checkpoint")}

    tab.get_by_role("checkbox", name="refuted", exact=True).press("Space")
    assert shown() == expected(verdict="refuted") != set()
    tab.get_by_role("checkbox", name="L5 KV cache").press("Space")
    both = expected(verdict="refuted", lesson="L5")
    assert shown() == both != set()
    told = tab.locator(".filter output")
    assert told.inner_text() == f"{len(both)} of {len(results['claims'])} claims"
    box = tab.get_by_role("checkbox", name="the reference checkpoint", exact=True)
    box.press("Space")
    assert shown() == {claim for claim in both if claim in read_checkpoint}
    tab.locator('a[href="#row-tying-abandoned"]').first.click()
    tab.locator("#row-tying-abandoned").wait_for(state="visible", timeout=PATIENCE)
    assert shown() == expected()
    assert told.inner_text() == f"All {len(results['claims'])} claims"


def test_a_link_to_a_claim_opens_its_table(tab: Page) -> None:
    details = tab.locator("#cache-memory-law details")
    details.evaluate("details => { details.open = false; }")
    tab.locator('#claims-table a[href="#cache-memory-law"]').click()
    tab.locator("#cache-memory-law details[open]").wait_for(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_an_accessibility_checker_finds_nothing_at_three_widths_in_both_modes(
    browser: Browser, few_results: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "index.html"
    few_results["claims"] = [c for c in few_results["claims"] if c["id"] != "int8.norm-damage"]
    few_results["claims"][0]["verdict"] = "refuted"
    if kind == "report":
        path.write_text(render_page(few_results), encoding="utf-8")
        tab, troubles = open_page(browser, path.as_uri(), reduced_motion="reduce")
    else:
        files = compare([("a.json", few_results), ("b.json", changed(few_results))])
        path.write_text(render_comparison(files), encoding="utf-8")
        tab, troubles = open_page(browser, path.as_uri(), ready="html")
    assert violations(tab) == {}
    assert troubles == []


def changed(results: dict[str, Any]) -> dict[str, Any]:
    """The same on another machine, with one verdict and one value changed and one missing."""
    other = copy.deepcopy(results)
    other["environment"]["cpu"] = "Other CPU"
    other["claims"][0]["verdict"] = "open"
    other["measurements"][0]["value"] += 1
    del other["measurements"][-1]
    return other


def test_hostile_text_in_every_field_that_is_free_stays_text(
    browser: Browser, few_results: dict[str, Any], tmp_path: Path
) -> None:
    run = few_results["environment"]
    few_results["environment"] = with_hostile_texts(run)
    few_results["claims"] = with_hostile_texts(few_results["claims"])
    few_results["measurements"] = with_hostile_texts(few_results["measurements"])
    few_results["claims"][0]["environment"] = few_results["environment"]
    few_results["environment"]["checkpoint"] = {HOSTILE: [HOSTILE], "a": {HOSTILE: HOSTILE}}
    for index, measurement in enumerate(few_results["measurements"]):
        measurement["parameters"] |= {HOSTILE: HOSTILE, "which": index}
    stored, path = tmp_path / "results.json", tmp_path / "index.html"
    write_results(stored, few_results)
    path.write_text(render_page(read(stored)), encoding="utf-8")
    tab, troubles = open_page(browser, path.as_uri(), viewport={"width": 390, "height": 844})
    for figure in tab.locator("figure[data-live] .live svg path[aria-roledescription]").all():
        figure.hover(force=True)
    assert troubles == []
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img").count() == 0
    assert tab.inner_text("body").count("window.hacked = true") > 50
    assert tab.locator("figure[data-live]").count() >= 2
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_hostile_names_and_reasons_stay_text_on_the_gates_page(
    browser: Browser, tmp_path: Path
) -> None:
    report = failed(Request(HOSTILE, HOSTILE), Verdict.ERROR, HOSTILE)
    path = tmp_path / "gate.html"
    path.write_text(render_gate(report), encoding="utf-8")
    tab, troubles = open_page(browser, path.as_uri(), ready="h1")
    assert troubles == []
    assert tab.evaluate("window.hacked") is None
    assert tab.inner_text("body").count(HOSTILE) == 3
    assert tab.locator("code").first.evaluate("code => getComputedStyle(code).overflowWrap") == (
        "anywhere"
    ), "its style sheet is in force"


# What the schema leaves free in neither an address nor a choice of a few.
KEPT = {"id", "claim", "lesson", "verdict", "role", "direction", "measurements"}
KEPT |= {"profile", "device"}


def with_hostile_texts(value: Any, key: str = "") -> Any:
    """A copy with the hostile text at the end of each text, and in each name of a package."""
    if isinstance(value, dict):
        texts = {k: v if k in KEPT else with_hostile_texts(v, k) for k, v in value.items()}
        return {f"{k}{HOSTILE}" if key == "packages" else k: v for k, v in texts.items()}
    if isinstance(value, list):
        return [with_hostile_texts(inner, key) for inner in value]
    # A metric is what charts are chosen by.
    return value + HOSTILE if isinstance(value, str) and key != "metric" else value


# All ways in at once, and what the policy says to them; the last of them is heard last.
BREAK_IN = """() => new Promise((resolve) => {
  const found = [];
  addEventListener("securitypolicyviolation", (event) => {
    event.stopImmediatePropagation();
    found.push(event.effectiveDirective);
    if (found.length === 11) resolve(found);
  }, {capture: true});
  const add = (name, attributes, text = "") => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    document.body.append(element);
    return element;
  };
  add("script", {}, "window.hacked = true");
  add("script", {src: "https://x.org/x.js"});
  add("button", {onclick: "window.hacked = true"}).click();
  add("style", {}, "body { display: none; }");
  add("p", {style: "color: red"});
  add("img", {src: "https://x.org/x.png"});
  add("iframe", {src: "https://x.org"});
  add("base", {href: "https://x.org"});
  add("form", {action: "https://x.org"}).submit();
  setTimeout("window.hacked = true");
  fetch("https://x.org").catch(() => 0);
})"""

# Runs the page's own script for tables, as it stands on it, on one more table.
SORTED_BY_HAND = """(cells) => {
  document.getElementById("by-hand")?.remove();
  const table = document.createElement("table");
  table.id = "by-hand";
  table.dataset.sortable = "";
  table.innerHTML = "<thead><tr><th>x</th></tr></thead><tbody></tbody>";
  for (const cell of cells) table.tBodies[0].insertRow().insertCell().textContent = cell;
  const script = [...document.scripts].find((s) => s.textContent.includes("makeSortable"));
  for (const other of document.querySelectorAll("[data-sortable]")) delete other.dataset.sortable;
  document.body.prepend(table);
  const again = document.createElement("script");
  again.textContent = script.textContent;
  document.body.append(again);
}"""

# WCAG's contrast of the colour in which text is painted, against the page's background.
LUMINANCE = """
  const luminance = (colour) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (colour) => {
    const paper = getComputedStyle(document.body).backgroundColor;
    const [light, dark] = [luminance(colour), luminance(paper)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
"""
CONTRAST = f"""(selector) => {{ {LUMINANCE}
  const element = document.querySelector(selector);
  const style = getComputedStyle(element);
  return contrast(element.closest("svg") ? style.fill : style.color);
}}"""
SERIES_CONTRAST = f"""(index) => {{ {LUMINANCE}
  const style = getComputedStyle(document.documentElement);
  return contrast(style.getPropertyValue(`--series-${{index}}`));
}}"""
