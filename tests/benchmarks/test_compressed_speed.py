"""A compressed cache's speed beside an uncompressed one's: by stand-ins, and once for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.peers import compressed_speed
from benchmarks.peers.compressed_speed import PLAINLY, UNCOMPRESSED, main, sample, table
from benchmarks.subjects.built import Model
from reference_model.config import preset
from reference_model.errors import UserError
from reference_model.kernels import triton_attention
from reference_model.quantization.kv_cache import QuantizedKVCache

CACHES = [UNCOMPRESSED, "2 bits", "3 bits", "4 bits"]
TOY = ["--model", "toy", "--tokens", "9"]


def a_sample(seconds: float, compressed: float) -> dict[str, Any]:
    return {"float32": {"9": {UNCOMPRESSED: seconds, "3 bits": compressed}}}


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each process measures, the last one first; no process is started."""
    found: list[dict[str, Any]] = []

    def stand_in(target: str, arguments: object, processes: int, threads: int) -> list:
        json.dumps(arguments)
        assert (target, processes) == (compressed_speed.SAMPLE, 1)
        return [found.pop()]

    monkeypatch.setattr(compressed_speed, "fresh_process_samples", stand_in)
    return found


def steps_of_a_toy(past: int, batch: int = 2) -> dict[str, Any]:
    model = Model(preset("toy", context_length=301)).to(torch.bfloat16).eval()
    with torch.inference_mode():
        return compressed_speed._steps(model, past, batch)


def test_each_cache_has_a_median_for_each_length_and_dtype() -> None:
    found = sample("toy", "cpu", [5, 9], rounds=1, batch=2)
    assert {dtype: list(lengths) for dtype, lengths in found.items()} == {
        "float32": ["5", "9"],
        "bfloat16": ["5", "9"],
    }
    of_all = [caches for lengths in found.values() for caches in lengths.values()]
    assert all(list(caches) == CACHES for caches in of_all)
    assert all(seconds > 0 for caches in of_all for seconds in caches.values())


def test_a_step_is_the_one_after_so_many_tokens_however_often_it_is_made() -> None:
    with torch.inference_mode():
        for name, step in steps_of_a_toy(300).items():
            _, _, cache, past = step.args
            assert (cache.length, past) == (300, 300)
            for _ in range(2):
                step()
                assert cache.length == 301
            assert cache.batch_size == 2
            assert isinstance(cache, QuantizedKVCache) == (name != UNCOMPRESSED)


def test_where_there_are_kernels_pytorchs_operators_have_a_turn_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There are some, which take none of these codecs.
    monkeypatch.setattr(triton_attention, "supports", lambda x, *codecs: not codecs)
    steps = steps_of_a_toy(3)
    assert list(steps) == [
        UNCOMPRESSED,
        *(name + more for name in CACHES[1:] for more in ("", PLAINLY)),
    ]
    taken: list[bool] = []
    compressed_speed._plainly(lambda: taken.append(triton_attention.supports("a query")))
    assert taken == [False]
    assert triton_attention.supports("a query")
    with torch.inference_mode():
        steps["3 bits" + PLAINLY]()


def test_the_table_tells_milliseconds_and_ratios_with_their_interval() -> None:
    _, _, first, second = table([a_sample(0.002, 0.001), a_sample(0.004, 0.0021)]).splitlines()
    assert first.split() == ["float32", "9", UNCOMPRESSED, "3", "1"]
    assert second.split()[:5] == ["float32", "9", "3", "bits", "1.55"]
    assert "(" in second
    assert table([a_sample(0.002, 0.001)]).splitlines()[-1].split()[-1] == "2"


def test_what_was_measured_is_kept_after_each_process(
    tmp_path: Path, samples: list[dict[str, Any]]
) -> None:
    samples += [a_sample(0.004, 0.001), a_sample(0.002, 0.001)]
    out = tmp_path / "speed.json"
    with pytest.raises(IndexError):  # the third one fails
        main([*TOY, "--observations", "3", "--out", str(out)])
    kept = json.loads(out.read_text())
    assert kept["observations"] == [a_sample(0.002, 0.001), a_sample(0.004, 0.001)]
    assert kept["asked"]["tokens"] == [9]
    assert {"commit", "gpu", "driver", "packages"} <= kept["environment"].keys()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--observations", "0"], "0 of something is nothing to measure"),
        (["--tokens", "9", "-3"], "-3 of something"),
        (["--device", "cuda"], "finds no GPU here; use --device cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    more: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=told):
        main([*TOY, *more])


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "--observations", "1", "--rounds", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 * len(CACHES)
