"""One call of NVIDIA's management library, and the words for each way in which it can fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

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
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        code = type(error).__name__.removeprefix("NVMLError_")
        raise NoAnswer(f"{function}: {WORDS.get(code, error)}") from None
