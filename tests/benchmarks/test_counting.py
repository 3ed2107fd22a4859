"""Counts are exact: known for products made by hand, and equal to the closed forms of the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.instruments.counting import Counts, count, counted_parameters, kernel_launches
from benchmarks.instruments.flops import FORMULAS
from benchmarks.instruments.readings import Reading, Unavailable
from reference_model.cache import KVCache
from reference_model.config import GPTConfig, preset
from reference_model.costs import forward_flops, parameter_count, read_weight_bytes
from reference_model.generate import generate
from reference_model.linear import plain_products
from reference_model.model import GPT

SMALL = {"vocab_size": 61, "context_length": 64, "n_layer": 3, "n_head": 2, "n_embd": 16}
CHOICES: list[dict[str, object]] = [
    *({"position": position} for position in ("learned", "sinusoidal", "rope", "alibi", "none")),
    *({"norm_placement": placement} for placement in ("post", "double", "deepnorm")),
    {"norm": "rmsnorm"},
    {"head": "untied"},
    {"bias": False},
]


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def model_of(**choices: object) -> GPT:
    return GPT(GPTConfig(**{**SMALL, **choices})).eval()


# ---- known answers


def test_an_empty_call_counts_nothing() -> None:
    assert count(lambda: None) == Counts({}, {}, 0, 0)


PRODUCTS: dict[str, tuple[Callable[[], Tensor], int]] = {
    "mm": (lambda: torch.ones(3, 5) @ torch.ones(5, 7), 2 * 3 * 5 * 7),
    "mv": (lambda: torch.mv(torch.ones(3, 5), torch.ones(5)), 2 * 3 * 5),
    "bmm": (lambda: torch.bmm(torch.ones(2, 3, 5), torch.ones(2, 5, 7)), 2 * 2 * 3 * 5 * 7),
    "addmm in place": (
        lambda: torch.ones(3, 7).addmm_(torch.ones(3, 5), torch.ones(5, 7)),
        2 * 3 * 5 * 7,
    ),
    "linear": (lambda: F.linear(torch.ones(2, 3, 5), torch.ones(7, 5), torch.ones(7)), 420),
    "int8": (
        lambda: torch._int_mm(
            torch.ones(32, 64, dtype=torch.int8), torch.ones(64, 16, dtype=torch.int8)
        ),
        2 * 32 * 64 * 16,
    ),
    "onednn": (
        lambda: torch.ops.mkldnn._linear_pointwise(
            torch.ones(1, 3, 5), torch.ones(7, 5), None, "none", [], ""
        ),
        2 * 3 * 5 * 7,
    ),
    # 2 heads, 3 queries, 5 keys, 4 wide: the full rectangle, also where it is causal.
    "attention": (
        lambda: F.scaled_dot_product_attention(
            torch.ones(1, 2, 3, 4), torch.ones(1, 2, 5, 4), torch.ones(1, 2, 5, 4)
        ),
        2 * (2 * 2 * 3 * 5 * 4),
    ),
    "causal attention": (
        lambda: F.scaled_dot_product_attention(
            *(torch.ones(1, 2, 5, 4) for _ in range(3)), is_causal=True
        ),
        2 * (2 * 2 * 5 * 5 * 4),
    ),
    "no product": (lambda: torch.ones(3).exp() + 1, 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_made_by_hand_has_its_flops(name: str) -> None:
    function, flops = PRODUCTS[name]
    assert count(function).flops == flops


def test_a_product_whose_flops_are_not_known_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FORMULAS, "aten::_int_mm")
    with pytest.raises(ValueError, match="aten::_int_mm may multiply matrices, and its FLOPs"):
        count(PRODUCTS["int8"][0])


def test_bytes_are_those_given_and_those_written() -> None:
    x, y = torch.ones(3, 5), torch.ones(5, 7)
    counts = count(lambda: x @ y)
    assert (counts.bytes_in, counts.bytes_out) == (4 * (15 + 35), 4 * 21)
    assert counts.by_operator == {"aten::mm": 1}


def test_views_move_nothing_and_still_are_operators() -> None:
    x = torch.ones(4, 6)
    counts = count(lambda: x.T[1:3].unsqueeze(0))
    assert (counts.bytes_in, counts.bytes_out) == (0, 0)
    assert counts.operators == 3


def test_what_is_repeated_without_being_copied_is_read_once() -> None:
    x = torch.ones(1, 6).expand(100, 6)
    assert count(lambda: x.sum()).bytes_in == 6 * 4


def test_a_copy_in_place_reads_its_source_and_writes_its_target() -> None:
    target, source = torch.zeros(8), torch.ones(8, dtype=torch.float64)
    counts = count(lambda: target.copy_(source))
    assert (counts.bytes_in, counts.bytes_out) == (64, 32)


def test_a_table_that_is_looked_up_counts_the_rows_that_were_asked_for() -> None:
    table, rows = torch.ones(1000, 8), torch.tensor([3, 5])
    counts = count(lambda: F.embedding(rows, table))
    assert (counts.bytes_in, counts.bytes_out) == (2 * 8 * 4 + 2 * 8, 2 * 8 * 4)


@pytest.mark.parametrize("inference", [True, False])
def test_counts_do_not_depend_on_the_mode(inference: bool) -> None:
    model = model_of()
    with torch.inference_mode(inference), torch.no_grad():
        # The kernel for one row is chosen by what gradients need: plain products are the same.
        tokens = torch.zeros(1, 5, dtype=torch.int64)
        counts = count(lambda: model(tokens))
    assert counts.flops == forward_flops(model.config, 5).total
    assert counts.by_operator["aten::addmm"] == 4 * 3


# ---- the model


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize(("past", "new"), [(0, 1), (0, 7), (9, 1), (9, 4)])
def test_counted_flops_are_those_of_the_closed_form(
    choices: dict[str, object], past: int, new: int
) -> None:
    model = model_of(**choices)
    cache = KVCache(model.config, 2, 32)
    if past:
        model(torch.zeros(2, past, dtype=torch.int64), cache)
    tokens = torch.zeros(2, new, dtype=torch.int64)
    for last_only in (False, True):
        lengths = list(cache._lengths)
        counts = count(partial(model, tokens, cache, last_only))
        cache._lengths = lengths
        law = forward_flops(model.config, new, past, last_only=last_only)
        assert counts.flops == 2 * law.total
        # A bias for each head has no fused operator on a CPU: PyTorch writes it out as products.
        fused = choices.get("position") != "alibi"
        assert counts.attention_flops == (2 * law.attention if fused else 0)


def test_the_fused_attention_counts_what_its_parts_count() -> None:
    # A second witness: written out as two products, PyTorch's own formulas count it.
    model = model_of()
    tokens = torch.zeros(1, 11, dtype=torch.int64)
    fused = count(lambda: model(tokens))
    with sdpa_kernel(SDPBackend.MATH):
        written_out = count(lambda: model(tokens))
    assert written_out.attention_flops == 0
    assert written_out.flops == fused.flops


def test_executed_flops_are_the_rectangle_and_useful_ones_the_triangle() -> None:
    config, T = GPTConfig(**SMALL), 10
    counted = count(lambda: model_of()(torch.zeros(1, T, dtype=torch.int64)))
    executed = forward_flops(config, T, attention="executed")
    useful = forward_flops(config, T, attention="useful")
    assert counted.attention_flops == executed.attention
    assert useful.attention * T * T == executed.attention * T * (T + 1) // 2
    assert useful.total < counted.flops


def test_a_large_model_counts_the_same_by_either_product() -> None:
    model = GPT(preset("reference")).eval()
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    fast = count(lambda: model(tokens))
    with plain_products():
        plain = count(lambda: model(tokens))
    assert fast.flops == plain.flops == forward_flops(model.config, 3).total
    assert "mkldnn::_linear_pointwise" in fast.by_operator
    assert "mkldnn::_linear_pointwise" not in plain.by_operator


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_a_decode_step_is_given_every_weight_once(head: str) -> None:
    """What else is read does not depend on how many weights there are."""
    given = {}
    for vocabulary in (61, 1061):
        model = model_of(head=head, vocab_size=vocabulary)
        token = torch.zeros(1, 1, dtype=torch.int64)
        weights = read_weight_bytes(model.config)
        given[vocabulary] = count(lambda m=model, t=token: m(t)).bytes_in - weights
    assert given[61] == given[1061]


def test_a_cached_run_needs_fewer_operators_than_twice_an_uncached_one() -> None:
    model, prompt = model_of(), torch.zeros(1, 4, dtype=torch.int64)
    cached, uncached = (
        count(lambda use=use: generate(model, prompt, 6, use_cache=use)) for use in (True, False)
    )
    assert cached.flops < uncached.flops / 3
    assert uncached.operators < cached.operators < 2 * uncached.operators


@pytest.mark.parametrize("name", ["toy", "gpt2", "gpt2-xl"])
def test_counted_parameters_are_those_of_the_closed_form(name: str) -> None:
    assert counted_parameters(preset(name)) == parameter_count(preset(name))


def test_launches_are_counted_on_a_gpu_and_have_a_reason_elsewhere() -> None:
    if torch.cuda.is_available():
        x = torch.ones(4, device="cuda")
        assert kernel_launches(lambda: x.exp().log()) == Reading(2, "launches", "torch profiler")
    else:
        found = kernel_launches(lambda: None)
        assert isinstance(found, Unavailable)
        assert "no usable CUDA device" in found.reason
