"""What limits a step: known answers under a clock that is made up, and a real toy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from benchmarks.experiments.cache import memory_bound as experiments
from benchmarks.experiments.cache.memory_bound import STEPS, step_samples
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments import limits
from benchmarks.instruments.limits import READ, MachineLimit, decode_bound, prefill_bound
from benchmarks.judging.claims import load_claims
from benchmarks.record.results import Measurement
from reference_model.config import preset
from reference_model.model import GPT

TOY, GPT2 = preset("toy"), preset("gpt2")
Samples = dict[str, Any]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.READ_BYTES, "cpu", 2**16)
    monkeypatch.setitem(limits.MATRIX_SIDE, "cpu", 32)
    monkeypatch.setattr(experiments, "PREFILLS", (8, 16))


def clock_of(seconds: dict[str, float]) -> Callable[..., dict[str, list[float]]]:
    """A clock that runs each arm once and says what it took."""

    def interleaved_durations(arms: dict[str, Any], rounds: int) -> dict[str, list[float]]:
        for function in arms.values():
            function()
        taken = {name: seconds.get(name.partition(" before ")[0], 1.0) for name in arms}
        return {name: [each] * rounds for name, each in taken.items()}

    return interleaved_durations


def step(sample: Samples, option: str, **labels: int) -> dict[str, float]:
    (found,) = [
        s["metrics"]
        for s in sample["steps"]
        if s["option"] == option and labels.items() <= s["labels"].items()
    ]
    return found


def toy() -> GPT:
    return GPT(TOY).eval()


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Samples:
    """Two bytes or four FLOPs a microsecond; each step takes a second, a batch of 4 twice that."""
    limit = MachineLimit(2e6, {"float32": 4e6, "bfloat16": 8e6}, {}, 1)
    monkeypatch.setattr(limits, "limit_from", lambda probes, seconds: limit)
    seconds = {"decode 1": 1.0 * STEPS, "decode 4": 2.0 * STEPS, "decode 16": 4.0 * STEPS}
    monkeypatch.setattr(limits, "interleaved_durations", clock_of(seconds))
    return {**step_samples(toy(), "cpu", rounds=2), "known": limit}


# ---- one process


def test_the_shares_of_a_step_are_its_least_seconds_over_those_it_took(sample: Samples) -> None:
    bound = decode_bound(TOY, 128, sample["known"])
    found = step(sample, "decode", batch_size=1)
    assert found["seconds"] == 1.0
    assert found["reading_least"] == pytest.approx(bound.nbytes / 2e6)
    assert found["computing_share"] == pytest.approx(bound.flops / 4e6)
    assert found["share_of_limit"] == max(found["reading_least"], found["computing_share"])
    assert found["tokens_per_second"] == 1.0
    assert found["tokens_per_second_limit"] == pytest.approx(1 / bound.seconds)


def test_a_batch_is_compared_with_one_sequence_and_counts_all_its_tokens(sample: Samples) -> None:
    found = step(sample, "decode", batch_size=4)
    assert found["seconds_over_one_sequence"] == 2.0
    assert found["tokens_per_second"] == 4 / 2.0
    bound = decode_bound(TOY, 128, sample["known"], batch_size=4)
    assert found["tokens_per_second_limit"] == pytest.approx(4 / bound.seconds)
    assert found["flops_per_second"] == bound.flops / 2.0


def test_every_step_has_its_place_under_the_roof(sample: Samples) -> None:
    places = [(s["option"], *s["labels"].values()) for s in sample["steps"]]
    decodes = [("decode", size, 128) for size in (1, 4, 16)]
    assert places == [*decodes, ("prefill", 1, 8), ("prefill", 1, 16)]
    for found in sample["steps"]:
        roof = sample["known"].roof(found["intensity"], "float32")
        assert found["metrics"]["roof"] == roof
    assert sample["steps"][-1]["intensity"] == prefill_bound(TOY, 16, sample["known"]).intensity


def test_only_one_sequences_decode_step_has_a_share_that_the_claim_is_judged_by(
    sample: Samples,
) -> None:
    judged = [s["labels"] for s in sample["steps"] if "reading_least" in s["metrics"]]
    assert judged == [{"batch_size": 1, "past": 128}]


def test_a_slower_read_makes_reading_a_larger_share_and_computing_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shares(read_seconds: float) -> dict[str, float]:
        seconds = {READ: read_seconds, "decode 1": 100.0}
        monkeypatch.setattr(limits, "interleaved_durations", clock_of(seconds))
        return step(step_samples(toy(), "cpu", rounds=1), "decode", batch_size=1)

    slow, fast = shares(2.0), shares(1.0)
    assert slow["reading_least"] == pytest.approx(2 * fast["reading_least"])
    assert slow["computing_share"] == fast["computing_share"]


def test_decode_steps_follow_each_other_on_a_cache_that_is_full_from_the_start() -> None:
    seen: list[int] = []
    model = GPT(TOY).eval()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].length))
    decode = experiments._decode_step(model, "cpu", 2, samples=1)
    experiments._repeat(decode)
    assert seen == [128 + i for i in range(STEPS)]


def test_operators_that_read_the_weights_are_told_from_those_that_do_not() -> None:
    x, weight = torch.randn(1, 512), torch.randn(4096, 512)

    def share(step: Callable[[], object]) -> float:
        return experiments._operator_share(step, "cpu")["operator_share"]

    assert share(lambda: torch.nn.functional.linear(x, weight)) > 0.5
    assert share(lambda: weight.exp().cumsum(0)) == 0
    assert experiments._operator_share(lambda: None, "cuda") == {}


def test_a_real_process_measures_every_step_and_itself() -> None:
    found = step_samples(toy(), "cpu", rounds=1)
    assert set(found["limit"]["flops_per_second"]) == {"float32", "bfloat16"}
    for measured in found["steps"]:
        metrics = measured["metrics"]
        assert all(value > 0 for value in metrics.values())
        assert metrics.get("operator_share", 0) < 1


# ---- measurements


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, sample: Samples) -> list[Measurement]:
    """Of two processes, one on a machine that reads twice as fast; reading took 40 to 90 %."""
    step(sample, "decode", batch_size=1).update(reading_least=0.4, operator_share=0.9)

    limit = sample["known"]
    fast = asdict(limit) | {"read_bytes_per_second": 2 * limit.read_bytes_per_second}
    processes = iter([{**sample, "limit": each} for each in (asdict(limit), fast)])
    monkeypatch.setattr(experiments, "step_samples", lambda *_: next(processes))
    monkeypatch.setattr(experiments, "model_of", lambda _: None)  # nothing runs it
    monkeypatch.setitem(experiments.PROCESSES, "quick", 2)
    return experiments.memory_bound(Settings("quick", "cpu", 0))


def test_intensity_over_balance_is_a_ratio_per_process(found: list[Measurement]) -> None:
    intensity = decode_bound(GPT2, 128, MachineLimit(1, {"float32": 1}, {}, 1)).intensity
    ratios = {m.labels["dtype"]: m for m in found if m.metric == "intensity_over_balance"}
    assert set(ratios) == {"float32", "bfloat16"}
    # Balances 2 and 1 in float32; twice that in bfloat16, where there are half as many bytes.
    assert ratios["float32"].value == pytest.approx(intensity / 2**0.5)
    assert ratios["bfloat16"].value == pytest.approx(ratios["float32"].value)
    assert ratios["float32"].n == 2


def test_the_limits_of_the_machine_are_measurements_too(found: list[Measurement]) -> None:
    limits = {(m.metric, m.labels.get("dtype")): m.value for m in found if m.option == "machine"}
    assert limits == {
        ("read_bandwidth", None): 3e6,
        ("matrix_rate", "float32"): 4e6,
        ("matrix_rate", "bfloat16"): 8e6,
        ("balance", "float32"): 1.5,
        ("balance", "bfloat16"): 3.0,
    }


def test_each_requirement_of_the_claim_finds_its_measurements(found: list[Measurement]) -> None:
    claim = next(claim for claim in load_claims() if claim.id == "cache.memory-bound")
    matched = {r.metric: [m for m in found if r.matches(m)] for r in claim.requirements}
    assert {metric: len(own) for metric, own in matched.items()} == {
        "intensity_over_balance": 2,
        "reading_share": 1,
    }
    assert all(m.parameters["batch_size"] == 1 for own in matched.values() for m in own)


def test_reading_lies_between_its_least_and_the_time_in_operators_that_read(
    found: list[Measurement],
) -> None:
    (share,) = [m for m in found if m.metric == "reading_share"]
    assert (share.interval, share.value) == ((0.4, 0.9), pytest.approx(0.65))
    # The ends take in how far the processes differ, but reading never takes more than all.
    differ = [
        {"reading_least": 0.4, "operator_share": 0.8},
        {"reading_least": 0.5, "operator_share": 0.9},
    ]
    low, high = experiments._reading_share(differ).interval
    assert (low < 0.4, high) == (True, 1.0)
    # Where nothing bounds it from above, as on a GPU, it may be all of the step.
    assert experiments._reading_share([{"reading_least": 0.2}] * 2).interval == (0.2, 1.0)


def test_no_two_measurements_share_a_name(found: list[Measurement]) -> None:
    assert len({m.id for m in found}) == len(found)
    assert {m.metric for m in found if m.interval is None} == {"intensity"}
