"""The stamp on every results file: code, machine, versions, threads and seed.

What cannot be known is a text with the reason, never an empty field. The name of the host is left
out: it says nothing about a measurement, and results are published.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.data.git import changes, git
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments import nvml
from benchmarks.instruments.readings import Unavailable
from reference_model.errors import UserError
from reference_model.printing import clean

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "scipy", "safetensors", "tokenizers")
CONTAINER_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
FIRST_PROCESSOR = Path("/sys/devices/system/cpu/cpu0")
PROCESSOR_TICKS = Path("/proc/stat")


def environment_stamp(settings: Settings, threads: int) -> dict[str, Any]:
    """The environment of a run, as it stands in results.json; caches in bytes, steal as a share.

    The share that was stolen during the run is known at its end, from a `StealClock`.
    """
    commit, dirty = _commit()
    gpu, driver = _gpu()
    return {
        "commit": commit,
        "dirty": dirty,
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "caches": _caches(),
        "governor": _governor(),
        "load_average": _load_average(),
        "steal_since_boot": _steal_since((0, 0)),
        "memory_bytes": _memory_bytes(),
        "gpu": gpu,
        "driver": driver,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES} | _linear_algebra(),
        "profile": settings.profile,
        "device": settings.device,
        "threads": threads,
        "torch_threads": _torch_threads(),
        "seed": settings.seed,
        **_asked_about(settings),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def run_stamp(settings: Settings) -> dict[str, Any]:
    """`environment_stamp` as results and the record can hold it: no text steers a terminal."""
    stamp: dict[str, Any] = _cleaned(environment_stamp(settings, usable_cores()))
    return stamp


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(inner) for key, inner in value.items()}
    return clean(value) if isinstance(value, str) else value


def usable_cores() -> int:
    """Physical cores that this process may use: its affinity and its share of the container.

    Two hyper-threads share one set of arithmetic units, so that they count as one core.
    """
    try:
        processors = os.sched_getaffinity(0)
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
    cores = len({_core_of(processor) for processor in processors})
    return max(1, min(cores, _cores_granted(CONTAINER_QUOTA)))


def _core_of(processor: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    try:
        return siblings.read_text()
    except OSError:
        return str(processor)


def _cores_granted(limit: Path) -> int:
    """The whole cores of a container's quota, "max 100000" or "200000 100000" (cgroup v2)."""
    try:
        quota, period = limit.read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError):
        return os.cpu_count() or 1


def _commit() -> tuple[str, bool | str]:
    if shutil.which("git") is None:
        reason = "unknown: git is not installed"
    elif not (ROOT / ".git").exists():  # it may still lie inside some other checkout
        reason = "unknown: not in a git checkout"
    else:
        try:
            return git(ROOT, "rev-parse", "--verify", "HEAD"), bool(changes(ROOT))
        except UserError:  # what git says names folders, and results are published
            reason = "unknown: git cannot read this checkout; git status says why"
    return reason, reason


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown: the system does not name it"


def _memory_bytes() -> int | str:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown: the system does not say"


def usable_memory() -> int | None:
    """Bytes that this process may fill: the machine's, or its container's limit; None: unknown."""
    found = _memory_bytes()
    try:
        limit = int(CONTAINER_MEMORY.read_text())  # "max" is no number
    except (OSError, ValueError):
        return found if isinstance(found, int) else None
    return min(limit, found) if isinstance(found, int) else limit


def _caches() -> dict[str, int] | str:
    """Bytes of the first core's caches for data, by name: L1d, L2, L3."""
    sizes = {}
    try:
        for index in sorted((FIRST_PROCESSOR / "cache").glob("index*")):
            level, kind, size = ((index / f).read_text().strip() for f in ("level", "type", "size"))
            if kind != "Instruction":
                sizes[f"L{level}d" if kind == "Data" else f"L{level}"] = _bytes(size)
    except (OSError, ValueError):
        sizes = {}
    return sizes or "unknown: the system does not show them"


def _bytes(size: str) -> int:
    """Of "32K", as Linux writes the size of a cache."""
    if not size.endswith("K"):
        raise ValueError(f"the size of a cache is {size!r}, not a number of K")
    return int(size[:-1]) * 1024


def _governor() -> str:
    try:
        return (FIRST_PROCESSOR / "cpufreq" / "scaling_governor").read_text().strip()
    except OSError:  # most virtual machines
        return "unknown: the system does not show how it chooses the clock"


def _load_average() -> list[float] | str:
    """Processes that ran or waited to, over the last 1, 5 and 15 minutes."""
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except (AttributeError, OSError):  # Windows; some containers
        return "unknown: the system does not say"


class StealClock:
    """The share of all processor time, since it was made, that went to other virtual machines.

    A core that was taken away looks busy to its program: such seconds are nobody's regression.
    """

    def __init__(self) -> None:
        self._start = _processor_ticks()

    def share(self) -> float | str:
        return _steal_since(self._start)


def _steal_since(start: tuple[int, int] | None) -> float | str:
    now = _processor_ticks()
    if start is None or now is None:
        return "unknown: the system does not count stolen time"
    stolen, total = now[0] - start[0], now[1] - start[1]
    return round(stolen / total, 6) if total > 0 else "unknown: shorter than a tick of the system"


def _processor_ticks() -> tuple[int, int] | None:
    """Stolen ticks and all ticks of all processors since boot; None where they are not counted.

    "cpu user nice system idle iowait irq softirq steal guest guest_nice": user has guest in it.
    """
    try:
        name, *counts = PROCESSOR_TICKS.read_text().partition("\n")[0].split()
    except (OSError, ValueError):
        return None
    ticks = [int(count) for count in counts[:8]]
    return (ticks[7], sum(ticks)) if name == "cpu" and len(ticks) == 8 else None


def _linear_algebra() -> dict[str, str]:
    """The libraries that torch multiplies matrices with on the CPU, from its build."""
    import torch

    build = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version (\S+)", build)
    other = re.search(r"BLAS_INFO=(\w+)", build)
    onednn = re.search(r"MKL-DNN v([\d.]+)", build)
    none = "none: this build of torch does without"
    return {
        "blas": f"MKL {mkl[1].removesuffix('-Product')}" if mkl else other[1] if other else none,
        "onednn": onednn[1] if onednn else none,
    }


def _torch_threads() -> dict[str, int | str]:
    import torch

    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "intra_op": torch.get_num_threads(),
        "inter_op": torch.get_num_interop_threads(),
        **{name: os.environ.get(name) or "not set" for name in variables},
    }


def _gpu() -> tuple[str, str]:
    import torch

    if not torch.backends.cuda.is_built():
        reason = "none: this build of torch has no CUDA"
        return reason, reason
    if not torch.cuda.is_available():
        reason = "none: torch finds no usable CUDA device"
        return reason, reason
    return torch.cuda.get_device_name(), _driver()


def _driver() -> str:
    version = nvml.driver_version()
    return f"unknown: {version.reason}" if isinstance(version, Unavailable) else version


def _asked_about(settings: Settings) -> dict[str, Any]:
    """The checkpoint's card, or by which name another model was asked for, and the text."""
    if settings.of_reference:
        return {"checkpoint": _checkpoint()}
    told = {"model": settings.model, "text": settings.text}
    if settings.dtype != "float32":
        told["dtype"] = settings.dtype
    return {name: value for name, value in told.items() if value}


def _checkpoint() -> dict[str, Any]:
    """From the shipped checkpoint's card: losses in nats per token, by split of the plays."""
    from reference_model.checkpoints import reference_card

    try:
        card = reference_card()
    except UserError as error:
        return {"card": f"unknown: {error}"}
    return {key: card[key] for key in ("tokens_seen", "loss", "bits_per_byte")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown: not installed"
