"""What RMSNorm costs beside LayerNorm: both are timed alike, and ratios are of processes."""

from __future__ import annotations

import pytest

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.norms.variants import PROCESSES, _cost, cells, of_a_cell
from benchmarks.instruments import norm_cost

HERE = Settings("full", "cpu", 0)


def test_a_process_times_both_norms_alone_and_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_cost, "ROUNDS", 2)
    found = of_a_cell(HERE, process=0)
    assert [*found] == ["a norm 128 wide", "a norm 768 wide", norm_cost.STEP]
    for seconds in found.values():
        assert [*seconds] == ["layernorm", "rmsnorm"]
        assert min(seconds.values()) > 0
    assert found[norm_cost.STEP]["rmsnorm"] > found["a norm 128 wide"]["rmsnorm"]
    timed = [cell for cell in cells(HERE) if cell.timed]
    assert [cell.parameters for cell in timed] == [{"process": i} for i in range(PROCESSES)]


def test_a_pass_goes_back_through_the_norm_and_leaves_no_gradient() -> None:
    norm, x, back = norm_cost._normed(HERE, "rmsnorm", 8)
    seen: list[float] = []
    x.register_hook(lambda gradient: seen.append(float(gradient.abs().sum())))
    norm_cost._pass(norm, x, back)
    assert seen[0] > 0
    assert x.grad is None
    assert all(p.grad is None for p in norm.parameters())


def test_a_ratio_is_the_geometric_mean_over_processes() -> None:
    processes = [{"a norm": {"layernorm": 2.0, "rmsnorm": rms}} for rms in (0.5, 1.0, 2.0)]
    seconds, arithmetic = _cost(processes)
    assert seconds.value == pytest.approx(0.5)
    assert (seconds.n, seconds.parameters["of"]) == (3, "a norm")
    assert arithmetic.value == pytest.approx(4 / 7)
