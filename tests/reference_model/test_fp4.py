"""Four-bit floats round as their definitions say, and their scales have those limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.fp4 import (
    MAGNITUDES,
    MXFP4,
    NVFP4,
    from_e2m1,
    nvfp4_scale,
    to_e2m1,
)
from reference_model.quantization.packing import unpack
from tests.reference_model.sines import relative_error, sines, squared_error

X = sines(1, 32)
SCALE = nvfp4_scale(float(X.abs().max()))
NVFP4_CODES = "0 7 6 4 3 2 7 7 7 6 5 7 5 6 7 7 7 0 4 3 7 7 2 7 7 2 5 2 7 6 7 4"


def test_a_number_becomes_the_nearest_of_e2m1_and_a_tie_the_even_code() -> None:
    x = torch.linspace(-7, 7, 14 * 64 + 1)
    levels = torch.tensor(MAGNITUDES)
    distance = (x.abs()[:, None] - levels).abs()
    nearest = distance == distance.amin(-1, keepdim=True)
    code = to_e2m1(x)
    assert nearest[torch.arange(len(x)), (code & 7).long()].all()
    tied = nearest.sum(-1) == 2
    assert int(tied.sum()) == 14
    assert (code[tied] % 2 == 0).all()
    assert torch.equal(from_e2m1(code).sign(), (x * (code & 7 > 0)).sign())
    assert torch.equal(to_e2m1(from_e2m1(code)) & 7, code & 7)


def test_nvfp4_has_the_scales_and_codes_that_were_told() -> None:
    assert pytest.approx(0.00037172917, rel=1e-6) == SCALE
    codec = NVFP4(32, SCALE)
    codes, scales = codec.encode(X)
    assert scales.float().tolist() == [[448, 448]]
    assert (unpack((codes,), 4, 32) & 7).tolist() == [[int(code) for code in NVFP4_CODES.split()]]
    assert squared_error(codec, X) == pytest.approx(0.138801, abs=5e-7)
    plain = NVFP4(32)
    assert plain.encode(X)[1].float().tolist() == [[0.171875, 0.171875]]
    assert squared_error(plain, X) == pytest.approx(0.181134, abs=5e-7)


def test_nvfp4_without_a_scale_of_the_tensor_loses_small_ones() -> None:
    assert relative_error(NVFP4(32), X * 0.001) == 1  # all zeros
    assert relative_error(NVFP4(32), X * 0.01) == pytest.approx(0.0218, abs=5e-5)
    assert relative_error(NVFP4(32, SCALE * 0.01), X * 0.01) == pytest.approx(0.0087, abs=5e-5)


def test_nvfp4_cuts_what_its_scale_has_no_room_for() -> None:
    found = NVFP4(32, SCALE / 4).decode(NVFP4(32, SCALE / 4).encode(X))
    assert float(found.abs().max()) == pytest.approx(float(X.abs().max()) / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("rule", "byte", "error"), [("floor", 124, 0.578411), ("even", 125, 0.103017)]
)
def test_mxfp4_has_the_power_and_error_of_its_rule(rule: str, byte: int, error: float) -> None:
    codec = MXFP4(32, rule)
    assert codec.encode(X)[1].tolist() == [[byte]]
    assert squared_error(codec, X) == pytest.approx(error, abs=5e-7)


def test_mxfp4_is_as_exact_at_every_power_of_two() -> None:
    x = sines(20, 64)
    errors = {k: relative_error(MXFP4(64), x * 2.0**k) for k in (-100, -5, 0, 3, 100)}
    assert len(set(errors.values())) == 1
    assert relative_error(MXFP4(64), x * 1.3) != errors[0]


def test_normal_numbers_lose_what_was_told() -> None:
    x = torch.randn(20_000, 64)
    assert relative_error(MXFP4(64), x) == pytest.approx(0.0132, abs=1e-4)
    assert relative_error(MXFP4(64, "even"), x) == pytest.approx(0.0125, abs=1e-4)
    scale = nvfp4_scale(float(x.abs().max()))
    assert relative_error(NVFP4(64, scale), x) == pytest.approx(0.0091, abs=1e-4)


def test_mxfp4_gives_the_numbers_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    kind, codec = gguf.GGMLQuantizationType.MXFP4, MXFP4(64)
    x = torch.randn(4000, 64) * torch.logspace(-6, 6, 4000)[:, None]
    x[0] = 0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(x.numpy(), kind), kind)
    assert np.array_equal(codec.decode(codec.encode(x)).numpy(), theirs)


@pytest.mark.K7
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_block_with_what_is_no_number_has_no_number_and_others_have(bad: float) -> None:
    x = torch.ones(2, 64)
    x[1, 40] = bad
    for codec in (NVFP4(64), MXFP4(64)):
        found = codec.decode(codec.encode(x))
        assert found[0].isfinite().all()
        assert found[1, :32].isfinite().all()
        assert not found[1, 40].isfinite()


@pytest.mark.parametrize("width", [64, 128])
def test_a_vector_holds_its_bytes_and_nvfp4_four_more_once(width: int) -> None:
    x = torch.randn(10, width)
    assert nbytes_of(NVFP4(width).encode(x)) == 10 * width * 36 // 64
    assert nbytes_of(MXFP4(width).encode(x)) == 10 * width * 34 // 64
    assert nbytes_of(NVFP4(width).constants) == 4
    assert not MXFP4(width).constants


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(UserError, match="NVFP4 has blocks of 16, which do not fill a width of 40"):
        NVFP4(40)
    with pytest.raises(UserError, match="rule='ceil' is not a known choice; use one of floor, eve"):
        MXFP4(32, "ceil")


def test_a_text_of_zeros_has_a_scale_too() -> None:
    assert nvfp4_scale(0.0) == 1.0
