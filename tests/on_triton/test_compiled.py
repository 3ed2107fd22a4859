"""Every kernel compiles for a GPU of compute capability 8.0, on a machine that has none.

The interpreter takes what the compiler refuses, so that both are asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from reference_model.kernels import triton_attention, triton_kernels
from reference_model.kernels.triton_attention import Packed, attend_packed, encode
from reference_model.quantization.turboquant import Scale, TurboQuant

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="Triton was imported as an interpreter"
)

WIDTHS = (32, 80, 64, 128, 256)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# What a block may have of a multiprocessor's shared memory: 163 KiB on 8.0, and 99 KiB on 8.6.
MOST_SHARED = 99 * 1024


class StandIn:
    """A driver of a GPU that is not there, beside any real one."""

    def get_current_device(self) -> str:
        return "compiled only"

    def get_current_stream(self, device: str) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 80, 32)


class CompiledOnly:
    """In place of a kernel: it compiles what would be launched, and keeps what came out."""

    def __init__(self, kernel: Any, found: list[Any]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def compile_it(*arguments: object, **options: object) -> None:
            self.found.append(self.kernel.warmup(*arguments, grid=grid, **options))

        return compile_it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Triton keeps what it compiled: not in a home folder, where an old result may lie."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was compiled since; all of it has to be complete."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    found: list[Any] = []
    for name in ("attend", "combine", "encode"):
        kernel = CompiledOnly(getattr(triton_kernels, name), found)
        monkeypatch.setattr(triton_kernels, name, kernel)
    monkeypatch.setattr(triton_attention, "_multiprocessors", lambda device: 108)
    monkeypatch.setattr(driver, "_active", StandIn())
    yield found
    assert found
    for kernel in found:
        assert {"ttir", "ttgir", "llir", "ptx", "cubin"} <= kernel.asm.keys()
        assert ".target sm_80" in kernel.asm["ptx"]
        assert kernel.asm["cubin"].startswith(b"\x7fELF")
        assert kernel.metadata.shared <= MOST_SHARED


def attended(
    keys: TurboQuant,
    values: TurboQuant,
    *,
    length: int = 1,
    sharing: int = 1,
    exact: int = 16,
    dtype: torch.dtype = torch.float32,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> None:
    k, v = torch.randn(2, 1, 2, 64, keys.width)
    q = torch.zeros(1, 2 * sharing, length, keys.width, dtype=dtype)
    near = torch.zeros(2, 1, 2, exact, keys.width, dtype=dtype)
    packed = Packed.of(keys, keys.encode(k)), Packed.of(values, values.encode(v))
    attend_packed(q, *packed, (near[0], near[1]) if exact else None, 64, mask, bias=bias)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("width", WIDTHS)
def test_attention_compiles_for_a_token_and_for_a_prompt(
    compiled: list[Any], width: int, bits: int
) -> None:
    codec = TurboQuant(width, bits)
    attended(codec, codec)
    attended(codec, codec, length=64, exact=0)
    assert len(compiled) == 4


@pytest.mark.parametrize("sharing", [2, 4, 8, 16])
def test_attention_compiles_for_heads_that_share_keys(compiled: list[Any], sharing: int) -> None:
    attended(TurboQuant(128, 3), TurboQuant(128, 3), sharing=sharing)


@pytest.mark.parametrize("length", [1, 64])
@pytest.mark.parametrize("kind", [torch.bool, *DTYPES])
def test_attention_compiles_for_every_mask(
    compiled: list[Any], kind: torch.dtype, length: int
) -> None:
    attended(TurboQuant(64, 3), TurboQuant(64, 3), length=length, mask=torch.ones(1, 80).to(kind))


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_compiles_for_every_precision_with_a_bias_and_for_two_codecs(
    compiled: list[Any], dtype: torch.dtype
) -> None:
    for length in (1, 64):
        bias = torch.zeros(1, 2, 1, 64, dtype=dtype)
        attended(TurboQuant(64, 4), TurboQuant(64, 2), dtype=dtype, bias=bias, length=length)


def test_one_bit_compiles(compiled: list[Any]) -> None:
    codec = TurboQuant(64, 1)
    attended(codec, codec)
    encode(torch.zeros(1, 2, 64, 64), codec)


def test_a_longer_past_needs_no_other_kernel(compiled: list[Any]) -> None:
    codec = TurboQuant(64, 3)
    for exact in (16, 17, 18, 33):
        attended(codec, codec, exact=exact)
    assert len({id(kernel) for kernel in compiled}) == 2


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("width", WIDTHS)
def test_encoding_compiles(compiled: list[Any], width: int, bits: int) -> None:
    encode(torch.zeros(1, 2, 64, width), TurboQuant(width, bits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", get_args(Scale))
def test_encoding_compiles_with_every_scale_precision_and_a_bias(
    compiled: list[Any], scale: Scale, dtype: torch.dtype
) -> None:
    x, bias = torch.zeros(2, 1, 2, 64, 64, dtype=dtype), torch.zeros(2, 1, 2, 1, 64, dtype=dtype)
    encode(x, TurboQuant(64, 3, scale=scale), bias)
