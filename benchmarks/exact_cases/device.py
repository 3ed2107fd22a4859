"""A GPU that is not there: a stand-in for NVIDIA's library, with known figures."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

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


# Of NVML: GPUs by number, what their handles are called, and the MIG instances of the second.
GPUS = ("GPU-aa11", "GPU-bb22", "GPU-bb33")
INSTANCES = {"GPU-bb22": {0: "MIG-c0", 2: "MIG-c2"}, "GPU-bb33": {1: "MIG-d1"}}
BUSES = {"00000000:07:00.0": "GPU-bb33", "00000001:0A:00.0": "GPU-aa11"}


def _ask(gpus: tuple[str, ...], name: str, *given: Any) -> Any:
    """Of a machine with these GPUs, a handle being the UUID itself."""
    from benchmarks.instruments.nvml_library import NoAnswer

    def instance(gpu: str, place: int) -> str:
        if place not in INSTANCES[gpu]:
            raise NoAnswer("no instance there")
        return INSTANCES[gpu][place]

    def most(gpu: str) -> int:
        if gpu not in INSTANCES:
            raise NoAnswer("knows no MIG")
        return 7

    answers: dict[str, Any] = {
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": lambda number: gpus[number],
        "nvmlDeviceGetHandleByPciBusId": lambda bus: BUSES[bus],
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetMaxMigDeviceCount": most,
        "nvmlDeviceGetMigDeviceHandleByIndex": instance,
    }
    return answers[name](*given)


def _which() -> object:
    """Which of NVML's devices is PyTorch's, by UUID, bus, number and variables; or no answer."""
    import torch

    from benchmarks.instruments import nvml_devices

    found: list[object] = []
    properties = (
        None,
        SimpleNamespace(uuid="aa11"),
        SimpleNamespace(uuid="bb22"),
        SimpleNamespace(uuid="c2"),
        SimpleNamespace(uuid="", pci_domain_id=0, pci_bus_id=7, pci_device_id=0),
        SimpleNamespace(uuid="", pci_domain_id=1, pci_bus_id=10, pci_device_id=0),
        SimpleNamespace(uuid="ee99"),
    )
    variables: tuple[dict[str, str], ...] = (
        {},
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": "GPU-aa,MIG-c2"},
        {"CUDA_VISIBLE_DEVICES": "GPU-bb"},
        {"CUDA_VISIBLE_DEVICES": "MIG-c0,MIG-GPU-bb22/3/0"},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "none,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    )
    for gpus, seen, given in product((GPUS, GPUS[:1], ()), properties, variables):
        cuda: dict[str, Any] = {
            "is_available": lambda seen=seen: seen is not None,
            "get_device_properties": lambda index, seen=seen: seen,
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CUDA_")}
        with (
            mock.patch.object(nvml_devices, "ask", partial(_ask, gpus)),
            mock.patch.multiple(torch.cuda, **cuda),
            mock.patch.dict(os.environ, {**kept, **given}, clear=True),
        ):
            found += [refusal(partial(nvml_devices.device_of, index)) for index in (0, 1)]
    return found


class _Events:
    """Of a GPU that is not there: each event comes 250 ms after the one before."""

    now = 0.0

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed, self.at = enable_timing, math.nan

    def record(self) -> None:
        _Events.now += 250.0
        self.at = _Events.now

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: _Events) -> float:
        """Milliseconds, as PyTorch's events tell them."""
        if not (self.timed and end.timed):
            raise ValueError("these events were not told to be timed")
        return end.at - self.at


def _clock() -> object:
    """Seconds of calls whose events lie 250 ms apart, and the most that an allocator gave."""
    import torch

    from benchmarks.instruments import clock, memory

    told: list[str] = []
    peaks = iter((5_000, 7_000))
    stand_in: dict[str, Any] = {
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "synchronize": lambda: told.append("synchronize"),
        "Event": _Events,
        "reset_peak_memory_stats": lambda device: told.append("reset"),
        "max_memory_allocated": lambda device: next(peaks),
    }
    with mock.patch.multiple(torch.cuda, **stand_in):
        seconds = clock.durations(lambda: told.append("call"), repeats=2, warmup=1)
        peak = memory.allocator_peak(lambda: told.append("call"), "cuda")
    return [seconds, told, peak, type(memory.allocator_peak(lambda: None, "meta")).__name__]


CASES = (
    Case("a device", "one stand-in GPU", "none", "a figure that stands for another", _device),
    Case("which device", "3 GPUs, 3 MIG instances, 168 ways", "none", "another device", _which),
    Case("clock of a device", "events 250 ms apart", "none", "another unit, or no wait", _clock),
)
