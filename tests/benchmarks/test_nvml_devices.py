"""Which of NVML's devices is PyTorch's, a whole GPU or a MIG instance, through nvidia-ml-py."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks.instruments.readings import Reading, Unavailable
from tests.benchmarks.conftest import BY_BUS, FIRST, SECOND, reasons

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the stand-in is a shared library for Linux"
)


# ---- which device


def test_a_device_is_found_by_the_uuid_that_torch_gives_whatever_the_numbers_say(ask: Any) -> None:
    # Fastest first: torch's device 0 is NVML's device 1.
    torch_sees = [{"uuid": SECOND.removeprefix("GPU-")}, {"uuid": FIRST.removeprefix("GPU-")}]
    found = ask(torch_sees=torch_sees, CUDA_VISIBLE_DEVICES="0,1")
    assert found["sm_clock"].value == 211


def test_a_device_without_a_uuid_is_found_by_its_place_on_the_bus(ask: Any) -> None:
    place = {"pci_domain_id": 1, "pci_bus_id": 0x65, "pci_device_id": 0}
    assert ask(torch_sees=[place])["sm_clock"].value == 211


def test_a_lost_neighbour_does_not_hide_the_device_that_torch_uses(ask: Any) -> None:
    torch_sees = [{"uuid": SECOND.removeprefix("GPU-")}]
    found = ask("0.nvmlDeviceGetHandleByIndex_v2 = 15", torch_sees=torch_sees)
    assert found["sm_clock"].value == 211


def test_a_device_that_nvml_does_not_list_is_not_replaced_by_another(ask: Any) -> None:
    found = ask(torch_sees=[{"uuid": "99999999"}])
    assert reasons(found) == {"NVML lists no device with the UUID of cuda:0, 99999999"}


@pytest.mark.parametrize(
    ("visible", "torch_index", "sm_clock"),
    [
        ("0,1", 1, 211),
        ("1", 0, 211),
        ("1,0", 1, 1410),
        (" 1 , 0 ", 0, 211),
        (SECOND, 0, 211),
        ("GPU-11112", 0, 211),
        (f"{SECOND},{FIRST}", 1, 1410),
    ],
)
def test_visible_devices_are_mapped_to_nvmls(
    ask: Any, visible: str, torch_index: int, sm_clock: int
) -> None:
    expression = f"nvml.device_readings({torch_index})"
    found = ask(expression=expression, CUDA_VISIBLE_DEVICES=visible, **BY_BUS)
    assert found["sm_clock"].value == sm_clock


@pytest.mark.parametrize(
    ("visible", "torch_index", "reason"),
    [
        ("", 0, "CUDA_VISIBLE_DEVICES= has no cuda:0"),
        ("1", 1, "CUDA_VISIBLE_DEVICES=1 has no cuda:1"),
        ("7", 0, "the entry 7 of CUDA_VISIBLE_DEVICES is beyond the 2 GPUs that NVML lists"),
        ("-1", 0, "the entry -1 of CUDA_VISIBLE_DEVICES names no device"),
        ("0,-1,1", 2, "the entry -1 of CUDA_VISIBLE_DEVICES names no device"),
        ("GPU-1111", 0, "the entry GPU-1111 of CUDA_VISIBLE_DEVICES is the beginning of 2 UUIDs"),
        ("MIG-9", 0, "the entry MIG-9 of CUDA_VISIBLE_DEVICES is the beginning of 0 UUIDs"),
    ],
)
def test_an_entry_that_names_no_one_device_is_a_reason(
    ask: Any, visible: str, torch_index: int, reason: str
) -> None:
    expression = f"nvml.device_readings({torch_index})"
    found = ask(expression=expression, CUDA_VISIBLE_DEVICES=visible, **BY_BUS)
    assert reasons(found) == {reason}


def test_a_number_among_several_gpus_is_not_trusted_when_cuda_puts_the_fastest_first(
    ask: Any,
) -> None:
    (reason,) = reasons(ask())
    assert reason.endswith("set CUDA_DEVICE_ORDER=PCI_BUS_ID")
    assert ask("count = 1")["sm_clock"].value == 1410


def test_a_negative_device_is_an_error_of_the_caller() -> None:
    from benchmarks.instruments.nvml_devices import device_of

    with pytest.raises(ValueError, match="torch_index is -1"):
        device_of(-1)


# ---- MIG


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"CUDA_VISIBLE_DEVICES": "MIG-33333333-aaaa-bbbb-cccc-000000000002"}, 3_000_000_000),
        ({"CUDA_VISIBLE_DEVICES": "MIG-2"}, 2_000_000_000),
        ({"CUDA_VISIBLE_DEVICES": f"MIG-{FIRST}/2/0"}, 3_000_000_000),
        ({"torch_sees": [{"uuid": "33333333-aaaa-bbbb-cccc-000000000002"}]}, 3_000_000_000),
        (
            {"torch_sees": [{"uuid": FIRST[4:]}], "CUDA_VISIBLE_DEVICES": "MIG-33333333"},
            3_000_000_000,
        ),
    ],
)
def test_a_mig_instance_is_read_and_not_the_gpu_around_it(
    ask: Any, given: dict[str, Any], used: int
) -> None:
    found = ask(machine="mig", **given)
    assert found["used"] == Reading(used, "bytes", "NVML MIG instance, v2")


def test_what_a_mig_instance_lacks_is_not_taken_from_the_gpu_around_it(ask: Any) -> None:
    found = ask("0.energy = 5", "0.clock.sm = 1410", machine="mig", CUDA_VISIBLE_DEVICES="MIG-2")
    unsupported = "nvmlDeviceGetTotalEnergyConsumption: not supported by this device"
    assert found["energy"] == Unavailable(unsupported, "NVML MIG instance")
    assert "not supported" in found["sm_clock"].reason
    assert "on MIG instances" in found["process"].reason


def test_a_mig_instance_that_is_no_longer_there_is_a_reason(ask: Any) -> None:
    (reason,) = reasons(ask(machine="mig", CUDA_VISIBLE_DEVICES=f"MIG-{FIRST}/9/0"))
    assert reason == "nvmlDeviceGetHandleByUUID: Not Found"


def test_one_of_several_mig_instances_is_not_guessed(ask: Any) -> None:
    (reason,) = reasons(ask(machine="mig", CUDA_VISIBLE_DEVICES="0"))
    assert reason == (
        f"cuda:0 is one of the 2 MIG instances of {FIRST}; "
        "set CUDA_VISIBLE_DEVICES to the UUID of one"
    )
