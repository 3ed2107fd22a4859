"""Experiments in miniature: which there are, what stands in, and that it goes again."""

from __future__ import annotations

import torch

from benchmarks.exact_cases import judging, miniature, miniatures, stand_ins
from benchmarks.experiments.catalogue import all_experiments
from benchmarks.experiments.norms import lesson as norms
from benchmarks.instruments import clock, texts
from benchmarks.subjects import subject
from reference_model.checkpoints import load_reference

DEPTHS = norms.DEPTHS


def test_the_exact_layer_runs_every_experiment_that_needs_no_library_of_an_extra() -> None:
    run = {*judging.EXPERIMENTS, *(each.claim for each in miniatures.MINIATURES)}
    assert run | {"lora.peft-agrees"} == {each.claim for each in all_experiments()}


def test_stand_ins_are_there_within_and_gone_afterwards() -> None:
    tokens = texts.reference_tokens("validation")
    with stand_ins.in_miniature({"experiments.norms.lesson.DEPTHS": (2,)}):
        assert subject.load_reference().config.n_layer == stand_ins.SIZES["n_layer"]
        assert len(texts.reference_tokens("validation")) < len(tokens)
        assert norms.DEPTHS == (2,)
    assert subject.load_reference is load_reference
    assert torch.equal(texts.reference_tokens("validation"), tokens)
    assert norms.DEPTHS is DEPTHS


def test_the_clock_of_miniatures_runs_by_the_work() -> None:
    x = torch.ones(100, 100)
    with stand_ins.in_miniature({}):
        seconds = clock.interleaved_durations({"one": lambda: x @ x, "two": lambda: x @ x @ x}, 2)
    one, two = seconds["one"][0], seconds["two"][0]
    assert two - one == one - stand_ins.SECONDS_PER_CALL > 0
    assert seconds["one"][1] > one


def test_a_cell_that_is_not_measured_has_the_numbers_of_the_one_most_like_it_moved_a_little() -> (
    None
):
    found = [({"rank": 4, "seed": 0}, {"loss": 2.0, "seeds": 3}), ({"process": 0}, [1.0])]
    assert miniature._like({"process": 0}, found) == [1.0]
    like = miniature._like({"rank": 4, "seed": 1}, found)
    assert like["seeds"] == 3
    assert 0 < abs(like["loss"] - 2.0) <= 0.1
