"""The experiment on recall: what counts, when it refuses, and the verdicts that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.experiments.experiment import CellsFound, Settings, Unavailable
from benchmarks.experiments.turboquant import recall as experiments
from benchmarks.experiments.turboquant.recall import NEEDLE, PARTS, RECALL, SEEDS
from benchmarks.instruments import recall
from benchmarks.instruments.recall import Prompts
from benchmarks.judging.claims import load_claims
from benchmarks.judging.findings import finding
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from benchmarks.training import train_recall
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.training import Recipe

SETTINGS = Settings("full", "cpu", 0)
OTHER = replace(SETTINGS, model="other")
CLAIM = next(claim for claim in load_claims() if claim.id == "turboquant.recall")
PROMPTS, ASKS = 40, 20  # of a task


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small prompts that nobody reads."""
    tokens, at = torch.zeros(PROMPTS, 50, dtype=torch.int64), torch.zeros(PROMPTS, ASKS).long()
    prompts = Prompts(tokens, at, 1, np.arange(PROMPTS), "made-up prompts")
    monkeypatch.setattr(experiments, "asked", lambda settings, task: (None, prompts))


def found(task: str, shares: Mapping[int, float], exact: float = 1.0) -> CellsFound:
    """Cells in which so many of the answers are found by bits: the same number in every prompt."""

    def table(share: float) -> list[list[int]]:
        return (np.arange(ASKS) < round(share * ASKS)).astype(int)[None].repeat(
            PROMPTS // PARTS, axis=0
        ).tolist()  # fmt: skip

    by_bits = {str(bits): [table(share)] * SEEDS[bits] for bits, share in shares.items()}
    return [
        ({"task": task, "part": part}, {"16": [table(exact)], **by_bits}) for part in range(PARTS)
    ]


def measured(*tasks: CellsFound) -> list[Measurement]:
    return experiments.recall_lost.combine(SETTINGS, [cell for cells in tasks for cell in cells])


def lost(measurements: list[Measurement], metric: str = "points_lost") -> dict[object, float]:
    return {
        (m.parameters["task"], m.parameters["bits"]): m.value
        for m in measurements
        if m.metric == metric
    }


NONE_LOST = {4: 1.0, 3: 1.0, 2: 1.0, 1: 0.5}


def test_points_are_lost_against_the_same_prompts_at_16_bits() -> None:
    values = lost(measured(found(RECALL, {4: 1.0, 3: 0.9, 2: 0.75, 1: 0.5})))
    assert values == pytest.approx(
        {(RECALL, 4): 0, (RECALL, 3): 10, (RECALL, 2): 25, (RECALL, 1): 50}
    )


def test_of_needles_those_count_that_are_found_without_compression() -> None:
    # Of 20 needles the first 10 are found at 16 bits, the first 5 at 3 bits and 15 at 4.
    measurements = measured(found(NEEDLE, {4: 0.75, 3: 0.25, 2: 0.0, 1: 0.0}, exact=0.5))
    assert lost(measurements)[NEEDLE, 3] == pytest.approx(50)
    assert lost(measurements)[NEEDLE, 4] == pytest.approx(0)
    of_all = lost(measurements, "points_lost_of_all")
    assert of_all[NEEDLE, 3] == pytest.approx(25)
    assert of_all[NEEDLE, 4] == pytest.approx(-25)


def test_the_verdict_follows_from_three_bits_and_needs_a_loss_at_one() -> None:
    for shares, verdict in (
        (NONE_LOST, "confirmed"),
        ({**NONE_LOST, 2: 0.5}, "confirmed"),
        ({**NONE_LOST, 3: 0.9}, "refuted"),
        ({**NONE_LOST, 1: 1.0}, "open"),
    ):
        measurements = measured(found(RECALL, shares))
        judged, parts = judge_claim(CLAIM, measurements)
        assert judged.verdict == verdict
        told = finding(CLAIM, judged.verdict, parts, measurements)
        assert told.startswith(verdict.capitalize())
        assert "…" not in told
    differ = measured(found(RECALL, NONE_LOST), found(NEEDLE, {**NONE_LOST, 3: 0.5}))
    judged, parts = judge_claim(CLAIM, differ)
    assert judged.verdict == "depends"
    assert "needle" in finding(CLAIM, judged.verdict, parts, differ)


def test_too_few_needles_are_left_out_and_how_many_there_were_is_told() -> None:
    measurements = measured(found(RECALL, NONE_LOST), found(NEEDLE, {}, exact=0.0))
    assert {m.parameters["task"] for m in measurements if m.metric == "points_lost"} == {RECALL}
    counts = {m.metric: m.value for m in measurements if m.parameters["task"] == NEEDLE}
    assert counts == {"answers_found": 0, "answers_asked": PROMPTS * ASKS}
    assert judge_claim(CLAIM, measurements)[0].verdict == "confirmed"


def through(monkeypatch: pytest.MonkeyPatch, share: float) -> list[object]:
    """Every reading finds that share of the answers; what was asked for, a cache each."""
    read: list[object] = []

    def reading(model: GPT, prompts: Prompts, make_cache: object) -> recall.Found:
        read.append(make_cache)
        return (np.arange(ASKS) < round(share * ASKS))[None].repeat(len(prompts), axis=0)

    monkeypatch.setattr(experiments, "recalled", reading)
    monkeypatch.setattr(experiments, "sixteen_bits", lambda model, prompts: "16 bits")
    monkeypatch.setattr(experiments, "_seeds", lambda settings: SEEDS)
    return read


def test_a_part_reads_its_prompts_once_for_each_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    read = through(monkeypatch, 1.0)
    of_part = experiments.of_a_part(SETTINGS, RECALL, 2)
    assert {bits: len(of_seeds) for bits, of_seeds in of_part.items()} == {
        "16": 1, "4": 5, "3": 5, "2": 5, "1": 1,
    }  # fmt: skip
    assert np.shape(of_part["3"]) == (5, PROMPTS // PARTS, ASKS)
    assert read[0] == "16 bits"
    asked_bits = [each.args[2:] for each in read[1:] if isinstance(each, partial)]
    assert asked_bits == [(bits, seed) for bits, seeds in SEEDS.items() for seed in range(seeds)]


def test_parts_are_all_prompts_each_once() -> None:
    tokens, asked = torch.arange(11)[:, None].repeat(1, 4), torch.zeros(11, 1).long()
    prompts = Prompts(tokens, asked, 1, np.arange(11), "")
    parts = [experiments.part_of(prompts, part) for part in range(PARTS)]
    assert torch.cat([part.tokens for part in parts]).equal(tokens)
    assert [*np.concatenate([part.clusters for part in parts])] == [*range(11)]


def test_a_model_that_does_not_recall_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(monkeypatch, 0.95)
    with pytest.raises(
        Unavailable, match=r"finds 95.0% of the values, and 99% are needed"
    ) as raised:
        experiments.of_a_part(SETTINGS, RECALL, 0)
    assert "\\n" not in str(raised.value)


def test_a_model_that_finds_no_needles_is_not_asked_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = through(monkeypatch, 0.0)
    assert list(experiments.of_a_part(SETTINGS, NEEDLE, 0)) == ["16"]
    assert len(read) == 1
    with pytest.raises(Unavailable, match=r"finds 0 of 200 needles, and 5 are needed") as raised:
        experiments.of_a_part(OTHER, NEEDLE, 0)
    assert "\\n" not in str(raised.value)


def test_only_the_reference_has_a_model_beside_it_that_recalls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Small:
        is_large = False

    monkeypatch.setattr(experiments, "subject_of", lambda settings: Small())
    tasks = {
        settings.model: {cell.parameters["task"] for cell in experiments.cells(settings)}
        for settings in (SETTINGS, OTHER)
    }
    assert tasks == {"reference": {RECALL, NEEDLE}, "other": {NEEDLE}}


# ---- the model that recalls


def test_training_texts_grow_from_few_pairs_to_those_of_the_prompts() -> None:
    last = train_recall.RECIPE.steps - 1
    assert train_recall.pairs_at(0) == train_recall.FIRST_PAIRS
    assert train_recall.pairs_at(last) == recall.PAIRS
    for step in (0, 600, last):
        texts, pairs = train_recall.batch(step), train_recall.pairs_at(step)
        assert texts.equal(train_recall.batch(step))
        for text in texts[:2]:
            told = {}
            for at, (key, value) in enumerate(text[: len(text) // 2 * 2].view(-1, 2).tolist()):
                assert told.setdefault(key, value) == value
                assert key < recall.KEYS <= value < recall.KEYS + recall.VALUES
                assert len(told) == min(at + 1, pairs)
    assert not train_recall.batch(1).equal(train_recall.batch(0))


def test_a_training_writes_a_model_that_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_recall, "RECIPE", Recipe(steps=2, learning_rate=1e-3))
    monkeypatch.setattr(train_recall, "CONFIG", train_recall.CONFIG.replace(n_embd=16, d_mlp=8))
    monkeypatch.setattr(train_recall, "TOKENS", 128)
    monkeypatch.setattr(train_recall, "VALIDATED", 2)
    monkeypatch.setattr(train_recall, "PROVED", 1)
    threads = torch.get_num_threads()
    try:
        train_recall.run(tmp_path / "model")
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(recall, "RECALL_MODEL", tmp_path / "model")
    with pytest.raises(UserError, match="holds another model") as raised:
        recall.recall_model()
    assert "\n" not in str(raised.value)
    _, _, digest = capsys.readouterr().out.strip().rpartition(" ")
    monkeypatch.setattr(recall, "RECALL_DIGEST", digest)
    assert recall.recall_model().config.n_embd == 16
    assert (tmp_path / "model" / "card.json").is_file()


def test_the_shipped_model_is_the_one_of_the_recipe_and_small() -> None:
    assert recall.recall_model().config == train_recall.CONFIG
    assert sum(file.stat().st_size for file in recall.RECALL_MODEL.iterdir()) < 2**20
