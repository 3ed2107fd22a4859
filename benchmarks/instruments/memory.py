"""Bytes: what weights and cache hold exactly, and the most that a run held at once.

Three sources that must not be mixed: buffers (exact), PyTorch's allocator on CUDA (what tensors
took), and the resident memory of a whole process (what the system gave it, interpreter and
libraries included). A fourth, what the driver sees, is in nvml.py.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.instruments.clock import fresh_process_samples
from benchmarks.instruments.readings import Reading, Unavailable

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def weight_bytes_held(model: nn.Module) -> Reading:
    """Bytes of the storages behind all parameters and saved buffers, shared (tied) ones once.

    A small view keeps its whole storage alive, so that it counts whole.
    """
    return Reading(_storage_bytes(model.state_dict().values()), "bytes", "buffers")


def cache_bytes_held(cache: Any) -> dict[str, Reading]:
    """Bytes of a KV cache: ``reserved`` by its buffers, and ``in use`` by the tokens it holds.

    ``reserved`` is read off every tensor that the cache owns, counters of its position among them,
    and not off what it says of itself.
    """
    return {
        "reserved": Reading(_storage_bytes(_tensors_in(vars(cache))), "bytes", "buffers"),
        "in use": Reading(cache.nbytes_used, "bytes", "views of the buffers"),
    }


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    sizes: dict[tuple[torch.device, int], int] = {}
    for tensor in tensors:
        if tensor.device.type == "meta":
            raise ValueError("a tensor on the meta device holds no bytes; build it on a real one")
        storage = tensor.untyped_storage()
        sizes[storage.device, storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _tensors_in(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors_in(each)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):  # a model's are its own
        yield from _tensors_in(vars(value))


def allocator_peak(
    function: Callable[[], object], device: torch.device | str
) -> Reading | Unavailable:
    """Most bytes that tensors on ``device`` took at once during one call of ``function``.

    What was there before the call counts, as weights do. The allocator keeps one peak per device,
    which starts again here and cannot be put back: calls inside each other would spoil the outer.
    """
    device, source = torch.device(device), "allocator"
    if device.type != "cuda":
        return Unavailable(f"PyTorch keeps no peak of what it allocates on {device.type}", source)
    if not torch.cuda.is_available():
        return Unavailable("torch finds no usable CUDA device", source)
    gc.collect()  # garbage of earlier work, freed or not by chance, is not this call's
    torch.cuda.reset_peak_memory_stats(device)
    function()
    return Reading(torch.cuda.max_memory_allocated(device), "bytes", source)


def peak_rss(
    target: str, arguments: dict[str, Any], threads: int
) -> dict[str, Reading | Unavailable]:
    """Resident memory of a new process that calls ``target``, "module:function", once.

    ``baseline``: what it holds after the imports of PyTorch and of the target's module;
    ``peak``: the most it held until the call returned; ``increase``: the difference, which has
    in it whatever the call builds, and the code of libraries that it is the first to use.
    ``arguments`` are the keyword arguments, plain JSON.
    """
    request = {"target": target, "arguments": arguments}
    here = "benchmarks.instruments.memory:rss_of_call"
    (sample,) = fresh_process_samples(here, request, processes=1, threads=threads)
    source = f"RSS of a fresh process, {sample['source']}"
    if "reason" in sample:
        missing = Unavailable(sample["reason"], source)
        return {"baseline": missing, "peak": missing, "increase": missing}
    baseline, peak = sample["baseline"], sample["peak"]
    figures = {"baseline": baseline, "peak": peak, "increase": peak - baseline}
    return {name: Reading(value, "bytes", source) for name, value in figures.items()}


def rss_of_call(target: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What `peak_rss` runs in the new process: baseline and peak in bytes, or the reason."""
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    source = f"{_counter()}, {'reset' if _forget_peak() else 'not reset'} before the call"
    baseline = _peak_of_this_process()
    if baseline is None:
        reason = f"on {sys.platform} a process cannot read its own peak; measure on Linux or macOS"
        return {"reason": reason, "source": source}
    function(**arguments)
    return {"baseline": baseline, "peak": _peak_of_this_process(), "source": source}


def held_rss(target: str, arguments: dict[str, Any], threads: int) -> Reading | Unavailable:
    """Resident memory of a new process while it holds what ``target``, "module:function", returned.

    What the call freed again is given back to the system first. Compare two calls: interpreter and
    libraries are in both.
    """
    request = {"target": target, "arguments": arguments}
    here = "benchmarks.instruments.memory:rss_while_held"
    (sample,) = fresh_process_samples(here, request, processes=1, threads=threads)
    source = "RSS of a fresh process, VmRSS"
    if "reason" in sample:
        return Unavailable(sample["reason"], source)
    return Reading(sample["held"], "bytes", source)


def rss_while_held(target: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What `held_rss` runs in the new process: bytes, or the reason."""
    if not STATUS.exists():
        return {
            "reason": f"on {sys.platform} a process cannot read what it holds; measure on Linux"
        }
    module, _, name = target.partition(":")
    kept = getattr(importlib.import_module(module), name)(**arguments)
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
    found = re.search(r"^VmRSS:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    del kept
    return {"held": int(found[1]) * 1024} if found else {"reason": f"{STATUS} has no VmRSS"}


def page_faults() -> int:
    """How often the system had to map a page for this process so far: it does so at first use."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _peak_of_this_process() -> int | None:
    """Bytes; None where the system does not tell.

    Linux hands getrusage's ru_maxrss on to the program that a process becomes: a small child of a
    large parent would start with the parent's peak. VmHWM belongs to the memory of one program.
    """
    if _counter() == "VmHWM":
        found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes there, not KiB
    return None


def _counter() -> str:
    return "VmHWM" if STATUS.exists() else "ru_maxrss"


def _forget_peak() -> bool:
    """Let the peak be what is held now, so that what the imports freed hides nothing.

    False where the system does not allow that: there a call's first bytes may go unseen.
    """
    try:
        CLEAR_REFS.write_text("5")  # Linux: the peak alone, no page is touched
    except OSError:
        return False
    return True
