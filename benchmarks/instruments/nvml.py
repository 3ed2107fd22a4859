"""What NVIDIA's management library says of a GPU: memory, work, energy, clocks.

NVML sees what the driver sees, other programs included, where PyTorch's allocator sees only
itself. A figure that it does not give is `Unavailable` with the reason; a figure of the whole
device never stands in for one of this process or of a MIG instance.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.instruments.nvml_devices import Device, device_of
from benchmarks.instruments.nvml_library import NoAnswer, ask, session
from benchmarks.instruments.readings import Reading, Unavailable

PROC = Path("/proc")
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # its inode number, the same on every Linux
ENERGY_COUNTER_BITS = 64
MEMORY_V2 = 2 << 24 | 40  # a versioned struct of NVML names its version and its size in bytes
SM_CLOCK, MEMORY_CLOCK = 1, 2  # of nvmlClockType_t
HIGHEST_WATTS = 10_000  # of one device: a counter that rose faster did not count
NOT_AVAILABLE = (None, 2**32 - 1, 2**64 - 1)  # NVML writes -1, nvidia-ml-py sometimes None

# nvmlClocksEventReasons of https://docs.nvidia.com/deploy/nvml-api, by bit. The first two and the
# last say what the clocks were set to; the others that the GPU was slowed down.
THROTTLE_REASONS = (
    "idle",
    "application clocks",
    "software power cap",
    "hardware slowdown",
    "sync boost",
    "software thermal slowdown",
    "hardware thermal slowdown",
    "hardware power brake",
    "display clocks",
)


def driver_version() -> str | Unavailable:
    """The version of the NVIDIA driver, or why there is none."""
    try:
        with session():
            return str(ask("nvmlSystemGetDriverVersion"))
    except NoAnswer as error:
        return Unavailable(str(error), "NVML")


def device_readings(torch_index: int = 0) -> dict[str, Reading | Unavailable]:
    """Every figure of the device that PyTorch calls ``cuda:torch_index``, by name.

    Memory in bytes: ``used``, ``reserved`` and ``total`` as NVML's second version counts them,
    where ``used`` leaves out what the driver reserves; ``used_v1``, the first version's, has it
    in; ``process`` is this process's share. ``utilisation`` is the share in % of the last sample
    period (a sixth of a second to a second) in which a kernel ran, ``memory_utilisation`` that in
    which memory was read or written. ``energy`` counts mJ, for `energy_between`; ``sm_clock`` and
    ``memory_clock`` are in MHz; ``throttle_reasons`` is a set of bits, for `throttle_words`.
    """
    try:
        with session():
            device = device_of(torch_index)
            return {k: v for query in QUERIES for k, v in _answers(device, *query).items()}
    except NoAnswer as error:
        reason = str(error)
    return {
        name: Unavailable(reason, f"NVML {source.format(kind='device')}")
        for source, units, _ in QUERIES
        for name in units
    }


def energy_between(
    before: Reading | Unavailable, after: Reading | Unavailable, seconds: float
) -> Reading | Unavailable:
    """The J that a device took between two readings of ``energy``, which lie ``seconds`` apart.

    A counter that ran over its end is followed. One that started again, since the driver was
    loaded anew, is a reason.
    """
    if isinstance(before, Unavailable):
        return before
    if isinstance(after, Unavailable):
        return after
    millijoules = (int(after.value) - int(before.value)) % 2**ENERGY_COUNTER_BITS
    # The counter moves in steps, so that a short span may have the energy of a longer one in it.
    if millijoules > HIGHEST_WATTS * 1000 * max(seconds, 1.0):
        went = f"went from {before.value} to {after.value} mJ in {seconds:g} s"
        return Unavailable(f"the counter {went}: it started again, measure again", after.source)
    return Reading(millijoules / 1000, "J", after.source)


def throttle_words(reasons: Reading) -> list[str]:
    """What decides the clocks, in words, of the reading ``throttle_reasons``."""
    bits = int(reasons.value)
    known = [word for place, word in enumerate(THROTTLE_REASONS) if bits >> place & 1]
    rest = bits >> len(THROTTLE_REASONS) << len(THROTTLE_REASONS)
    return [*known, f"unknown reason {rest:#x}"] if rest else known


def _answers(
    device: Device, source: str, units: dict[str, str], read: Callable[[Any], tuple[Any, ...]]
) -> dict[str, Reading | Unavailable]:
    """The figures of one query, each apart: what one lacks, another may have."""
    source = f"NVML {source.format(kind=device.kind)}"
    try:
        values = read(device.handle)
    except NoAnswer as error:
        return {name: Unavailable(str(error), source) for name in units}
    return {
        name: Unavailable("the driver gives no value", source)
        if value in NOT_AVAILABLE
        else Reading(value, unit, source)
        for (name, unit), value in zip(units.items(), values, strict=True)
    }


def _memory(handle: Any) -> tuple[Any, ...]:
    memory = ask("nvmlDeviceGetMemoryInfo", handle, MEMORY_V2)
    return memory.used, memory.reserved, memory.total


def _memory_v1(handle: Any) -> tuple[Any, ...]:
    return (ask("nvmlDeviceGetMemoryInfo", handle).used,)


def _process_memory(handle: Any) -> tuple[Any, ...]:
    listed = ask("nvmlDeviceGetComputeRunningProcesses_v3", handle)
    own = _own_number()
    if _in_a_container() and not all((PROC / str(each.pid)).exists() for each in listed):
        # One of these numbers may be ours by chance, and another process's memory with it.
        raise NoAnswer(
            "NVML lists the host's process numbers, and this process is in a container, where it "
            "has another; share the host's (docker run --pid=host)"
        )
    shares = [each.usedGpuMemory for each in listed if each.pid == own]
    if not shares:
        raise NoAnswer(
            f"process {own} is not among the {len(listed)} that NVML lists: it holds nothing on "
            "this device, or it is in a container whose processes NVML does not see"
        )
    # A process that is listed has a CUDA context, so that 0 is no measurement either.
    if None in shares or sum(shares) == 0:
        raise NoAnswer(
            "the driver does not say what each process holds, as in containers, under WDDM "
            "and on MIG instances"
        )
    return (sum(shares),)


def _own_number() -> int:
    """This process's number in /proc, which is the host's where a container mounts the host's."""
    try:
        return int(os.readlink(PROC / "self"))
    except OSError:  # no /proc: not Linux
        return os.getpid()


def _in_a_container() -> bool:
    try:
        return (PROC / "self" / "ns" / "pid").stat().st_ino != FIRST_PID_NAMESPACE
    except OSError:
        return False


def _utilisation(handle: Any) -> tuple[Any, ...]:
    rates = ask("nvmlDeviceGetUtilizationRates", handle)
    return rates.gpu, rates.memory


def _number(function: str, *arguments: Any) -> Callable[[Any], tuple[Any, ...]]:
    return lambda handle: (ask(function, handle, *arguments),)


# Source, units by name of the figure, and what reads the figures in that order.
QUERIES: tuple[tuple[str, dict[str, str], Callable[[Any], tuple[Any, ...]]], ...] = (
    ("{kind}, v2", {"used": "bytes", "reserved": "bytes", "total": "bytes"}, _memory),
    ("{kind}, v1", {"used_v1": "bytes"}, _memory_v1),
    ("process", {"process": "bytes"}, _process_memory),
    ("{kind}", {"utilisation": "%", "memory_utilisation": "%"}, _utilisation),
    ("{kind}", {"energy": "mJ"}, _number("nvmlDeviceGetTotalEnergyConsumption")),
    ("{kind}", {"sm_clock": "MHz"}, _number("nvmlDeviceGetClockInfo", SM_CLOCK)),
    ("{kind}", {"memory_clock": "MHz"}, _number("nvmlDeviceGetClockInfo", MEMORY_CLOCK)),
    ("{kind}", {"throttle_reasons": "bits"}, _number("nvmlDeviceGetCurrentClocksEventReasons")),
)
