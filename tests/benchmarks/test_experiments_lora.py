"""LoRA: exact shares, and variance laws told from wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.claims import load_claims
from benchmarks.experiment import Settings
from benchmarks.experiments import lora
from benchmarks.results import Measurement
from benchmarks.verdicts import judge_claim
from reference_model.config import preset
from reference_model.model import GPT

SMOKE = Settings("smoke", "cpu", seed=0)


def verdict(claim: str, measurements: list[Measurement]) -> str:
    (found,) = (entry for entry in load_claims() if entry.id == claim)
    return judge_claim(found, measurements)[0].verdict


@pytest.fixture(scope="module")
def models() -> dict[str, GPT]:
    with torch.device("meta"):
        return {head: GPT(preset("gpt2", head=head)) for head in ("tied", "untied")}


@pytest.fixture(scope="module")
def shares() -> list[Measurement]:
    return lora.trainable_share(SMOKE)


@pytest.fixture(scope="module")
def points() -> list[lora.VarianceAtRank]:
    return lora.variances("gaussian", lora.PRECISION["smoke"], seed=2)


@pytest.fixture(scope="module")
def products() -> list[Measurement]:
    return lora.product_variance(SMOKE)


@pytest.fixture(scope="module")
def updates() -> list[Measurement]:
    return lora.update_variance(SMOKE)


def the(measurements: list[Measurement], metric: str, **labels: object) -> Measurement:
    (found,) = (
        m
        for m in measurements
        if m.metric == metric and all(m.labels[key] == value for key, value in labels.items())
    )
    return found


# ---- lora.trainable-share


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("query,value", {"query", "value"}),
        ("all attention", {"query", "key", "value", "attn.c_proj"}),
        ("all linears", {"query", "key", "value", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}),
    ],
)
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_the_share_is_that_of_adapters_counted_on_the_built_model(
    shares: list[Measurement], models: dict[str, GPT], targets: str, names: set[str], head: str
) -> None:
    model, rank, adapters = models[head], 8, 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if name.endswith("c_attn"):  # query, key and value: three matrices in one
            each = module.in_features + module.out_features // 3
            adapters += rank * each * len(names & {"query", "key", "value"})
        elif any(name.endswith(wanted) for wanted in names):
            adapters += rank * (module.in_features + module.out_features)
    total = sum(p.numel() for p in model.parameters())
    measured = the(shares, "trainable_share", rank=rank, targets=targets, head=head)
    assert measured.value == 100 * adapters / total
    assert measured.interval is None


def test_the_quoted_share_holds_for_the_untied_model_only(shares: list[Measurement]) -> None:
    untied = the(shares, "trainable_share", rank=8, targets="query,value", head="untied")
    assert untied.value == 100 * 294_912 / 163_037_184
    assert verdict("lora.trainable-share", shares) == "depends"


# ---- the estimator


def test_the_squared_norm_of_a_product_needs_no_product() -> None:
    generator = np.random.default_rng(0)
    b, a = generator.standard_normal((7, 3)), generator.standard_normal((3, 5))
    assert lora.mean_square_of_product(b, a) == pytest.approx(((b @ a) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 20])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_the_closed_form_of_the_estimators_variance_is_what_replicas_show(
    rank: int, kind: str
) -> None:
    d, n, replicas = 6, 9, 40_000
    generator = np.random.default_rng(1)
    b = generator.standard_normal((replicas, d, rank))
    shape = (replicas, rank, n)
    uniform = kind == "uniform"
    a = generator.uniform(-1, 1, shape) if uniform else generator.standard_normal(shape)
    squares = ((b @ a) ** 2).sum(axis=(1, 2))
    observed = squares.var() / squares.mean() ** 2
    closed = lora.relative_variance(d, n, rank, kurtosis_a=1.8 if uniform else 3.0, kurtosis_b=3.0)
    # Some four standard errors: these sums have longer tails than a Gaussian.
    assert observed == pytest.approx(closed, rel=0.06)


def test_entries_of_a_product_are_not_independent() -> None:
    # Taking the d·n entries for independent observations would claim a far too narrow interval.
    independent = 2 / (lora.WIDTH * lora.WIDTH)
    assert lora.relative_variance(lora.WIDTH, lora.WIDTH, 1, 3.0, 3.0) > 1000 * independent


def test_uniform_entries_have_the_deviation_and_kurtosis_that_are_told() -> None:
    entries = lora.uniform_entries(0.5)
    drawn = entries.draw(np.random.default_rng(0), 1, 400, 500)
    assert drawn.std() == pytest.approx(entries.deviation(1), rel=0.01)
    assert (drawn**4).mean() / drawn.var() ** 2 == pytest.approx(entries.kurtosis, rel=0.01)
    assert np.abs(drawn).max() <= 0.5


# ---- lora.product-variance


def test_the_product_of_gaussians_follows_the_law(products: list[Measurement]) -> None:
    assert verdict("lora.product-variance", products) == "confirmed"
    low, high = the(products, "product_variance_exponent").interval or (math.nan, math.nan)
    assert low < 1 < high
    assert high - low < 0.04
    for rank in lora.RANKS:
        low, high = the(products, "product_variance_ratio", rank=rank).interval or (0, 0)
        assert low < 1 < high
        assert high - low < 0.02


def test_a_replica_is_one_observation(products: list[Measurement]) -> None:
    observations = [the(products, "variance", rank=rank).n for rank in lora.RANKS]
    assert observations == sorted(observations, reverse=True)
    assert observations[-1] == lora.LEAST_REPLICAS


def test_another_seed_gives_other_numbers_and_the_same_verdict() -> None:
    others = lora.product_variance(Settings("smoke", "cpu", seed=1))
    assert verdict("lora.product-variance", others) == "confirmed"


# ---- lora.update-variance


def test_both_scalings_follow_their_law_for_both_distributions(updates: list[Measurement]) -> None:
    assert verdict("lora.update-variance", updates) == "confirmed"
    judged = [m for m in updates if m.metric == "update_variance_exponent"]
    assert {(m.option, m.parameters["a"]) for m in judged} == {
        (option, a)
        for option in ("alpha/r", "alpha/sqrt(r)")
        for a in ("gaussian", "kaiming_uniform")
    }


@pytest.mark.parametrize(("scaling", "expected"), [("alpha/r", -3), ("alpha/sqrt(r)", -2)])
def test_a_deviation_of_one_over_the_rank_changes_the_exponent(
    updates: list[Measurement], scaling: str, expected: int
) -> None:
    exponent = the(updates, "exponent_with_rank_dependent_init", option=scaling, a="peft_gaussian")
    assert exponent.value == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("wrong", "refuted"),
    [
        (lambda rank: lora.ALPHA / rank**0.6, True),
        (lambda rank: lora.ALPHA / rank**0.515, True),
        (lambda rank: lora.ALPHA / rank**0.5, False),
        (lambda rank: 3.0 / rank**0.5, False),  # another α is not another law
    ],
)
def test_a_wrong_scaling_is_told_from_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
    points: list[lora.VarianceAtRank],
    wrong: Callable[[int], float],
    refuted: bool,
) -> None:
    monkeypatch.setattr(lora, "SCALINGS", {**lora.SCALINGS, "alpha/sqrt(r)": wrong})
    monkeypatch.setattr(lora, "variances", lambda kind, precision, seed: points)
    measured = lora.update_variance(SMOKE)
    assert verdict("lora.update-variance", measured) == ("refuted" if refuted else "confirmed")
