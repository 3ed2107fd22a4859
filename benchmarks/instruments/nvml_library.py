"""One call of NVIDIA's management library, and the words for each way in which it can fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any

# The first version with every function that is asked for here. 12.535.77 has them too, and reads
# the list of processes by a struct of another size than the driver's.
PACKAGE = "nvidia-ml-py>=12.535.108"

# NVML's own words for an error are two or three; these say what to do.
WORDS = {
    "LibraryNotFound": "no NVIDIA driver, its library libnvidia-ml is not on this machine",
    "DriverNotLoaded": "the NVIDIA driver is installed but not loaded",
    "LibRmVersionMismatch": "the NVIDIA driver was updated while it ran; reboot",
    "NoPermission": "no permission for this user",
    "NotSupported": "not supported by this device",
    "FunctionNotFound": "this driver is too old for it",
    "ArgumentVersionMismatch": "this driver knows another version of it",
    "GpuIsLost": "the GPU is lost: it fell off the bus or was shut down; reboot",
}


class NoAnswer(Exception):
    """Why NVML gives no figure, in one line."""


class OtherPackage(NoAnswer):
    """The installed pynvml is not nvidia-ml-py, or is too old: NVML itself was not asked."""


@contextlib.contextmanager
def session() -> Iterator[None]:
    """NVML is open inside; `NoAnswer` where it cannot be opened."""
    ask("nvmlInit")
    try:
        yield
    finally:
        # With a GPU lost meanwhile this may fail: what was read stays read.
        with contextlib.suppress(NoAnswer):
            ask("nvmlShutdown")


def ask(function: str, *arguments: Any) -> Any:
    """The answer of one function of ``pynvml``, by name; `NoAnswer` where it gives none."""
    try:
        import pynvml  # here, since the environments of asv have no nvidia-ml-py
    except ImportError:
        raise NoAnswer("the package nvidia-ml-py is not installed; run make setup") from None
    failures = getattr(pynvml, "NVMLError", ())
    try:
        answer = getattr(pynvml, function)(*arguments)
    except failures as error:
        code = type(error).__name__.removeprefix("NVMLError_")
        raise NoAnswer(f"{function}: {WORDS.get(code, error)}") from None
    # Older and other packages of that name lack functions, or take other arguments.
    except (AttributeError, TypeError) as error:
        raise OtherPackage(
            f"{function}: pynvml is that of {_owners()} here ({error}); "
            f"uninstall it, and install {PACKAGE}"
        ) from None
    return answer.decode() if isinstance(answer, bytes) else answer  # nvidia-ml-py3 has bytes


@cache
def _owners() -> str:
    """The packages that brought the module pynvml: it goes by that name in three of them."""
    names = metadata.packages_distributions().get("pynvml", [])
    found = [f"{name} {metadata.version(name)}" for name in dict.fromkeys(names)]
    return " and ".join(found) or "no package that pip knows"
