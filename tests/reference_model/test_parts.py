"""What each module is for, in our model, in GPT-2 of transformers, and in the Llama type."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from reference_model.config import preset
from reference_model.errors import UserError
from reference_model.lora import LoRAConfig, add_adapters
from reference_model.model import GPT
from reference_model.parts import Part, parts_of, parts_with, roles_by_name

WIDTH, SHARED = 12, 4  # of queries, and of keys and values


class Conv1D(nn.Module):
    """As transformers has it: (in, out)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))


def tree(names: dict[str, nn.Module]) -> nn.Module:
    """A model whose modules have these names."""
    root = nn.Module()
    for name, module in names.items():
        *above, last = name.split(".")
        place = root
        for each in above:
            if not hasattr(place, each):
                place.add_module(each, nn.Module())
            place = getattr(place, each)
        place.add_module(last, module)
    return root


def llama(prefix: str = "model.", layers: int = 2) -> nn.Module:
    of_layer: dict[str, Callable[[], nn.Module]] = {
        "self_attn.q_proj": lambda: nn.Linear(WIDTH, WIDTH),
        "self_attn.k_proj": lambda: nn.Linear(WIDTH, SHARED),
        "self_attn.v_proj": lambda: nn.Linear(WIDTH, SHARED),
        "self_attn.o_proj": lambda: nn.Linear(WIDTH, WIDTH),
        "mlp.gate_proj": lambda: nn.Linear(WIDTH, 20),
        "mlp.up_proj": lambda: nn.Linear(WIDTH, 20),
        "mlp.down_proj": lambda: nn.Linear(20, WIDTH),
        "input_layernorm": lambda: nn.RMSNorm(WIDTH),
    }
    names: dict[str, nn.Module] = {f"{prefix}embed_tokens": nn.Embedding(9, WIDTH)}
    for layer in range(layers):
        names |= {f"{prefix}layers.{layer}.{name}": make() for name, make in of_layer.items()}
    return tree(names | {f"{prefix}norm": nn.RMSNorm(WIDTH), "lm_head": nn.Linear(WIDTH, 9)})


def told(part: Part) -> tuple[str, int | None, str, slice]:
    return part.role, part.layer, part.name, part.outputs


@pytest.mark.parametrize("placement", ["pre", "double"])
def test_every_weight_of_our_model_has_a_role(placement: str) -> None:
    model = GPT(preset("toy", n_layer=2, norm_placement=placement))
    named = {part.name for part in parts_of(model)}
    assert {name.rpartition(".")[0] for name, _ in model.named_parameters()} <= named
    assert "h.0.ln_1_out" in named or placement == "pre"


def test_queries_keys_and_values_of_one_module_are_three_parts_of_it() -> None:
    model = GPT(preset("toy", n_layer=2))
    (first, second) = parts_with(model, "key")
    assert told(first) == ("key", 0, "h.0.attn.c_attn", slice(128, 256))
    assert second.module is model.h[1].attn.c_attn
    assert second.name == "h.1.attn.c_attn"


@pytest.mark.parametrize("above", ["", "transformer.", "base_model.model.transformer."])
def test_gpt2_of_transformers_has_the_same_parts_under_whatever_stands_above(above: str) -> None:
    names = {
        f"{above}wte": nn.Embedding(9, WIDTH),
        f"{above}wpe": nn.Embedding(5, WIDTH),
        f"{above}h.0.ln_1": nn.LayerNorm(WIDTH),
        f"{above}h.0.attn.c_attn": Conv1D(WIDTH + 2 * SHARED, WIDTH),
        f"{above}h.0.attn.c_proj": Conv1D(WIDTH, WIDTH),
        f"{above}ln_f": nn.LayerNorm(WIDTH),
        above.removesuffix("transformer.") + "lm_head": nn.Linear(WIDTH, 9),
        "score.wte": nn.Linear(2, 2),  # of something else
        "transform.lm_head": nn.Linear(2, 2),
        "base.lm_head": nn.Linear(2, 2),
    }
    found = [told(part) for part in parts_of(tree(names))]
    assert [role for role, *_ in found] == [
        "embedding",
        "positions",
        "norm",
        "query",
        "key",
        "value",
        "attention_output",
        "norm",
        "head",
    ]
    widths = [outputs for role, _, _, outputs in found if role in ("query", "key", "value")]
    assert widths == [slice(0, 12), slice(12, 16), slice(16, 20)]


def test_the_llama_type_has_a_module_for_each_role() -> None:
    roles = [part.role for part in parts_of(llama()) if part.layer == 1]
    assert roles == [
        "query",
        "key",
        "value",
        "attention_output",
        "mlp_gate",
        "mlp_in",
        "mlp_out",
        "norm",
    ]
    assert [part.name for part in parts_with(llama(), "head")] == ["lm_head"]


def test_adapters_are_put_on_the_llama_type_by_role() -> None:
    model = llama()
    assert add_adapters(model, LoRAConfig(2, targets=("value", "mlp_out"))) == [
        "model.layers.0.self_attn.v_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.v_proj",
        "model.layers.1.mlp.down_proj",
    ]
    adapted = parts_with(model, "value")[0]
    assert adapted.name == "model.layers.0.self_attn.v_proj"
    with pytest.raises(UserError, match="no module that is known as its qkv"):
        add_adapters(llama(), LoRAConfig(2, targets=("qkv",)))


def test_int8_rewrites_the_llama_type_and_leaves_its_norms() -> None:
    from reference_model.quantization.int8 import with_int8_linears

    made = with_int8_linears(llama(layers=1), "dequantize")
    roles = {part.name: part.role for part in parts_of(llama(layers=1))}
    assert {roles[name] for name in made.skipped} == {"norm"}
    assert made.replaced.keys() | made.skipped.keys() == roles.keys()


def test_another_type_of_model_has_no_parts_and_says_which_one_is_missing() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert parts_of(model) == []
    with pytest.raises(UserError, match="Sequential has no module that is known as its embedding"):
        parts_with(model, "embedding")


def test_a_name_tells_the_roles_of_a_linear() -> None:
    assert roles_by_name("base_model.model.transformer.h.3.mlp.c_proj") == ("mlp_out",)
    assert roles_by_name("h.3.attn.c_attn") == ("query", "key", "value")
    assert roles_by_name("my_mlp.c_projection") == ()
