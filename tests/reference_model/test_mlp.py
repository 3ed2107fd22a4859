"""The MLP: GELU or a gate, at any width, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference_model.config import GPTConfig, preset
from reference_model.costs import lora_parameters
from reference_model.lora import LoRAConfig, adapter_parameters, add_adapters
from reference_model.model import GPT, MLP

WIDTH, INNER = 6, 10


def mlp(**choices: object) -> MLP:
    torch.manual_seed(0)
    made = MLP(GPTConfig(n_embd=WIDTH, n_head=1, d_mlp=INNER, **choices)).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def product(name: str, of: MLP, x: Tensor) -> Tensor:
    linear = of.get_submodule(name)
    return torch.einsum("oi,bi->bo", linear.weight, x) + linear.bias


def test_a_gate_multiplies_what_the_other_linear_gives() -> None:
    made, x = mlp(mlp="swiglu"), torch.randn(3, WIDTH, dtype=torch.float64)
    gate = product("c_gate", made, x)
    inner = gate / (1 + torch.exp(-gate)) * product("c_fc", made, x)
    torch.testing.assert_close(made(x), product("c_proj", made, inner))


def test_gelu_has_no_gate_and_the_width_that_is_asked_for() -> None:
    made = mlp()
    assert made.c_gate is None
    assert made.c_fc.weight.shape == made.c_proj.weight.T.shape == (INNER, WIDTH)


def test_a_model_with_a_gate_reads_the_same_with_a_cache_and_without() -> None:
    from reference_model.cache import KVCache

    model = GPT(preset("toy", n_layer=2, mlp="swiglu", d_mlp=24)).eval()
    tokens = torch.arange(12)[None]
    cache = KVCache(model.config, 1, 12)
    with torch.inference_mode():
        pieces = [model(piece, cache) for piece in tokens.split(5, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", ["mlp_gate", "mlp_in", "mlp_out"])
def test_adapters_of_an_mlp_count_as_their_closed_form_says(target: str) -> None:
    config = preset("toy", mlp="swiglu", d_mlp=24)
    model = GPT(config)
    add_adapters(model, LoRAConfig(3, targets=(target,)))
    counted = sum(parameter.numel() for parameter in adapter_parameters(model))
    assert counted == lora_parameters(config, 3, (target,))
