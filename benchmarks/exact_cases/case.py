"""A case: something to run, and one number that its result becomes.

As in workloads.py, only the standard library is imported before a case is run.
"""

from __future__ import annotations

import math
import os
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from unittest import mock

from benchmarks.suite.workloads import of_this_commit

KERNELS = "LLM_DESIGN_BENCH_KERNELS"  # as reference_model/kernels/compiled.py has it
TURN = 1.7  # radians from one weight to the next: no two of them are the same, and none is 0


@dataclass(frozen=True)
class Case:
    """One row of a table of cases."""

    name: str
    sizes: str
    dtype: str
    against: str  # the kind of fault that it is there for
    run: Callable[[], object]
    also: Callable[[], Iterable[str]] = tuple  # where else its code begins, as begins.py has it


class Raised:
    """What stands for the result of a case that failed."""

    def __init__(self, error: Exception) -> None:
        self.kind = type(error).__name__


def result_of(case: Case) -> object:
    """What a case returns; `Raised` where it fails, which is told on stderr.

    Compiled code is asked only where a case says so (`compiled`): with and without a compiler the
    results are the same. A failure is a result, so that a commit whose model fails where base's
    does not is named as a regression of that case. NotImplementedError says that this commit does
    not have it.
    """
    try:
        with (
            mock.patch.dict(os.environ, {KERNELS: "plain"}),
            of_this_commit(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # a notice is no result, nor a failure
            return case.run()
    except NotImplementedError:
        raise
    except Exception as error:
        error.add_note(f"in the case {case.name!r}")
        traceback.print_exc()
        return Raised(error)


def compiled(run: Callable[[], object]) -> object:
    """What this returns where attention is compiled; NotImplementedError without a compiler."""
    with of_this_commit():
        from reference_model.kernels.compiled import library
        from reference_model.kernels.packed_attention import SOURCE
    with mock.patch.dict(os.environ, {KERNELS: "compiled"}):
        if library(SOURCE) is None:
            raise NotImplementedError("no C++ compiler, which this case needs")
        return run()


def fingerprint(result: object) -> float:
    """One number that moves by about as much as the numbers in ``result`` do, relative to them.

    Texts, whole numbers and names of types move it by about 1 when they change at all. Raises
    ValueError where a number is NaN; ±∞ counts as a number of its own.
    """
    total = 0.0
    for place, part in enumerate(_parts(result)):
        total += math.cos(TURN * (place + 1)) * part
    return total


def refusal(function: Callable[[], object]) -> object:
    """What a call returns, or the kind of error by which it is refused; words are free."""
    try:
        return function()
    except Exception as error:
        return Raised(error)


def _parts(value: object) -> Iterator[float]:
    """A number for each thing in ``value``, in a fixed order."""
    kind = type(value).__name__
    if kind in ("Tensor", "Parameter", "ndarray"):
        yield _of_array(value)
    elif value is None or isinstance(value, bool | int | str | bytes):
        yield _of_text(f"{kind} {value!r}")
    elif isinstance(value, float):
        yield _of_number(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield _of_text(str(key))
            yield from _parts(each)
    elif isinstance(value, Sequence | set | frozenset | range):
        yield float(len(value))
        for each in value:
            yield from _parts(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _parts(getattr(value, each.name))
    elif isinstance(value, Raised):
        yield _of_text(f"raised {value.kind}")
    elif hasattr(value, "item"):  # a scalar of numpy
        yield from _parts(value.item())
    else:
        yield _of_text(f"a {kind}")


def _of_text(text: str) -> float:
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) / 2**32


def _of_number(value: float) -> float:
    """Moves by 1 where the number grows e-fold, and by its thousandths near 0."""
    if math.isnan(value):
        raise ValueError("NaN is not a measurement")
    if math.isinf(value):
        return _of_text(str(value))
    return math.asinh(value * 1e3)


def _of_array(value: Any) -> float:
    """Of the shape and dtype, the direction of all numbers taken together, and their size."""
    import numpy as np

    told = _of_text(f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}")
    flat = _as_numpy(value)
    if flat.size == 0:
        return told
    if np.isnan(flat).any():
        raise ValueError("NaN is not a measurement")
    infinite = ~np.isfinite(flat)
    if infinite.any():
        where = np.flatnonzero(infinite)
        told += _of_text(f"{where.tolist()} {np.sign(flat[where]).tolist()}")
        flat = np.where(infinite, 0.0, flat)
    size = float(np.sqrt(np.square(flat).mean()))
    if size == 0:
        return told
    direction = np.cos(TURN * np.arange(flat.size, dtype=np.float64))
    along = float(flat @ direction) / (size * math.sqrt(flat.size))
    # What all numbers share has hardly a part along a direction that turns.
    return told + along + float(flat.mean()) / size + math.log(size)


def _as_numpy(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.astype(np.float64).ravel()
    return value.detach().double().cpu().numpy().ravel()
