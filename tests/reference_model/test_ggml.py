"""ggml's types are held and read as ggml does, byte by byte, and turned as llama.cpp turns them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.baselines import AbsmaxBlocks
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.ggml import Q4_0, Q4_1, Q8_0, GgmlBlocks, llama_cpp_spread
from tests.reference_model.sines import relative_error, sines, squared_error

KINDS: dict[str, type[GgmlBlocks]] = {"q4_0": Q4_0, "q4_1": Q4_1, "q8_0": Q8_0}
# As ggml's converters have them, of 32 numbers sin(i²).
Q4_0_CODES = "0 7 -6 3 -2 -1 -8 -8 7 -5 -4 7 -4 -5 7 -7 -8 0 -3 2 -7 7 2 7 -7 1 -4 1 -8 -6 7 -3"
Q4_1_CODES = "8 14 2 11 5 7 0 0"
Q8_0_CODES = "0 107 -96 52 -37 -17 -126 -121"


def numbers(told: str) -> list[int]:
    return [int(each) for each in told.split()]


def nibbles(held: torch.Tensor) -> list[int]:
    return torch.cat((held & 15, held >> 4), dim=-1).flatten().tolist()


def test_q4_0_has_the_step_and_codes_of_the_value_of_largest_magnitude() -> None:
    codec = Q4_0(32)
    codes, step = codec.encode(sines(1, 32))
    assert float(step) == pytest.approx(0.12487793, abs=1e-8)
    assert [code - 8 for code in nibbles(codes)] == numbers(Q4_0_CODES)
    assert squared_error(codec, sines(1, 32)) == pytest.approx(0.0707599, abs=5e-8)


def test_q4_1_holds_the_smallest_value_too() -> None:
    codec = Q4_1(32)
    codes, step, low = codec.encode(sines(1, 32))
    assert float(step) == pytest.approx(0.13317871, abs=1e-8)
    assert float(low) == pytest.approx(-0.99902344, abs=1e-8)
    assert nibbles(codes)[:8] == numbers(Q4_1_CODES)
    assert squared_error(codec, sines(1, 32)) == pytest.approx(0.0571381, abs=5e-8)


def test_q8_0_has_127_steps_to_the_largest_magnitude() -> None:
    codec = Q8_0(32)
    codes, step = codec.encode(sines(1, 32))
    assert float(step) == pytest.approx(0.00786591, abs=1e-8)
    assert codes[0, :8].tolist() == numbers(Q8_0_CODES)
    assert squared_error(codec, sines(1, 32)) == pytest.approx(0.000161195, abs=5e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_and_number_is_that_of_the_gguf_package(kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    quants, theirs = gguf.quants, getattr(gguf.GGMLQuantizationType, kind.upper())
    x = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(
        -4, 4, 64
    )
    x[0] = 0
    x[1, 4] = 1e4
    x[2] = torch.tensor([2.5, -2.5] * 32)  # the first of equals counts
    x[3] = torch.arange(64) - 31.5
    x[3, [0, 32]] = 127  # a step of 1 in q8_0: the others are halves
    codec = KINDS[kind](64)
    codes, *scales = codec.encode(x)
    blocks = [scale.view(torch.uint8).view(-1, 2) for scale in scales]
    blocks.append(codes.view(torch.uint8).view(len(blocks[0]), -1))
    expected = quants.quantize(x.numpy(), theirs)
    assert np.array_equal(torch.cat(blocks, dim=1).numpy(), expected.reshape(len(blocks[0]), -1))
    assert np.array_equal(
        codec.decode((codes, *scales)).numpy(), quants.dequantize(expected, theirs)
    )


def test_llama_cpp_turns_keys_over_a_power_of_two_and_values_over_64() -> None:
    assert [llama_cpp_spread(width, "keys") for width in (64, 128, 192, 256)] == [64, 128, 64, 256]
    assert [llama_cpp_spread(width, "values") for width in (64, 128, 192, 256)] == [64] * 4
    with pytest.raises(UserError, match="multiple of 64 channels, received 96; use rotated=None"):
        Q4_0(96, rotated="keys")


def test_bounded_numbers_lose_by_the_rotation() -> None:
    x = sines(1, 128)
    found = [squared_error(Q4_0(128, rotated=role), x) for role in ("keys", "values", None)]
    assert found == pytest.approx([0.587660, 0.478595, 0.292480], rel=5e-5)


def test_signs_are_ours_and_save_what_all_channels_share() -> None:
    x = torch.randn(300, 64) + 5
    spread = torch.linalg.norm(x - x.mean(0)) / torch.linalg.norm(x)
    error = {
        seed: relative_error(Q4_0(64, rotated="keys", seed=seed), x) / float(spread) ** 2
        for seed in (None, 0)
    }
    assert error[0] < 0.5 * error[None]


@pytest.mark.parametrize(("kind", "nbytes"), [("q4_0", 36), ("q4_1", 40), ("q8_0", 68)])
def test_a_vector_holds_its_bytes(kind: str, nbytes: int) -> None:
    for factor, role in ((1, None), (2, "values")):
        codec = KINDS[kind](64 * factor, rotated=role)
        assert nbytes_of(codec.encode(torch.randn(10, codec.width))) == 10 * factor * nbytes
        assert not codec.constants
    assert nbytes_of(KINDS[kind](64, rotated="keys", seed=0).constants) == 64


def test_blocks_that_round_the_step_first_differ_from_q4_0_in_few_codes_and_no_error() -> None:
    x = torch.randn(4000, 64)
    exact, ours = Q4_0(64), AbsmaxBlocks(64, 4)
    differ = exact.decode(exact.encode(x)) != ours.decode(ours.encode(x))
    assert 0 < float(differ.double().mean()) < 2e-3
    assert relative_error(exact, x) == pytest.approx(relative_error(ours, x), rel=1e-4)


def test_blocks_refuse_a_width_that_they_do_not_fill() -> None:
    with pytest.raises(UserError, match="do not fill a width of 40; use a multiple of 32"):
        Q4_0(40)
