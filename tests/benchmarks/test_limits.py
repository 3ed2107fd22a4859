"""The machine's limits: known answers by hand, and what a step must cost under them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.instruments import clock, limits
from benchmarks.instruments.limits import (
    READ,
    Bound,
    MachineLimit,
    Probe,
    decode_bound,
    limit_from,
    machine_limit,
    matrix_probe,
    prefill_bound,
    read_probe,
)
from benchmarks.instruments.readings import Unavailable
from reference_model.config import preset

# Ten bytes a second and a thousand FLOPs: what a step costs can be done in one's head.
SLOW = MachineLimit(10.0, {"float32": 1000.0, "bfloat16": 4000.0}, {"int8": "no such product"}, 1)
TOY = preset("toy")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that are quick to call; how fast they are says nothing."""
    monkeypatch.setitem(limits.READ_BYTES, "cpu", 2**16)
    monkeypatch.setitem(limits.MATRIX_SIDE, "cpu", 32)


# ---- probes


@pytest.mark.parametrize("nbytes", [4096, 4099])
def test_a_read_takes_in_every_byte_of_its_buffer(nbytes: int) -> None:
    probe = read_probe(nbytes=nbytes)
    assert probe.nbytes == 4096
    assert probe.function() == 1024  # as many ones


def test_a_read_is_far_above_the_cache_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_probe().nbytes == 2**16
    monkeypatch.undo()
    assert limits.READ_BYTES["cpu"] == 512 * 2**20


@pytest.mark.parametrize("dtype", limits.dtypes())
def test_a_product_is_of_its_dtype_and_counts_two_flops_for_each_of_its_terms(
    dtype: limits.Dtype,
) -> None:
    probe = matrix_probe(dtype)
    if isinstance(probe, Unavailable):
        pytest.skip(f"{dtype} products: {probe.reason}")
    product = probe.function()
    assert isinstance(product, torch.Tensor)
    assert product.shape == (32, 32)
    assert product.dtype == (torch.int32 if dtype == "int8" else getattr(torch, dtype))
    assert probe.flops == 2 * 32**3
    assert probe.nbytes == 2 * 32 * 32 * limits.bytes_per_value(dtype)


def test_the_product_that_is_faster_becomes_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"library": 3.0, "model": 2.0}

    def fake_durations(product: Callable[[], Any], repeats: int) -> list[float]:
        return [9.0, seconds[product()]]

    monkeypatch.setattr(limits, "durations", fake_durations)
    monkeypatch.setattr(limits.F, "linear", lambda x, weight: "library")
    monkeypatch.setattr(limits, "linear", lambda x, weight: "model")
    for fastest in ("model", "library"):
        seconds[fastest] = 1.0
        probe = matrix_probe("float32")
        assert isinstance(probe, Probe)
        assert probe.function() == fastest


def test_a_product_that_the_machine_refuses_is_unavailable_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(x: torch.Tensor, weight: torch.Tensor) -> None:
        raise NotImplementedError("addmm_impl not implemented for Int\nand a trace of it")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    reason = "addmm_impl not implemented for Int"
    assert matrix_probe("int8") == Unavailable(reason, source="int8")
    limit = machine_limit(rounds=1)
    assert limit.absent == {"int8": reason}
    with pytest.raises(ValueError, match=f"no limit of int8 products: {reason}"):
        limit.arithmetic("int8")


def test_an_unknown_dtype_is_an_error() -> None:
    with pytest.raises(ValueError, match="'float8' is unknown; use one of float32"):
        matrix_probe("float8")  # type: ignore[arg-type]


# ---- limits


def test_a_limit_is_work_over_the_median_of_its_seconds() -> None:
    probes = [Probe(READ, bool, 600, 1), Probe("float32", bool, 1, 900), Unavailable("no", "int8")]
    seconds = {READ: [3.0, 2.0, 50.0], "float32": [1.0, 4.0, 3.0], "another arm": [1.0]}
    limit = limit_from(probes, seconds)
    assert limit == MachineLimit(200.0, {"float32": 300.0}, {"int8": "no"}, 1)


def test_twice_the_bytes_in_twice_the_time_are_the_same_bandwidth_and_in_the_same_time_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that moves with the bytes that are read, and by one that does not."""
    now = [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])

    def bandwidth(nbytes: int, seconds: float) -> float:
        probe = Probe(READ, lambda: spend(seconds), nbytes, 0)
        found = clock.interleaved_durations({READ: probe.function}, rounds=3)
        return limit_from([probe], found).read_bytes_per_second

    assert bandwidth(1000, 2.0) == 500
    assert bandwidth(2000, 4.0) == bandwidth(1000, 2.0)
    assert bandwidth(2000, 2.0) == 2 * bandwidth(1000, 2.0)


def test_probes_run_before_each_arm_and_all_their_samples_count() -> None:
    calls: list[str] = []
    probes = [
        Probe(name, lambda name=name: calls.append(name), 10**9, 10**9)  # type: ignore[misc]
        for name in (READ, "float32")
    ]
    arms = {name: (lambda name=name: calls.append(name)) for name in ("a", "b")}
    limit, seconds = limits.durations_beside(probes, arms, rounds=2)
    turn = [READ, "float32", "a", READ, "float32", "b"]
    assert calls == [*turn, *turn, *reversed(turn)]  # the first to warm up
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 2, "b": 2}
    assert limit.read_bytes_per_second > 0


def test_a_burst_that_hits_one_probe_of_many_does_not_move_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def durations(turns: dict[str, Any], rounds: int) -> dict[str, list[float]]:
        return {name: [60.0] if name == f"{READ} before b" else [2.0] for name in turns}

    monkeypatch.setattr(limits, "interleaved_durations", durations)
    arms = dict.fromkeys("abc", bool)
    limit, seconds = limits.durations_beside([Probe(READ, bool, 100, 0)], arms, rounds=1)
    assert limit.read_bytes_per_second == 50
    assert seconds == {"a": [2.0], "b": [2.0], "c": [2.0]}


def test_a_limit_needs_a_probe_that_reads() -> None:
    with pytest.raises(ValueError, match="no probe reads"):
        limit_from([Probe("float32", bool, 1, 900)], {"float32": [1.0]})


def test_the_machines_limit_measures_every_dtype_or_says_why_not() -> None:
    torch.set_num_threads(2)
    limit = machine_limit(rounds=2)
    assert limit.read_bytes_per_second > 0
    assert set(limit.flops_per_second) | set(limit.absent) == set(limits.dtypes())
    assert "float32" in limit.flops_per_second
    assert all(rate > 0 for rate in limit.flops_per_second.values())
    assert limit.threads == 2


def test_the_balance_is_where_the_roof_has_its_corner() -> None:
    assert SLOW.balance("float32") == 100
    assert SLOW.roof(50, "float32") == 500
    assert SLOW.roof(100, "float32") == SLOW.roof(200, "float32") == 1000
    assert SLOW.roof(200, "bfloat16") == 2000


# ---- bounds; the toy has L layers, C wide, V tokens, and a head that is its embedding


def toy_weights() -> int:
    """All that a step reads: everything but the table of positions."""
    L, C, V = TOY.n_layer, TOY.n_embd, TOY.vocab_size
    assert (TOY.head, TOY.bias, TOY.position) == ("tied", True, "learned")
    return L * (12 * C * C + 13 * C) + 2 * C + V * C


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_decode_step_reads_the_weights_once_and_each_sequences_cache(batch_size: int) -> None:
    L, C, V = TOY.n_layer, TOY.n_embd, TOY.vocab_size
    bound = decode_bound(TOY, 7, SLOW, batch_size=batch_size)
    assert bound.nbytes == 4 * (toy_weights() + batch_size * 2 * L * 7 * C)
    assert bound.flops == batch_size * (L * (24 * C * C + 4 * C * 8) + 2 * C * V)
    assert bound.seconds_reading == bound.nbytes / 10
    assert bound.seconds_computing == bound.flops / 1000
    assert bound.seconds == bound.seconds_reading


def test_half_the_width_is_half_the_bytes_for_the_same_flops() -> None:
    whole, half = decode_bound(TOY, 7, SLOW), decode_bound(TOY, 7, SLOW, "bfloat16")
    assert half.nbytes * 2 == whole.nbytes
    assert half.flops == whole.flops
    assert half.seconds_computing * 4 == whole.seconds_computing


def test_of_a_prompt_only_the_useful_half_of_attention_counts_and_one_row_of_the_head() -> None:
    L, C, V = TOY.n_layer, TOY.n_embd, TOY.vocab_size
    bound = prefill_bound(TOY, 16, SLOW)
    assert bound.flops == L * (24 * C * C * 16 + 4 * C * (16 * 17 // 2)) + 2 * C * V
    assert bound.nbytes == 4 * toy_weights()
    assert prefill_bound(TOY, 16, SLOW, batch_size=3).flops == 3 * bound.flops
    assert prefill_bound(TOY, 16, SLOW, batch_size=3).nbytes == bound.nbytes


def test_the_slower_of_reading_and_computing_is_the_limit() -> None:
    assert Bound(30, 60, seconds_reading=3.0, seconds_computing=2.0).seconds == 3.0
    assert Bound(30, 60, seconds_reading=1.0, seconds_computing=2.0).seconds == 2.0
    assert Bound(30, 60, seconds_reading=1.0, seconds_computing=2.0).share(8.0) == 0.25
    assert Bound(30, 60, seconds_reading=1.0, seconds_computing=2.0).intensity == 2.0


def test_a_bound_by_a_limit_that_nobody_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no limit of int8 products: no such product"):
        decode_bound(TOY, 1, SLOW, "int8")
    with pytest.raises(ValueError, match="float16 products: its probe was not among those"):
        prefill_bound(TOY, 1, SLOW, "float16")
