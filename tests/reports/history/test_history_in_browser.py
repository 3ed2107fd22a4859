"""The history's page in headless Chromium, opened from disk, with the network switched off."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page

from benchmarks.gate_suite import EXACT
from reports.history.amounts import amount, rounded
from reports.history.page import build_history, render
from reports.history.plotted import COLUMNS
from reports.history.series import FAILED, SKIPPED, Commit, History, Point, Series, Setting
from reports.history.view import View, history_view
from tests.reports.history.big_history import SHAPES, write
from tests.reports.history.small_history import benchmark_of_asv
from tests.reports.in_browser import HOSTILE, PATIENCE, open_page, violations


def a_history(text: str) -> History:
    """Two series with a step, one of which fails at last; every name in it is ``text``."""
    commits = [Commit(f"{n:040x}", "2026-01-01", text, n) for n in range(14)]
    values = [1.0 + 0.001 * (n % 3) + (n > 5) for n in range(12)]
    points = [Point("measured", value, (0.99 * value, 1.01 * value)) for value in values]
    series = [
        Series(
            benchmark_of_asv(f"bench_cache.{text}"),
            ((text, f"{n}{text}"),),
            None,
            [*points, SKIPPED, FAILED if n else points[-1]],
        )
        for n in range(2)
    ]
    return History([Setting(text, {"cpu": text}, commits, series)], [(text, text)], 1, [])


def opened(browser: Browser, path: Path, history: History) -> tuple[Page, list[str]]:
    path.write_text(render(history_view(history)), encoding="utf-8")
    return open_page(browser, path.as_uri())


# LLM_DESIGN_BENCH_HISTORY=django is the bar of reports/history/README.md: by hand, for minutes.
SHAPE = os.environ.get("LLM_DESIGN_BENCH_HISTORY", "small")
MOST_BYTES, MOST_SECONDS = 3_000_000, 20


class Big(NamedTuple):
    """A page of more commits than a chart has pixels."""

    tab: Page
    troubles: list[str]
    view: View
    seconds: float
    size: int


@pytest.fixture(scope="module")
def big(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Big:
    folder = tmp_path_factory.mktemp("big")
    page = folder / "history.html"
    results, repository = write(folder, SHAPE)
    started = time.perf_counter()
    view = build_history(results, page, repository, EXACT)
    seconds = time.perf_counter() - started
    tab, troubles = open_page(browser, page.as_uri(), viewport={"width": 700, "height": 600})
    return Big(tab, troubles, view, seconds, page.stat().st_size)


@pytest.mark.K8
def test_every_series_is_drawn_once_it_is_scrolled_to_and_none_before(big: Big) -> None:
    series = sum(part.series for part in SHAPES[SHAPE])
    assert big.view["counts"]["series"] == series
    figures = big.tab.locator("figure[data-name]")
    assert figures.count() == series
    last = figures.last
    assert last.locator("svg").count() == 0
    for number in range(series):
        figures.nth(number).scroll_into_view_if_needed()
        drawn = figures.nth(number).locator("svg")
        drawn.wait_for(timeout=PATIENCE)
        assert number or last.locator("svg").count() == 0, "it is far below"
        box = drawn.bounding_box()
        assert box is not None
        assert box["height"] > 50
        assert (drawn.locator(".line").get_attribute("d") or "").startswith("M")
        assert (drawn.locator("text").first.text_content() or "").endswith("s")
    assert big.troubles == []


@pytest.mark.K8
def test_a_page_is_as_large_and_as_long_in_the_making_as_its_bar_allows(big: Big) -> None:
    assert big.size <= MOST_BYTES
    if SHAPE != "small":  # of which the time says nothing
        assert big.seconds <= MOST_SECONDS
        print(f"{SHAPE}: {big.size:,} bytes in {big.seconds:.1f} s")


@pytest.mark.K8
def test_a_chart_holds_no_more_than_its_pixels_show_and_tells_the_value_below_the_pointer(
    big: Big,
) -> None:
    longest, plotted = max(big.view["data"]["series"].items(), key=lambda item: item[1]["commits"])
    figure = big.tab.locator(f"#{longest}")
    figure.scroll_into_view_if_needed()
    dots = figure.locator(".dots").get_attribute("d") or ""
    assert COLUMNS < dots.count("M") < plotted["commits"] - 100
    figure.locator("svg").hover()
    assert " at " in (figure.locator("text").nth(1).text_content() or "")


def test_a_link_to_a_series_brings_its_chart(big: Big) -> None:
    figure = big.tab.locator("figure").last
    big.tab.evaluate(f"location.hash = '#{figure.get_attribute('id')}'")
    figure.locator("svg").wait_for(timeout=PATIENCE)


def test_a_search_hides_all_others_and_says_how_many_are_left(big: Big) -> None:
    tab, series = big.tab, big.view["counts"]["series"]
    tab.locator("input").fill("benchmark0 time")
    assert tab.locator("output").inner_text() == f"{len(SHAPES[SHAPE])} of {series} series"
    assert tab.locator("figure:visible").count() == len(SHAPES[SHAPE])
    tab.locator("input").fill("")
    assert tab.locator("figure:visible").count() == series


def test_values_are_listed_as_python_writes_them_with_their_steps(
    browser: Browser, tmp_path: Path
) -> None:
    history = a_history("time_step")
    (setting,) = history.settings
    values = [
        1.3e-3,
        4.56789e-5,
        9.9996e-4,
        2.5e-9,
        2.5e-14,
        12345.6,
        1.0,
        0.0,
        -0.25,
        6e-7,
        7.0,
        8.0,
    ]
    numbers = [
        1234.56,
        123456789.0,
        1.5e-7,
        0.1 + 0.2,
        1e15,
        1e300,
        9999.96,
        0.0,
        3.0,
        -2.5,
        7.5,
        8.5,
    ]
    rows = [(values, "seconds"), (numbers, "bytes")]
    for series, (given, unit) in zip(setting.series, rows, strict=True):
        series.benchmark = benchmark_of_asv("bench_cache.time_step", unit)
        series.points[:12] = [Point("measured", value) for value in given]
    tab, troubles = opened(browser, tmp_path / "history.html", history)
    for figure, (given, unit) in zip(tab.locator("figure").all(), rows, strict=True):
        figure.locator("summary").click()
        cells = figure.locator("tbody tr td:nth-child(2)")
        cells.first.wait_for(timeout=PATIENCE)
        told = cells.all_inner_texts()
        assert told[-12:] == [amount(rounded(v, False), unit, False) for v in given][::-1]
    assert troubles == []


def test_failures_and_commits_are_told(browser: Browser, tmp_path: Path) -> None:
    tab, troubles = opened(browser, tmp_path / "history.html", a_history("Faster"))
    first, second = tab.locator("figure").all()
    second.scroll_into_view_if_needed()
    second.locator("svg").wait_for(timeout=PATIENCE)
    assert first.locator(".failed").count() == 0
    lines = [(f.locator(".line").get_attribute("d") or "").count("M") for f in (first, second)]
    assert lines == [2, 1], "a gap interrupts the line"
    assert (second.locator("path.failed").get_attribute("d") or "").count("M") == 1
    assert "failed at 00000000, its newest commit" in second.inner_text()
    second.locator("summary").click()
    second.locator("tbody tr").first.wait_for(timeout=PATIENCE)
    states = second.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert states[:3] == ["failed", "skipped", "2.002 s"]
    assert second.locator("tbody tr").nth(7).inner_text().split("\t")[-1] == "+99.9 %"
    tab.get_by_text("Commits", exact=True).click()
    rows = tab.locator("section > details tbody tr td:nth-child(3)")
    rows.first.wait_for(timeout=PATIENCE)
    listed = rows.all_inner_texts()
    assert listed[:3] == ["Faster", "Faster (no value)", "Faster"]
    assert troubles == []


def test_a_printed_page_has_every_chart(browser: Browser, tmp_path: Path) -> None:
    history = a_history("Faster")
    history.settings *= 20
    tab, _ = opened(browser, tmp_path / "history.html", history)
    assert tab.locator("figure svg").count() < 40
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("figure svg").count() == 40


def test_without_scripts_steps_failures_and_captions_are_there(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "history.html"
    path.write_text(render(history_view(a_history("Faster"))), encoding="utf-8")
    tab = browser.new_context(offline=True, java_script_enabled=False).new_page()
    tab.goto(path.as_uri())
    text = tab.locator("body").inner_text()
    assert "it is switched off here" in text
    assert "1.001 s → 2.001 s" in text
    assert "failed at 00000000" in text
    assert tab.locator("figure figcaption:visible").count() == 2
    assert tab.locator("figure details:visible").count() == 0


def test_an_accessibility_checker_finds_nothing_at_three_widths_in_both_modes(
    browser: Browser, tmp_path: Path
) -> None:
    tab, troubles = opened(browser, tmp_path / "history.html", a_history("Faster attention"))
    for summary in tab.locator("summary").all():
        summary.click()
    tab.locator("figure tbody tr").last.wait_for(timeout=PATIENCE)
    assert violations(tab) == {}
    assert troubles == []


@pytest.mark.K8
def test_hostile_names_of_commits_machines_and_benchmarks_stay_text(
    browser: Browser, tmp_path: Path
) -> None:
    tab, troubles = opened(browser, tmp_path / "history.html", a_history(HOSTILE))
    for summary in tab.locator("summary").all():
        summary.click()
    tab.locator("figure tbody tr").last.wait_for(timeout=PATIENCE)
    tab.locator("input").first.fill("hacked")
    assert tab.locator("figure:visible").count() == 2
    assert troubles == []
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img").count() == 0
    assert tab.inner_text("body").count("window.hacked = true") > 20


@pytest.mark.K8
def test_data_that_cannot_be_unpacked_are_told(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "history.html"
    page = render(history_view(a_history("Faster")))
    path.write_text(page.replace('id="data">', 'id="data">AAAA'), encoding="utf-8")
    tab, troubles = open_page(browser, path.as_uri(), ready="#unread:not([hidden])")
    assert len(troubles) == 1
    assert tab.locator("figcaption:visible").count() == 2
