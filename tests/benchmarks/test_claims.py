"""The lessons hold every claim, and a slip in one is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.judging.claims import Region, load_claims, select
from reference_model.errors import UserError

CLAIM = """
[[claim]]
id = "cache.example"
lesson = "L5"
statement = "It is so."
said_in = ["S3"]
sources = ["arXiv:0000.00000"]
scale = "any"
[[claim.requirement]]
text = "the speed-up lies between 1 and 2"
metric = "speedup"
where = { new_tokens = 15 }
inside = [1, 2]
"""


def load(tmp_path: Path, text: str) -> str:
    """The one line with which the file is refused."""
    path = tmp_path / "cache" / "claims.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load_claims(tmp_path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_claim_of_the_six_lessons_is_there() -> None:
    counted = Counter(claim.lesson for claim in load_claims())
    assert counted == {"L1": 9, "L2": 5, "L3": 4, "L4": 4, "L5": 20, "L6": 7}


def test_the_article_is_cited_for_each_claim_said_in_it_and_a_paper_for_every_claim() -> None:
    for claim in load_claims():
        cited = any("Towards Data Science" in source for source in claim.sources)
        assert cited == ("S3" in claim.said_in), claim.id
        assert any("Towards Data Science" not in source for source in claim.sources), claim.id


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("metric =", "metrik =", "unknown key 'metrik'"),
        ('scale = "any"\n', "", "scale is missing"),
        ('lesson = "L5"', 'lesson = "L9"', "'L9'"),
        ('said_in = ["S3"]', 'said_in = "S3"', "said_in must be a list"),
        ("inside = [1, 2]", "inside = [2, 1]", "is empty"),
        ("inside = [1, 2]", "inside = [1]", "takes 2 finite"),
        ("inside = [1, 2]", "at_most = nan", "takes 1 finite"),
        ("inside = [1, 2]", "equals = true", "takes 1 finite"),
        ("inside = [1, 2]", "inside = [1, 2]\nat_most = 2", "exactly one of"),
        ("inside = [1, 2]", "", "exactly one of"),
        ("[[claim.requirement]]", "[[claim.requirement", "Expected"),
        ('sources = ["arXiv:0000.00000"]', "sources = []", "one source"),
    ],
)
def test_a_slip_in_the_file_is_named_in_one_line(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in CLAIM
    assert told in load(tmp_path, CLAIM.replace(old, new))


def test_a_claim_that_stands_twice_is_named(tmp_path: Path) -> None:
    assert "cache.example stands in the files more than once" in load(tmp_path, CLAIM * 2)


def test_claims_are_chosen_by_id_and_by_glob_in_the_order_of_the_file() -> None:
    chosen = select(load_claims(), "tying.saving-*, lora.trainable-share")
    names = [claim.id for claim in chosen]
    assert names == ["lora.trainable-share", "tying.saving-small", "tying.saving-large"]


def test_a_pattern_that_names_no_claim_is_an_error_even_beside_one_that_does() -> None:
    with pytest.raises(UserError, match=r"'cash\.\*'.*python -m benchmarks list"):
        select(load_claims(), "lora.*,cash.*")


@pytest.mark.parametrize(
    ("region", "within", "without", "across"),
    [
        (Region("inside", (1, 2)), (1, 2), (2.1, 3), (0, 3)),
        (Region("inside", (1, 2)), (1.5, 1.5), (0, 0.9), (1.5, 2.1)),
        (Region("outside", (1, 2)), (2.1, 3), (1, 2), (0, 3)),
        (Region("outside", (1, 2)), (0, 0.9), (1.5, 1.5), (1.5, 2.1)),
        (Region("at_least", (1,)), (1, 9), (0, 0.9), (0.9, 1)),
        (Region("at_most", (1,)), (-9, 1), (1.1, 9), (1, 1.1)),
        (Region("equals", (1,)), (1, 1), (1.1, 1.2), (0.9, 1.1)),
        (Region("equals", (1,)), (1, 1), (0, 0), (1, 1.1)),
    ],
)
def test_an_interval_lies_within_a_region_or_without_or_across_its_border(
    region: Region,
    within: tuple[float, float],
    without: tuple[float, float],
    across: tuple[float, float],
) -> None:
    sides = [region.side(*interval) for interval in (within, without, across)]
    assert sides == ["within", "without", "across"]
