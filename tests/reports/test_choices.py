"""The cards that say what to choose."""

from __future__ import annotations

import html
import re
from copy import deepcopy
from typing import Any

from benchmarks.judging.claims import load_claims
from reports.render.choices import how_sure
from reports.render.page import page_of, page_view
from tests.reports.test_lessons import TEXTS

ADVICE = [choice for lesson in TEXTS["lesson"] for choice in lesson["choose"]]
MOST_WORDS = 35


def test_each_lesson_advises_by_claims_of_its_own_whatever_their_verdict() -> None:
    lessons = {claim.id: claim.lesson for claim in load_claims()}
    for lesson in TEXTS["lesson"]:
        for choice in lesson["choose"]:
            assert lessons[choice["claim"]] == lesson["id"]
            assert set(choice) == {"claim", "confirmed", "refuted", "depends"}


def test_advice_is_short_and_leaves_numbers_to_the_findings() -> None:
    texts = [text for choice in ADVICE for key, text in choice.items() if key != "claim"]
    for text in (*texts, TEXTS["advice_open"], TEXTS["advice_unmeasured"]):
        assert len(text.split()) <= MOST_WORDS
        assert not re.search(r"\d[.,]\d", text)


def test_a_card_follows_the_verdict(results: dict[str, Any]) -> None:
    claims = [claim for claim in results["claims"] if claim["id"] == "turboquant.zero-loss"]
    own = [m for m in results["measurements"] if m["claim"] == "turboquant.zero-loss"]
    changed = {**results, "claims": deepcopy(claims), "measurements": own}
    changed["claims"][0]["verdict"] = "confirmed"
    (card,) = [card for card in page_view(changed)["cards"] if card["id"] == "L5"]
    (choice,) = [choice for choice in ADVICE if choice["claim"] == "turboquant.zero-loss"]
    assert choice["confirmed"] in [advice["text"] for advice in card["advice"]]


def test_what_is_open_or_was_not_measured_gives_no_advice(results: dict[str, Any]) -> None:
    changed = deepcopy(results)
    changed["measurements"] = []
    for claim in changed["claims"]:
        claim |= {"verdict": "open", "measurements": []}
    texts = {advice["text"] for card in page_view(changed)["cards"] for advice in card["advice"]}
    assert texts == {TEXTS["advice_unmeasured"]}


def test_how_sure_counts_observations_and_says_where_there_are_none_to_count() -> None:
    exact = {"interval": None, "n": None}
    assert how_sure([]) == "not measured"
    assert how_sure([exact]) == "exact numbers, which need no interval"
    few, many = ({"interval": [0.0, 1.0], "n": n} for n in (3, 4112))
    assert how_sure([exact, few]) == "95 % intervals over 3 independent observations"
    assert how_sure([many, few]) == "95 % intervals over 3 to 4,112 independent observations"


def test_the_page_answers_the_three_questions_before_any_table(page: str) -> None:
    answers = page[: page.index("<table")]
    for question in ("What should I choose?", "Is it so on my model?", "Did it get worse?"):
        assert f">{question}</h2>" in answers
    assert answers.count('<p class="advice">') == len(ADVICE)
    assert html.escape("my-branch") in answers


def test_history_and_gate_are_linked_where_they_lie_beside_the_page(
    page: str, view: dict[str, Any]
) -> None:
    alone, beside = page, page_of(view, ["history.html"])
    assert 'href="history.html"' not in alone
    assert 'href="history.html"' in beside
    assert 'href="gate.html"' not in beside
