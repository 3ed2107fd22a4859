"""LoRA: exact shares, and variance laws told from wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora import lesson as lora
from benchmarks.experiments.lora import share as lora_share
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
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
    return lora_share.trainable_share(SMOKE)


@pytest.fixture(scope="module")
def points() -> list[lora.VarianceAtRank]:
    return lora.variances("gaussian", lora.PRECISION["smoke"], seed=2)


@pytest.fixture(scope="module")
def products() -> list[Measurement]:
    return lora.product_variance(SMOKE)


@pytest.fixture(scope="module")
def updates() -> list[Measurement]:
    return lora.update_variance(SMOKE)


@pytest.fixture(scope="module")
def characteristics(updates: list[Measurement]) -> list[Measurement]:
    return [m for m in updates if m.choice == "law"]


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


@pytest.mark.parametrize(("d", "rank", "n"), [(7, 3, 5), (4, 9, 6), (1, 1, 1)])
def test_the_squared_norm_is_that_of_the_product_below_and_above_the_width(
    d: int, rank: int, n: int
) -> None:
    generator = np.random.default_rng(0)
    b = generator.standard_normal((2, d, rank)).astype(np.float32)
    a = generator.standard_normal((2, rank, n)).astype(np.float32)
    exact = ((b.astype(np.float64) @ a.astype(np.float64)) ** 2).sum(axis=(1, 2))
    assert lora.squared_norms_of_products(b, a) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("kind", lora.KINDS_OF_A)
def test_entries_have_variance_one_and_the_kurtosis_that_is_told(kind: str) -> None:
    entries = lora.KINDS_OF_A[kind]
    drawn = entries.unit(np.random.default_rng(0), (400, 500)).astype(np.float64)
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.var() == pytest.approx(1, rel=0.015)
    assert (drawn**4).mean() / drawn.var() ** 2 == pytest.approx(entries.kurtosis, rel=0.02)


def test_uniform_entries_stay_within_kaimings_bound() -> None:
    entries = lora.KINDS_OF_A["kaiming_uniform"]
    drawn = entries.unit(np.random.default_rng(0), (400, 500)) * entries.deviation(64, 3)
    assert 0.99 < np.abs(drawn).max() / 64**-0.5 <= 1 + 1e-6


# ---- lora.product-variance


def test_the_product_of_gaussians_follows_the_law(products: list[Measurement]) -> None:
    assert verdict("lora.product-variance", products) == "confirmed"
    for width in lora.WIDTHS["smoke"]:
        exponent = the(products, "product_variance_exponent", width=width)
        low, high = exponent.interval or (math.nan, math.nan)
        assert low < 1 < high
        assert high - low < 0.02
        for rank in lora.RANKS:
            ratio = the(products, "product_variance_ratio", rank=rank, width=width)
            low, high = ratio.interval or (math.nan, math.nan)
            assert low < 1 < high
            assert high - low < 0.02


def test_the_full_profiles_intervals_of_the_product_fit_into_half_a_percent() -> None:
    family = len(lora.RANKS) * len(lora.WIDTHS["full"])
    error = lora.PRECISION["full"]
    (low, high) = lora.VarianceAtRank(1, 1.0, 1.0, error, 4).ratio(family).interval
    # And as much again as three standard errors, by which the value itself may be off.
    assert max(high - 1, 1 - low) + 3 * error < 0.0051


def test_a_replica_is_one_observation(products: list[Measurement]) -> None:
    observations = [the(products, "variance", rank=rank, width=lora.WIDTH).n for rank in lora.RANKS]
    assert observations == sorted(observations, reverse=True)
    assert observations[-1] == lora.LEAST_REPLICAS


def test_another_seed_gives_other_numbers_and_the_same_verdict() -> None:
    others = lora.product_variance(Settings("smoke", "cpu", seed=1))
    assert verdict("lora.product-variance", others) == "confirmed"


# ---- lora.update-variance


def test_both_scalings_follow_their_law_for_both_distributions(updates: list[Measurement]) -> None:
    assert verdict("lora.update-variance", updates) == "confirmed"
    judged = [m for m in updates if m.metric == "update_variance_exponent"]
    assert {(m.option, m.parameters["a"], m.parameters["width"]) for m in judged} == {
        (option, a, width)
        for option in ("alpha/r", "alpha/sqrt(r)")
        for a in ("gaussian", "kaiming_uniform")
        for width in lora.WIDTHS["smoke"]
    }


@pytest.mark.parametrize("metric", ["difference_p_value", "equivalence_p_value"])
def test_each_judged_exponent_has_its_p_values(updates: list[Measurement], metric: str) -> None:
    judged = [m for m in updates if m.metric == "update_variance_exponent"]
    p_values = [m for m in updates if m.metric == metric]
    precision = lora.PRECISION_OF_UPDATES["smoke"]  # another sample has another p value
    assert [m.labels for m in p_values] == [{**m.labels, "precision": precision} for m in judged]
    if metric == "difference_p_value":
        assert min(m.value for m in p_values) > 0.01
    else:
        assert max(m.value for m in p_values) < 1e-6


def test_the_claim_stays_open_where_the_checks_do_not_see_a_wrong_law(
    updates: list[Measurement],
) -> None:
    blunt = [
        replace(m, value=0.9, interval=(0.88, 0.92)) if m.metric == "power" else m for m in updates
    ]
    assert verdict("lora.update-variance", blunt) == "open"


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
    characteristics: list[Measurement],
    wrong: Callable[[int], float],
    refuted: bool,
) -> None:
    monkeypatch.setattr(lora, "SCALINGS", {**lora.SCALINGS, "alpha/sqrt(r)": wrong})
    monkeypatch.setattr(lora, "variances", lambda kind, precision, seed, width: points)
    monkeypatch.setattr(
        lora,
        "operating_characteristics",
        lambda profile, seed, kind: [m for m in characteristics if m.parameters["a"] == kind],
    )
    measured = lora.update_variance(SMOKE)
    assert verdict("lora.update-variance", measured) == ("refuted" if refuted else "confirmed")


# ---- the history's numbers


def test_deviations_of_the_exponents_are_small_and_see_a_wrong_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lora, "RANKS", [1, 2, 4, 8, 16])
    deviations = lora.exponent_deviations(precision=0.01)
    assert set(deviations) == {f"{s}, {a}" for s in lora.SCALINGS for a in lora.KINDS_OF_A}
    assert max(deviations.values()) < 0.03
    monkeypatch.setitem(lora.SCALINGS, "alpha/sqrt(r)", lambda rank: lora.ALPHA / rank**0.6)
    wrong = lora.exponent_deviations(precision=0.01)
    assert wrong["alpha/sqrt(r), gaussian"] == pytest.approx(0.2, abs=0.03)
    assert wrong["alpha/r, gaussian"] == deviations["alpha/r, gaussian"]
