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
    high = ((word >> 8) & 15).to(torch.uint8).view(torch.int16)  # those of two words, side by side
    return word.to(torch.uint8), (high | (high >> 4)).to(torch.uint8)


def words_of(planes: Planes, bits: int) -> Tensor:
    """Planes → the words as indices of a table (…, words) int64."""
    if bits != 3 or not planes[0].numel():  # what is empty has no strides to view it by
        return planes[0].long().contiguous()
    # The two high halves of a byte, at bits 8 and 24: each the upper half of a word of 16 bits.
    high = (planes[1].int() * 0x100100 & 0x0F000F00).view(torch.int16)  # (…, words)
    return (high | planes[0]).long()


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

    def __call__(self, planes: Planes, width: int) -> Tensor:
        """Planes (…, bytes) → (…, width) float32."""
        word = words_of(planes, self.bits)
        # Two or four float32 are one complex number to PyTorch, which gathers whole numbers by far
        # faster than rows; and it shares out a gather by its rows among the threads.
        whole = {2: torch.complex64, 4: torch.complex128}.get(self.table.shape[1])
        if whole is None:
            found = self.table.index_select(0, word.flatten())
        else:
            rows = math.gcd(word.numel(), ROWS_TO_SHARE)
            numbers = self.table.view(whole)[:, 0].expand(rows, -1)
            found = numbers.gather(1, word.view(rows, -1)).view(torch.float32)
        found = found.view(*word.shape[:-1], word.shape[-1] * self.table.shape[1])
        return found if found.shape[-1] == width else found[..., :width]
