"""The compressed cache reads the same through the kernels as through PyTorch's operators."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from reference_model.config import GPTConfig
from reference_model.kernels import triton_attention
from reference_model.kernels.compiled import VARIABLE
from reference_model.model import GPT
from reference_model.quantization.baselines import Int8
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd
from tests.reference_model.tiny import TINY, enlarge

WIDTH = 32
SHARED = (TurboQuant(WIDTH, 3),) * 2
APART = TurboQuant(WIDTH, 4, scale="unbiased"), TurboQuant(WIDTH, 2, seed=9)


def model_of(device: str, **choices: object) -> GPT:
    # Of one layer: in a second, rounding in the first can move a number across an edge.
    sizes = {"context_length": 24, "n_layer": 1, "n_embd": 64, "n_head": 4, "n_kv_head": 2}
    model = GPT(GPTConfig(**{**TINY, **sizes, "d_head": WIDTH, **choices}))
    enlarge(model)
    return model.to(device).eval()


@torch.inference_mode()
def read(
    model: GPT, codecs: tuple[Codec, Codec], chunks: list[int], window: int, sinks: int = 0
) -> Tensor:
    text = torch.arange(2 * 13, device=model.wte.weight.device).view(2, 13) % 23
    cache = QuantizedKVCache(model, 2, 13, *codecs, window=window, sinks=sinks)
    return torch.cat([model(part, cache) for part in text.split(chunks, dim=1)], dim=1)


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's device is a CPU, where compiled attention would come first."""
    monkeypatch.setenv(VARIABLE, "plain")


@pytest.fixture
def calls(device: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernels were called for. The interpreter's device counts as one that has them."""
    called: list[str] = []

    def counted(function: Callable) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            called.append(function.__name__)
            return function(*arguments, **options)

        return call

    for name in ("attend_packed", "encode"):
        monkeypatch.setattr(triton_attention, name, counted(getattr(triton_attention, name)))
    if device == "cpu":
        monkeypatch.setattr(triton_attention, "supports", of_turboquant)
    return called


def of_turboquant(x: Tensor, *codecs: Codec) -> bool:
    return all(type(codec) is TurboQuant for codec in codecs)


def plainly(monkeypatch: pytest.MonkeyPatch, *how: object) -> Tensor:
    """As `read`, by PyTorch's operators alone."""
    with monkeypatch.context() as patched:
        patched.setattr(triton_attention, "supports", lambda x, *codecs: False)
        return read(*how)


@pytest.mark.parametrize("chunks", [[13], [5, 1, 1, 6]], ids=["a prompt", "pieces and tokens"])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("codecs", [SHARED, APART], ids=["one codec", "two codecs"])
@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_a_text_is_read_the_same(
    device: str,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    position: str,
    codecs: tuple[Codec, Codec],
    window: int,
    chunks: list[int],
) -> None:
    model = model_of(device, position=position)
    found = read(model, codecs, chunks, window)
    assert calls.count("attend_packed") == len(chunks)
    assert calls.count("encode") >= 1
    expected = plainly(monkeypatch, model, codecs, chunks, window)
    assert (found - expected).abs().max() < 3e-5
    assert (found - model(torch.arange(26, device=device).view(2, 13) % 23)).abs().max() > 1e-3


@pytest.mark.parametrize("chunks", [[13], [5, 1, 1, 6]], ids=["a prompt", "pieces and tokens"])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("sinks", [2, 6])
@pytest.mark.parametrize("position", ["learned", "alibi"])
def test_sinks_are_read_exactly(
    device: str,
    calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
    position: str,
    sinks: int,
    window: int,
    chunks: list[int],
) -> None:
    how = model_of(device, position=position), SHARED, chunks, window, sinks
    found = read(*how)
    assert calls.count("attend_packed") == len(chunks)
    assert (found - plainly(monkeypatch, *how)).abs().max() < 3e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_may_have_half_the_precision(
    device: str, calls: list[str], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    model = model_of(device).to(dtype)
    found = read(model, SHARED, [12, 1], 2)
    assert calls
    expected = plainly(monkeypatch, model, SHARED, [12, 1], 2)
    assert found.dtype == dtype
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    assert error < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("codec", [Int8(WIDTH), TurboQuantProd(WIDTH, 3)])
def test_other_codecs_are_left_to_pytorch(device: str, calls: list[str], codec: Codec) -> None:
    read(model_of(device), (codec, codec), [12, 1], 0)
    assert calls == []


def test_triton_is_not_imported_until_it_is_needed() -> None:
    program = "import sys, reference_model.quantization.kv_cache; print('triton' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
