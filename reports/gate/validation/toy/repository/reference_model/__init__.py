"""What the toy repository measures: functions of a few milliseconds, each of another kind."""

from __future__ import annotations

from zlib import crc32

from torch import Tensor


def added(rows: list[list[int]]) -> int:
    total = 0
    for row in rows:
        total += sum(row)
    return total


def checked(data: bytes, rounds: int) -> int:
    found = 0
    for _ in range(rounds):
        found = crc32(data, found)
    return found


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
