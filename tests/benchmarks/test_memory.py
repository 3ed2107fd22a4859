"""Memory: known numbers of bytes are seen, none are seen where none were taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.instruments import memory
from benchmarks.instruments.memory import (
    allocator_peak,
    cache_bytes_held,
    held_rss,
    peak_rss,
    weight_bytes_held,
)
from benchmarks.instruments.readings import Reading, Unavailable
from reference_model import costs
from reference_model.cache import KVCache
from reference_model.config import GPTConfig
from reference_model.model import GPT

MIB = 2**20
# The kernel adds up a process's pages in batches, and the interpreter takes some as it works.
SLACK = 6 * MIB

SHAPE: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 50}


# ---- buffers


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_the_bytes_of_the_weights_are_four_for_each_counted_parameter(head: Any) -> None:
    config = GPTConfig(**SHAPE, head=head)
    expected = 4 * sum(costs.parameters_by_part(config).values())
    assert weight_bytes_held(GPT(config)) == Reading(expected, "bytes", "buffers")


def test_tied_weights_are_held_once() -> None:
    tied = weight_bytes_held(GPT(GPTConfig(**SHAPE, head="tied"))).value
    untied = weight_bytes_held(GPT(GPTConfig(**SHAPE, head="untied"))).value
    assert untied - tied == 4 * 50 * 16


def test_half_precision_halves_the_bytes() -> None:
    model = GPT(GPTConfig(**SHAPE))
    single = weight_bytes_held(model).value
    assert weight_bytes_held(model.to(torch.bfloat16)).value == single / 2


def test_weights_kept_in_a_buffer_count_as_weights() -> None:
    module = nn.Linear(8, 4, bias=False)
    module.register_buffer("rounded", torch.zeros(1000, dtype=torch.int8))
    assert weight_bytes_held(module).value == 4 * 8 * 4 + 1000


def test_a_view_holds_the_whole_storage_behind_it() -> None:
    module = nn.Module()
    module.register_buffer("corner", torch.zeros(100, 100)[:1, :1])
    assert weight_bytes_held(module).value == 4 * 100 * 100


def test_a_module_without_weights_holds_no_bytes() -> None:
    assert weight_bytes_held(nn.ReLU()).value == 0


def test_a_model_without_storage_is_an_error() -> None:
    with pytest.raises(ValueError, match="on the meta device holds no bytes"):
        weight_bytes_held(nn.Linear(2, 2, device="meta"))


def test_a_cache_reserves_its_capacity_and_uses_what_it_holds() -> None:
    cache = KVCache(GPTConfig(**SHAPE), batch_size=3, capacity=20, dtype=torch.float16)
    per_token = 2 * 2 * 3 * 16 * 2  # keys and values, layers, batch, width, bytes
    assert cache_bytes_held(cache) == {
        "reserved": Reading(20 * per_token, "bytes", "buffers"),
        "in use": Reading(0, "bytes", "views of the buffers"),
    }
    for layer in range(2):
        k = torch.ones(3, 2, 7, 8, dtype=torch.float16)
        cache.update(layer, k, k)
    held = cache_bytes_held(cache)
    assert (held["in use"].value, held["reserved"].value) == (7 * per_token, 20 * per_token)


def test_what_a_cache_reserves_is_not_what_it_says_of_itself() -> None:
    class Forgetful(KVCache):
        nbytes = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.residuals = [{"window": torch.zeros(5)}, (torch.zeros(6), self.keys)]

    honest = KVCache(GPTConfig(**SHAPE), 1, 10)
    forgetful = Forgetful(GPTConfig(**SHAPE), 1, 10)
    difference = cache_bytes_held(forgetful)["reserved"].value - honest.nbytes
    assert difference == 4 * (5 + 6)


# ---- allocator


class Allocator:
    """PyTorch's CUDA allocator, as far as the instrument asks: what is held, and the peak of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
        self.held = held
        self.peak = held + 10**9  # left over from earlier work
        self.devices: set[str] = set()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self._reset)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", self._read)

    def take(self, nbytes: int) -> None:
        self.held += nbytes
        self.peak = max(self.peak, self.held)

    def _reset(self, device: torch.device) -> None:
        self.devices.add(str(device))
        self.peak = self.held

    def _read(self, device: torch.device) -> int:
        self.devices.add(str(device))
        return self.peak


def test_the_allocators_peak_has_what_was_held_before_and_what_was_freed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocator = Allocator(monkeypatch, held=1000)

    def work() -> None:
        allocator.take(500)
        allocator.take(-500)

    assert allocator_peak(work, "cuda:1") == Reading(1500, "bytes", "allocator")
    assert allocator.devices == {"cuda:1"}


def test_the_allocators_peak_over_no_allocation_is_what_was_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Allocator(monkeypatch, held=1000)
    assert allocator_peak(lambda: None, "cuda") == Reading(1000, "bytes", "allocator")


def test_the_cpu_has_no_allocators_peak_and_nothing_runs_for_it() -> None:
    calls: list[int] = []
    assert allocator_peak(lambda: calls.append(1), "cpu") == Unavailable(
        "PyTorch keeps no peak of what it allocates on cpu", "allocator"
    )
    assert calls == []


def test_cuda_that_torch_cannot_use_has_no_allocators_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    absent = allocator_peak(lambda: None, "cuda")
    assert absent == Unavailable("torch finds no usable CUDA device", "allocator")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to allocate on")
def test_a_tensor_on_cuda_shows_in_the_allocators_peak() -> None:
    def work() -> None:
        torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")

    before = torch.cuda.memory_allocated()
    peak = allocator_peak(work, "cuda")
    assert isinstance(peak, Reading)
    assert peak.value - before == 64 * MIB


# ---- resident memory of a new process

on_linux = pytest.mark.skipif(
    not memory.STATUS.exists(), reason="no /proc: the peak of a process cannot start again"
)


def take(mebibytes: int) -> dict[str, Any]:
    held = bytearray(mebibytes * MIB)  # touched, hence resident, and freed with the return
    return {"length": len(held)}


@pytest.fixture
def rss(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Reading | Unavailable]]:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))

    def measured(target: str = "test_memory:take", **arguments: int) -> Any:
        return peak_rss(target, arguments, threads=1)

    return measured


@on_linux
def test_the_bytes_that_a_process_takes_and_frees_are_seen(rss: Any) -> None:
    found = rss(mebibytes=512)
    assert abs(found["increase"].value - 512 * MIB) <= SLACK
    assert found["increase"].value == found["peak"].value - found["baseline"].value
    sources = {(each.unit, each.source) for each in found.values()}
    assert sources == {("bytes", "RSS of a fresh process, VmHWM, reset before the call")}


@on_linux
def test_a_process_that_takes_nothing_shows_next_to_no_increase(rss: Any) -> None:
    found = rss(mebibytes=0)
    assert 0 <= found["increase"].value <= SLACK
    assert found["baseline"].value > 50 * MIB  # PyTorch is in it


@on_linux
def test_what_the_parent_holds_is_not_its_childs_peak(rss: Any) -> None:
    """Linux hands ru_maxrss on to the child: half a GiB of this process must not show there."""
    alone = rss(mebibytes=0)["baseline"].value
    held = bytearray(512 * MIB)
    beside = rss(mebibytes=0)["baseline"].value
    assert len(held) == 512 * MIB
    assert abs(beside - alone) <= 32 * MIB


@on_linux
def test_what_the_imports_held_for_a_moment_does_not_hide_the_call(
    rss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greedy.py").write_text(
        f"bytearray({256 * MIB})\ndef take(mebibytes):\n    return bytearray(mebibytes * {MIB})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    increase = rss("greedy:take", mebibytes=64)["increase"].value
    assert abs(increase - 64 * MIB) <= SLACK


def test_where_the_peak_cannot_start_again_the_source_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path)  # a folder: writing to it fails
    sample = memory.rss_of_call(f"{__name__}:take", {"mebibytes": 0})
    assert sample["source"].endswith("not reset before the call")


def test_a_system_that_tells_no_peak_gives_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "absent")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(memory, "fresh_process_samples", in_this_process)
    found = peak_rss("os:getpid", {}, threads=1)
    assert set(found) == {"baseline", "peak", "increase"}
    reason = "on win32 a process cannot read its own peak; measure on Linux or macOS"
    assert {each.reason for each in found.values() if isinstance(each, Unavailable)} == {reason}


def in_this_process(
    target: str, arguments: dict[str, Any], processes: int, threads: int
) -> list[dict[str, Any]]:
    assert target == "benchmarks.instruments.memory:rss_of_call"
    return [memory.rss_of_call(**arguments)]


# ---- what a process holds


@pytest.mark.usefixtures("rss")
def test_what_is_held_counts_and_what_was_freed_does_not() -> None:
    here = "test_memory:held_and_freed"
    small, large, freed = (
        held_rss(here, {"held": held, "freed": gone}, threads=1)
        for held, gone in ((8, 0), (48, 0), (8, 200))
    )
    assert all(isinstance(reading, Reading) for reading in (small, large, freed))
    assert large.value - small.value == pytest.approx(40 * 2**20, abs=2 * 2**20)
    assert freed.value - small.value == pytest.approx(0, abs=2 * 2**20)
    assert "VmRSS" in small.source


def held_and_freed(held: int, freed: int) -> torch.Tensor:
    """Megabytes that are kept, and others that are not: many small ones, which are the heap's."""
    pieces = [torch.ones(2**10) for _ in range(freed * 2**8)]
    kept = torch.ones(held * 2**18)
    del pieces
    return kept


def test_a_system_that_does_not_tell_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", Path("/nowhere/status"))
    answer = memory.rss_while_held("test_memory:held_and_freed", {})
    assert "cannot read what it holds" in answer["reason"]
