"""Codes of 1, 2, 3, 4 or 8 bits in bytes, and straight from the bytes to numbers.

Codes are packed into words: a byte holds eight codes of 1 bit, four of 2, two of 4, one of 8; four
codes of 3 bits are a word of 12 bits, whose low eight bits are a byte of their own and whose high
four share one with the next word's. A table with an entry for every possible word then decodes all
codes of a word in one look-up, as product quantisers do.
"""

import copy
import math
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.workspace import Workspace

Bits = Literal[1, 2, 3, 4, 8]
# Bits of a code → codes of a word.
CODES_OF_A_WORD: dict[int, int] = {1: 8, 2: 4, 3: 4, 4: 2, 8: 1}

ROWS_TO_SHARE = 16

Planes = tuple[Tensor, ...]  # uint8 (…, bytes) each; two of them at 3 bits


def check_bits(bits: int) -> None:
    """Raise `UserError` for a size of code that cannot be packed."""
    if bits not in get_args(Bits):
        raise UserError(f"bits={bits!r} cannot be packed; use one of 1, 2, 3, 4, 8")


def plane_widths(bits: int, width: int) -> tuple[int, ...]:
    """Bytes of each plane that hold ``width`` codes."""
    words = -(-width // CODES_OF_A_WORD[bits])
    return (words + words % 2, (words + 1) // 2) if bits == 3 else (words,)


def pack(codes: Tensor, bits: int) -> Planes:
    """Codes (…, N) uint8, each below 2^bits → planes. What fills up the last word is 0."""
    check_bits(bits)
    if bits == 8:
        return (codes,)
    words_wide = plane_widths(bits, codes.shape[-1])[0]
    room = words_wide * CODES_OF_A_WORD[bits]
    if room != codes.shape[-1]:
        codes = torch.nn.functional.pad(codes, (0, room - codes.shape[-1]))
    # All codes of a word lie side by side in one integer, a byte each: a shift and an "or" bring
    # neighbours together, once for pairs, once for pairs of pairs.
    codes = codes.contiguous()
    if bits == 1:
        word = codes.view(torch.int64)
        word = word | (word >> 7)
        word = word | (word >> 14)
        return ((word | (word >> 28)).to(torch.uint8),)
    if bits == 2:
        word = codes.view(torch.int32)
        word = word | (word >> 6)
        return ((word | (word >> 12)).to(torch.uint8),)
    if bits == 4:
        word = codes.view(torch.int16)
        return ((word | (word >> 4)).to(torch.uint8),)
    word = codes.view(torch.int32)
    word = (word | (word >> 5)) & 0x003F003F
    word = word | (word >> 10)  # the lower 12 bits are the word
    high = (word >> 8).to(torch.uint8).view(torch.int16)  # those of two words, side by side
    return word.to(torch.uint8), (high | (high >> 4)).to(torch.uint8)


def words_of(planes: Planes, bits: int) -> Tensor:
    """Planes → the words as indices of a table (…, words) int64."""
    return _Words(planes, bits, Workspace(planes[0].device, reused=False)).of(planes)


class _Words:
    """The words of planes of one shape, and room for what lies between."""

    def __init__(self, planes: Planes, bits: int, workspace: Workspace) -> None:
        *outer, count = planes[0].shape
        self.words = workspace.tokens("words", *outer, count, dtype=torch.int64)
        # What is empty has no strides to view it by.
        self.halved = bits == 3 and planes[0].numel() > 0
        if self.halved:
            self.high = workspace.tokens("high", *outer, count // 2, dtype=torch.int32)
            self.highs = self.high.view(torch.int16)  # (…, words)
            self.low = workspace.tokens("low", *outer, count, dtype=torch.int16)

    def of(self, planes: Planes) -> Tensor:
        if not self.halved:
            return self.words.copy_(planes[0])
        # The two high halves of a byte, at bits 8 and 24: each the upper half of a word of 16 bits.
        self.high.copy_(planes[1]).mul_(0x100100).bitwise_and_(0x0F000F00)
        return self.words.copy_(self.low.copy_(planes[0]).bitwise_or_(self.highs))


def unpack(planes: Planes, bits: int, width: int) -> Tensor:
    """Planes → codes (…, width) uint8: what was packed."""
    word, per_word = words_of(planes, bits), CODES_OF_A_WORD[bits]
    shifts = torch.arange(per_word, device=word.device) * bits
    codes = (word[..., None] >> shifts) & (2**bits - 1)  # (…, words, codes)
    return codes.flatten(-2)[..., :width].to(torch.uint8)


class LookUp:
    """Packed codes → the numbers they stand for.

    ``levels``: (2^bits,), the number of each code. The table has 2^(bits · codes) rows, one for
    each word: at most 64 KB, which stay in a processor's cache.
    """

    def __init__(self, levels: Tensor, bits: int) -> None:
        check_bits(bits)
        self.bits = bits
        per_word = CODES_OF_A_WORD[bits]
        words = torch.arange(2 ** (bits * per_word), device=levels.device)
        shifts = torch.arange(per_word, device=levels.device) * bits
        codes = (words[:, None] >> shifts) & (2**bits - 1)
        self.table = levels.float()[codes]  # (words, codes of a word) float32

    def to(self, device: torch.device | str) -> Self:
        """This look-up, or a copy of it whose table is on another device."""
        if self.table.device == torch.device(device):
            return self
        moved = copy.copy(self)
        moved.table = self.table.to(device)
        return moved

    def __call__(self, planes: Planes, width: int, workspace: Workspace | None = None) -> Tensor:
        """Planes (…, bytes) → (…, width) float32, in the workspace if there is one."""
        workspace = workspace or Workspace(self.table.device, reused=False)
        found = workspace.once(
            (self, planes[0].shape), lambda: _Numbers(self.table, planes, self.bits, workspace)
        ).of(planes)
        return found if found.shape[-1] == width else found[..., :width]


class _Numbers:
    """What the words of planes of one shape stand for, and room for it.

    Two or four float32 are one complex number to PyTorch, which gathers whole numbers by far faster
    than rows; and it shares out a gather by its rows among the threads.
    """

    def __init__(self, table: Tensor, planes: Planes, bits: int, workspace: Workspace) -> None:
        self.words = _Words(planes, bits, workspace)
        *outer, tokens, count = planes[0].shape
        codes = table.shape[1]
        self.numbers = workspace.tokens("numbers", *outer, tokens, count * codes)
        self.table = table
        whole = {2: torch.complex64, 4: torch.complex128}.get(codes)
        self.whole = whole is not None
        if whole is not None:
            rows = math.gcd(tokens * count, ROWS_TO_SHARE)
            shape = math.prod(outer), rows, tokens * count // rows
            self.indices = self.words.words.view(shape)
            self.gathered = self.numbers.view(whole).view(shape)
            self.table = table.view(whole)[:, 0].expand(*shape[:2], -1)

    def of(self, planes: Planes) -> Tensor:
        words = self.words.of(planes)
        if self.whole:
            torch.gather(self.table, 2, self.indices, out=self.gathered)
        else:
            self.numbers.copy_(self.table.index_select(0, words.flatten()).view_as(self.numbers))
        return self.numbers
