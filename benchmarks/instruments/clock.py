"""Raw durations, and observations that are independent of each other.

Repeats inside one process share its memory layout and its luck, so that they are one observation.
``fresh_process_samples`` starts one process per observation; a comparison measures both arms in
the same process, alternating, and keeps their ratio.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import reference_model

ROOT = Path(__file__).resolve().parents[2]


def durations(function: Callable[[], object], repeats: int, warmup: int = 1) -> list[float]:
    """Seconds of each of ``repeats`` calls, in order, after ``warmup`` calls that are thrown away.

    Waits for CUDA before and after each call, since its kernels run on after the call returns.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}: nothing would be measured")
    for _ in range(warmup):
        function()
    return [_duration(function) for _ in range(repeats)]


def _duration(function: Callable[[], object]) -> float:
    _wait_for_device()
    start = perf_counter()
    function()
    _wait_for_device()
    return perf_counter() - start


def _wait_for_device() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def fresh_process_samples(
    target: str, arguments: dict[str, Any], processes: int, threads: int | None = None
) -> list[dict[str, Any]]:
    """Call ``target``, "module:function", once in each of ``processes`` new interpreters, in turn.

    ``arguments`` are its keyword arguments and it returns a dict, both plain JSON. ``threads``
    bounds the threads of its linear algebra. Raises RuntimeError, with the last line that it wrote
    to stderr, where a process fails.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}: nothing would be measured")
    environment = dict(os.environ)
    paths = [_home_of_the_model(), str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if threads is not None:
        environment.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    request = json.dumps(arguments, allow_nan=False)
    return [_one_process(target, request, environment) for _ in range(processes)]


def _home_of_the_model() -> str:
    """The folder this process imports the model from: its children shall measure no other one."""
    return str(Path(reference_model.__file__).resolve().parents[1])


def _one_process(target: str, request: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "benchmarks.instruments.clock", target]
    done = subprocess.run(
        command, input=request, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{target} failed in its own process: {lines[-1]}")
    answer = json.loads(done.stdout, parse_constant=_refuse_constant)
    if not isinstance(answer, dict):
        raise RuntimeError(f"{target} returned {type(answer).__name__}, not a dict")
    return answer


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"a process returned {constant}, which is not a measurement")


def _main() -> None:
    module, _, name = sys.argv[1].partition(":")
    arguments = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answer alone
        answer = getattr(importlib.import_module(module), name)(**arguments)
    json.dump(answer, sys.stdout, allow_nan=False)


if __name__ == "__main__":
    _main()
