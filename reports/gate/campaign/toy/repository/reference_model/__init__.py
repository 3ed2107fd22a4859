"""What the toy repository measures: functions of a few milliseconds, each of another kind."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor


def counted(steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step & 3
    return total


def smoothed(values: list[float], rounds: int) -> list[float]:
    for _ in range(rounds):
        values = [(one + other) / 2 for one, other in pairwise(values)]
    return values


def ordered(values: list) -> list:
    return sorted(values)


def allocated(buffers: int, size: int) -> int:
    total = 0
    for _ in range(buffers):
        total += len(bytearray(size))
    return total


def multiplied(a: Tensor, b: Tensor, products: int) -> Tensor:
    for _ in range(products):
        product = a @ b
    return product
