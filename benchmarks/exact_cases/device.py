"""A GPU that is not there: a stand-in for NVIDIA's library, with known figures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.exact_cases.case import Case, refusal


class _Failure(Exception):
    """NVML's own kind of error."""


class NVMLError_NotSupported(_Failure):
    pass


def _driver() -> ModuleType:
    """A module like nvidia-ml-py, of one GPU with known figures."""
    stand_in = ModuleType("pynvml")
    memory = {
        None: SimpleNamespace(used=7_000),
        2: SimpleNamespace(used=5_000, reserved=2_000, total=16_000),
    }

    def unsupported(*given: object) -> object:
        raise NVMLError_NotSupported("Not Supported")

    answers: dict[str, Any] = {
        "NVMLError": _Failure,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"555.42",
        "nvmlDeviceGetMemoryInfo": lambda handle, version=None: memory[2 if version else None],
        "nvmlDeviceGetComputeRunningProcesses_v3": lambda handle: [],
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=40, memory=2**32 - 1),
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 123_456,
        "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1_410, 2: 1_593}[kind],
        "nvmlDeviceGetCurrentClocksEventReasons": unsupported,
    }
    vars(stand_in).update(answers)
    return stand_in


@contextmanager
def _stand_in() -> Iterator[None]:
    from benchmarks.instruments import nvml

    before, device_of = sys.modules.get("pynvml"), vars(nvml)["device_of"]
    sys.modules["pynvml"] = _driver()
    vars(nvml)["device_of"] = lambda index: SimpleNamespace(handle=index, kind="device")
    try:
        yield
    finally:
        vars(nvml)["device_of"] = device_of
        if before is None:
            del sys.modules["pynvml"]
        else:
            sys.modules["pynvml"] = before


def _device() -> object:
    """Every figure of a GPU that is not there, and what is said of one that has none."""
    from benchmarks.instruments import nvml
    from benchmarks.instruments.readings import Reading, Unavailable

    with _stand_in():
        readings = {
            name: each if isinstance(each, Reading) else type(each).__name__
            for name, each in nvml.device_readings().items()
        }
        version = nvml.driver_version()
    energies = [Reading(value, "mJ", "NVML device") for value in (2_000.0, 7_000.0, 1_000.0)]
    spans = ((0, 1, 2.0), (1, 2, 1.0), (0, 0, 1.0))
    used = [nvml.energy_between(energies[a], energies[b], s) for a, b, s in spans]
    words = [nvml.throttle_words(Reading(bits, "bits", "NVML")) for bits in (0, 5, 64, 4096 + 8)]
    gone = nvml.energy_between(Unavailable("no driver", "NVML"), energies[0], 1.0)
    told = [each if isinstance(each, Reading) else type(each).__name__ for each in (*used, gone)]
    return [readings, version, told, words, refusal(lambda: Reading(float("nan"), "bytes", "NVML"))]


CASES = (Case("a device", "one stand-in GPU", "none", "a figure that stands for another", _device),)
