from pathlib import Path

from benchmarks.judging.claims import LESSONS, load_claims
from reports.reading import read
from reports.render.texts import lesson_texts

TEXTS = lesson_texts()


def test_every_lesson_has_a_title_and_an_explanation() -> None:
    assert [lesson["id"] for lesson in TEXTS["lesson"]] == list(LESSONS)
    assert all(lesson["title"] and lesson["explanation"] for lesson in TEXTS["lesson"])


def test_meanings_are_given_to_claims_that_exist_and_verdicts_that_decide() -> None:
    assert set(TEXTS["means"]) <= {claim.id for claim in load_claims()}
    for verdicts in TEXTS["means"].values():
        assert set(verdicts) <= {"confirmed", "refuted", "depends"}


def test_every_verdict_that_was_published_says_what_to_do_with_it(root: Path) -> None:
    for claim in read(root / "reports/published/quick.json")["claims"]:
        if claim["verdict"] != "open":
            assert claim["verdict"] in TEXTS["means"][claim["id"]], claim["id"]
