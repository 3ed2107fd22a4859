"""Where the code of a case begins: the functions that it is made of, and what they are given."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from inspect import unwrap
from types import FunctionType
from typing import Any


def begins(value: Any) -> Iterator[str]:
    """Each function as ``module:name``, and each value that one is given, spelled out.

    ValueError for a function that only another one knows, and for what does not say all that it is:
    nobody can tell whether it is the same in two commits.
    """
    kind: Any = type(value)
    if isinstance(value, partial):
        yield from begins([value.func, *value.args, value.keywords])
    elif isinstance(value, type):
        yield _place(value)
    elif callable(value) and isinstance(unwrap(value), FunctionType):
        yield from _wrappers(value)
        yield _place(unwrap(value))
    elif isinstance(value, Mapping):
        yield from begins([*value.items()])
    elif isinstance(value, list | tuple):
        yield f"{len(value)} of"
        for each in value:
            yield from begins(each)
    elif hasattr(value, "__dict__"):
        yield from begins([kind, vars(value)])
    elif kind.__repr__ is object.__repr__:
        raise ValueError(f"a {kind.__name__} does not say what it is")
    else:
        yield repr(value)


def texts_of(*claims: str) -> Iterator[str]:
    """What stands in the claims' own entries."""
    from benchmarks.judging.claims import load_claims

    yield from (repr(each) for each in load_claims() if each.id in claims)


def begins_of_experiment(claim: str) -> Iterator[str]:
    """It is found by its claim, in a list, which no reader of code can follow."""
    from benchmarks.experiments.catalogue import all_experiments

    yield from texts_of(claim)
    for each in all_experiments():
        if each.claim == claim:
            (name,) = (n for n, v in vars(sys.modules[each.module]).items() if v is each)
            yield f"{each.module}:{name}"


def _wrappers(function: Any) -> Iterator[str]:
    """What stands around a function, and is ours: a library's is the same in two commits."""
    while hasattr(function, "__wrapped__"):
        if isinstance(function, FunctionType):
            yield f"{function.__globals__['__name__']}:{_top(function.__code__.co_qualname)}"
        function = function.__wrapped__


def _place(value: Any) -> str:
    name = value.__qualname__
    if "<" in name:
        raise ValueError(f"{name} has no place of its own")
    return f"{value.__module__}:{_top(name)}"


def _top(name: str) -> str:
    return name.partition(".")[0]
