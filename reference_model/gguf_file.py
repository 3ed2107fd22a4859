"""GGUF files: what stands in their header, and their tensors, decoded to floating point.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is
read here, within the bounds of the file; blocks of numbers are decoded by the `gguf` package.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.reading import check_file, shown
from reference_model.tensor_files import MOST_AT_ONCE, finite

MAGIC, VERSIONS = b"GGUF", (2, 3)
ALIGNMENT, ALIGNMENT_KEY = 32, "general.alignment"
# Numbers in the header by their kind, as struct writes them; texts and lists are of their own.
NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class GGMLType:
    """How a tensor's numbers lie: blocks of so many numbers, of so many bytes each."""

    name: str
    block_size: int
    type_size: int


GGML_TYPES = {
    0: GGMLType("F32", 1, 4),
    1: GGMLType("F16", 1, 2),
    2: GGMLType("Q4_0", 32, 18),
    3: GGMLType("Q4_1", 32, 20),
    6: GGMLType("Q5_0", 32, 22),
    7: GGMLType("Q5_1", 32, 24),
    8: GGMLType("Q8_0", 32, 34),
    12: GGMLType("Q4_K", 256, 144),
    13: GGMLType("Q5_K", 256, 176),
    14: GGMLType("Q6_K", 256, 210),
    30: GGMLType("BF16", 1, 2),
}


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of a file; ``shape`` is (outputs, inputs), the file's own turned round.

    ``permuted_heads``: the number of heads whose rows llama.cpp permuted to 0, D/2, 1, D/2 + 1, …;
    None where rows keep their order.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    encoding: int
    offset: int
    permuted_heads: int | None = None

    @property
    def nbytes(self) -> int:
        """In the file."""
        of = GGML_TYPES[self.encoding]
        return prod(self.shape) // of.block_size * of.type_size

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Some rows at a time, and which; permuted ones all at once.

        `UserError` for what is not finite in this dtype.
        """
        columns = self.shape[-1] if len(self.shape) > 1 else 1
        rows = self.shape[0]
        if not prod(self.shape):
            raise UserError(f"{self.file} has {shown(self.name)} without numbers; fetch it again")
        if len(self.shape) == 1:  # one row of numbers
            vector = self._decoded(0, 1, rows, dtype)
            yield slice(0, rows), self._in_halves(vector.view(rows, 1)).view(rows)
            return
        at_once = rows if self.permuted_heads else max(1, MOST_AT_ONCE // columns)
        for start in range(0, rows, at_once):
            count = min(at_once, rows - start)
            piece = self._decoded(start, count, columns, dtype)
            yield slice(start, start + count), self._in_halves(piece)

    def _in_halves(self, rows: Tensor) -> Tensor:
        """Rows of each head, (D/2, 2), as (2, D/2), where they are permuted."""
        if not self.permuted_heads:
            return rows
        return rows.view(self.permuted_heads, -1, 2, rows.shape[1]).transpose(1, 2).flatten(0, 2)

    def _decoded(self, start: int, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        of = GGML_TYPES[self.encoding]
        per_row = columns // of.block_size * of.type_size
        with self.file.open("rb") as file:
            file.seek(self.offset + start * per_row)
            content = file.read(rows * per_row)
        if len(content) < rows * per_row:
            raise UserError(f"{self.file} became shorter while it was read; fetch it again")
        found = _numbers(content, self.encoding).view(rows, columns)
        return finite(found.to(dtype), self.file, self.name)


def _numbers(content: bytes, encoding: int) -> Tensor:
    plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    dtype = plain.get(GGML_TYPES[encoding].name)
    if dtype is not None:
        return torch.frombuffer(bytearray(content), dtype=dtype)
    from gguf import GGMLQuantizationType, dequantize

    # One long row: the package takes 16 rows at a time, however short they are.
    blocks = np.frombuffer(content, np.uint8)[None]
    return torch.from_numpy(dequantize(blocks, GGMLQuantizationType(encoding))).flatten()


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """Metadata by key, and tensors by name.

    Raises `UserError` for what is no whole GGUF file, of this byte order, or has an encoding that
    is not known here, by the tensor's name.
    """
    check_file(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(path, data).read()
    except ValueError as error:  # of an empty file
        raise UserError(f"{path} is no GGUF file ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from None


class _Header:
    """Read from the front to the back; nothing is believed that the file has no room for."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def read(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        if self.data[:4] != MAGIC:
            raise UserError(f"{self.path} is no GGUF file; name one that ends in .gguf")
        self.at = 4
        version = self.number("I")
        if version not in VERSIONS:
            raise UserError(
                f"{self.path} is GGUF of version {version}, or big-endian; convert it to version "
                f"{VERSIONS[-1]}, little-endian"
            )
        count, keys = self.count(24), self.count(13)  # bytes that each takes at least
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text()
            if key in metadata:
                raise UserError(f"{self.path} has {shown(key)} twice; fetch it again")
            metadata[key] = self.value(self.number("I"))
        found = [self.tensor() for _ in range(count)]
        alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise UserError(f"{self.path} has {ALIGNMENT_KEY}={alignment!r}; fetch it again")
        begin = -(-self.at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, encoding, offset in found:
            tensor = GGUFTensor(self.path, name, shape, encoding, begin + offset)
            if name in tensors:
                raise UserError(f"{self.path} has {shown(name)} twice; fetch it again")
            if tensor.offset + tensor.nbytes > len(self.data):
                raise UserError(f"{self.path} ends before {shown(name)} does; fetch it again")
            tensors[name] = tensor
        return metadata, tensors

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self.text(), self.number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise UserError(
                f"{self.path} has {shown(name)} of {dimensions} dimensions; fetch it again"
            )
        shape = tuple(self.number("Q") for _ in range(dimensions))
        encoding, offset = self.number("I"), self.number("Q")
        if encoding not in GGML_TYPES:
            known = ", ".join(of.name for of in GGML_TYPES.values())
            raise UserError(
                f"{self.path} has {shown(name)} in encoding {encoding}, which is not known here; "
                f"use a file in {known}"
            )
        of = GGML_TYPES[encoding]
        if shape[0] % of.block_size:
            raise UserError(
                f"{self.path} has {shown(name)} with rows of {shape[0]} numbers, no multiple of "
                f"the {of.block_size} of {of.name}; fetch it again"
            )
        return name, shape[::-1], encoding, offset

    def value(self, kind: int) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            raise UserError(f"{self.path} has a value of unknown kind {kind}; fetch it again")
        kind = self.number("I")
        if kind in NUMBERS:
            size = struct.calcsize(f"<{NUMBERS[kind]}")
            count = self.count(size)
            return list(struct.unpack(f"<{count}{NUMBERS[kind]}", self.take(count * size)))
        if kind != STRING:
            raise UserError(f"{self.path} has a list of unknown kind {kind}; fetch it again")
        return [self.text() for _ in range(self.count(8))]

    def text(self) -> str:
        try:
            return self.take(self.count(1)).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.path} has a text that is not UTF-8; fetch it again") from None

    def count(self, least: int) -> int:
        """How many follow, each of ``least`` bytes or more."""
        count = self.number("Q")
        if count * least > len(self.data) - self.at:
            raise UserError(f"{self.path} is cut off; fetch it again")
        return count

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) < size:
            raise UserError(f"{self.path} is cut off; fetch it again")
        self.at += size
        return taken
