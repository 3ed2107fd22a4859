"""One cell, measured in this process: the same steps, whoever started it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from time import perf_counter

from benchmarks.executors.executor import Answer, Order
from benchmarks.experiments.experiment import Experiment, Unavailable
from benchmarks.record.store import as_json
from reference_model.errors import UserError
from reference_model.printing import clean

LONGEST_REASON = 2000  # letters
# One for the whole machine: two that take times beside each other measure each other.
TIMING_LOCK = Path(tempfile.gettempdir()) / "llm-design-bench-timing.lock"


def measure_cell(
    order: Order, find_experiment: Callable[[Order], Experiment] | None = None
) -> Answer:
    """Never raises: an error that another process cannot unpickle would be lost on the way.

    A cell that takes times waits until no other on this machine does.
    """
    start = perf_counter()
    try:
        import torch

        torch.set_num_threads(order.threads)
        threads = torch.get_num_threads()
        if order.timed and threads != order.threads:
            raise ValueError(f"it asks for {order.threads} threads, and torch gives it {threads}")
        each = (find_experiment or find)(order)
        with _alone() if order.timed else contextlib.nullcontext():
            seed_everything(order.settings.seed)
            start = perf_counter()
            found = each.measure(order.settings, **order.parameters)
            seconds = perf_counter() - start
        if not found:
            raise ValueError("it measured nothing")
        # What a record cannot hold is this cell's error; what it can is the same from there on.
        return Answer("done", json.loads(as_json(found)), seconds, threads)
    except Unavailable as reason:
        return Answer("unavailable", one_line(reason), perf_counter() - start)
    except Exception as error:
        log = "" if isinstance(error, UserError) else clean(traceback.format_exc(), lines=True)
        return Answer("failed", one_line(error), perf_counter() - start, order.threads, log)


def find(order: Order) -> Experiment:
    """The experiment of the claim in the module."""
    for value in vars(import_module(order.module)).values():
        if isinstance(value, Experiment) and value.claim == order.claim:
            return value
    raise ValueError(f"{order.module} has no experiment of {order.claim}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    from filelock import FileLock

    with FileLock(TIMING_LOCK, mode=0o666):
        yield


def seed_everything(seed: int) -> None:
    """Every cell starts from the same state, whichever ones ran before it."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def printing_into(path: Path) -> Iterator[None]:
    """What this process and its children print goes into a file."""
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


def one_line(error: Exception) -> str:
    """Short and printable, whatever library raised it: it may go into results.json."""
    text = clean(" ".join(str(error).split()))[:LONGEST_REASON]
    return (
        text if isinstance(error, (UserError, Unavailable)) else f"{type(error).__name__}: {text}"
    )
