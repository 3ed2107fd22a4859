"""Codes go into as few bytes as they need, and come out as they were."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.packing import (
    Bits,
    LookUp,
    pack,
    plane_widths,
    unpack,
    words_of,
)

ALL_BITS = get_args(Bits)
WIDTHS = (1, 3, 8, 20, 64, 96, 128)


def random_codes(bits: int, width: int, rows: int = 50) -> torch.Tensor:
    return torch.randint(2**bits, (2, rows, width)).to(torch.uint8)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bits", ALL_BITS)
def test_what_is_packed_comes_out_as_it_was(bits: int, width: int) -> None:
    codes = random_codes(bits, width)
    planes = pack(codes, bits)
    assert all(plane.dtype == torch.uint8 for plane in planes)
    assert tuple(plane.shape[-1] for plane in planes) == plane_widths(bits, width)
    assert torch.equal(unpack(planes, bits, width), codes)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_head_of_64_takes_its_bits_and_not_a_byte_more(bits: int) -> None:
    planes = pack(random_codes(bits, 64), bits)
    assert sum(plane.shape[-1] for plane in planes) == 64 * bits // 8


@pytest.mark.parametrize("bits", ALL_BITS)
def test_every_code_is_seen_in_every_place_of_a_word(bits: int) -> None:
    # Eight places, all codes in each, all others 0: a shift that is off by one cannot pass.
    for place in range(8):
        codes = torch.zeros(2**bits, 8, dtype=torch.uint8)
        codes[:, place] = torch.arange(2**bits)
        assert torch.equal(unpack(pack(codes, bits), bits, 8), codes)


def test_three_bits_lie_as_written_down() -> None:
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0]], dtype=torch.uint8)
    first, second = 1 | 2 << 3 | 3 << 6 | 4 << 9, 5 | 6 << 3 | 7 << 6
    low, high = pack(codes, 3)
    assert low.tolist() == [[first & 255, second & 255]]
    assert high.tolist() == [[first >> 8 | (second >> 8) << 4]]
    assert words_of((low, high), 3).tolist() == [[first, second]]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_look_up_is_the_level_of_each_code(bits: int, width: int) -> None:
    levels, codes = torch.randn(2**bits), random_codes(bits, width)
    found = LookUp(levels, bits)(pack(codes, bits), width)
    assert torch.equal(found, levels[codes.long()])


def test_a_strided_view_is_packed_like_a_copy_of_it() -> None:
    codes = random_codes(3, 64).mT
    assert all(map(torch.equal, pack(codes, 3), pack(codes.contiguous(), 3)))


@pytest.mark.parametrize("bits", [0, 5, 16])
def test_a_size_that_cannot_be_packed_is_refused(bits: int) -> None:
    with pytest.raises(UserError, match=f"bits={bits} cannot be packed; use one of 1, 2, 3"):
        pack(torch.zeros(1, 8, dtype=torch.uint8), bits)
