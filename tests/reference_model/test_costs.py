"""Closed forms against what is counted while the model runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from reference_model.cache import KVCache
from reference_model.config import GPTConfig, Head, preset
from reference_model.costs import (
    forward_flops,
    generation_flops,
    kv_cache_bytes,
    kv_row_projections,
    lora_parameters,
    parameter_count,
    parameters_by_part,
    read_weight_bytes,
    weight_bytes,
)
from reference_model.errors import UserError
from reference_model.generate import generate
from reference_model.model import GPT

# ---- FLOPs


def counted_flops(model: GPT, new_tokens: int, past: int, last_only: bool) -> int:
    """What PyTorch counts with attention as two plain matrix products."""
    tokens = torch.zeros(1, past + new_tokens, dtype=torch.long)
    cache = KVCache(model.config, 1, past + new_tokens, torch.float64) if past else None
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        if past:
            model(tokens[:, :past], cache)
        with counter:
            model(tokens[:, past:], cache, last_only=last_only)
    return counter.get_total_flops()


@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize(("new_tokens", "past"), [(1, 0), (7, 0), (1, 6), (4, 3)])
@pytest.mark.parametrize(
    "choices",
    [
        {"position": "learned"},
        {"position": "rope", "n_kv_head": 1, "d_head": 6},
        {"position": "alibi", "mlp": "swiglu"},
    ],
    ids=lambda choices: choices["position"],
)
def test_flops_equal_those_that_are_counted(
    tiny_model: Callable[..., GPT],
    choices: dict[str, object],
    new_tokens: int,
    past: int,
    last_only: bool,
) -> None:
    model = tiny_model(**choices)
    expected = forward_flops(model.config, new_tokens, past, last_only=last_only)
    assert counted_flops(model, new_tokens, past, last_only) == expected.total


def test_flops_of_every_part_equal_two_for_each_multiplication() -> None:
    config = GPTConfig(vocab_size=11, n_layer=3, n_head=2, n_embd=6)
    flops = forward_flops(config, 4, 5)
    C, T, S = 6, 4, 9
    assert flops.projections == 3 * 2 * T * (C * 3 * C + C * C)
    assert flops.mlp == 3 * 2 * T * (C * 4 * C + 4 * C * C)
    assert flops.attention == 3 * 2 * (T * S * C + T * S * C)
    assert flops.head == 2 * T * C * 11
    assert flops.total == flops.projections + flops.mlp + flops.attention + flops.head


@pytest.mark.parametrize(("new_tokens", "past"), [(1, 0), (5, 0), (1, 9), (4, 3)])
def test_useful_attention_counts_the_pairs_that_causality_leaves(
    new_tokens: int, past: int
) -> None:
    config = GPTConfig(vocab_size=11, n_layer=2, n_head=2, n_embd=6)
    pairs = sum(
        key <= query for query in range(past, past + new_tokens) for key in range(past + new_tokens)
    )
    flops = forward_flops(config, new_tokens, past, attention="useful")
    assert flops.attention == 2 * 2 * (2 * 6) * pairs
    assert flops.mlp == forward_flops(config, new_tokens, past).mlp


# ---- rows of keys and values


@pytest.mark.parametrize("use_cache", [True, False])
def test_key_rows_equal_those_that_a_layer_computes(
    tiny_model: Callable[..., GPT], use_cache: bool
) -> None:
    model = tiny_model()
    rows: list[int] = []
    model.h[1].attn.c_attn.register_forward_hook(lambda m, i, out: rows.append(out.shape[1]))
    generate(model, torch.ones(1, 3, dtype=torch.long), 6, use_cache=use_cache)
    assert rows == kv_row_projections(3, 6, use_cache=use_cache)


@pytest.mark.K7
@pytest.mark.parametrize("use_cache", [True, False])
def test_there_is_one_number_of_rows_for_each_new_token(use_cache: bool) -> None:
    for new in range(3):
        rows = kv_row_projections(4, new, use_cache=use_cache)
        assert rows == [4, 1 if use_cache else 5][:new]


def test_fifteen_tokens_from_one_compute_120_rows_without_a_cache_and_15_with() -> None:
    without = kv_row_projections(1, 15, use_cache=False)
    with_cache = kv_row_projections(1, 15, use_cache=True)
    assert (sum(without), sum(with_cache)) == (120, 15)
    assert (without[-1], with_cache[-1]) == (15, 1)


# ---- bytes and parameters


def test_a_cache_of_32_layers_32000_tokens_and_width_4096_takes_16_8_gigabytes() -> None:
    config = GPTConfig(n_layer=32, n_embd=4096, n_head=32)
    assert kv_cache_bytes(config, 32_000, bytes_per_value=2) == 16_777_216_000
    assert kv_cache_bytes(config, 32_000) == 33_554_432_000
    assert kv_cache_bytes(config, 32_000, batch_size=3, bytes_per_value=2) == 3 * 16_777_216_000


def test_weights_take_as_many_bytes_as_the_parameters_hold(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32)
    assert weight_bytes(model.config) == sum(p.nbytes for p in model.parameters())
    assert weight_bytes(model.config, 2) == sum(p.nbytes for p in model.half().parameters())


def test_the_parts_of_gpt2_have_their_known_sizes() -> None:
    parts = parameters_by_part(preset("gpt2"))
    assert parts["token embedding"] == 38_597_376
    assert parts["positions"] == 786_432
    assert parts["norms"] == 38_400
    assert parts["head"] == 0
    assert sum(parts.values()) == parameter_count(preset("gpt2"))
    assert parameter_count(preset("gpt2", head="untied")) == 163_037_184


def test_rank_8_on_query_and_value_of_gpt2_trains_294912_parameters() -> None:
    assert lora_parameters(preset("gpt2"), 8, ["query", "value"]) == 294_912


def test_adapters_take_rank_times_the_two_sides_of_each_matrix(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model()
    sides = {
        "query": (16, 16),
        "key": (16, 16),
        "value": (16, 16),
        "attention_output": model.h[0].attn.c_proj.weight.shape,
        "mlp_in": model.h[0].mlp.c_fc.weight.shape,
        "mlp_out": model.h[0].mlp.c_proj.weight.shape,
    }
    for target, (rows, columns) in sides.items():
        assert lora_parameters(model.config, 3, [target]) == 2 * 3 * (rows + columns)
    every = lora_parameters(model.config, 3, sides)
    assert every == sum(lora_parameters(model.config, 3, [target]) for target in sides)


def test_an_unknown_adapter_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'q_proj'; use one of query, key, value, qkv, att"):
        lora_parameters(preset("gpt2"), 8, ["q_proj"])


# ---- a whole generation


def test_the_flops_of_a_run_are_those_of_the_steps_that_are_taken() -> None:
    """What linears multiply, seen by hooks; attention is summed by hand."""
    model = GPT(GPTConfig(vocab_size=64, context_length=32, n_layer=2, n_head=2, n_embd=32))
    multiplied: list[int] = []

    def count(linear: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        multiplied.append(2 * inputs[0].numel() * output.shape[-1])

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    for use_cache, pairs in ((True, 2 * 2 + 3 + 4), (False, 2 * 2 + 3 * 3 + 4 * 4)):
        multiplied.clear()
        generate(model, torch.zeros(1, 2, dtype=torch.int64), 3, use_cache=use_cache)
        flops = generation_flops(model.config, 2, 3, use_cache=use_cache)
        assert flops == sum(multiplied) + 2 * 4 * 32 * pairs


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_a_step_reads_every_weight_but_the_tables_it_looks_up(head: Head) -> None:
    config = preset("gpt2", head=head)
    assert read_weight_bytes(config) == 4 * (124_439_808 - 1024 * 768)
