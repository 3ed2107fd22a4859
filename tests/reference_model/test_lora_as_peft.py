"""Adapters do what PEFT's do: in which precision, and on a head that is tied to the embedding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reference_model import checkpoints
from reference_model.errors import Notice
from reference_model.lora import (
    LoRAConfig,
    LoRALinear,
    adapter_parameters,
    add_adapters,
    lora_linears,
    merge_adapters,
    remove_adapters,
    unmerge_adapters,
)
from reference_model.lora_files import load_adapters
from reference_model.model import GPT
from tests.reference_model.tiny import TOKENS

TARGETS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
TinyModel = Callable[..., GPT]


@pytest.fixture
def both(
    tiny_model: TinyModel, with_pefts_adapters: Callable[..., Any], tmp_path: Path
) -> Callable[..., tuple[GPT, Any]]:
    """both(targets, dtype, …) → our model with the adapters that PEFT wrote, and PEFT's own."""

    def build(targets: list[str], dtype: torch.dtype, **choices: object) -> tuple[GPT, Any]:
        base = tiny_model(dtype, **choices)
        theirs = with_pefts_adapters(base, target_modules=targets, lora_alpha=3)
        theirs.save_pretrained(tmp_path, save_embedding_layers=False)
        ours = tiny_model(dtype, **choices)
        load_adapters(ours, tmp_path)
        return ours, theirs

    return build


def logits(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(tokens)
        return found.float()


# ---- half precision


# Both round at the same places, so that most logits agree to the bit. A and B in half precision
# would move nearly all of them.
@pytest.mark.K3
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad", [False, True])
def test_adapters_of_a_base_in_half_precision_give_pefts_logits(
    both: Callable[..., tuple[GPT, Any]], dtype: torch.dtype, grad: bool
) -> None:
    ours, theirs = both(TARGETS, dtype)
    assert {parameter.dtype for parameter in adapter_parameters(ours)} == {torch.float32}
    with torch.set_grad_enabled(grad):
        found, expected = ours(TOKENS), theirs(TOKENS)
    assert found.dtype == expected.dtype == dtype
    assert (found - expected).abs().max() <= 2 * torch.finfo(dtype).eps * expected.abs().max()
    assert (found == expected).float().mean() > 0.7


@pytest.mark.K3
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_merged_weights_are_pefts_to_the_bit(
    both: Callable[..., tuple[GPT, Any]], dtype: torch.dtype
) -> None:
    ours, theirs = both(TARGETS, dtype)
    merge_adapters(ours)
    merged = theirs.merge_and_unload()
    for name, linear in lora_linears(ours).items():
        assert torch.equal(linear.base.weight, merged.get_submodule(name).weight)


@pytest.mark.K3
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_a_base_in_half_precision_are_pefts_and_float32(
    both: Callable[..., tuple[GPT, Any]], dtype: torch.dtype
) -> None:
    ours, theirs = both(TARGETS, dtype)
    for model in (ours, theirs):
        model(TOKENS).float().square().mean().backward()
    of_theirs = dict(theirs.named_parameters())
    for name, linear in lora_linears(ours).items():
        for letter in "AB":
            found = linear.parts[0].get_parameter(letter).grad
            expected = of_theirs[f"base_model.model.{name}.lora_{letter}.default.weight"].grad
            assert found.dtype == expected.dtype == torch.float32
            # A different last place somewhere is a different one everywhere behind it.
            assert (found - expected).norm() <= 8 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.K3
def test_adapters_learn_beside_a_base_in_bfloat16(tiny_model: TinyModel) -> None:
    model = tiny_model(torch.bfloat16).train()
    add_adapters(model, LoRAConfig(rank=4, targets=("qkv", "mlp_in")), torch.Generator())
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=0.03)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(TOKENS[:, :-1]).mT.float(), TOKENS[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.K3
@pytest.mark.parametrize("grad", [False, True])
def test_autocast_computes_beside_a_base_in_float32_as_peft_does(
    both: Callable[..., tuple[GPT, Any]], grad: bool
) -> None:
    ours, theirs = both(TARGETS, torch.float32)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        found, expected = ours(TOKENS), theirs(TOKENS)
    assert found.dtype == expected.dtype
    assert (found - expected).float().norm() <= 0.03 * expected.float().norm()


# ---- a head that is tied to the embedding


@pytest.fixture
def headed(both: Callable[..., tuple[GPT, Any]]) -> tuple[GPT, Any]:
    return both(["lm_head", "attn.c_attn"], torch.float32)


@pytest.mark.K1
def test_an_adapter_beside_a_tied_head_gives_pefts_logits(
    headed: tuple[GPT, Any], tiny_model: TinyModel
) -> None:
    ours, theirs = headed
    assert (logits(ours) - logits(theirs)).abs().max() < 1e-5
    assert (logits(ours) - logits(tiny_model(torch.float32))).abs().max() > 1
    assert ours.lm_head.base.weight is ours.wte.weight


@pytest.mark.K1
def test_merging_a_tied_head_unties_it_and_says_so(
    headed: tuple[GPT, Any], tiny_model: TinyModel, tmp_path: Path
) -> None:
    model, _ = headed
    beside, embedding = logits(model), model.wte.weight.detach().clone()
    with pytest.warns(Notice, match="lm_head was tied to wte; merged, it has its own") as told:
        merge_adapters(model)
    assert len(told) == 1
    merge_adapters(model)  # nothing new, nothing to say
    assert torch.equal(model.wte.weight, embedding)
    assert (logits(model) - beside).abs().max() < 1e-5
    checkpoints.save(model, tmp_path / "merged")
    found = checkpoints.load(tmp_path / "merged")
    assert found.config == tiny_model(head="untied").config
    assert torch.equal(logits(found), logits(model))
    unmerge_adapters(model)
    assert model.lm_head.base.weight is model.wte.weight
    assert torch.equal(logits(model), beside)
    remove_adapters(model)
    assert model.lm_head.weight is model.wte.weight


@pytest.mark.K1
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_merged_head_is_tied_again_after_a_cast_and_a_copy(
    headed: tuple[GPT, Any], tiny_model: TinyModel, dtype: torch.dtype
) -> None:
    with pytest.warns(Notice, match="tied"):
        merge_adapters(headed[0])
    model = copy.deepcopy(headed[0]).to(dtype)
    remove_adapters(model)
    assert model.lm_head.weight is model.wte.weight
    assert torch.equal(logits(model), logits(tiny_model(torch.float32).to(dtype)))


@pytest.mark.K1
def test_a_head_wrapped_by_hand_never_changes_the_embedding(tiny_model: TinyModel) -> None:
    model = tiny_model()
    config = LoRAConfig(rank=2, init_b="gaussian")
    model.lm_head = LoRALinear(model.lm_head, config, generator=torch.Generator())  # type: ignore[assignment]
    beside = logits(model)
    model.lm_head.merge()
    torch.testing.assert_close(logits(model), beside, rtol=0, atol=1e-4)
    assert torch.equal(model.wte.weight, tiny_model().wte.weight)


@pytest.mark.K1
def test_an_untied_head_is_merged_without_a_word(both: Callable[..., tuple[GPT, Any]]) -> None:
    model, _ = both(["lm_head"], torch.float32, head="untied")
    beside = logits(model)
    merge_adapters(model)
    assert (logits(model) - beside).abs().max() < 1e-5


@pytest.mark.K1
def test_two_linears_that_share_a_weight_each_get_their_own_sum() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    model[1].weight = model[0].weight
    config, generator = LoRAConfig(rank=2, init_b="gaussian"), torch.Generator().manual_seed(0)
    for i in (0, 1):
        model[i] = LoRALinear(model[i], config, generator=generator)
    x = torch.randn(3, 4, dtype=torch.float64)
    beside = model(x)
    with pytest.warns(Notice, match="was tied to"):
        merge_adapters(model)
    torch.testing.assert_close(model(x), beside, rtol=0, atol=1e-12)
    unmerge_adapters(model)
    assert model[0].base.weight is model[1].base.weight
