"""NVML through the real nvidia-ml-py, against a stand-in for the driver's library."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.instruments import nvml, nvml_library
from benchmarks.instruments.nvml import energy_between, throttle_words
from benchmarks.instruments.readings import Reading, Unavailable
from tests.benchmarks.conftest import BY_BUS, FIRST, reasons

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the stand-in is a shared library for Linux"
)


# ---- figures


def test_every_figure_arrives_with_its_unit_and_its_source(ask: Any) -> None:
    assert ask(**BY_BUS) == {
        "used": Reading(9_000_000_000, "bytes", "NVML device, v2"),
        "reserved": Reading(600_000_000, "bytes", "NVML device, v2"),
        "total": Reading(85_899_345_920, "bytes", "NVML device, v2"),
        "used_v1": Reading(9_600_000_000, "bytes", "NVML device, v1"),
        "process": Reading(7_000_000_000, "bytes", "NVML process"),
        "utilisation": Reading(93, "%", "NVML device"),
        "memory_utilisation": Reading(41, "%", "NVML device"),
        "energy": Reading(123_456_789, "mJ", "NVML device"),
        "sm_clock": Reading(1410, "MHz", "NVML device"),
        "memory_clock": Reading(1593, "MHz", "NVML device"),
        "throttle_reasons": Reading(0, "bits", "NVML device"),
    }


def test_what_the_first_version_calls_used_includes_what_the_driver_reserves(ask: Any) -> None:
    found = ask(**BY_BUS)
    assert found["used_v1"].value - found["used"].value == found["reserved"].value > 0


def test_the_drivers_version_comes_from_nvml(ask: Any) -> None:
    assert ask(expression="nvml.driver_version()") == "570.86.15"


def test_a_device_that_does_nothing_reads_zero_where_zero_was_measured(ask: Any) -> None:
    idle = ask(expression="nvml.device_readings(1)", **BY_BUS)
    assert idle["utilisation"] == Reading(0, "%", "NVML device")
    assert throttle_words(idle["throttle_reasons"]) == ["idle"]


def test_throttle_reasons_are_told_in_words() -> None:
    def words(bits: int) -> list[str]:
        return throttle_words(Reading(bits, "bits", "NVML device"))

    assert words(0) == []
    assert words(0x4 | 0x40) == ["software power cap", "hardware thermal slowdown"]
    assert words(0x80 | 0x4000) == ["hardware power brake", "unknown reason 0x4000"]


def test_the_words_for_throttle_reasons_stand_at_the_bits_that_nvidia_names() -> None:
    import pynvml

    bits = {
        "idle": pynvml.nvmlClocksEventReasonGpuIdle,
        "application clocks": pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
        "software power cap": pynvml.nvmlClocksEventReasonSwPowerCap,
        "hardware slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
        "sync boost": pynvml.nvmlClocksEventReasonSyncBoost,
        "software thermal slowdown": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
        "hardware thermal slowdown": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
        "hardware power brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
        "display clocks": pynvml.nvmlClocksEventReasonDisplayClockSetting,
    }
    assert {word: 1 << place for place, word in enumerate(nvml.THROTTLE_REASONS)} == bits


# ---- no figure, and why


def test_a_machine_without_the_driver_says_so(ask: Any, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("hides the driver that this machine may have")
    expected = "nvmlInit: no NVIDIA driver, its library libnvidia-ml is not on this machine"
    assert reasons(ask(library=tmp_path)) == {expected}
    version = ask(library=tmp_path, expression="nvml.driver_version()")
    assert version == Unavailable(expected, "NVML")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (9, "the NVIDIA driver is installed but not loaded"),
        (18, "the NVIDIA driver was updated while it ran; reboot"),
        (4, "no permission for this user"),
        (998, "the stand-in's words for error 998"),
    ],
)
def test_a_driver_that_does_not_open_says_why(ask: Any, error: int, reason: str) -> None:
    assert reasons(ask(f"nvmlInitWithFlags = {error}")) == {f"nvmlInit: {reason}"}


def test_a_machine_without_a_gpu_says_so(ask: Any) -> None:
    assert reasons(ask("count = 0")) == {"no GPU: NVML is there and lists none"}


def test_an_environment_without_nvidias_package_says_so(ask: Any) -> None:
    hidden = "(sys.modules.update(pynvml=None), nvml.device_readings())[1]"
    expected = "the package nvidia-ml-py is not installed; run make setup"
    assert reasons(ask(expression=hidden)) == {expected}


@pytest.mark.K8
def test_another_package_called_pynvml_is_named_and_keeps_the_figures_that_it_has(
    ask: Any, tmp_path: Path
) -> None:
    # Version 11.5.0 of the package pynvml has this function by an older name.
    name = "nvmlDeviceGetCurrentClocksEventReasons"
    information = tmp_path / "site" / "pynvml-11.5.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pynvml\nVersion: 11.5.0\n")
    (information / "top_level.txt").write_text("pynvml\n")
    found = ask(
        expression=f"(delattr(pynvml, {name!r}), nvml.device_readings())[1]",
        torch_sees=[{"uuid": FIRST.removeprefix("GPU-")}],
        PYTHONPATH=str(information.parent),
    )
    (absent,) = (k for k, v in found.items() if isinstance(v, Unavailable))
    reason = found[absent].reason
    assert absent == "throttle_reasons"
    assert reason.startswith(f"{name}: pynvml is that of pynvml 11.5.0 and nvidia-ml-py ")
    assert reason.endswith(f"; uninstall it, and install {nvml_library.PACKAGE}")
    assert "\n" not in reason


@pytest.mark.K8
def test_a_package_that_knows_no_mig_gives_no_figure_that_may_be_anothers(ask: Any) -> None:
    # So is nvidia-ml-py3 7.352.0; it also takes one argument for memory, and answers in bytes.
    hidden = (
        "delattr(pynvml, 'nvmlDeviceGetMaxMigDeviceCount'),"
        "setattr(pynvml, 'v1', pynvml.nvmlDeviceGetMemoryInfo),"
        "setattr(pynvml, 'nvmlDeviceGetMemoryInfo', lambda handle: pynvml.v1(handle)),"
        "setattr(pynvml, 'told', pynvml.nvmlSystemGetDriverVersion),"
        "setattr(pynvml, 'nvmlSystemGetDriverVersion', lambda: pynvml.told().encode()),"
    )
    (reason,) = reasons(ask(expression=f"({hidden} nvml.device_readings())[-1]", **BY_BUS))
    assert reason.startswith("nvmlDeviceGetMaxMigDeviceCount: pynvml is that of nvidia-ml-py ")
    assert ask(expression=f"({hidden} nvml.driver_version())[-1]") == "570.86.15"
    with_mig = f"({hidden} setattr(nvml_devices, '_instances', lambda gpu: ()), "
    found = ask(expression=f"{with_mig} nvml.device_readings())[-1]", **BY_BUS)
    absent = {k for k, v in found.items() if isinstance(v, Unavailable)}
    assert absent == {"used", "reserved", "total"}
    assert "takes 1 positional argument but 2 were given" in found["used"].reason


@pytest.mark.K8
def test_a_module_called_pynvml_that_is_no_nvml_at_all_is_a_reason(ask: Any) -> None:
    empty = "(sys.modules.update(pynvml=types.SimpleNamespace()), nvml.device_readings())[1]"
    (reason,) = reasons(ask(expression=empty))
    assert reason.startswith("nvmlInit: pynvml is that of nvidia-ml-py ")


@pytest.mark.K8
def test_the_package_that_is_advised_is_the_one_that_is_declared(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert nvml_library.PACKAGE in project["optional-dependencies"]["suite"]


def test_a_gpu_that_is_lost_before_it_is_asked_gives_one_reason(ask: Any) -> None:
    lost = ask("0.nvmlDeviceGetHandleByIndex_v2 = 15", **BY_BUS)
    assert reasons(lost) == {
        "nvmlDeviceGetHandleByIndex: the GPU is lost: it fell off the bus or was shut down; reboot"
    }


def test_a_gpu_that_is_lost_meanwhile_keeps_what_was_read_before(ask: Any) -> None:
    found = ask(
        *(f"0.{name} = 15" for name in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetClockInfo")),
        "nvmlShutdown = 15",
        **BY_BUS,
    )
    assert found["used"].value == 9_000_000_000
    assert "GPU is lost" in found["utilisation"].reason
    assert "GPU is lost" in found["sm_clock"].reason


@pytest.mark.parametrize(
    ("function", "missing"),
    [
        ("nvmlDeviceGetTotalEnergyConsumption", {"energy"}),
        ("nvmlDeviceGetUtilizationRates", {"utilisation", "memory_utilisation"}),
        ("nvmlDeviceGetClockInfo", {"sm_clock", "memory_clock"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"throttle_reasons"}),
        ("nvmlDeviceGetComputeRunningProcesses_v3", {"process"}),
        ("nvmlDeviceGetMemoryInfo", {"used_v1"}),
        ("nvmlDeviceGetMemoryInfo_v2", {"used", "reserved", "total"}),
    ],
)
@pytest.mark.parametrize(
    ("error", "reason"),
    [(3, "not supported by this device"), (4, "no permission for this user")],
)
def test_a_query_that_fails_takes_only_its_own_figures_along(
    ask: Any, function: str, missing: set[str], error: int, reason: str
) -> None:
    found = ask(f"0.{function} = {error}", **BY_BUS)
    absent = {k: v.reason for k, v in found.items() if isinstance(v, Unavailable)}
    assert absent == dict.fromkeys(missing, f"{function.removesuffix('_v2')}: {reason}")


def test_a_driver_too_old_for_a_function_says_so_and_the_first_version_stays_its_own(
    ask: Any, old_driver: Path
) -> None:
    found = ask(library=old_driver, **BY_BUS)
    old = "this driver is too old for it"
    for name in ("used", "reserved", "total"):
        assert found[name] == Unavailable(f"nvmlDeviceGetMemoryInfo: {old}", "NVML device, v2")
    assert old in found["process"].reason
    assert old in found["throttle_reasons"].reason
    assert found["used_v1"] == Reading(9_600_000_000, "bytes", "NVML device, v1")
    assert found["energy"].value == 123_456_789


def test_a_value_that_nvml_marks_as_not_available_is_no_figure(ask: Any) -> None:
    found = ask("0.clock.sm = -1", "0.memory.reserved = -1", **BY_BUS)
    assert found["sm_clock"] == Unavailable("the driver gives no value", "NVML device")
    assert found["reserved"] == Unavailable("the driver gives no value", "NVML device, v2")
    assert found["memory_clock"].value == 1593


def test_every_session_that_is_opened_is_closed(ask: Any) -> None:
    count = "pynvml.nvmlLib.stand_in_open_sessions()"
    both = f"(nvml.device_readings(), nvml.driver_version(), {count})[2]"
    assert ask(expression=both, **BY_BUS) == 0
    assert ask("0.nvmlDeviceGetHandleByIndex_v2 = 15", expression=both, **BY_BUS) == 0
    assert ask(expression=f"(pynvml.nvmlInit(), {count})[1]") == 1


# ---- this process's share


@pytest.mark.parametrize("bytes_told", ["-1", "0"])
def test_memory_that_the_driver_does_not_tell_by_process_is_a_reason(
    ask: Any, bytes_told: str
) -> None:
    found = ask(f"0.processes = self:{bytes_told}", **BY_BUS)
    assert found["process"].reason == (
        "the driver does not say what each process holds, as in containers, under WDDM "
        "and on MIG instances"
    )
    assert found["used"].value == 9_000_000_000


@pytest.mark.parametrize(("processes", "count"), [("none", 0), ("77:2000", 1)])
def test_a_process_that_nvml_does_not_list_gets_no_share(
    ask: Any, processes: str, count: int
) -> None:
    expression = (
        "(setattr(nvml, '_in_a_container', lambda: False), nvml.device_readings()['process'])[1]"
    )
    process = ask(f"0.processes = {processes}", expression=expression, **BY_BUS)
    assert f"is not among the {count} that NVML lists" in process.reason


def proc_folder(folder: Path, own: int, others: tuple[int, ...], namespace: int) -> str:
    """An expression that reads the share under a /proc that numbers the processes so."""
    for number in (own, *others):
        (folder / str(number) / "ns").mkdir(parents=True)
        (folder / str(number) / "ns" / "pid").touch()
    (folder / "self").symlink_to(str(own))
    inode = (folder / "self" / "ns" / "pid").stat().st_ino
    first = inode if namespace == 1 else inode + 1
    setup = f"nvml.__dict__.update(PROC=Path({str(folder)!r}), FIRST_PID_NAMESPACE={first})"
    return f"({setup}, nvml.device_readings()['process'])[1]"


def test_a_containers_own_number_is_not_looked_up_among_the_hosts(ask: Any, tmp_path: Path) -> None:
    # 41 is this process in its container and another one's on the host, where 4242 lives as well.
    expression = proc_folder(tmp_path / "proc", own=41, others=(), namespace=2)
    process = ask("0.processes = 41:2000 4242:7000", expression=expression, **BY_BUS)
    assert process.reason.startswith("NVML lists the host's process numbers")


def test_a_container_whose_processes_nvml_translates_gets_its_share(
    ask: Any, tmp_path: Path
) -> None:
    expression = proc_folder(tmp_path / "proc", own=41, others=(42,), namespace=2)
    process = ask("0.processes = 41:2000 42:7000", expression=expression, **BY_BUS)
    assert process == Reading(2000, "bytes", "NVML process")


def test_a_host_that_hides_other_users_processes_gets_its_share(ask: Any, tmp_path: Path) -> None:
    expression = proc_folder(tmp_path / "proc", own=41, others=(), namespace=1)
    process = ask("0.processes = 41:2000 42:7000", expression=expression, **BY_BUS)
    assert process == Reading(2000, "bytes", "NVML process")


# ---- energy


def energy(millijoules: int) -> Reading:
    return Reading(millijoules, "mJ", "NVML device")


def test_energy_is_the_difference_of_two_readings_in_joules() -> None:
    assert energy_between(energy(5_000), energy(7_500), 10.0) == Reading(2.5, "J", "NVML device")
    assert energy_between(energy(5_000), energy(5_000), 10.0) == Reading(0.0, "J", "NVML device")
    days = energy_between(energy(0), energy(2**33), 1e6)  # more than 32 bits hold
    assert days == Reading(2**33 / 1000, "J", "NVML device")


def test_a_short_span_may_have_a_whole_step_of_the_counter_in_it() -> None:
    assert energy_between(energy(0), energy(70_000), 0.001) == Reading(70.0, "J", "NVML device")


def test_a_counter_that_runs_over_its_end_is_followed() -> None:
    spent = energy_between(energy(2**64 - 1_000), energy(2_000), 10.0)
    assert spent == Reading(3.0, "J", "NVML device")


def test_a_counter_that_started_again_is_a_reason() -> None:
    spent = energy_between(energy(9_000_000), energy(2_000), 10.0)
    assert spent == Unavailable(
        "the counter went from 9000000 to 2000 mJ in 10 s: it started again, measure again",
        "NVML device",
    )


def test_energy_without_a_reading_keeps_the_readings_reason() -> None:
    absent = Unavailable("not supported", "NVML device")
    assert energy_between(absent, energy(1), 1.0) is absent
    assert energy_between(energy(1), absent, 1.0) is absent
