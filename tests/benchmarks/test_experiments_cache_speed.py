"""What the experiment on generation with and without a cache reads off its processes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from benchmarks.experiments.cache import speed as experiments
from benchmarks.experiments.cache.speed import generation_samples
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments import limits
from benchmarks.instruments.clock import GenerationTiming
from benchmarks.instruments.limits import READ, MachineLimit, Probe, decode_bound, prefill_bound
from benchmarks.judging.claims import load_claims
from benchmarks.record.results import Measurement
from reference_model.config import preset
from reference_model.model import GPT

TOY = preset("toy")
RUN = {"prompt_tokens": 3, "lengths": [2, 4], "rounds": 3}


# ---- measurements, of samples that are made up


def summary(seconds: float) -> dict[str, Any]:
    shares = {"first token": 0.5, "later tokens": 0.25}
    return {
        "seconds": seconds,
        "first_token_seconds": seconds / 10,
        "seconds_per_token": seconds / 15,
        "share_of_limit": shares,
    }


@pytest.fixture(scope="module")
def found() -> list[Measurement]:
    """Every run of process i takes its cached arm i + 1 seconds, and is 2 and 4.5 times as fast."""
    process = itertools.count()

    def sample(preset_name: str, device: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
        index = next(process)
        return {
            f"{run['prompt_tokens']}+{length}": {
                "cached": summary(index % 2 + 1.0),
                "uncached": summary((index % 2 + 1.0) * (2.0, 4.5)[index % 2]),
            }
            for run in runs
            for length in run["lengths"]
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "generation_samples", sample)
        patch.setattr(experiments, "model_of", lambda _: TOY)  # nothing runs it
        patch.setitem(experiments.PROCESSES, "quick", (4, 2))
        torch.set_num_threads(2)
        return experiments.fifteen_tokens(Settings("quick", "cpu", 0))


def chosen(found: list[Measurement], metric: str, **labels: Any) -> list[Measurement]:
    return [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]


def test_a_speedup_is_a_ratio_per_process(found: list[Measurement]) -> None:
    (short,) = chosen(found, "speedup", new_tokens=15)
    assert short.value == pytest.approx(3.0)  # √(2 · 4.5); the ratio of the sums is another
    assert short.n == 4
    (long,) = chosen(found, "speedup", new_tokens=32)
    assert (long.n, long.parameters["prompt_tokens"]) == (2, 128)


def test_the_claim_is_judged_by_15_tokens_from_one_and_nothing_else(
    found: list[Measurement],
) -> None:
    claim = next(claim for claim in load_claims() if claim.id == "cache.fifteen-tokens")
    (requirement,) = claim.requirements
    (judged,) = [m for m in found if requirement.matches(m)]
    assert (judged.parameters["prompt_tokens"], judged.parameters["new_tokens"]) == (1, 15)


def test_rates_are_those_of_whole_generations(found: list[Measurement]) -> None:
    (rate,) = chosen(found, "tokens_per_second", option="cached", new_tokens=32)
    assert rate.value == pytest.approx((32 / 1 + 32 / 2) / 2)
    (rate,) = chosen(found, "tokens_per_second", option="uncached", new_tokens=32)
    assert rate.value == pytest.approx((32 / 2 + 32 / 9) / 2)


def test_prefill_and_decode_stand_apart_and_beside_the_limit_once_for_each_run(
    found: list[Measurement],
) -> None:
    for metric, parts in (
        ("first_token_seconds", 1),
        ("seconds_per_token", 1),
        ("share_of_limit", 2),
    ):
        for option in ("cached", "uncached"):
            measured = chosen(found, metric, option=option)
            assert [m.parameters["new_tokens"] for m in measured] == [15] * parts + [32] * parts


def test_each_process_is_a_timed_cell_and_states_its_threads(
    found: list[Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(experiments.PROCESSES, "quick", (4, 2))
    cells = experiments.cells(Settings("quick", "cpu", 0))
    assert [(cell.timed, cell.parameters["long"]) for cell in cells] == [
        (True, True),
        (True, True),
        (True, False),
        (True, False),
    ]
    assert {m.parameters["threads"] for m in found if m.source == "clock"} == {2}


def test_the_work_stands_beside_the_seconds_and_is_exact(found: list[Measurement]) -> None:
    work = [m for m in found if m.source == "closed form"]
    assert all(m.interval is None for m in work)
    flops = {
        m.option: m.value for m in work if m.metric == "flops" and m.parameters["new_tokens"] == 15
    }
    assert 4 < flops["uncached"] / flops["cached"] < 8
    assert len({m.value for m in work if m.metric == "weight_bytes"}) == 1


# ---- samples, of a clock that is made up


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ran, in order. The first token takes 1 s; each step one more, or 10 more uncached."""
    calls: list[str] = []

    def timing(model: Any, prompt: Any, new_tokens: int, use_cache: bool) -> GenerationTiming:
        calls.append("cached" if use_cache else "uncached")
        step = 1.0 if use_cache else 10.0
        return GenerationTiming(1.0, [step * i for i in range(1, new_tokens)])

    def probes_for(device: str, *dtypes: str) -> list[Probe]:
        names = (READ, *dtypes)
        return [Probe(name, lambda name=name: calls.append(name), 10**6, 10**9) for name in names]

    def durations(arms: dict[str, Any], rounds: int) -> dict[str, list[float]]:
        for function in arms.values():
            function()
        return {name: [2.0] * rounds for name in arms}

    monkeypatch.setattr(experiments, "generation_timing", timing)
    monkeypatch.setattr(experiments, "probes_for", probes_for)
    monkeypatch.setattr(experiments, "interleaved_durations", durations)
    return calls


def test_both_arms_take_turns_with_probes_before_each_and_after_all(calls: list[str]) -> None:
    generation_samples(GPT(TOY).eval(), "cpu", [RUN])
    probes = [READ, "float32"]
    first, second = [*probes, "cached"], [*probes, "uncached"]
    assert calls == [*first, *second, *second, *first, *first, *second, *probes]


def test_a_run_is_read_off_at_each_length(calls: list[str]) -> None:
    found = generation_samples(GPT(TOY).eval(), "cpu", [RUN])
    assert set(found) == {"3+2", "3+4"}
    assert found["3+2"]["cached"]["seconds"] == 1 + 1
    assert found["3+4"]["cached"]["seconds"] == 1 + 1 + 2 + 3
    assert found["3+4"]["uncached"]["seconds"] == 1 + 10 + 20 + 30
    assert found["3+4"]["uncached"]["seconds_per_token"] == 20
    assert found["3+4"]["uncached"]["first_token_seconds"] == 1


def test_shares_are_of_what_each_arm_has_to_do(calls: list[str]) -> None:
    limit = MachineLimit(0.5e6, {"float32": 0.5e9}, {}, 1)
    found = generation_samples(GPT(TOY).eval(), "cpu", [RUN])["3+4"]
    prefills = [prefill_bound(TOY, tokens, limit).seconds for tokens in (3, 4, 5, 6)]
    decodes = [decode_bound(TOY, past, limit).seconds for past in (3, 4, 5)]
    cached, uncached = (found[option]["share_of_limit"] for option in ("cached", "uncached"))
    assert cached["first token"] == uncached["first token"] == pytest.approx(prefills[0] / 1)
    assert cached["later tokens"] == pytest.approx(sum(decodes) / (1 + 2 + 3))
    assert uncached["later tokens"] == pytest.approx(sum(prefills[1:]) / (10 + 20 + 30))


def test_a_real_process_measures_both_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.READ_BYTES, "cpu", 2**16)
    monkeypatch.setitem(limits.MATRIX_SIDE, "cpu", 32)
    found = generation_samples(GPT(TOY).eval(), "cpu", [{**RUN, "rounds": 1}])
    for arms in found.values():
        assert set(arms) == {"cached", "uncached"}
        for arm in arms.values():
            assert arm["seconds"] > arm["first_token_seconds"] > 0
            assert min(arm["share_of_limit"].values()) > 0
