"""Rotary positions: the angles, and turning queries by them."""

from __future__ import annotations

import pytest
import torch

from reference_model.config import preset
from reference_model.positions import rotary_angles, rotate

CONFIG = preset("gpt2", position="rope")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}


def exact_angles(start: int, length: int, device: str) -> torch.Tensor:
    t = torch.arange(start, start + length, dtype=torch.float64, device=device)
    i = torch.arange(CONFIG.d_head // 2, dtype=torch.float64, device=device)
    return t[:, None] * CONFIG.rope_base ** (-2 * i / CONFIG.d_head)


@pytest.mark.benchmark(group="rope")
@pytest.mark.parametrize("length", [1, 512])
def test_angles(timed, device, length: int) -> None:
    found = timed(
        lambda: rotary_angles(CONFIG, 100, length, device),
        nbytes=length * CONFIG.d_head // 2 * 8,
        dtype="float64",  # whatever the model's: distant positions would fall together
    )
    assert (found - exact_angles(100, length, device)).abs().max() < 1e-10


@pytest.mark.benchmark(group="rope")
@pytest.mark.parametrize("length", [1, 512])
def test_rotate(timed, put, device, length: int) -> None:
    x = put(torch.randn(1, CONFIG.n_head, length, CONFIG.d_head))
    angles = exact_angles(100, length, device)
    cos, sin = put(angles.cos()), put(angles.sin())
    found = timed(lambda: rotate(x, cos, sin), nbytes=2 * x.nbytes + 2 * cos.nbytes)
    # Each pair is a complex number, turned by its angle.
    a, b = x.double().chunk(2, dim=-1)
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angles), angles)
    assert (found.double() - torch.cat([turned.real, turned.imag], dim=-1)).abs().max() < TOLERANCE[
        x.dtype
    ]
