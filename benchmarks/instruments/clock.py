"""Raw durations, and observations that are independent of each other.

Repeats inside one process share its memory layout and its luck, so that they are one observation.
``fresh_process_samples`` starts one process per observation; a comparison measures its arms in the
same process, in turns (``interleaved_durations``), and keeps their ratio.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import reference_model

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.subjects.built import Model

ROOT = Path(__file__).resolve().parents[2]


class _Marks:
    """Points in time, and the seconds between them.

    On CUDA a mark is an event: the kernels before it run on after their call returned, and the
    host need not wait for each mark, which would be part of what is measured.
    """

    def __init__(self) -> None:
        torch = sys.modules.get("torch")
        self._cuda = torch.cuda if torch is not None and torch.cuda.is_initialized() else None
        self._marks: list[Any] = []
        if self._cuda is not None:
            self._cuda.synchronize()  # what was asked for earlier is not ours to measure
        self.set()

    def set(self) -> None:
        if self._cuda is None:
            self._marks.append(perf_counter())
            return
        event = self._cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def seconds(self) -> list[float]:
        """Between each mark and the next; waits for the last of them."""
        if self._cuda is None:
            return [after - before for before, after in pairwise(self._marks)]
        self._marks[-1].synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(self._marks)]


def durations(function: Callable[[], object], repeats: int, warmup: int = 1) -> list[float]:
    """Seconds of each of ``repeats`` calls, in order, after ``warmup`` calls that are thrown away.

    On CUDA they end when the work does that a call has asked for, not when the call returns.
    """
    return interleaved_durations({"": function}, repeats, warmup)[""]


def interleaved_durations(
    arms: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call of each arm, ``rounds`` of them, after ``warmup`` calls of each.

    The arms take turns, so that a machine that slows down slows all of them down; every second
    round goes backwards, so that none is always the one that follows a certain other.
    """
    if rounds < 1 or not arms:
        raise ValueError(f"{rounds} rounds of {len(arms)} arms: nothing would be measured")
    for function in arms.values():
        for _ in range(warmup):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds):
        for name in list(arms) if turn % 2 == 0 else reversed(list(arms)):
            seconds[name].append(_duration(arms[name]))
    return seconds


def _duration(function: Callable[[], object]) -> float:
    marks = _Marks()
    function()
    marks.set()
    return marks.seconds()[0]


@dataclass(frozen=True)
class GenerationTiming:
    """When each token of one generation was there, in seconds: prefill and decode apart."""

    first_token: float  # prefill of the prompt, and the choice of its token
    steps: list[float]  # each later token, after the one before it
    batch_size: int = 1  # sequences that grow at once

    @property
    def seconds_per_token(self) -> float:
        """The median step, which yields one token of each sequence; ValueError without a step."""
        if not self.steps:
            raise ValueError("one new token is all prefill and has no decode step; ask for more")
        return statistics.median(self.steps)

    @property
    def total(self) -> float:
        return self.first_token + sum(self.steps)

    @property
    def tokens_per_second(self) -> float:
        """All tokens of all sequences over all seconds, prefill included."""
        return self.batch_size * (1 + len(self.steps)) / self.total


def generation_timing(
    model: Model, prompt: Tensor, new_tokens: int, use_cache: bool = True
) -> GenerationTiming:
    """Time one greedy generation of ``new_tokens`` after prompt (B, T); warming up is up to you."""
    from reference_model.generate import stream

    tokens = stream(model, prompt, new_tokens, use_cache=use_cache)
    marks = _Marks()
    for _ in tokens:
        marks.set()
    first, *steps = marks.seconds()
    return GenerationTiming(first, steps, len(prompt))


def fresh_process_samples(
    target: str, arguments: dict[str, Any], processes: int, threads: int
) -> list[dict[str, Any]]:
    """Call ``target``, "module:function", once in each of ``processes`` new interpreters, in turn.

    ``arguments`` are its keyword arguments and it returns a dict, both plain JSON. Each process
    computes on ``threads`` threads, whatever the variables of its parent say. Raises RuntimeError,
    with the last line that it wrote to stderr, where a process fails.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}: nothing would be measured")
    if threads < 1:
        raise ValueError(f"threads is {threads}: state how many, at least one")
    environment = dict(os.environ)
    paths = [_home_of_the_model(), str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    # The libraries of linear algebra read these as they start, before anyone can set a number.
    environment.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    request = json.dumps(arguments, allow_nan=False)
    return [_one_process(target, request, threads, environment) for _ in range(processes)]


def _home_of_the_model() -> str:
    """The folder this process imports the model from: its children shall measure no other one."""
    return str(Path(reference_model.__file__).resolve().parents[1])


def _one_process(
    target: str, request: str, threads: int, environment: dict[str, str]
) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "benchmarks.instruments.clock", target, str(threads)]
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


def _set_threads(threads: int) -> None:
    """Raises RuntimeError where PyTorch computes on another number of threads all the same."""
    import torch

    torch.set_num_threads(threads)
    if (taken := torch.get_num_threads()) != threads:
        raise RuntimeError(f"{threads} threads were asked for and PyTorch computes on {taken}")


def _main() -> None:
    target, threads = sys.argv[1:]
    module, _, name = target.partition(":")
    arguments = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answer alone
        function = getattr(importlib.import_module(module), name)
        _set_threads(int(threads))  # after the import: no module of the target's has the last word
        answer = function(**arguments)
    json.dump(answer, sys.stdout, allow_nan=False)


if __name__ == "__main__":
    _main()
