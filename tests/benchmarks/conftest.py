"""Stand-ins: for the driver's library, which the real nvidia-ml-py loads, and for CUDA."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.stand_in_cuda import Cuda

STAND_IN = Path(__file__).parent / "nvml_stand_in"
FIRST = "GPU-11111111-aaaa-bbbb-cccc-000000000000"
SECOND = "GPU-11112222-aaaa-bbbb-cccc-000000000001"
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

# Runs in a process of its own, since a library is loaded once. The torch of the suite has no CUDA
# everywhere: `torch_sees` stands for the properties that one with CUDA gives for its devices.
PROGRAM = """
import pickle, sys, types
torch_sees, expression = pickle.load(sys.stdin.buffer)
cuda = types.SimpleNamespace(
    is_available=lambda: bool(torch_sees),
    get_device_properties=lambda index: types.SimpleNamespace(**torch_sees[index]),
)
sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
import pynvml
from pathlib import Path
from benchmarks.instruments import nvml, nvml_devices
from benchmarks.instruments.nvml_library import ask, session
pickle.dump(eval(expression), sys.stdout.buffer)
"""


def compiled(folder: Path, *options: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler cc to build the stand-in for libnvidia-ml with")
    source, library = STAND_IN / "libnvidia_ml.c", folder / "libnvidia-ml.so.1"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [compiler, *warnings, *options, "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("old_driver"), "-DOLD_DRIVER")


@pytest.fixture
def ask(root: Path, tmp_path: Path, driver: Path) -> Any:
    """What an expression gives in a process that finds the stand-in where the driver would be."""

    def answer(
        *lines: str,
        machine: str = "two_gpus",
        expression: str = "nvml.device_readings(0)",
        torch_sees: list[dict[str, Any]] | None = None,
        library: Path = driver,
        **environment: str,
    ) -> Any:
        scenario = tmp_path / "scenario.txt"
        scenario.write_text("\n".join([(STAND_IN / f"{machine}.txt").read_text(), *lines]))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
        paths = {"LD_LIBRARY_PATH": str(library), "NVML_SCENARIO": str(scenario)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=pickle.dumps((torch_sees, expression)),
            env={**inherited, **paths, **environment},
            cwd=root,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return pickle.loads(done.stdout)

    return answer


def reasons(readings: dict[str, Any]) -> set[str]:
    """The reasons where all figures are missing."""
    assert len(readings) == 11
    return {reading.reason for reading in readings.values()}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    return cuda
