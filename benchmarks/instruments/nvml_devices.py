"""Which of NVML's devices is PyTorch's ``cuda:i``.

NVML numbers the GPUs by their place on the PCI bus and knows nothing of CUDA_VISIBLE_DEVICES;
CUDA numbers the visible ones, the fastest first unless CUDA_DEVICE_ORDER says otherwise. So the
device is found by its UUID or its place on the bus, and by its number only where that is safe.
https://docs.nvidia.com/cuda/cuda-c-programming-guide, "CUDA Environment Variables"
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.instruments.nvml_library import NoAnswer, OtherPackage, ask


@dataclass(frozen=True)
class Device:
    """A whole GPU or a MIG instance of one, ``kind`` says which; ``handle`` is NVML's."""

    handle: Any
    uuid: str
    kind: str


def device_of(torch_index: int) -> Device:
    """NVML's device for ``cuda:torch_index``; `NoAnswer` where it cannot be told for sure.

    Needs an open `session`.
    """
    if torch_index < 0:
        raise ValueError(f"torch_index is {torch_index}: devices are numbered from 0")
    found = _as_torch_names_it(torch_index) or _as_the_environment_names_it(torch_index)
    return found if found.kind == "MIG instance" else _instance_in_use(found, torch_index)


def _as_torch_names_it(torch_index: int) -> Device | None:
    """By the UUID that PyTorch gives, else by the PCI address; None where it sees no CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties: Any = torch.cuda.get_device_properties(torch_index)
    uuid = str(getattr(properties, "uuid", ""))
    if uuid:
        for device in _all_devices():
            if device.uuid.endswith(uuid):  # CUDA leaves the "GPU-" or "MIG-" out
                return device
    if hasattr(properties, "pci_domain_id"):
        numbers = (properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id)
        handle = ask("nvmlDeviceGetHandleByPciBusId", "{:08X}:{:02X}:{:02X}.0".format(*numbers))
        return _gpu(handle)
    raise NoAnswer(f"NVML lists no device with the UUID of cuda:{torch_index}, {uuid or 'unknown'}")


def _as_the_environment_names_it(torch_index: int) -> Device:
    """By CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, where PyTorch cannot be asked."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return _by_number(torch_index, f"cuda:{torch_index}")
    entries = [entry.strip() for entry in visible.split(",")] if visible.strip() else []
    if torch_index >= len(entries):
        raise NoAnswer(f"CUDA_VISIBLE_DEVICES={visible} has no cuda:{torch_index}")
    # CUDA stops at the first entry that it does not understand: what follows is invisible.
    devices = [_by_entry(entry) for entry in entries[: torch_index + 1]]
    return devices[-1]


def _by_entry(entry: str) -> Device:
    where = f"the entry {entry or repr(entry)} of CUDA_VISIBLE_DEVICES"
    if entry.isdecimal():
        return _by_number(int(entry), where)
    if not entry.startswith(("GPU-", "MIG-")):
        raise NoAnswer(f"{where} names no device")
    if entry.startswith("MIG-GPU-"):  # the older form, with the instance's numbers at the end
        handle = ask("nvmlDeviceGetHandleByUUID", entry)
        return Device(handle, ask("nvmlDeviceGetUUID", handle), "MIG instance")
    matching = [device for device in _all_devices() if device.uuid.startswith(entry)]
    if len(matching) != 1:
        raise NoAnswer(f"{where} is the beginning of {len(matching)} UUIDs")
    return matching[0]


def _by_number(number: int, where: str) -> Device:
    count = ask("nvmlDeviceGetCount")
    if count == 0:
        raise NoAnswer("no GPU: NVML is there and lists none")
    if number >= count:
        raise NoAnswer(f"{where} is beyond the {count} GPUs that NVML lists")
    if count > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise NoAnswer(
            f"{where} is a number among {count} GPUs, which CUDA and NVML may order differently; "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return _gpu(ask("nvmlDeviceGetHandleByIndex", number))


def _instance_in_use(gpu: Device, torch_index: int) -> Device:
    """The GPU itself, or in MIG mode the instance that CUDA uses: NVML's figures differ."""
    instances = list(_instances(gpu.handle))
    if len(instances) <= 1:
        return instances[0] if instances else gpu
    entries = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    entry = entries[torch_index].strip() if torch_index < len(entries) else ""
    chosen = [each for each in instances if each.uuid.startswith(entry)]
    if not entry.startswith("MIG-") or len(chosen) != 1:
        raise NoAnswer(
            f"cuda:{torch_index} is one of the {len(instances)} MIG instances of {gpu.uuid}; "
            "set CUDA_VISIBLE_DEVICES to the UUID of one"
        )
    return chosen[0]


def _all_devices() -> Iterator[Device]:
    """Every GPU that answers, each followed by its MIG instances."""
    for number in range(ask("nvmlDeviceGetCount")):
        try:
            gpu = _gpu(ask("nvmlDeviceGetHandleByIndex", number))
        except NoAnswer:  # lost, or not ours: the one that is looked for may still be there
            continue
        yield gpu
        yield from _instances(gpu.handle)


def _instances(gpu: Any) -> Iterator[Device]:
    try:
        places = ask("nvmlDeviceGetMaxMigDeviceCount", gpu)  # 0 where MIG is off
    except OtherPackage:  # the GPU's figures may not be those of the instance in use
        raise
    except NoAnswer:  # most GPUs know no MIG
        return
    for place in range(places):
        try:
            handle = ask("nvmlDeviceGetMigDeviceHandleByIndex", gpu, place)
        except NoAnswer:  # a place that holds no instance
            continue
        yield Device(handle, ask("nvmlDeviceGetUUID", handle), "MIG instance")


def _gpu(handle: Any) -> Device:
    return Device(handle, ask("nvmlDeviceGetUUID", handle), "device")
