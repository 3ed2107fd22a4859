"""The stamp on every results file: code, machine, versions, threads and seed.

What cannot be known is a text with the reason, never an empty field. The name of the host is left
out: it says nothing about a measurement, and results are published.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.experiment import Settings
from reference_model.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "scipy", "safetensors", "tokenizers")
CONTAINER_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def environment_stamp(settings: Settings, threads: int) -> dict[str, Any]:
    """The environment of a run, as it stands in results.json."""
    commit, dirty = _commit()
    gpu, driver = _gpu()
    return {
        "commit": commit,
        "dirty": dirty,
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "gpu": gpu,
        "driver": driver,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "profile": settings.profile,
        "device": settings.device,
        "threads": threads,
        "seed": settings.seed,
        "checkpoint": _checkpoint(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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
    try:
        top, commit = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != ROOT:
            raise OSError("the folder is not a checkout of its own")
        return commit, bool(_git("status", "--porcelain"))
    except FileNotFoundError:
        reason = "unknown: git is not installed"
    except (OSError, subprocess.CalledProcessError, ValueError):
        reason = "unknown: not in a git checkout"
    return reason, reason


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


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
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown: nvidia-smi does not answer"
    return done.stdout.strip()


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
