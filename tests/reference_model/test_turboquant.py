"""TurboQuant loses what its closed forms say, whatever the vectors are, and holds what it says."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codebook import lloyd_max
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.rotation import hadamard
from reference_model.quantization.turboquant import (
    Projection,
    Rotation,
    Scale,
    TurboQuant,
    TurboQuantProd,
)

BITS = (1, 2, 3, 4)
SCALES, PROJECTIONS = get_args(Scale), get_args(Projection)


def unit_vectors(count: int, width: int, seed: int = 1) -> Tensor:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def distortion(codec: TurboQuant | TurboQuantProd, x: Tensor) -> float:
    error = codec.decode(codec.encode(x)).double() - x.double()
    return float(error.square().sum(-1).mean() / x.double().square().sum(-1).mean())


def plain(x: Tensor, bits: int, scale: str, rotation: Tensor) -> Tensor:
    """The definition, in float64 and one step at a time, as it stands in the paper."""
    book = lloyd_max(x.shape[-1], bits)
    vectors = x.double().numpy() @ rotation.double().numpy().T
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    levels = np.array(book.levels)
    distances = np.abs((vectors / norms)[..., None] - levels)
    quantised = levels[distances.argmin(axis=-1)]
    product = (vectors * quantised).sum(-1, keepdims=True)
    length = (quantised**2).sum(-1, keepdims=True)
    factor = {
        "norm": norms,
        "norm_corrected": norms / np.sqrt(length),
        "least_squares": product / length,
        "unbiased": norms**2 / product,
    }[scale]
    return torch.from_numpy(quantised * factor @ rotation.double().numpy())


# ---- against the definition


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [8, 64, 100])
def test_what_is_decoded_is_what_the_definition_says(width: int, bits: int, scale: Scale) -> None:
    codec = TurboQuant(width, bits, scale=scale, seed=4)
    x = torch.randn(3, 70, width) * torch.rand(3, 70, 1) * 20
    expected = plain(x, bits, scale, codec.rotation)
    difference = (codec.decode(codec.encode(x)).double() - expected).norm(dim=-1)
    # A float16 scale is within 2^-11; a coordinate that lies on an edge may round either way.
    off = difference > 2.0**-10 * x.norm(dim=-1)
    assert float(off.double().mean()) < 0.02
    assert float(difference.max() / x.norm(dim=-1).max()) < 0.05


# ---- against the closed forms


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("width", [64, 96, 128, 1536])
def test_the_distortion_is_the_exact_one_within_one_percent(width: int, bits: int) -> None:
    codec = TurboQuant(width, bits)
    x = unit_vectors(3_000_000 // width, width)
    assert distortion(codec, x) == pytest.approx(lloyd_max(width, bits).distortion, rel=0.01)


@pytest.mark.parametrize("rotation", ["haar", "hadamard"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ["one-hot", "constant", "a few large"])
def test_vectors_that_are_anything_but_random_lose_no_more(
    kind: str, bits: int, rotation: Rotation
) -> None:
    # Only a rotation makes these look random; over 64 of them, since a fixed vector has one error
    # per rotation.
    x = torch.zeros(64)
    if kind == "one-hot":
        x[7] = 1
    elif kind == "constant":
        x[:] = 0.125
    else:
        x[:] = 0.01
        x[[3, 60]] = 5.0
    codecs = [TurboQuant(64, bits, rotation=rotation, seed=seed) for seed in range(150)]
    found = sum(distortion(codec, x[None]) for codec in codecs) / len(codecs)
    assert found == pytest.approx(lloyd_max(64, bits).distortion, rel=0.1)


def test_without_a_rotation_a_single_coordinate_would_lose_far_more() -> None:
    codec = TurboQuant(64, 2, rotation="none")
    x = torch.eye(64)
    assert distortion(codec, x) > 0.5


def test_one_round_of_hadamard_is_seen_in_the_distortion() -> None:
    codec = TurboQuant(64, 2)
    codec.rotation = hadamard(64, 0, rounds=1).float()
    assert distortion(codec, torch.eye(64)) == pytest.approx(0.250, abs=0.002)


def test_what_all_coordinates_share_harms_an_unsigned_hadamard_and_no_signed_one() -> None:
    x = torch.randn(2000, 64)
    unsigned, signed = (
        TurboQuant(64, 3, rotation=rotation) for rotation in ("unsigned_hadamard", "hadamard")
    )
    for codec in (unsigned, signed):
        assert distortion(codec, x) == pytest.approx(lloyd_max(64, 3).distortion, rel=0.03)
    assert distortion(signed, x + 1) == pytest.approx(lloyd_max(64, 3).distortion, rel=0.15)
    assert distortion(unsigned, x + 1) > 5 * distortion(signed, x + 1)


@pytest.mark.parametrize("bits", BITS)
def test_inner_products_shrink_by_the_distortion_with_the_papers_scale(bits: int) -> None:
    x = unit_vectors(20_000, 64)
    codec = TurboQuant(64, bits)
    slope = float((codec.decode(codec.encode(x)) * x).sum(-1).mean())
    assert slope == pytest.approx(1 - lloyd_max(64, bits).distortion, abs=0.001)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bits", BITS)
def test_each_scale_loses_what_it_must_in_many_dimensions(bits: int, scale: Scale) -> None:
    # There ⟨y, ŷ⟩ and ‖ŷ‖² are both 1 − D: levels are the means of what they stand for.
    D = lloyd_max(1536, bits).distortion
    expected = {
        "norm": D,
        "norm_corrected": 2 - 2 * math.sqrt(1 - D),
        "least_squares": D,
        "unbiased": D / (1 - D),
    }[scale]
    found = distortion(TurboQuant(1536, bits, scale=scale), unit_vectors(2000, 1536))
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bits", BITS)
def test_each_scale_loses_at_64_what_a_simulation_in_float64_loses(bits: int, scale: Scale) -> None:
    # Other vectors than the codec's, drawn uniformly, so that they need no rotation.
    y = unit_vectors(20_000, 64, seed=2).double()
    y /= y.norm(dim=-1, keepdim=True)
    expected = float((plain(y, bits, scale, torch.eye(64)) - y).square().sum(-1).mean())
    found = distortion(TurboQuant(64, bits, scale=scale), unit_vectors(20_000, 64))
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("bits", BITS)
def test_each_scale_does_what_it_is_for(bits: int) -> None:
    x = unit_vectors(5_000, 64)
    decoded = {}
    for scale in SCALES:
        codec = TurboQuant(64, bits, scale=scale)
        decoded[scale] = codec.decode(codec.encode(x))
    assert torch.allclose(decoded["norm_corrected"].norm(dim=-1), torch.ones(5000), atol=1e-3)
    assert torch.allclose((decoded["unbiased"] * x).sum(-1), torch.ones(5000), atol=1e-3)
    errors = {scale: float((y - x).square().sum(-1).mean()) for scale, y in decoded.items()}
    assert min(errors, key=lambda scale: errors[scale]) == "least_squares"


# ---- the variant for inner products


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("bits", BITS)
def test_prod_has_the_variance_of_its_closed_form_and_no_bias(
    bits: int, projection: Projection
) -> None:
    width, left = 64, lloyd_max(64, bits - 1).distortion
    if projection == "gaussian":
        exact = (math.pi / 2 - 1 / width) * left
    else:
        c = math.exp(math.lgamma((width + 1) / 2) - math.lgamma(width / 2))
        c *= math.sqrt(math.pi) / width
        exact = (c**2 * width - 1) * left
    x, y = unit_vectors(8000, width), unit_vectors(8000, width, seed=2)
    errors, slopes = [], []
    for seed in range(12):
        codec = TurboQuantProd(width, bits, projection=projection, seed=seed)
        decoded = codec.decode(codec.encode(x))
        errors.append(((decoded - x) * y).sum(-1))
        slopes.append(float((decoded * x).sum(-1).mean()))
    error = torch.stack(errors).double()
    assert float(error.square().mean()) * width == pytest.approx(exact, rel=0.03)
    # One projection has a bias of its own; over projections it goes to 0.
    spread = float(np.std(slopes, ddof=1)) / math.sqrt(len(slopes))
    assert abs(float(np.mean(slopes)) - 1) < 5 * spread + 1e-3


def test_the_constant_of_one_projection_is_wrong_for_the_other() -> None:
    # The commonest bug: off by √D, the residual is all but switched off.
    x = unit_vectors(2000, 64)
    codec = TurboQuantProd(64, 2, projection="orthonormal")
    right = float((codec.decode(codec.encode(x)) * x).sum(-1).mean())
    codec.constant = math.sqrt(math.pi / 2) / 64
    wrong = float((codec.decode(codec.encode(x)) * x).sum(-1).mean())
    assert right == pytest.approx(1, abs=0.01)
    assert wrong < 0.75


def test_the_orthonormal_constant_is_the_one_worked_out_for_64() -> None:
    codec = TurboQuantProd(64, 3, projection="orthonormal")
    assert codec.constant == pytest.approx(0.156054, abs=5e-7)


# ---- what is held


@pytest.mark.parametrize(("bits", "nbytes"), [(2, 18), (3, 26), (4, 34)])
def test_a_head_of_64_takes_the_bytes_that_are_claimed(bits: int, nbytes: int) -> None:
    codec = TurboQuant(64, bits)
    parts = codec.encode(torch.randn(5, 7, 64))
    assert nbytes_of(parts) == 5 * 7 * nbytes
    assert codec.bits_per_value == nbytes * 8 / 64
    for part, (count, dtype) in zip(parts, codec.layout, strict=True):
        assert (part.shape, part.dtype) == ((5, 7, count), dtype)


def test_prod_at_three_bits_takes_three_and_a_half() -> None:
    codec = TurboQuantProd(64, 3)
    parts = codec.encode(torch.randn(5, 7, 64))
    assert nbytes_of(parts) == 5 * 7 * 28
    assert codec.bits_per_value == 3.5
    for part, (count, dtype) in zip(parts, codec.layout, strict=True):
        assert (part.shape, part.dtype) == ((5, 7, count), dtype)


def test_the_outlier_split_of_the_paper_takes_two_and_a_half_bits() -> None:
    # 32 channels at 3 bits and 96 at 2, two instances, each with the codebook of its own width.
    outliers, others = TurboQuant(32, 3), TurboQuant(96, 2)
    held = outliers.bits_per_value * 32 + others.bits_per_value * 96
    assert held / 128 == 2.5
    for codec, exact in ((outliers, 0.03226), (others, 0.1155)):
        assert distortion(codec, unit_vectors(20_000, codec.width)) == pytest.approx(
            exact, rel=0.01
        )


# ---- vectors at the ends


@pytest.mark.parametrize("scale", SCALES)
def test_a_vector_of_zeros_stays_one(scale: Scale) -> None:
    codec = TurboQuant(64, 3, scale=scale)
    assert codec.decode(codec.encode(torch.zeros(2, 3, 64))).eq(0).all()


def test_what_is_not_finite_is_never_decoded_to_a_number() -> None:
    codec = TurboQuant(64, 3)
    x = torch.ones(4, 64)
    x[0, 0], x[1, 5], x[2] = math.nan, math.inf, 1e6  # the last: a norm beyond float16
    finite = codec.decode(codec.encode(x)).isfinite().all(dim=-1)
    assert finite.tolist() == [False, False, False, True]


def test_a_batch_is_encoded_like_its_vectors_one_by_one() -> None:
    codec = TurboQuant(64, 3, scale="least_squares")
    x = torch.randn(2, 3, 5000, 64)
    together = codec.decode(codec.encode(x))
    alone = codec.decode(codec.encode(x[1, 2, 4990:4991]))
    assert torch.allclose(together[1, 2, 4990:4991], alone, atol=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"bits": 5}, {"bits": 0}, {"scale": "best"}, {"rotation": "givens"}]
)
def test_a_wrong_choice_is_refused_with_the_allowed_ones(wrong: dict) -> None:
    with pytest.raises(UserError, match=r"use (1, 2, 3 or 4|one of norm, |one of haar, )"):
        TurboQuant(64, **wrong)
