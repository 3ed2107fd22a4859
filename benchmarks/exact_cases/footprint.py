"""What a call costs that no result shows: memory, waits, lines of Python, and what it leaves."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from types import FrameType
from typing import Any

from benchmarks.exact_cases.case import fingerprint

Call = Callable[[], object]
WAITS = ("_local_scalar_dense", "item", "nonzero")  # Python waits for a number: a GPU stops
# What a step needs once, such as angles and masks, and a layer should not make again.
MADE_ANEW = ("arange", "linspace", "full", "ones", "zeros", "eye", "tril", "triu", "cos", "sin")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def footprint(call: Call) -> dict[str, int]:
    """``flops``; ``allocations`` and ``allocated`` bytes, the ``peak`` above what was there before,
    what is ``kept`` with what it returned, and ``held`` once that is dropped; ``waits`` of Python
    for a tensor's number; tensors ``made anew``; ``python`` lines.
    """
    from benchmarks.instruments.counting import count

    for _ in range(2):  # what the first call alone does, such as filling a cache, is not its cost
        call()
    operators = _operators(call)
    return {
        "flops": count(call).flops,
        **_memory(call),
        "waits": sum(operators[name] for name in WAITS),
        "made anew": sum(operators[name] for name in MADE_ANEW),
        "python": _python_lines(call),
    }


def _memory(call: Call) -> dict[str, int]:
    """By what the allocator tells the profiler: every tensor, also those inside operators."""
    _set_aside()
    gc.collect()
    gc.disable()
    try:
        returned: list[object] = []
        taken = _changes(lambda: returned.append(call()))
        given_back = _changes(returned.clear)
    finally:
        gc.enable()
    peak = max(accumulate(taken), default=0)
    kept, sizes = sum(taken), [size for size in taken if size > 0]
    return {
        "allocations": len(sizes),
        "allocated": sum(sizes),
        "peak": max(peak, 0),
        "kept": kept,
        "held": kept + sum(given_back),
    }


def _changes(call: Call) -> list[int]:
    """Bytes of what was allocated and, below 0, of what was freed, in their order."""
    from torch.profiler import ProfilerActivity, profile

    recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _without_standard_error():
        recorded.start()
    call()
    with _without_standard_error():
        recorded.stop()
    found = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    events = sorted(found, key=lambda event: event.start_ns())
    return [event.nbytes() for event in events if event.name() == "[memory]"]


@contextmanager
def _without_standard_error() -> Iterator[None]:
    """The profiler writes a line there as it starts and stops, and has no switch for it."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _set_aside() -> None:
    """What there was before is looked at no more: a collection then is quick."""
    gc.collect()
    gc.freeze()


def _operators(call: Call) -> Counter[str]:
    """How often each operator of PyTorch is called."""
    from torch.utils._python_dispatch import TorchDispatchMode

    counted: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            counted[func.overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    with Counting():
        call()
    return counted


def _python_lines(call: Call) -> int:
    """Lines of the model's own code that are run, each as often as it is."""
    counted = 0

    def of_line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal counted
        counted += event == "line"
        return of_line

    def of_call(frame: FrameType, event: str, argument: object) -> Any:
        return of_line if f"{os.sep}reference_model{os.sep}" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(of_call)
    try:
        call()
    finally:
        sys.settrace(before)
    return counted


# ---- what a call leaves behind


def left_behind(call: Call) -> int:
    """How much of the process a call changed, not its first: nothing, but draws it was asked for.

    Within `own_folder`: others write to the one that all share.
    """
    _set_aside()
    before = _process()
    call()
    after = _process()
    return sum(value != before[what] for what, value in after.items())


@contextmanager
def own_folder() -> Iterator[None]:
    """Temporary files have one of their own."""
    shared = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = shared


def _process() -> dict[str, object]:
    """The state that calls share."""
    import numpy as np
    import torch

    backends: Any = torch.backends
    return {
        "threads of PyTorch": torch.get_num_threads(),
        "default dtype": str(torch.get_default_dtype()),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "oneDNN": backends.mkldnn.enabled,
        "engine of quantised products": backends.quantized.engine,
        "torch's generator": fingerprint(torch.get_rng_state()),
        "numpy's generator": str(np.random.get_state()[1][:4]),  # type: ignore[index]
        "Python's generator": random.getstate(),
        "folder": os.getcwd(),
        "variables": dict(os.environ),
        "path of imports": list(sys.path),
        "warnings": len(warnings.filters),
        "signals": [signal.getsignal(each) for each in SIGNALS],
        "threads of Python": threading.active_count(),
        "open files": _open_files(),
        "tensors": _tensors(),
        "temporary files": [folder[2] for folder in os.walk(tempfile.gettempdir())],
    }


def _open_files() -> int:
    """On Linux; 0 elsewhere."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def _tensors() -> int:
    import torch

    gc.collect()
    return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())
