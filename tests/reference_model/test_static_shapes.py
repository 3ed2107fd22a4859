"""With static shapes every step is the same program, and the tokens are the same as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn, cast

import pytest
import torch
from torch import Tensor, fx

from reference_model import generate as module
from reference_model.cache import KVCache, StaticKVCache
from reference_model.errors import UserError
from reference_model.generate import generate
from reference_model.lora import LoRAConfig, add_adapters
from reference_model.model import GPT
from reference_model.quantization.int8 import packed_is_available, with_int8_linears

POSITIONS = ["learned", "sinusoidal", "rope", "alibi", "none"]
PROMPT = torch.tensor([[1, 2, 3], [7, 5, 2]])


@pytest.mark.parametrize("position", POSITIONS)
def test_a_static_cache_gives_the_logits_of_a_growing_one(
    tiny_model: Callable[..., GPT], position: str
) -> None:
    model = tiny_model(position=position)
    tokens = torch.randint(23, (2, 9))
    for chunks in ([9], [3, 1, 1, 1, 3], [1] * 9):
        growing = KVCache(model.config, 2, 9, torch.float64)
        static = StaticKVCache(model.config, 2, 14, torch.float64)
        with torch.inference_mode():
            for part in tokens.split(chunks, dim=1):
                expected, found = model(part, growing), model(part, static)
                assert (found - expected).abs().max() < 1e-12
        assert static.length == 9


def test_what_a_static_cache_holds_beyond_its_tokens_is_never_read(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model()
    clean, dirty = (StaticKVCache(model.config, 1, 8, torch.float64) for _ in range(2))
    for buffer in (*dirty.keys, *dirty.values):
        buffer.fill_(1e3)
    with torch.inference_mode():
        assert torch.equal(model(PROMPT[:1], clean), model(PROMPT[:1], dirty))


def test_a_static_cache_keeps_a_smaller_dtype_and_answers_in_the_larger(
    tiny_model: Callable[..., GPT],
) -> None:
    cache = StaticKVCache(tiny_model().config, 1, 4, torch.bfloat16)
    k = torch.full((1, 2, 1, 8), 1 / 3)
    found, _ = cache.update(0, k, k)
    assert cache.keys[0].dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found[:, :, :1], k.bfloat16().float())


def test_a_token_beyond_the_room_of_a_static_cache_is_refused(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(position="none")
    cache = StaticKVCache(model.config, 2, 3, torch.float64)
    with torch.inference_mode():
        model(PROMPT, cache)
        with pytest.raises(IndexError):
            model(PROMPT[:, :1], cache)


@pytest.mark.parametrize("position", POSITIONS)
def test_static_decoding_writes_the_same_tokens(
    tiny_model: Callable[..., GPT], position: str
) -> None:
    model = tiny_model(position=position, context_length=40, head="untied")
    assert torch.equal(generate(model, PROMPT, 30, decoding="static"), generate(model, PROMPT, 30))


class Programs:
    """A compiler that runs what it is given as it stands, and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        self.count += 1
        return graph.forward


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """Stands in for the real compiler, which takes most of a minute."""
    counter = Programs()
    torch.compiler.reset()
    compiled = partial(torch.compile, backend=counter)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "compile", lambda step, mode, **how: compiled(step, **how))
        step = module._compiled_step.__wrapped__()
    monkeypatch.setattr(module, "_compiled_step", lambda: step)
    yield counter
    torch.compiler.reset()


def test_a_machine_without_a_compiler_is_told_what_to_do(
    tiny_model: Callable[..., GPT], programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(graph: fx.GraphModule, inputs: list[Tensor]) -> NoReturn:
        raise RuntimeError("No working C++ compiler found in (None, 'g++')")

    monkeypatch.setattr(Programs, "__call__", staticmethod(no_compiler))
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler and finds none .*; install one"):
        generate(tiny_model(context_length=40), PROMPT, 3, decoding="compiled")


@pytest.mark.parametrize("position", POSITIONS)
def test_one_compiled_program_writes_all_tokens(
    tiny_model: Callable[..., GPT], programs: Programs, position: str
) -> None:
    model = tiny_model(position=position, context_length=40, head="untied")
    expected = generate(model, PROMPT, 12)
    assert torch.equal(generate(model, PROMPT, 12, decoding="compiled"), expected)
    assert torch.equal(generate(model, PROMPT, 9, decoding="compiled"), expected[:, :12])
    assert programs.count == 1


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_a_model_with_shared_heads_is_one_compiled_program_too(
    tiny_model: Callable[..., GPT], programs: Programs, mlp: str
) -> None:
    choices = {"n_kv_head": 1, "mlp": mlp, "position": "rope", "norm": "rmsnorm", "bias": False}
    model = tiny_model(context_length=40, **choices)
    expected = generate(model, PROMPT, 12)
    assert torch.equal(generate(model, PROMPT, 12, decoding="static"), expected)
    assert torch.equal(generate(model, PROMPT, 12, decoding="compiled"), expected)
    assert programs.count == 1


@pytest.mark.K3
def test_an_adapted_model_in_int8_is_one_compiled_program_too(
    tiny_model: Callable[..., GPT], programs: Programs
) -> None:
    model = tiny_model(torch.float32, context_length=40, n_layer=1)
    add_adapters(model, LoRAConfig(rank=2, init_b="gaussian"), torch.Generator().manual_seed(0))
    int8 = cast(GPT, with_int8_linears(model, "dequantize").model)
    expected = generate(int8, PROMPT, 5)
    assert torch.equal(generate(int8, PROMPT, 5, decoding="compiled"), expected)
    assert programs.count == 1


@pytest.mark.K3
@pytest.mark.skipif(not packed_is_available(), reason="PyTorch without FBGEMM")
def test_what_the_compiler_cannot_take_is_refused_in_one_line(
    tiny_model: Callable[..., GPT], programs: Programs
) -> None:
    model = cast(GPT, with_int8_linears(tiny_model(torch.float32), "packed").model)
    message = r"^torch\.compile cannot take this model \(.+\); use decoding='static'$"
    with pytest.raises(UserError, match=message):
        generate(model, PROMPT, 3, decoding="compiled")


def test_a_growing_cache_would_need_a_program_for_each_length(
    tiny_model: Callable[..., GPT], programs: Programs
) -> None:
    model = tiny_model(context_length=40)
    cache = KVCache(model.config, 2, 10, torch.float64)
    with torch.inference_mode():
        for length in range(1, 4):
            module._compiled_step()(model, PROMPT[:, :1], cache)
            assert programs.count == length


def test_decoding_is_one_of_the_three_and_is_about_the_cache(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="'graph'; use one of eager, static, compiled"):
        generate(model, PROMPT, 2, decoding="graph")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'static' needs a cache, received use_cache=False"):
        generate(model, PROMPT, 2, use_cache=False, decoding="static")
