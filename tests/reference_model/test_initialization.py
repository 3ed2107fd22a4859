"""Every scheme draws the spread that its source asks for.

The standard deviation of n normal draws is off by σ/√(2n), their mean by σ/√n, their kurtosis by
√(24/n). Tolerances are five times that: a sound draw fails once in 1.7 million.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.model import GPT

LAYERS, WIDTH = 6, 64


def model_with(initialization: str, **choices: object) -> GPT:
    config = GPTConfig(
        vocab_size=300,
        context_length=80,
        n_layer=LAYERS,
        n_head=2,
        n_embd=WIDTH,
        initialization=initialization,
        **choices,
    )
    return GPT(config)


def assert_normal(weight: Tensor, std: float) -> None:
    draws, n = weight.detach().double().flatten(), weight.numel()
    assert n > 3000
    assert abs(float(draws.mean())) < 5 * std / math.sqrt(n)
    assert float(draws.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * n))
    kurtosis = float(((draws - draws.mean()) / draws.std()).pow(4).mean())
    assert kurtosis == pytest.approx(3, abs=5 * math.sqrt(24 / n))  # 1.8 if it were uniform


def xavier(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


def expected_stds(scheme: str) -> dict[str, float]:
    """Standard deviation of every matrix of a block; query, key and value stand apart."""
    if scheme == "gpt2":
        residual = 0.02 / math.sqrt(2 * LAYERS)
        return {
            **dict.fromkeys(("query", "key", "value", "mlp.c_fc"), 0.02),
            **dict.fromkeys(("attn.c_proj", "mlp.c_proj"), residual),
        }
    gain = (8 * LAYERS) ** -0.25 if scheme == "deepnorm" else 1.0
    square, oblong = xavier(WIDTH, WIDTH), xavier(WIDTH, 4 * WIDTH)
    return {
        "query": square,
        "key": square,
        "value": gain * square,
        "attn.c_proj": gain * square,
        "mlp.c_fc": gain * oblong,
        "mlp.c_proj": gain * oblong,
    }


@pytest.mark.parametrize("scheme", ["gpt2", "xavier", "deepnorm"])
def test_every_matrix_has_the_spread_of_its_scheme(scheme: str) -> None:
    model = model_with(scheme)
    expected = expected_stds(scheme)
    for block in model.h:
        query, key, value = block.attn.c_attn.weight.split(WIDTH)
        assert_normal(query, expected["query"])
        assert_normal(key, expected["key"])
        assert_normal(value, expected["value"])
        assert_normal(block.attn.c_proj.weight, expected["attn.c_proj"])
        assert_normal(block.mlp.c_fc.weight, expected["mlp.c_fc"])
        assert_normal(block.mlp.c_proj.weight, expected["mlp.c_proj"])


@pytest.mark.parametrize("scheme", ["gpt2", "xavier", "deepnorm"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_embeddings_and_head_have_the_spread_of_gpt2_in_every_scheme(
    scheme: str, head: str
) -> None:
    model = model_with(scheme, head=head)
    for weight in (model.wte.weight, model.wpe.weight, model.lm_head.weight):
        assert_normal(weight, 0.02)
    assert (model.lm_head.weight is model.wte.weight) == (head == "tied")


@pytest.mark.parametrize(
    ("placement", "stands_for"),
    [("pre", "gpt2"), ("post", "gpt2"), ("double", "gpt2"), ("deepnorm", "deepnorm")],
)
def test_by_default_the_placement_of_the_norm_decides_the_scheme(
    placement: str, stands_for: str
) -> None:
    torch.manual_seed(3)
    default = model_with("placement", norm_placement=placement)
    torch.manual_seed(3)
    named = model_with(stands_for, norm_placement=placement)
    assert default.config.initialization_in_force == stands_for
    for one, other in zip(default.parameters(), named.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("scheme", ["gpt2", "xavier", "deepnorm"])
def test_drawing_anew_sets_biases_to_zero_and_norms_to_one(scheme: str, norm: str) -> None:
    model = model_with(scheme, norm=norm, norm_placement="double")
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    model.initialize()
    vectors = {name: p for name, p in model.named_parameters() if p.ndim == 1}
    for name, vector in vectors.items():
        is_gain = "ln_" in name and name.endswith("weight")
        assert (vector == (1.0 if is_gain else 0.0)).all(), name
    assert sum("ln_" in name for name in vectors) == (4 * LAYERS + 1) * (2 - (norm == "rmsnorm"))


def test_a_generator_reproduces_the_weights_and_leaves_the_global_one_alone() -> None:
    model = model_with("deepnorm", head="untied")

    def drawn(seed: int) -> list[Tensor]:
        model.initialize(torch.Generator().manual_seed(seed))
        return [parameter.clone() for parameter in model.parameters() if parameter.ndim == 2]

    before = torch.get_rng_state()
    first, other, again = drawn(1), drawn(2), drawn(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_new_model_draws_from_the_global_seed() -> None:
    torch.manual_seed(4)
    first = model_with("gpt2")
    other = model_with("gpt2")
    torch.manual_seed(4)
    again = model_with("gpt2")
    assert torch.equal(first.wte.weight, again.wte.weight)
    assert torch.equal(first.h[-1].mlp.c_proj.weight, again.h[-1].mlp.c_proj.weight)
    assert not torch.equal(first.wte.weight, other.wte.weight)


def named(model: GPT, seed: int) -> dict[str, Tensor]:
    model.initialize_by_name(seed)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "choices",
    [
        {"head": "untied"},
        {"position": "rope"},
        {"norm": "rmsnorm", "norm_placement": "double"},
        {"n_kv_head": 1},
        {"mlp": "swiglu"},
    ],
    ids=str,
)
def test_what_models_share_begins_with_the_same_values(choices: dict[str, object]) -> None:
    """Though an option adds or drops a matrix, and so draws more or fewer numbers."""
    plain, other = named(model_with("gpt2"), 5), named(model_with("gpt2", **choices), 5)
    shared = [n for n in plain if n in other and plain[n].shape == other[n].shape]
    assert {"wte.weight", "h.5.attn.c_proj.weight"} <= {*shared}
    assert all(torch.equal(plain[name], other[name]) for name in shared)
    assert not torch.equal(plain["h.0.mlp.c_proj.weight"], plain["h.1.mlp.c_proj.weight"])


@pytest.mark.parametrize("scheme", ["gpt2", "xavier", "deepnorm"])
def test_by_name_each_matrix_has_the_spread_that_it_has_in_order(scheme: str) -> None:
    model = model_with(scheme)
    in_order = {
        name: float(p.detach().std()) for name, p in model.named_parameters() if p.ndim == 2
    }
    found = named(model, 0)
    for name, spread in in_order.items():
        assert float(found[name].std()) == pytest.approx(spread, rel=0.05), name
    vectors = [p for n, p in found.items() if p.ndim == 1 and "ln_" not in n]
    assert all((p == 0).all() for p in vectors)


def test_another_seed_draws_other_values_and_the_same_one_the_same() -> None:
    model = model_with("deepnorm")
    first, other, again = (named(model, seed) for seed in (1, 2, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])
