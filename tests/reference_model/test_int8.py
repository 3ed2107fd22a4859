"""INT8 linears hold int8, multiply as they say, and leave alone what they say they leave alone."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from reference_model.errors import UserError
from reference_model.generate import generate
from reference_model.model import GPT
from reference_model.quantization.grid import Grid, rounded
from reference_model.quantization.int8 import (
    Int8Embedding,
    Int8Linear,
    Product,
    packed_is_available,
    weight_bytes,
    with_int8_linears,
)

PRODUCTS = get_args(Product)
NEEDS_FBGEMM = pytest.mark.skipif(not packed_is_available(), reason="PyTorch without FBGEMM")
ALL = [pytest.param(p, marks=NEEDS_FBGEMM if p == "packed" else ()) for p in PRODUCTS]
WIDE = {"vocab_size": 512, "context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 64}


def tokens(model: GPT) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(model.config.vocab_size, (2, 9), generator=generator)


def of_rows(x: Tensor) -> Tensor:
    """Each row of x (rows, K) on its own symmetric grid of 255 values, float64."""
    scales = x.double().abs().amax(-1, keepdim=True) / 127
    return (x.double() / scales).round() * scales


def of_call(x: Tensor, bits: int) -> Tensor:
    """All of x on one asymmetric grid of 2^``bits`` values that has a 0, float64."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / (2**bits - 1)
    zero = round(-low / scale)
    return ((x.double() / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def built(product: Product, grid: Grid, rows: int = 5) -> tuple[nn.Linear, nn.Module]:
    linear = nn.Linear(128, 48)
    rewrite = with_int8_linears(nn.Sequential(linear), product, grid)
    return linear, rewrite.model.get_submodule("0")


# ---- the products, against float64


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("product", ALL)
def test_a_product_is_that_of_the_rounded_numbers(product: Product, rows: int) -> None:
    linear, int8 = built(product, Grid())
    x = torch.randn(rows, 128)
    bits = 7 if int8.seven_bits else 8
    seen = {"dequantize": x.double(), "int_mm": of_rows(x), "packed": of_call(x, bits)}[product]
    weight = rounded(linear.weight.detach().double(), Grid())
    exact = seen @ weight.T + linear.bias.detach().double()
    with torch.inference_mode():
        found = int8(x)
    assert (found.double() - exact).abs().max() < (1e-4 if product != "packed" else 2e-3)
    assert (found - linear(x)).abs().max() > 1e-4  # it did round


@pytest.mark.parametrize("zero", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("granularity", ["per tensor", "per channel", "per group"])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_grid_is_served_by_dequantising(bits: int, granularity: str, zero: str) -> None:
    grid = Grid(bits, granularity, zero)  # type: ignore[arg-type]
    linear, int8 = built("dequantize", grid)
    x = torch.randn(3, 128)
    weight = rounded(linear.weight.detach().double(), grid)
    exact = x.double() @ weight.T + linear.bias.detach().double()
    assert (int8(x).double() - exact).abs().max() < 1e-4


@pytest.mark.parametrize("product", ["int_mm", "packed"])
@pytest.mark.parametrize("grid", [Grid(granularity="per group"), Grid(zero="asymmetric")])
def test_an_integer_product_refuses_a_grid_that_it_cannot_serve(
    product: Product, grid: Grid
) -> None:
    with pytest.raises(UserError, match="use product='dequantize'"):
        built(product, grid)


def test_an_unknown_product_is_named() -> None:
    with pytest.raises(UserError, match="use one of dequantize, int_mm, packed"):
        built("float", Grid())  # type: ignore[arg-type]


def test_a_row_of_zeros_gives_the_bias() -> None:
    linear, int8 = built("int_mm", Grid())
    assert torch.allclose(int8(torch.zeros(2, 128)), linear.bias.detach().expand(2, -1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("product", ALL)
def test_what_comes_out_has_the_dtype_of_what_went_in(product: Product, dtype: torch.dtype) -> None:
    _, int8 = built(product, Grid())
    x = torch.randn(2, 3, 128).to(dtype)
    assert int8(x).dtype == dtype
    assert int8(x).shape == (2, 3, 48)


# ---- a model


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("product", ALL)
def test_a_model_computes_nearly_what_it_did_and_says_what_became_of_it(
    tiny_model: Callable[..., GPT], product: Product, head: str
) -> None:
    model = tiny_model(torch.float32, head=head, **WIDE)
    rewrite = with_int8_linears(model, product)
    linears = {f"h.{i}.{part}" for i in (0, 1) for part in LINEARS} | {"lm_head"}
    assert set(rewrite.replaced) == linears | {"wte"}
    assert set(rewrite.skipped) == {
        "wpe",
        "ln_f",
        *(f"h.{i}.ln_{j}" for i in (0, 1) for j in (1, 2)),
    }
    assert "one row" in rewrite.skipped["wpe"]
    assert "norm" in rewrite.skipped["ln_f"]
    assert all(rewrite.replaced[name] == product for name in linears)
    with torch.inference_mode():
        before, after = model(tokens(model)), rewrite.model(tokens(model))
    relative = (after - before).norm() / before.norm()
    assert 1e-4 < float(relative) < 0.1


LINEARS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def test_no_float_weight_of_a_linear_or_of_the_vocabulary_is_left(
    tiny_model: Callable[..., GPT],
) -> None:
    for product in ("dequantize", "int_mm"):
        model = with_int8_linears(tiny_model(torch.float32, **WIDE), product).model  # type: ignore[arg-type]
        matrices = [name for name, p in model.named_parameters() if p.ndim == 2]
        assert matrices == ["wpe.weight"]


def test_a_tied_head_and_its_embedding_hold_one_tensor(tiny_model: Callable[..., GPT]) -> None:
    model = with_int8_linears(tiny_model(torch.float32, **WIDE), "int_mm").model
    assert isinstance(model.wte, Int8Embedding)
    assert isinstance(model.lm_head, Int8Linear)
    assert model.wte.codes.data_ptr() == model.lm_head.codes.data_ptr()
    untied = with_int8_linears(tiny_model(torch.float32, head="untied", **WIDE), "int_mm").model
    assert untied.wte.codes.data_ptr() != untied.lm_head.codes.data_ptr()


def test_the_model_that_is_given_stays_as_it_is(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, **WIDE)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with_int8_linears(model, "int_mm")
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_what_is_skipped_keeps_its_weight_and_its_reason(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, head="untied", **WIDE)
    rewrite = with_int8_linears(
        model, "int_mm", skip=lambda name: "too sensitive" if name == "lm_head" else None
    )
    assert rewrite.skipped["lm_head"] == "too sensitive"
    assert torch.equal(rewrite.model.lm_head.weight, model.lm_head.weight)


def test_a_tied_weight_that_would_stay_on_one_side_is_an_error(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float32, **WIDE)
    with pytest.raises(UserError, match=r"lm_head is tied to wte.*skip both or neither"):
        with_int8_linears(model, "int_mm", skip=lambda name: "no" if name == "wte" else None)


@pytest.mark.parametrize("product", ALL)
def test_generation_works_as_before(tiny_model: Callable[..., GPT], product: Product) -> None:
    model = tiny_model(torch.float32, **WIDE)
    int8 = with_int8_linears(model, product).model
    prompt = tokens(model)
    cached = generate(int8, prompt, 5)
    assert cached.shape == (2, 14)
    if product != "packed":  # one scale for each call: a token's depends on its company
        assert torch.equal(cached, generate(int8, prompt, 5, use_cache=False))


def test_huggingface_conv1d_is_rewritten_too(tiny_gpt2: Callable[..., Any]) -> None:
    model = tiny_gpt2(vocab_size=64, n_embd=64, n_layer=1)
    rewrite = with_int8_linears(model, "int_mm")
    assert {f"transformer.h.0.{part}" for part in LINEARS} <= set(rewrite.replaced)
    text = torch.arange(8)[None]
    with torch.inference_mode():
        before, after = model(text).logits, rewrite.model(text).logits
    assert 0 < float((after - before).norm() / before.norm()) < 0.1


# ---- bytes


def test_bytes_are_those_of_codes_steps_and_what_stayed(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32, **WIDE)
    int8 = with_int8_linears(model, "int_mm").model
    codes = 512 * 64 + 2 * 12 * 64 * 64
    channels = 512 + 2 * (3 + 1 + 4 + 1) * 64
    stayed = 4 * (16 * 64 + 2 * (3 + 1 + 4 + 1) * 64 + 5 * 2 * 64)  # positions, biases, norms
    assert weight_bytes(int8) == codes + 4 * channels + stayed


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc's account")
@NEEDS_FBGEMM
@pytest.mark.parametrize(("outputs", "inputs"), [(3072, 768), (768, 3072), (2304, 512)])
def test_packed_bytes_are_those_that_packing_allocates(outputs: int, inputs: int) -> None:
    # Whole blocks of 512 inputs: 768 of them take the room of 1,024.
    class Account(ctypes.Structure):
        _fields_ = [(f"field_{number}", ctypes.c_size_t) for number in range(10)]

    def allocated() -> int:
        gc.collect()
        account = mallinfo2()
        return int(account.field_7 + account.field_4)  # from the heap and from the system

    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Account
    bare = nn.Sequential(nn.Linear(inputs, outputs))
    before = allocated()
    model = with_int8_linears(bare, "packed").model
    held = weight_bytes(model) - sum(p.nbytes for p in model.parameters())
    # The bias and the steps are copied, too, as small allocations of either kind.
    assert allocated() - before == pytest.approx(held, rel=0.02)
