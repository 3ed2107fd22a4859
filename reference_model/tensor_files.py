"""Tensors of files that others wrote: each has one name, whatever wrote it and whichever wrapper.

Headers are read first, so that sizes can be checked before anything is allocated.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reference_model.errors import UserError, notice
from reference_model.reading import check_file, read_json, shown

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MOST_SHARDS = 500  # DeepSeek-V3, of 671 B parameters, has 163
MOST_HEADER_BYTES = 10_000_000  # of 580 tensors, as many as GPT-2 xl has, some 70,000

# What stands before a parameter's own name: data parallelism's, torch.compile's and PEFT's wrapper.
WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
# PEFT keeps an adapted linear under this name.
WRAPPED_LINEAR = ".base_layer."
MOST_AT_ONCE = 2**21  # numbers of a tensor in memory, beside those that they are copied to
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Entry:
    """A tensor that a file holds, by its name there; ``dtype`` is the file's word for it."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """The tensor as it is stored.

        Raises `UserError` for anything but floating point, and for what is not finite: attention
        may answer such a query with numbers, as PyTorch's own does on a CPU.
        """
        with self._open() as opened:
            return finite(opened.get_tensor(self.key), self.file, self.key)

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, values) in ``dtype``, some rows at a time; each is let go before the next.

        Raises as `read` does, and for what is not finite in this dtype. The file is opened for
        each: what was read of a mapped file counts as memory until it is closed.
        """
        rows = max(1, MOST_AT_ONCE // max(1, prod(self.shape[1:]))) if self.shape else 1
        for start in range(0, self.shape[0] if self.shape else 1, rows):
            at = slice(start, start + rows)
            with self._open() as opened:
                piece = opened.get_slice(self.key)
                values = piece[at] if self.shape else piece[...]
                yield at, finite(values.to(dtype), self.file, self.key)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        if self.dtype not in FLOATS:
            raise UserError(
                f"{self.file} has {shown(self.key)} as {self.dtype}, which are no weights; "
                f"store them as one of {', '.join(FLOATS)}"
            )
        try:
            with safe_open(self.file, framework="pt") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.file} cannot be read ({error}); fetch it again") from None


def finite(tensor: Tensor, file: Path, name: str) -> Tensor:
    """The same tensor. `UserError`, with its name and the file, where it holds other numbers."""
    whole = tensor.half() if tensor.dtype.itemsize == 1 else tensor  # float8 has no least
    if whole.numel() and not all(map(isfinite, whole.aminmax())):
        raise UserError(
            f"{file} has {shown(name)} with numbers that are not finite in "
            f"{str(tensor.dtype).removeprefix('torch.')}; train or fetch it again"
        )
    return tensor


@dataclass(frozen=True)
class Names:
    """How a family names its tensors.

    ``prefix``: before all names in a model with a head; ``derived``: ends of the names of what is
    no weight.
    """

    prefix: str = ""
    derived: tuple[str, ...] = ()

    def own(self, key: str) -> str:
        """A parameter's name within the model, without wrappers around the model or the linear."""
        for wrapper in (*WRAPPERS, self.prefix):
            key = key.removeprefix(wrapper)
        return key.replace(WRAPPED_LINEAR, ".")


def read_folder(folder: Path, names: Names) -> dict[str, Entry]:
    """Own name → tensor, of a folder's one file or of its shards. Raises as `read_file` does.

    As in transformers, an index beside the one file is left alone, which is told. Index and shards
    have to agree.
    """
    single, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if not index.exists():
        return read_file(single, names)[0]
    if single.exists():
        notice(f"{folder} has {WEIGHTS_FILE} and {INDEX_FILE}; {WEIGHTS_FILE} is read")
        return read_file(single, names)[0]
    place = read_json(index).get("weight_map")
    if not isinstance(place, dict) or not all(map(_is_file_name, place.values())):
        raise UserError(f"{index} has no weight_map of file names; fetch it again")
    shards = sorted(set(place.values()))
    if len(shards) > MOST_SHARDS:
        raise UserError(f"{index} names {len(shards):,} files, more than {MOST_SHARDS}")
    entries: list[Entry] = []
    for name in shards:
        entries += _open(folder / name)[0]
    held_in = {(entry.key, entry.file.name) for entry in entries}
    for key, name in [*(place.items() - held_in), *(held_in - place.items())]:
        raise UserError(
            f"{index} and {name} do not agree on who holds {shown(key)}; fetch the folder again"
        )
    return _one_name_each(entries, {}, names)


def read_file(file: Path, names: Names) -> tuple[dict[str, Entry], dict[str, str]]:
    """Own name → tensor, and the metadata of a file.

    Raises `UserError` where the file is missing or damaged, and where it holds two different
    tensors under two spellings of one name.
    """
    entries, metadata = _open(file)
    return _one_name_each(entries, metadata, names), metadata


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, as far as the coarser of their dtypes tells."""
    coarser = max(one.dtype, other.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    return torch.equal(one.to(coarser), other.to(coarser))


def _is_file_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and Path(name).name == name
        and name.endswith(".safetensors")
        and name.isprintable()
    )


def _open(file: Path) -> tuple[list[Entry], dict[str, str]]:
    check_file(file)
    try:
        with file.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > MOST_HEADER_BYTES and header + 8 <= file.stat().st_size:
            raise UserError(
                f"{file} has a header of {header:,} bytes, more than {MOST_HEADER_BYTES:,}; "
                "write it again"
            )
        with safe_open(file, framework="pt") as opened:
            entries = []
            for key in sorted(opened.keys()):
                piece = opened.get_slice(key)
                entries.append(Entry(file, key, tuple(piece.get_shape()), piece.get_dtype()))
            return entries, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is not a whole safetensors file ({error}); fetch or write it again"
        ) from None


def _one_name_each(
    entries: Iterable[Entry], links: dict[str, str], names: Names
) -> dict[str, Entry]:
    """Own name → tensor; ``links`` is what `safetensors.torch.save_model` leaves of tied ones.

    It writes one of them, and the others' names, with the name of the one, into the metadata.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        name = names.own(entry.key)
        if names.derived and name.endswith(names.derived):
            continue
        other = named.setdefault(name, entry)
        if other is entry:
            continue
        if not torch.equal(other.read(), entry.read()):
            raise UserError(
                f"{entry.file} has {name} twice, as {shown(other.key)} and {shown(entry.key)}, "
                "with different numbers; delete one of them"
            )
    for removed, kept in links.items():
        if names.own(kept) in named:
            named.setdefault(names.own(removed), named[names.own(kept)])
    return named
