"""What a compressed cache costs in time: how processes are put together, and one of them, small."""

from __future__ import annotations

import mmap
import os
from typing import Any

import pytest
import torch

from benchmarks.experiments.cache import compressed_samples as samples
from benchmarks.experiments.cache import compressed_speed as experiments
from benchmarks.experiments.cache.compressed_samples import BITS, PACKED
from benchmarks.experiments.experiment import Settings, Unavailable
from benchmarks.instruments import memory
from benchmarks.instruments.readings import Reading
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from benchmarks.subjects.built import Model
from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.kernels import packed_attention
from reference_model.kernels.compiled import VARIABLE
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant

FULL = Settings("full", "cpu", 0)
FOUND: dict[str, Any] = {
    "step": {
        "speed_over_uncompressed": {2: 3.0, 3: 2.0, 4: 1.5, 16: 1.2},
        "speed_by_bytes": {3: 4.0},
        "page_faults": {3: 7.0},
    },
    "encoding": {"encoding": {3: 5.0}},
    "prefill": {"prefill_speed_over_uncompressed": {3: 0.9}},
    "peak": {"peak_over_uncompressed": {3: 0.5}},
}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "config_of", lambda settings: preset("toy"))
    monkeypatch.setattr(samples, "ROUNDS", 2)


def combined(speeds: dict[str, float]) -> list[Measurement]:
    """Of processes whose speed over 3 bits is their kernels', a tenth more in every other one."""
    found = []
    for cell in experiments.cells(FULL):
        labels = cell.parameters
        part = str(labels["part"])
        own = {m: dict(of_bits) for m, of_bits in FOUND[part.split()[-1]].items()}
        if "speed_over_uncompressed" in own:
            speed = speeds[part if part in speeds else str(labels["kernels"])]
            own["speed_over_uncompressed"][3] = speed * 1.1 ** (int(labels["process"]) % 2)
        found.append((labels, {"threads": 2, "found": own}))
    return experiments.compressed_speed.combine(FULL, found)


def chosen(found: list[Measurement], metric: str, **labels: Any) -> list[Measurement]:
    return [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]


def verdict(found: list[Measurement]) -> str:
    (claim,) = (each for each in load_claims() if each.id == experiments.CLAIM)
    return judge_claim(claim, found)[0].verdict


# ---- all processes


def test_a_speed_is_a_ratio_per_process_at_each_length_with_each_kind_of_kernels() -> None:
    found = combined({"compiled": 2.0, "plain": 0.8})
    for tokens in experiments.TOKENS:
        (speed,) = chosen(
            found,
            "speed_over_uncompressed",
            bits=3,
            tokens=tokens,
            kernels="compiled",
            batch=1,
            kv_heads="all",
        )
        assert speed.value == pytest.approx(2.0 * 1.1 ** (2 / 5))
        assert (speed.n, speed.parameters["threads"]) == (5, 2)
    assert len(chosen(found, "speed_over_uncompressed", option="bfloat16", bits=16)) == 10


def test_an_exact_number_has_no_interval_and_one_that_never_varied_an_interval_of_none() -> None:
    found = combined({"compiled": 2.0, "plain": 0.8})
    assert {m.interval for m in chosen(found, "speed_by_bytes")} == {None}
    assert {m.interval for m in chosen(found, "page_faults")} == {(7.0, 7.0)}


@pytest.mark.parametrize(("speed", "expected"), [(2.0, "refuted"), (0.5, "confirmed")])
def test_the_claim_is_judged_by_three_bits_as_they_are_read_by_default(
    speed: float, expected: str
) -> None:
    assert verdict(combined({"compiled": speed, "plain": 1 / speed})) == expected


def test_steps_of_a_batch_and_of_grouped_queries_are_told_apart_and_judge_nothing() -> None:
    others = {"batched step": 0.5, "grouped step": 0.6}
    found = combined({"compiled": 2.0, "plain": 0.8, **others})
    for shape, expected in (({"batch": 8}, 0.5), ({"kv_heads": "a quarter"}, 0.6)):
        for kernels in experiments.KERNELS:
            (speed,) = chosen(found, "speed_over_uncompressed", bits=3, kernels=kernels, **shape)
            assert speed.value == pytest.approx(expected * 1.1 ** (2 / 5))
            assert speed.parameters["tokens"] == 4096
    assert verdict(found) == "refuted"


# ---- one process


@pytest.mark.parametrize("kernels", experiments.KERNELS)
def test_a_real_process_measures_steps_over_every_cache(kernels: str) -> None:
    if kernels == "compiled" and packed_attention.library(packed_attention.SOURCE) is None:
        pytest.skip("no C++ compiler")
    cell = experiments.of_a_cell(FULL, "step", 2000, kernels, 0)
    assert cell["threads"] == torch.get_num_threads()
    found = cell["found"]
    assert list(found["step_seconds"]) == list(found["page_faults"]) == list(BITS)
    assert min(found["step_seconds"].values()) > 0
    by_bytes = found["speed_by_bytes"]
    assert by_bytes[2] > by_bytes[3] > by_bytes[4] > by_bytes[16] > 1
    seconds = found["step_seconds"]
    assert found["speed_over_uncompressed"][3] == pytest.approx(seconds[32] / seconds[3])


def test_a_step_is_the_one_after_so_many_tokens_over_the_cache_of_so_many_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build, caches = samples.cache_of, {}

    def kept(model: Model, bits: int, capacity: int, batch: int) -> KVCache:
        return caches.setdefault(bits, build(model, bits, capacity, batch))

    def durations(arms: dict[str, Any], rounds: int, warmup: int) -> dict[str, list[float]]:
        for bits, arm in arms.items():
            for _ in range(2):
                arm()
                assert caches[int(bits)].length == 10
        return {bits: [1.0] for bits in arms}

    monkeypatch.setattr(samples, "cache_of", kept)
    monkeypatch.setattr(samples, "interleaved_durations", durations)
    samples.step(FULL, 9)
    assert [caches[bits].keys[0].dtype for bits in (32, 16)] == [torch.float32, torch.bfloat16]
    for bits in PACKED:
        cache = caches[bits]
        assert isinstance(cache, QuantizedKVCache)
        codec = cache.stores[0][0].codec
        assert isinstance(codec, TurboQuant)
        assert codec.bits == bits


def test_a_step_may_be_that_of_a_batch_or_of_queries_that_share_keys() -> None:
    steps = {part: samples.PARTS[part](FULL, 256) for part in experiments.STEPS}
    held = {part: found["speed_by_bytes"][3] for part, found in steps.items()}
    # The more of what is read are keys and values, the more is saved.
    assert held["batched step"] > held["step"] > held["grouped step"] > 1
    assert all(list(found["step_seconds"]) == list(BITS) for found in steps.values())
    heads = {}
    for given in (12, 25, 9, 2):
        config = preset("toy").replace(n_head=given, n_kv_head=given, d_head=8)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(samples, "config_of", lambda settings, c=config: c)
            heads[given] = samples.model_of(FULL, 8, grouped=True).config.n_kv_head
    assert heads == {12: 3, 25: 5, 9: 1, 2: 1}


def test_encoding_is_told_in_copies_and_a_prefill_in_ratios() -> None:
    assert set(samples.encoding(FULL, 8)["encoding"]) == set(PACKED)
    assert list(samples.prefill(FULL, 8)["prefill_speed_over_uncompressed"]) == [3]


def test_the_peak_is_that_of_a_process_above_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = samples.weight_bytes(preset("toy", context_length=8 + samples.STEPS + 1))

    def peak(target: str, given: dict[str, Any], threads: int) -> dict[str, Reading]:
        samples.generated(**given)
        held = {32: 4e6, 3: 1e6}[given["bits"]]
        return {"increase": Reading(weights + held, "bytes", "made up")}

    monkeypatch.setattr(samples, "peak_rss", peak)
    assert samples.peak(FULL, 8) == {"peak_over_uncompressed": {3: 0.25}}


def test_plain_kernels_are_asked_for_and_then_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(experiments.PARTS, "step", lambda *_: asked.append(os.environ[VARIABLE]))
    experiments.of_a_cell(FULL, "step", 9, "plain", 0)
    assert asked == ["plain"]
    assert VARIABLE not in os.environ


def test_without_a_compiler_or_on_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "library", lambda source: None)
    with pytest.raises(Unavailable, match=r"install a C\+\+ compiler"):
        experiments.of_a_cell(FULL, "step", 9, "compiled", 0)
    with pytest.raises(Unavailable, match="compressed_speed --device cuda"):
        experiments.of_a_cell(Settings("full", "cuda", 0), "step", 9, "plain", 0)


def test_pages_that_are_used_for_the_first_time_are_faults() -> None:
    before = memory.page_faults()
    with mmap.mmap(-1, 2**26) as fresh:  # what an allocator kept would be no first time
        fresh.write(bytes(2**26))  # 16,384 pages of 4 KiB; fewer where they are huge
    assert memory.page_faults() > before
