"""Four-bit floats beside torchao's, where `make peers` has installed it: the same bytes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from reference_model.quantization.fp4 import MXFP4, NVFP4, nvfp4_scale


@pytest.fixture(scope="module")
def torchao() -> Any:
    pytest.importorskip("torchao", reason="torchao is missing; make peers installs it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        from torchao.prototype.mx_formats import config, mx_tensor, nvfp4_tensor
    return {"mx": mx_tensor, "nv": nvfp4_tensor, "rules": config.ScaleCalculationMode}


@pytest.fixture
def x() -> torch.Tensor:
    """Vectors of sizes from 1/30 to 30."""
    return torch.randn(5000, 64) * torch.logspace(-1.5, 1.5, 5000)[:, None]


def bits(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.view(torch.uint8).flatten()


def test_nvfp4_holds_torchaos_bytes_and_reads_its_numbers(torchao: Any, x: torch.Tensor) -> None:
    codec = NVFP4(64, nvfp4_scale(float(x.abs().max())))
    codes, scales = codec.encode(x)
    theirs, packed = torchao["nv"].nvfp4_quantize(x, 16, codec.scale)
    # The scales that are no normal number of E4M3 torchao raises to its smallest normal one.
    normal = scales.float() >= 2.0**-6
    assert float(normal.double().mean()) > 0.99
    assert torch.equal(bits(theirs)[normal.flatten()], bits(scales)[normal.flatten()])
    same = (packed.view(codes.shape) == codes).view(5000, 4, 8).all(-1)
    assert same[normal].all()
    tensor = torchao["nv"].NVFP4Tensor.to_nvfp4(x, per_tensor_scale=codec.scale)
    read = tensor.dequantize(torch.float32).view(5000, 4, 16)
    assert torch.equal(codec.decode((codes, scales)).view(5000, 4, 16)[normal], read[normal])


@pytest.mark.parametrize("rule", ["floor", "even"])
def test_mxfp4_holds_torchaos_bytes(torchao: Any, x: torch.Tensor, rule: str) -> None:
    codes, powers = MXFP4(64, rule).encode(x)
    theirs, packed = torchao["mx"].to_mx(x, torch.float4_e2m1fn_x2, 32, torchao["rules"](rule))
    assert torch.equal(bits(theirs), powers.flatten())
    assert torch.equal(bits(packed), codes.flatten())
