"""The benchmarks can be asked about a model of the user's, in place of the presets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reference_model.config import GPTConfig
from reference_model.costs import forward_flops
from reference_model.export import save_huggingface
from reference_model.families.family import OF_LLAMA
from reference_model.model import GPT

CONFIG = GPTConfig(
    vocab_size=4096, context_length=256, n_layer=2, n_head=4, n_kv_head=2, n_embd=64, d_mlp=96,
    bias=False, **OF_LLAMA,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_huggingface(GPT(CONFIG), folder, eos_token_id=0)
    tokenizer = root / "reference_model" / "checkpoint" / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder


def values(root: Path, model: Path, ids: list[str], **more: str) -> dict[str, Any]:
    """What the gate's worker answers of these numbers."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.gate_worker"],
        cwd=root,
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "LLM_DESIGN_BENCH_PROFILE": "gate",
            "LLM_DESIGN_BENCH_MODEL": str(model),
            **more,
        },
        input=json.dumps({"do": "exact", "ids": ids}),
        capture_output=True,
        text=True,
        check=False,
    )
    answer = json.loads(done.stdout)
    assert "values" in answer, answer
    return dict(answer["values"])


@pytest.fixture(scope="module")
def names(folder: Path) -> dict[str, str]:
    return {
        "flops": "bench_gate.Work.track_flops(decode)",
        "moved": "bench_gate.Work.track_bytes_moved(decode)",
        "sinusoidal": "bench_gate.Outputs.track_fingerprint(sinusoidal)",
        "cache": f"bench_cache.CacheBytes.track_cache_bytes({folder}, 64)",
    }


@pytest.fixture(scope="module")
def single(root: Path, folder: Path, names: dict[str, str]) -> dict[str, Any]:
    return values(root, folder, list(names.values()))


def test_a_number_is_the_asked_models_own(
    folder: Path, names: dict[str, str], single: dict[str, Any]
) -> None:
    assert single[names["flops"]] == forward_flops(CONFIG, 1, 128, last_only=True).total
    reason = f"{folder} has another position than sinusoidal"
    assert single[names["sinusoidal"]] == {"skipped": reason}


def test_it_is_measured_in_the_dtype_that_was_asked_for(
    root: Path, folder: Path, names: dict[str, str], single: dict[str, Any]
) -> None:
    asked = [names["cache"], names["moved"]]
    half = values(root, folder, asked, LLM_DESIGN_BENCH_DTYPE="bfloat16")
    assert half[names["cache"]] == single[names["cache"]] / 2
    assert half[names["moved"]] < 0.7 * single[names["moved"]]
