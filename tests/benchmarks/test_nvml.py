"""NVML through the real nvidia-ml-py, against a stand-in for the driver's library."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.instruments import nvml, nvml_library
from benchmarks.instruments.nvml import energy_between, throttle_words
from benchmarks.instruments.readings import Reading, Unavailable

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

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the stand-in is a shared library for Linux"
)


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
