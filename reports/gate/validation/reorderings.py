"""What another order of the same sums does to the exact numbers: what their tolerances rest on.

PyTorch's and oneDNN's kernels for older processors add the same numbers in other orders. Their
libraries can be told to use them, each in a process of its own; what differs then is rounding.
"""

from __future__ import annotations

import fnmatch
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from reference_model.errors import UserError
from reports.gate.checkouts import Checkout
from reports.gate.exact import Value
from reports.gate.workers import running

AS_IT_IS = "as it is"
ORDERS: dict[str, dict[str, str]] = {
    AS_IT_IS: {},
    "ATen for AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "ATen without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "oneDNN for AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN for SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
}


def reorderings(checkout: Checkout, pattern: str) -> list[dict[str, Any]]:
    """Per exact benchmark with a tolerance: its largest change, where, and in which order."""
    values: dict[str, Mapping[str, Value]] = {}
    for order, variables in ORDERS.items():
        with _set(variables), running([checkout], "cpu", random.Random(0)) as (workers, _):
            how = workers[0].ask("suite")["exact"]
            tolerant = [id for id in fnmatch.filter(how, pattern) if how[id]["tolerance"] > 0]
            if not tolerant:
                raise UserError(f"--select {pattern!r} matches no exact number with a tolerance")
            values[order] = workers[0].ask("exact", ids=tolerant)["values"]
    rows: dict[str, dict[str, Any]] = {}
    for id in tolerant:
        name = id.partition("(")[0]
        row = rows.setdefault(
            name, {"benchmark": name, "tolerance": how[id]["tolerance"], "largest change": 0.0}
        )
        usual = values[AS_IT_IS][id]
        for order, found in values.items():
            other = found[id]
            if isinstance(usual, float) and isinstance(other, float):
                change = abs(other - usual)
                if change >= row["largest change"] and order != AS_IT_IS:
                    row |= {"largest change": change, "of": id, "order": order}
    return list(rows.values())


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
