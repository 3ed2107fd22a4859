"""A rewrite of what is rewritten already: each order works, or is refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reference_model import checkpoints
from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.lora import (
    LoRAConfig,
    LoRALinear,
    adapter_parameters,
    lora_linears,
    merge_adapters,
    remove_adapters,
    unmerge_adapters,
)
from reference_model.lora_files import load_adapters, save_adapters
from reference_model.model import GPT
from reference_model.quantization.grid import Grid
from reference_model.quantization.int8 import (
    Int8Embedding,
    Int8Linear,
    packed_is_available,
    weight_bytes,
    with_int8_linears,
)
from reference_model.quantization.norms import Int8Norm, NormScheme, with_int8_norms
from reference_model.quantization.rounding import with_rounded_linears, with_rounded_norms
from tests.reference_model.tiny import TOKENS, adapted

pytestmark = pytest.mark.K3

NEEDS_FBGEMM = pytest.mark.skipif(not packed_is_available(), reason="PyTorch without FBGEMM")
PRODUCTS = ("dequantize", "int_mm", pytest.param("packed", marks=NEEDS_FBGEMM))
INTEGER_PRODUCTS = PRODUCTS[1:]
TinyModel = Callable[..., GPT]


def adapt(model: Any) -> Any:
    return adapted(model, targets=("query", "value", "mlp_in"))


def merge(model: Any) -> Any:
    merge_adapters(adapt(model))
    return model


def with_the_sum(model: GPT) -> GPT:
    """A plain model whose weights hold the update, to the bit as merging adds it."""
    other = merge(copy.deepcopy(model))
    for name, linear in lora_linears(other).items():
        model.get_submodule(name).get_parameter("weight").data.copy_(linear.base.weight.detach())
    return model


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(TOKENS)
    return found


# ---- INT8 and adapters


@pytest.mark.parametrize("product", PRODUCTS)
def test_int8_of_a_merged_model_is_int8_of_the_sum_and_holds_nothing_else(
    tiny_model: TinyModel, product: Any
) -> None:
    found = with_int8_linears(merge(tiny_model(torch.float32)), product)
    expected = with_int8_linears(with_the_sum(tiny_model(torch.float32)), product)
    assert torch.equal(logits(found.model), logits(expected.model))
    assert (found.replaced, found.skipped) == (expected.replaced, expected.skipped)
    assert weight_bytes(found.model) == weight_bytes(expected.model)  # no original, no A, no B
    with pytest.raises(UserError, match="has no adapters; add or load some first"):
        unmerge_adapters(found.model)


@pytest.mark.parametrize("product", PRODUCTS)
def test_adapters_stand_beside_int8_whichever_came_first(
    tiny_model: TinyModel, product: Any, tmp_path: Path
) -> None:
    first = with_int8_linears(adapt(tiny_model(torch.float32)), product).model
    then = adapt(with_int8_linears(tiny_model(torch.float32), product).model)
    assert torch.equal(logits(first), logits(then))
    assert list(lora_linears(first)) == list(lora_linears(then))
    assert isinstance(first.get_submodule("h.0.attn.c_attn.base"), Int8Linear)
    save_adapters(first, tmp_path)
    again = with_int8_linears(tiny_model(torch.float32), product).model
    load_adapters(again, tmp_path)
    assert torch.equal(logits(again), logits(first))
    remove_adapters(first)
    assert torch.equal(
        logits(first), logits(with_int8_linears(tiny_model(torch.float32), product).model)
    )


def test_linears_below_adapters_are_asked_for_by_their_own_names(tiny_model: TinyModel) -> None:
    model, plain = adapt(tiny_model(torch.float32)), tiny_model(torch.float32)

    def wanted(name: str) -> bool:
        return name == "h.1.attn.c_attn"

    found, expected = (
        with_int8_linears(each, "int_mm", skip=lambda name: "" if wanted(name) else "not asked for")
        for each in (model, plain)
    )
    assert (found.replaced, found.skipped) == (expected.replaced, expected.skipped)
    assert list(found.replaced) == ["h.1.attn.c_attn"]
    assert isinstance(found.model.get_submodule("h.1.attn.c_attn.base"), Int8Linear)
    _, names = with_rounded_linears(model, Grid(), wanted)
    assert names == ["h.1.attn.c_attn.base.weight"]


def test_the_model_that_was_merged_keeps_its_adapters_and_its_original(
    tiny_model: TinyModel,
) -> None:
    model = merge(tiny_model(torch.float32))
    with_int8_linears(model, "int_mm")
    with_rounded_linears(model, Grid())
    remove_adapters(model)
    assert torch.equal(logits(model), logits(tiny_model(torch.float32)))


def test_what_is_in_int8_stays_as_it_is_and_is_named(tiny_model: TinyModel) -> None:
    def last_block(name: str) -> str | None:
        return "for later" if name.startswith("h.1") else None

    once = with_int8_linears(tiny_model(torch.float32), "int_mm", skip=last_block)
    twice = with_int8_linears(once.model, "dequantize")
    assert set(twice.replaced) == {n for n, why in once.skipped.items() if why == "for later"} - {
        "h.1.ln_1",
        "h.1.ln_2",
    }
    assert {n for n, why in twice.skipped.items() if why == "in INT8 already"} == set(once.replaced)
    assert twice.model.get_submodule("h.0.mlp.c_fc").product == "int_mm"
    assert twice.model.get_submodule("h.1.mlp.c_fc").product == "dequantize"


@pytest.mark.parametrize("product", INTEGER_PRODUCTS)
def test_training_through_an_integer_product_is_refused(
    tiny_model: TinyModel, product: Any
) -> None:
    # Its gradient would pass through the activations' scale alone, or not at all.
    model = adapt(with_int8_linears(tiny_model(torch.float32), product).model)
    loss = model(TOKENS).square().mean()
    with pytest.raises(UserError, match=r"has no gradient; train on .*'dequantize'") as raised:
        loss.backward()
    assert "\n" not in str(raised.value)


def test_training_beside_dequantised_weights_has_the_gradients_of_those_weights(
    tiny_model: TinyModel,
) -> None:
    int8 = adapt(with_int8_linears(tiny_model(torch.float32), "dequantize").model)
    rounded = adapt(with_rounded_linears(tiny_model(torch.float32), Grid())[0])
    for model in (int8, rounded):
        model(TOKENS).square().mean().backward()
    for found, expected in zip(*map(adapter_parameters, (int8, rounded)), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)


# ---- INT8 and dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("product", PRODUCTS)
def test_an_int8_model_may_be_cast_and_its_grid_stays_exact(
    tiny_model: TinyModel, product: Any, dtype: torch.dtype
) -> None:
    model = with_int8_linears(tiny_model(torch.float32), product).model
    before = {name: t.clone() for name, t in model.state_dict().items() if "steps" in name}
    expected = logits(model)
    assert logits(model.to(dtype)).dtype == dtype
    relative = (logits(model).double() - expected).norm() / expected.norm()
    assert relative < (0.03 if dtype.itemsize == 2 else 0.01)
    after = model.state_dict()
    assert len(before) == 10
    assert all(torch.equal(after[name], steps) for name, steps in before.items())


def test_steps_too_small_for_float16_are_multiplied_in_float32() -> None:
    linear = nn.Linear(64, 16, bias=False)
    linear.weight.data *= 1e-4  # a step of 1e-7 is two of float16's smallest numbers
    int8 = with_int8_linears(nn.Sequential(linear), "dequantize").model.half()
    x = torch.randn(5, 64).half()
    exact = x.double() @ linear.weight.double().T
    assert (int8(x).double() - exact).norm() / exact.norm() < 0.01


@NEEDS_FBGEMM
def test_packed_weights_are_asked_for_on_the_cpu_alone() -> None:
    int8 = with_int8_linears(nn.Sequential(nn.Linear(4, 4)), "packed").model.to("meta")
    with torch.no_grad(), pytest.raises(UserError, match="on a CPU, received numbers on meta"):
        int8(torch.empty(1, 4, device="meta"))


# ---- ties and copies


def test_a_copy_of_a_tied_model_is_tied(tiny_model: TinyModel) -> None:
    for model in (tiny_model(), adapt(tiny_model()), merge(tiny_model())):
        other = copy.deepcopy(model)
        assert other.lm_head.weight is other.wte.weight
        assert other.wte.weight is not model.wte.weight
    int8 = copy.deepcopy(with_int8_linears(tiny_model(torch.float32), "int_mm").model).half()
    assert isinstance(int8.wte, Int8Embedding)
    assert int8.wte.codes.data_ptr() == int8.lm_head.codes.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_unmerging_after_a_cast_and_a_copy_gives_the_cast_weights_to_the_bit(
    tiny_model: TinyModel, dtype: torch.dtype
) -> None:
    model = copy.deepcopy(merge(tiny_model()).to(dtype))
    unmerge_adapters(model)
    plain = tiny_model().to(dtype).state_dict()
    remove_adapters(model)
    assert list(model.state_dict()) == list(plain)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in model.state_dict().items())


def test_adapters_that_were_cast_down_are_merged_in_float32(tiny_model: TinyModel) -> None:
    model = adapt(tiny_model(torch.float32)).to(torch.bfloat16)
    before = {name: linear.base.weight.float() for name, linear in lora_linears(model).items()}
    merge_adapters(model)
    for name, linear in lora_linears(model).items():
        for part in linear.parts:
            before[name][part.outputs] += linear.scale * (part.B.float() @ part.A.float())
        assert torch.equal(linear.base.weight, before[name].bfloat16())  # rounded once


# ---- simulated rounding and norms


def test_rounding_a_merged_model_rounds_the_sum_and_cannot_be_undone(tiny_model: TinyModel) -> None:
    found, names = with_rounded_linears(merge(tiny_model(torch.float32)), Grid())
    expected, same = with_rounded_linears(with_the_sum(tiny_model(torch.float32)), Grid())
    assert names == same
    assert torch.equal(logits(found), logits(expected))
    assert not lora_linears(found)


def test_rounding_an_adapted_model_rounds_its_base_alone(tiny_model: TinyModel) -> None:
    found, names = with_rounded_linears(adapt(tiny_model(torch.float32)), Grid())
    expected = adapt(with_rounded_linears(tiny_model(torch.float32), Grid())[0])
    assert torch.equal(logits(found), logits(expected))
    assert "h.0.attn.c_attn.base.weight" in names


SCHEME = NormScheme(weights="int8", input="int8", statistics="integer")


@pytest.mark.parametrize("rewrite", [adapt, merge])
def test_norms_in_int8_leave_adapters_as_they_are(
    tiny_model: TinyModel, rewrite: Callable[[GPT], GPT]
) -> None:
    found, _ = with_int8_norms(rewrite(tiny_model(torch.float32)), SCHEME)
    expected = rewrite(with_int8_norms(tiny_model(torch.float32), SCHEME)[0])
    assert torch.equal(logits(found), logits(expected))
    remove_adapters(found)
    plain, _ = with_int8_norms(tiny_model(torch.float32), SCHEME)
    assert torch.equal(logits(found), logits(plain))


@pytest.mark.parametrize("build", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_in_half_precision_computes_as_pytorchs_own(
    build: Callable[[int], nn.Module], dtype: torch.dtype
) -> None:
    norm = build(64).to(dtype)
    x = (600 * torch.randn(4, 64)).to(dtype)  # its square is no number of float16
    found = Int8Norm(norm, NormScheme())(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, norm(x), rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        (lambda model: with_int8_norms(model, SCHEME), "has no norms in floating point; give one"),
        (with_rounded_norms, "has no norms in floating point to round; give one"),
        (lambda model: with_rounded_linears(model, Grid()), "has no linears in floating point to"),
    ],
)
def test_what_finds_nothing_to_round_says_so(
    tiny_model: TinyModel, rewrite: Callable[[GPT], object], message: str
) -> None:
    model = with_int8_norms(with_int8_linears(tiny_model(torch.float32), "int_mm").model, SCHEME)[0]
    with pytest.raises(UserError, match=message):
        rewrite(model)  # type: ignore[arg-type]


# ---- what a folder of weights cannot hold


def without_its_last_block(model: GPT) -> nn.Module:
    model.h = model.h[:1]
    return model


def with_more_tokens(model: GPT) -> nn.Module:
    model.wte = nn.Embedding(30, 16)
    return model


def with_a_second_head(model: GPT) -> nn.Module:
    model.value_head = nn.Linear(16, 1)
    return model


UNKNOWN: dict[str, tuple[Callable[[GPT], nn.Module], str]] = {
    "norms in INT8": (
        lambda model: with_int8_norms(model, SCHEME)[0],
        "^h.0.ln_1 is Int8Norm where a folder of weights holds LayerNorm",
    ),
    "a compiled model": (
        lambda model: torch.compile(model, backend="eager"),
        "^the model is OptimizedModule where a folder of weights holds GPT",
    ),
    "fewer blocks": (without_its_last_block, "^h.1 is missing where a folder of weights holds Bl"),
    "more tokens": (with_more_tokens, "^wte.weight is not what the model's configuration asks for"),
    "a second head": (with_a_second_head, "^value_head.bias is not what the model's configuration"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_a_folder_that_would_not_load_is_not_written(
    tiny_model: TinyModel, what: str, tmp_path: Path
) -> None:
    change, message = UNKNOWN[what]
    with pytest.raises(UserError, match=message) as raised:
        checkpoints.save(change(tiny_model(torch.float32)), tmp_path / "new")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_a_model_may_be_saved_without_the_dropout_of_its_training(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    model = tiny_model(torch.float32, dropout=0.1)
    model.config = model.config.replace(dropout=0.0)
    checkpoints.save(model, tmp_path)
    assert torch.equal(logits(checkpoints.load(tmp_path)), logits(model))


@pytest.mark.parametrize("save", [checkpoints.save, save_huggingface])
@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (float("nan"), None, r"^h\.1\.mlp\.c_fc\.weight has .* not finite in torch\.float32"),
        (70_000.0, torch.float16, r"not finite in torch\.float16; store a wider dtype"),
    ],
)
def test_weights_that_no_folder_may_hold_are_not_written(
    tiny_model: TinyModel,
    save: Callable[..., None],
    value: float,
    dtype: torch.dtype | None,
    message: str,
    tmp_path: Path,
) -> None:
    model = tiny_model(torch.float32)
    model.h[1].mlp.c_fc.weight.data[3, 4] = value
    with pytest.raises(UserError, match=message):
        save(model, tmp_path / "new", dtype)
    assert not (tmp_path / "new").exists()


def test_an_adapter_is_not_put_upon_an_adapter() -> None:
    inner = LoRALinear(nn.Linear(4, 4), LoRAConfig(rank=2))
    with pytest.raises(UserError, match="an adapter needs a linear, received LoRALinear"):
        LoRALinear(inner, LoRAConfig(rank=2))
