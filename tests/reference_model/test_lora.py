"""Adapters: what they add, where, and that the model comes back as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reference_model.config import preset
from reference_model.costs import LoRATarget, lora_parameters
from reference_model.errors import UserError
from reference_model.generate import generate
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
from reference_model.model import GPT
from reference_model.quantization.int8 import with_int8_linears
from tests.reference_model.tiny import TOKENS, adapted

ALL: tuple[LoRATarget, ...] = (
    "query",
    "key",
    "value",
    "attention_output",
    "mlp_in",
    "mlp_out",
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("scaling", "scale"), [("lora", 12 / 9), ("rslora", 12 / 3), ("constant", 12.0)]
)
def test_the_scale_follows_the_law(scaling: Any, scale: float) -> None:
    assert LoRAConfig(rank=9, alpha=12.0, scaling=scaling).scale == scale


@pytest.mark.parametrize("scaling", ["lora", "rslora", "constant"])
def test_an_adapted_linear_is_the_textbooks(scaling: Any) -> None:
    base = nn.Linear(7, 5).double()
    config = LoRAConfig(rank=3, scaling=scaling, init_b="gaussian")
    linear = LoRALinear(base, config, generator=seeded())
    (part,) = linear.parts
    x = torch.randn(2, 4, 7, dtype=torch.float64, generator=seeded(1))
    expected = base(x) + config.scale * (x @ part.A.T @ part.B.T)
    torch.testing.assert_close(linear(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("targets", [("query",), ("key",), ("value", "query"), ("qkv",), ALL])
def test_an_adapted_model_is_one_with_changed_weights(
    tiny_model: Callable[..., GPT], targets: tuple[LoRATarget, ...]
) -> None:
    model = adapted(tiny_model(), targets=targets)
    changed = tiny_model()
    for name, linear in lora_linears(model).items():
        changed.get_submodule(name).get_parameter("weight").data += linear.delta_weight()
    difference = (model(TOKENS) - tiny_model()(TOKENS)).abs().max()
    assert difference > 0.1
    torch.testing.assert_close(model(TOKENS), changed(TOKENS), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("target", "part"), [("query", 0), ("key", 1), ("value", 2)])
def test_a_part_of_the_fused_projection_is_adapted_alone(
    tiny_model: Callable[..., GPT], target: LoRATarget, part: int
) -> None:
    model = adapted(tiny_model(), targets=(target,))
    linear = lora_linears(model)["h.0.attn.c_attn"]
    changed = [bool(rows.any()) for rows in linear.delta_weight().split(16)]
    assert changed == [index == part for index in range(3)]


@pytest.mark.parametrize("init_a", ["kaiming_uniform", "gaussian", "peft_gaussian"])
def test_fresh_adapters_leave_the_model_as_it_was(
    tiny_model: Callable[..., GPT], init_a: Any
) -> None:
    model = tiny_model()
    before = model(TOKENS)
    add_adapters(model, LoRAConfig(rank=4, targets=ALL, init_a=init_a), seeded())
    assert torch.equal(model(TOKENS), before)


@pytest.mark.parametrize(
    ("init_a", "deviation"),
    [("kaiming_uniform", (3 * 300) ** -0.5), ("gaussian", 300**-0.5), ("peft_gaussian", 1 / 50)],
)
def test_entries_of_a_are_drawn_as_told(init_a: Any, deviation: float) -> None:
    linear = LoRALinear(
        nn.Linear(300, 200), LoRAConfig(50, init_a=init_a, init_b="gaussian"), generator=seeded()
    )
    a, b = linear.parts[0].A, linear.parts[0].B
    # 15,000 and 10,000 entries: a deviation is known to 0.7 %; the widest is five of these.
    assert float(a.detach().std()) == pytest.approx(deviation, rel=0.035)
    assert float(b.detach().std()) == pytest.approx(200**-0.5, rel=0.035)
    bounded = bool((a.abs() <= 300**-0.5).all())
    assert bounded == (init_a == "kaiming_uniform")


def test_the_same_generator_draws_the_same_adapters(tiny_model: Callable[..., GPT]) -> None:
    first, second = adapted(tiny_model()), adapted(tiny_model())
    pairs = zip(adapter_parameters(first), adapter_parameters(second), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    a = [linear.parts[0].A for linear in lora_linears(first).values()]
    assert not torch.equal(a[0], a[1])


@pytest.mark.parametrize("targets", [("query", "value"), ("qkv", "mlp_out"), ALL])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_only_adapters_are_trained_and_as_many_as_the_closed_form_has(
    tiny_model: Callable[..., GPT], targets: tuple[LoRATarget, ...], head: str
) -> None:
    model = adapted(tiny_model(head=head), targets=targets)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == lora_parameters(model.config, 3, targets)
    assert {id(p) for p in trained} == {id(p) for p in adapter_parameters(model)}
    model(TOKENS).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in trained)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_gradients_are_those_of_the_update_written_out(tiny_model: Callable[..., GPT]) -> None:
    model = adapted(tiny_model(), scaling="rslora")
    model(TOKENS).square().mean().backward()
    plain = tiny_model()
    for name, linear in lora_linears(model).items():
        plain.get_submodule(name).get_parameter("weight").data += linear.delta_weight()
    plain(TOKENS).square().mean().backward()
    for name, linear in lora_linears(model).items():
        full = plain.get_submodule(name).get_parameter("weight").grad
        assert full is not None
        for part in linear.parts:
            g = linear.scale * full[part.outputs]  # ∂/∂(BA) of the slice
            torch.testing.assert_close(part.B.grad, g @ part.A.T, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(part.A.grad, part.B.T @ g, rtol=1e-9, atol=1e-12)


def test_the_tied_head_is_never_adapted(tiny_model: Callable[..., GPT]) -> None:
    model = adapted(tiny_model(), targets=ALL)
    assert model.lm_head.weight is model.wte.weight
    assert not any("lm_head" in name or "wte" in name for name in lora_linears(model))


def test_dropout_is_of_the_adapters_input_and_of_training_alone(
    tiny_model: Callable[..., GPT],
) -> None:
    model = adapted(tiny_model(), dropout=0.5)
    without = adapted(tiny_model())
    assert torch.equal(model(TOKENS), without(TOKENS))
    model.train()
    torch.manual_seed(0)
    first, second = model(TOKENS), model(TOKENS)
    assert not torch.allclose(first, second)
    for part in (p for linear in lora_linears(model).values() for p in linear.parts):
        part.B.data.zero_()
    assert torch.equal(model(TOKENS), tiny_model()(TOKENS))  # the base sees all of its input


# ---- merging


@pytest.mark.parametrize("targets", [("query", "value"), ("qkv",), ALL])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
def test_a_merged_adapter_gives_the_same_logits(
    tiny_model: Callable[..., GPT],
    targets: tuple[LoRATarget, ...],
    dtype: torch.dtype,
    most: float,
) -> None:
    model = adapted(tiny_model(dtype), targets=targets)
    beside = model(TOKENS)
    merge_adapters(model)
    torch.testing.assert_close(model(TOKENS), beside, rtol=0, atol=most)
    assert not torch.allclose(beside, tiny_model(dtype)(TOKENS), atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_unmerging_puts_the_weights_back_to_the_bit(
    tiny_model: Callable[..., GPT], dtype: torch.dtype
) -> None:
    model = adapted(tiny_model(dtype), targets=ALL)
    before, beside = copy.deepcopy(model.state_dict()), model(TOKENS)
    merge_adapters(model)
    merge_adapters(model)  # once is enough: nothing is added twice
    weight = "h.1.attn.c_attn.base.weight"
    assert not torch.equal(model.state_dict()[weight], before[weight])
    unmerge_adapters(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(TOKENS), beside)


def test_a_merged_model_stays_reversible_when_it_is_cast(tiny_model: Callable[..., GPT]) -> None:
    model = adapted(tiny_model(torch.float64))
    merge_adapters(model)
    model.float()
    unmerge_adapters(model)
    plain = tiny_model(torch.float64).float()
    remove_adapters(model)
    assert torch.equal(model(TOKENS), plain(TOKENS))


@pytest.mark.parametrize("merged", [False, True])
def test_removing_adapters_gives_the_plain_model_back(
    tiny_model: Callable[..., GPT], merged: bool
) -> None:
    model, plain = adapted(tiny_model(), targets=ALL), tiny_model()
    if merged:
        merge_adapters(model)
    remove_adapters(model)
    assert torch.equal(model(TOKENS), plain(TOKENS))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert add_adapters(model, LoRAConfig(rank=2)) == ["h.0.attn.c_attn", "h.1.attn.c_attn"]


def test_an_adapted_model_writes_the_tokens_of_the_merged_one(
    tiny_model: Callable[..., GPT],
) -> None:
    model = adapted(tiny_model(), targets=ALL)
    tokens = generate(model, TOKENS[:, :4], new_tokens=8)
    assert not torch.equal(tokens, generate(tiny_model(), TOKENS[:, :4], new_tokens=8))
    merge_adapters(model)
    assert torch.equal(tokens, generate(model, TOKENS[:, :4], new_tokens=8))


# ---- other bases


class Conv1D(nn.Module):
    """Transformers' linear, by its name and the shape of its weight."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


@pytest.mark.parametrize("slices", [None, (slice(0, 2), slice(3, 5))])
def test_a_transposed_weight_is_adapted_alike(slices: tuple[slice, ...] | None) -> None:
    plain = nn.Linear(7, 5).double()
    turned = Conv1D(plain.weight.detach().T.clone(), plain.bias.detach().clone())
    config = LoRAConfig(rank=3, init_b="gaussian")
    one = LoRALinear(plain, config, slices, seeded())
    other = LoRALinear(turned, config, slices, seeded())
    x = torch.randn(4, 7, dtype=torch.float64, generator=seeded(1))
    assert torch.equal(one.delta_weight(), other.delta_weight())
    torch.testing.assert_close(other(x), one(x), rtol=0, atol=1e-13)
    beside, before = other(x), turned.weight.detach().clone()
    other.merge()
    torch.testing.assert_close(other(x), beside, rtol=0, atol=1e-13)
    other.unmerge()
    assert torch.equal(turned.weight, before)


def test_an_int8_base_is_adapted_but_not_merged(tiny_model: Callable[..., GPT]) -> None:
    plain = tiny_model(torch.float32)
    model = with_int8_linears(plain, "dequantize").model
    before = model(TOKENS)
    add_adapters(model, LoRAConfig(rank=3, init_b="gaussian", targets=ALL), seeded())
    reference = with_int8_linears(plain, "dequantize").model
    add_adapters(reference, LoRAConfig(rank=3, targets=ALL), seeded())
    assert torch.equal(reference(TOKENS), before)
    assert not torch.allclose(model(TOKENS), before, atol=0.1)
    with pytest.raises(UserError, match=r"cannot be merged into Int8Linear.*before quantising"):
        merge_adapters(model)


def test_a_model_is_merged_as_a_whole_or_not_at_all(tiny_model: Callable[..., GPT]) -> None:
    def in_the_first_layer(name: str) -> str | None:
        return "stays in float" if name.startswith("h.0") else None

    model = with_int8_linears(
        tiny_model(torch.float32), "dequantize", skip=in_the_first_layer
    ).model
    add_adapters(model, LoRAConfig(rank=3, init_b="gaussian"), seeded())
    with pytest.raises(UserError, match="cannot be merged"):
        merge_adapters(model)
    assert not any(linear.merged for linear in lora_linears(model).values())


# ---- what is refused


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"rank": 0}, "rank=0 is not a rank; use a whole number"),
        ({"rank": 2.0}, "rank=2.0 is not a rank"),
        ({"alpha": 0}, "alpha=0 is no scale"),
        ({"alpha": float("nan")}, "alpha=nan is no scale"),
        ({"dropout": 1.0}, "dropout=1.0 is not a probability"),
        ({"scaling": "r"}, "scaling='r' is not a known choice; use one of lora, rslora, constant"),
        ({"init_a": "zero"}, "init_a='zero' is not a known choice"),
        ({"init_b": "kaiming_uniform"}, "init_b='kaiming_uniform' is not a known choice"),
        ({"targets": ()}, "names no linears"),
        ({"targets": "query"}, "names no linears"),
        ({"targets": ("lm_head",)}, "unknown LoRA target 'lm_head'; use one of query"),
        ({"targets": ("query", "query")}, "names one twice"),
        ({"targets": ("qkv", "value")}, "adapts a projection twice"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_line(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        LoRAConfig(**{"rank": 4, **choices})
    assert "\n" not in str(raised.value)


def test_adapters_are_not_put_upon_adapters(tiny_model: Callable[..., GPT]) -> None:
    with pytest.raises(UserError, match="has adapters already; remove them first"):
        add_adapters(adapted(tiny_model()), LoRAConfig(rank=2))


def test_a_model_without_the_targets_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match="Sequential has no module that is known as its query"):
        add_adapters(model, LoRAConfig(rank=2))
    assert all(p.requires_grad for p in model.parameters())


def test_what_is_no_linear_is_refused() -> None:
    with pytest.raises(UserError, match="an adapter needs a linear, received LayerNorm"):
        LoRALinear(nn.LayerNorm(4), LoRAConfig(rank=2))


@pytest.mark.parametrize("rewrite", [merge_adapters, unmerge_adapters, remove_adapters])
def test_a_model_without_adapters_has_none_to_merge(
    tiny_model: Callable[..., GPT], rewrite: Callable[[nn.Module], None]
) -> None:
    with pytest.raises(UserError, match="GPT has no adapters; add or load some first"):
        rewrite(tiny_model())


def test_a_model_without_memory_is_adapted_too() -> None:
    with torch.device("meta"):
        model = GPT(preset("gpt2"))
        add_adapters(model, LoRAConfig(rank=8))
    assert sum(p.numel() for p in adapter_parameters(model)) == 294_912
    assert all(p.is_meta for p in adapter_parameters(model))


def test_what_is_computed_without_gradients_is_what_is_computed_with_them() -> None:
    config = LoRAConfig(3, init_b="gaussian", scaling="rslora")
    for slices in (None, (slice(8, 12), slice(0, 4))):  # with gaps, and in any order
        linear = LoRALinear(nn.Linear(6, 12), config, slices)
        x = torch.randn(5, 6)
        with torch.no_grad():
            expected = linear(x)
        assert torch.allclose(linear(x), expected, atol=1e-6)
        assert torch.allclose(expected, linear.base(x) + x @ linear.delta_weight().T, atol=1e-5)


def test_the_output_can_be_hooked_and_its_gradient_is_that_of_the_sum() -> None:
    linear = LoRALinear(nn.Linear(6, 12), LoRAConfig(3, init_b="gaussian"), (slice(4, 8),))
    seen = []
    y = linear(torch.randn(5, 6))
    y.register_hook(seen.append)
    y.sum().backward()
    assert torch.equal(seen[0], torch.ones(5, 12))
    assert linear.parts[0].B.grad is not None
