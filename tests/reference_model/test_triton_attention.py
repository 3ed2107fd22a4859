"""When attention goes to the kernels for CUDA, and what they are given: no GPU is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reference_model.kernels import triton_attention
from reference_model.kernels.triton_attention import Packed, supports
from reference_model.quantization.baselines import Int8
from reference_model.quantization.packing import unpack
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

CODEC = TurboQuant(64, 3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A query on a GPU that is not there, and what is asked about it."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(triton_attention, "_has_triton", lambda: True)
    return {
        "is_cuda": True,
        "device": "cuda:0",
        "dtype": torch.bfloat16,
        "shape": (1, 12, 1, 64),
        "requires_grad": False,
    }


def test_a_gpu_with_triton_has_the_kernels(gpu: dict[str, Any]) -> None:
    assert supports(SimpleNamespace(**gpu), CODEC, TurboQuant(64, 2))


@pytest.mark.parametrize(
    "other",
    [
        {"is_cuda": False},
        {"dtype": torch.float64},
        {"shape": (1, 12, 1, 16)},
        {"shape": (1, 12, 1, 320)},
        {"requires_grad": True},
    ],
    ids=lambda other: str(next(iter(other))),
)
def test_what_the_kernels_do_not_take_is_left_to_pytorch(
    gpu: dict[str, Any], other: dict[str, Any]
) -> None:
    assert not supports(SimpleNamespace(**gpu | other), CODEC)


def test_a_query_that_wants_a_gradient_is_taken_where_none_is_kept(gpu: dict[str, Any]) -> None:
    with torch.inference_mode():
        assert supports(SimpleNamespace(**gpu | {"requires_grad": True}), CODEC)


@pytest.mark.parametrize("codec", [Int8(64), TurboQuantProd(64, 3)], ids=lambda codec: codec.name)
def test_other_codecs_are_left_to_pytorch(gpu: dict[str, Any], codec: Any) -> None:
    assert not supports(SimpleNamespace(**gpu), CODEC, codec)


def test_an_old_gpu_another_maker_and_no_triton_are_left_to_pytorch(
    gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name, value in (
        (torch.cuda, "get_device_capability", lambda device: (7, 5)),
        (torch.version, "cuda", None),
        (triton_attention, "_has_triton", lambda: False),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, value)
            assert not supports(SimpleNamespace(**gpu), CODEC)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_are_by_code_and_parts_are_views(bits: int) -> None:
    codec = TurboQuant(64, bits)
    parts = codec.encode(torch.randn(1, 2, 5, 64))
    packed = Packed.of(codec, parts)
    assert packed.bits == bits
    *planes, scales = parts
    codes = unpack(tuple(planes), bits, 64).long()
    assert torch.equal(packed.levels[codes] * packed.scales, codec.dequantize(parts))
    kept = [each.data_ptr() for each in (*packed.planes, packed.scales)]
    assert kept == [each.data_ptr() for each in (*planes, scales)]
