"""The pytest-benchmark suite: grouped, counted beside the clock, out of sight of asv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from benchmarks.micro import conftest
from reference_model.quantization.int8 import packed_is_available
from tests.benchmarks.stand_in_cuda import Cuda

MICRO = Path("benchmarks/micro")


def run(root: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    # Under xdist, of which these variables tell, nothing is measured.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment |= {"OMP_NUM_THREADS": "1", **more}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


SAID = {"device", "dtype", "bytes", "flops", "threads", "share_of_limit"}


def measured(root: Path, folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    out = folder / "micro.json"
    quick = ["--benchmark-enable", "--benchmark-max-time=0.001", "--benchmark-min-rounds=2"]
    done = run(root, *quick, f"--benchmark-json={out}", *arguments)
    assert done.returncode == 0, done.stdout
    return {entry["name"]: entry for entry in json.loads(out.read_text())["benchmarks"]}


@pytest.fixture(scope="module")
def in_bfloat16(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    asked = "test_norms or angles or unmerge or (rotate and not rotated)"
    folder = tmp_path_factory.mktemp("micro")
    return measured(root, folder, "--dtype=bfloat16", "-k", asked, str(MICRO))


def test_a_run_that_measures_says_where_in_what_and_by_how_much(
    root: Path, tmp_path: Path, in_bfloat16: dict[str, dict[str, Any]]
) -> None:
    plain = measured(root, tmp_path, str(MICRO / "test_norms.py"), "--device=cpu")
    assert len(plain) == 4
    for name, entry in plain.items():
        told, told_of_half = entry["extra_info"], in_bfloat16[name]["extra_info"]
        assert entry["group"] == "norms"
        assert set(told) == set(told_of_half) == SAID
        assert (told["device"], told["dtype"]) == ("cpu", "float32")
        assert told_of_half["dtype"] == "bfloat16"
        assert told["bytes"] == 2 * told_of_half["bytes"] > 0
        assert told["share_of_limit"] > 0


def test_numbers_that_have_a_dtype_of_their_own_say_it(
    in_bfloat16: dict[str, dict[str, Any]],
) -> None:
    dtypes = {
        name: entry["extra_info"]["dtype"]
        for name, entry in in_bfloat16.items()
        if entry["group"] != "norms"
    }
    assert dtypes == {
        "test_angles[1]": "float64", "test_angles[512]": "float64",
        "test_rotate[1]": "bfloat16", "test_rotate[512]": "bfloat16", "test_unmerge": "bfloat16",
    }  # fmt: skip
    moves_nothing = in_bfloat16["test_unmerge"]["extra_info"]
    assert set(moves_nothing) == SAID - {"share_of_limit"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_operator_is_right_in_half_precision(root: Path, dtype: str) -> None:
    done = run(root, "-q", str(MICRO), f"--dtype={dtype}")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_every_operator_runs_where_it_is_asked_to_or_says_why_not(root: Path) -> None:
    unused = "-Wignore::pytest_benchmark.logger.PytestBenchmarkWarning"
    done = run(root, "-q", "-p", "tests.benchmarks.micro_on_meta", unused, str(MICRO))
    assert done.returncode == 0, done.stdout
    reasons = {
        line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("SKIPPED")
    }
    assert reasons == ({"FBGEMM packs weights on a CPU"} if packed_is_available() else set())


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("--device=cuda", "--device cuda: torch finds no usable CUDA device; use --device cpu"),
        ("--device=tpu", "argument --device: invalid choice: 'tpu'"),
        ("--dtype=float64", "argument --dtype: invalid choice: 'float64'"),
    ],
)
def test_a_device_or_a_dtype_that_cannot_be_is_told(root: Path, asked: str, told: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    done = run(root, "-q", asked, str(MICRO / "test_norms.py"), **environment)
    assert done.returncode == 4  # pytest's own, of wrong usage
    assert told in done.stderr
    assert "passed" not in done.stdout


def test_the_suite_is_collected_with_others_and_from_the_folder_above(root: Path) -> None:
    both = ["--collect-only", "-q", str(MICRO / "test_norms.py"), "tests/test_readme.py"]
    assert run(root, *both, "--dtype=bfloat16").returncode == 0
    above = run(root, "-q", "benchmarks", "-k", "test_norm")  # pytest reads the conftest late
    assert above.returncode == 0, above.stdout


def test_on_cuda_a_call_ends_when_its_kernels_do(cuda: Cuda) -> None:
    once = Mock(side_effect=lambda call: call(), extra_info={}, stats=None)
    conftest.timed_on("cuda", once, None, "float32", cuda.launch(0.5), nbytes=1)
    assert cuda.host == pytest.approx(0.501)
    # What is not timed must not run on into what is.
    swap = Mock()
    once.pedantic = Mock(side_effect=lambda call, setup, rounds: (setup(), call()))
    conftest.timed_on("cuda", once, None, "float32", swap, nbytes=0, setup=cuda.launch(2.0))
    assert cuda.host == pytest.approx(0.501 + 2.001)
    assert cuda.waits == 3
    assert once.extra_info["device"] == "cuda"
    conftest.timed_on("cpu", once, None, "float32", swap, nbytes=1)
    assert once.call_args.args == (swap,)  # nothing between it and the clock


def test_without_being_asked_nothing_is_measured(root: Path, tmp_path: Path) -> None:
    done = run(root, str(MICRO / "test_norms.py"), "-q")
    assert done.returncode == 0
    assert "4 passed" in done.stdout
    assert "Rounds" not in done.stdout


def test_every_micro_benchmark_has_a_group(root: Path) -> None:
    for path in sorted((root / MICRO).glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\ndef test_") == text.count("@pytest.mark.benchmark(group=") > 0, path


def test_asv_does_not_enter(root: Path) -> None:
    # It imports every module of a package; what it then discovers is held by test_asv_suite.
    assert not (root / MICRO / "__init__.py").exists()
