"""Compressed caches of other packages beside ours, where `make peers` has installed them.

tkv is the package turbo-attn. It asks for CUDA's compilers and is in no lock of ours:
.venv-peers/bin/python -m pip install --no-deps turbo-attn==0.70.1
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from reference_model.quantization.codebook import lloyd_max
from reference_model.quantization.e8 import nearest, points_of
from reference_model.quantization.turboquant import TurboQuant

WIDTH = 64
FREE = 12  # bits of a box so large that none of these points is near its walls


@pytest.fixture
def x() -> Tensor:
    """Normal vectors of lengths from 1/30 to 30 times as large."""
    return torch.randn(5000, WIDTH) * torch.logspace(-1.5, 1.5, 5000)[:, None]


@pytest.fixture
def blocks() -> Tensor:
    return 3 * torch.randn(20_000, 8)


def error(found: Tensor, x: Tensor) -> float:
    """Mean of ‖x̂ − x‖²/‖x‖²."""
    return float(((found - x).square().sum(-1) / x.square().sum(-1)).mean())


def nearest_of_e8(y: Tensor) -> Tensor:
    return points_of(*nearest(y + 0.25, FREE)) - 0.25


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_tkv_has_turboquants_error_and_levels_without_signs(bits: int, x: Tensor) -> None:
    core: Any = pytest.importorskip("tkv.core", reason="turbo-attn is missing; see above")
    levels, edges = (torch.tensor(each) for each in core.compute_codebook(bits, WIDTH))
    rotation = core.build_rotation_matrix(*core.generate_wht_signs(WIDTH))
    codes, norms = core.quantize(x, rotation, levels, edges, WIDTH)
    theirs = core.dequantize(codes, norms.bfloat16().float(), rotation, levels, WIDTH)
    ours = TurboQuant(WIDTH, bits, rotation="unsigned_hadamard")
    assert torch.equal(rotation, ours.rotation)
    # Its levels are those of a normal law, ours those of a coordinate on the sphere.
    assert levels.tolist() == pytest.approx(list(lloyd_max(WIDTH, bits).levels), rel=0.035)
    assert error(theirs, x) == pytest.approx(error(ours.decode(ours.encode(x)), x), rel=0.01)


@pytest.mark.parametrize(("bits", "factor"), [(2, 1.0), (3, 1.295), (4, 1.10)])
def test_turboquant_pro_has_turboquants_error_with_two_bits_alone(
    bits: int, factor: float, x: Tensor
) -> None:
    """Its levels at 3 and 4 bits are not those of Lloyd and Max."""
    core: Any = pytest.importorskip("turboquant_pro.core", reason="make peers installs it")
    codec = core.TurboQuantKV(head_dim=WIDTH, n_heads=1, bits=bits, use_gpu=False, seed=0)
    held = codec.compress(x[None, None].numpy(), packed=True)
    theirs = torch.from_numpy(codec.decompress(held))[0, 0]
    ours = TurboQuant(WIDTH, bits)
    expected = factor * error(ours.decode(ours.encode(x)), x)
    assert error(theirs, x) == pytest.approx(expected, rel=0.02)


def test_kakeyalattice_finds_the_same_points_of_e8(blocks: Tensor) -> None:
    lattice: Any = pytest.importorskip(
        "kakeyalattice.lattice_codebooks", reason="make peers installs it"
    )
    assert torch.equal(lattice._closest_e8(blocks), nearest_of_e8(blocks))


def test_nexusquant_finds_the_same_points_where_its_own_are_of_e8(blocks: Tensor) -> None:
    """Of its points in halves the sum may be odd: a quarter of them are no points of E8."""
    lattice: Any = pytest.importorskip(
        "nexusquant.core.e8_lattice", reason="make peers installs it"
    )
    theirs, ours = lattice.E8Lattice.nearest_point(blocks.clone()), nearest_of_e8(blocks)
    halves = (theirs % 1 == 0.5).all(-1)
    of_e8 = torch.where(halves, (theirs - 0.5).sum(-1), theirs.sum(-1)) % 2 == 0
    assert float(of_e8.double().mean()) == pytest.approx(0.727, abs=0.015)
    assert torch.equal(theirs[of_e8], ours[of_e8])
