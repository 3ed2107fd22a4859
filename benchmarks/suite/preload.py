"""What asv's fork server imports once, for all the processes that it forks.

The one module of the suite that imports more than the standard library at its top. It does so in
the fork server alone, which imports every module of this folder and then forks a process for each
benchmark; `reports.history.measure` asks for it where there is no GPU. Nothing is computed before
a fork, and no thread lives through one: OpenBLAS, which comes with numpy, ends its own.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace

PACKAGES = (
    "torch",
    "torch._dynamo",  # two seconds, once a checkpoint is loaded
    "torch.fx.experimental.symbolic_shapes",  # half a second, once operators are counted
    "safetensors.torch",
    "reference_model.checkpoints",
    "reference_model.generate",
    "reference_model.lora",
    "reference_model.quantization.baselines",
    "reference_model.quantization.int8",
    "reference_model.quantization.kv_cache",
    "reference_model.quantization.norms",
    "reference_model.quantization.rounding",
    "reference_model.quantization.turboquant",
    "benchmarks.instruments.cache_quality",
    "benchmarks.instruments.counting",
    "benchmarks.instruments.limits",
    "benchmarks.instruments.memory",
    "benchmarks.instruments.nvml",
)
PR_SET_PDEATHSIG = 1  # of Linux's prctl
POLL = 0.02  # seconds


def preload() -> None:
    """Import what there is.

    What an old commit lacks, or fails to import, is left to each benchmark that asks for it.
    """
    for name in PACKAGES:
        with suppress(Exception):
            import_module(name)


def end_with_asv() -> None:
    """A fork server waits for the next request for ever, also after asv was killed by -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def poll_seldom() -> None:
    """Let the server look every `POLL` seconds whether a benchmark has ended.

    Of its own it does so a thousand times a second: on two busy processors steps of a millisecond
    then took 5 to 25 % longer than in an interpreter of their own, and now take as long.
    """
    from asv_runner import server

    seldom = SimpleNamespace(sleep=lambda seconds: time.sleep(max(seconds, POLL)))
    vars(server)["time"] = seldom  # it uses nothing else of the module


if sys.argv[1:2] == ["run_server"]:  # the words by which asv starts it
    end_with_asv()
    poll_seldom()
    preload()
