"""Norms under autocast compute in float32; without it, they are PyTorch's to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.model import GPT
from reference_model.norms import make_norm, wide
from reference_model.quantization.norms import NormScheme, with_int8_norms
from reference_model.training import batch_loss

pytestmark = pytest.mark.K7

PLACEMENTS = ["pre", "post", "double", "deepnorm"]
KINDS = ["layernorm", "rmsnorm"]
PLAIN = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}


def gradients(model: GPT, batch: Tensor, autocast: bool) -> dict[str, Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = batch_loss(model, batch)
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_gradients_under_autocast_are_those_of_float32_as_near_as_bfloat16_is(
    tiny_model: Callable[..., GPT], placement: str, kind: str
) -> None:
    # Added up in bfloat16 over these 2,048 tokens, those of γ and β are off by 6 to 8 %.
    sizes = {"n_embd": 32, "context_length": 64, "vocab_size": 64}
    model = tiny_model(torch.float32, norm_placement=placement, norm=kind, **sizes)
    batch = torch.randint(64, (32, 65), generator=torch.Generator().manual_seed(0))
    exact, found = (gradients(model, batch, autocast) for autocast in (False, True))
    off = {name: float((found[name] - g).norm() / g.norm()) for name, g in exact.items()}
    assert len(off) == len(list(model.parameters()))
    assert max(off.values()) < 0.02
    assert max(off.values()) > 1e-4  # it was bfloat16


@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_under_autocast_gives_float32_whatever_it_is_given(
    kind: str, parameters: torch.dtype
) -> None:
    norm = make_norm(GPTConfig(norm=kind, n_embd=8, n_head=1)).to(parameters)
    plain = PLAIN[kind](8, eps=1e-5)
    for given in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(5, 8).to(given)
        with torch.autocast("cpu", torch.bfloat16):
            found = norm(x)
        assert found.dtype == torch.float32
        assert found.equal(plain(x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert norm.double()(x.double()).dtype == torch.float64  # never made narrower


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_without_autocast_a_norm_is_pytorchs_to_the_last_bit(
    kind: str, bias: bool, dtype: torch.dtype
) -> None:
    norm = make_norm(GPTConfig(norm=kind, n_embd=8, n_head=1, bias=bias))
    plain = PLAIN[kind](8, eps=1e-5, **({"bias": bias} if kind == "layernorm" else {}))
    for each in norm.parameters():
        nn.init.normal_(each)
    plain.load_state_dict(norm.state_dict())
    norm, plain = norm.to(dtype), plain.to(dtype)
    x = torch.randn(5, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        found, expected = norm(x), plain(x)
    assert found.dtype == dtype
    assert found.equal(expected)
    given = torch.randn(5, 8).to(dtype)
    for each in (found, expected):
        each.backward(given)
    for ours, theirs in zip(norm.parameters(), plain.parameters(), strict=True):
        assert ours.grad.equal(theirs.grad)


def test_autocast_of_another_device_changes_no_norm() -> None:
    norm = make_norm(GPTConfig(n_embd=8, n_head=1)).bfloat16()
    x = torch.randn(5, 8).bfloat16()
    alone = norm(x)
    with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available()):
        assert norm(x).equal(alone)


def test_tensors_without_memory_stay_as_they_are() -> None:
    x = torch.empty(2, 8, device="meta")  # a device that knows no autocast
    assert wide(x) == (x,)


def test_a_norm_in_int8_computes_in_float32_too(tiny_model: Callable[..., GPT]) -> None:
    model, _ = with_int8_norms(tiny_model(), NormScheme(input="int8"))
    x = torch.randn(5, model.config.n_embd).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.ln_f(x)
    with torch.no_grad():
        assert found.equal(model.ln_f(x.float()))
