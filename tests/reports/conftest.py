"""Made-up but realistic results: every claim of claims.toml, about half of them measured."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.claims import load_claims
from benchmarks.results import Measurement
from benchmarks.verdicts import NOT_BUILT, judge_claim

Results = dict[str, Any]


def measurement(claim: str, metric: str, value: float, **fields: Any) -> Measurement:
    half_width = fields.pop("half_width", None)
    known = {
        "unit": fields.pop("unit", "1"),
        "interval": None if half_width is None else (value - half_width, value + half_width),
        "n": fields.pop("n", None if half_width is None else 8),
        "direction": fields.pop("direction", "none"),
        "choice": fields.pop("choice", "any"),
        "option": fields.pop("option", "any"),
        "source": fields.pop("source", "simulation" if half_width is not None else "counted"),
    }
    return Measurement(claim=claim, metric=metric, value=value, parameters=fields, **known)


def made_up_measurements() -> list[Measurement]:
    m = measurement
    made: list[Measurement] = []
    for rank in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        for option, total in (("untied", 163_037_184), ("tied", 124_439_808)):
            made.append(
                m(
                    "lora.trainable-share",
                    "trainable_share",
                    100 * 36_864 * rank / total,
                    unit="percent",
                    option=option,
                    choice="head",
                    rank=rank,
                    targets="query,value",
                )
            )
    for i in range(11):
        rank, wiggle = 2**i, 1 + 0.004 * math.sin(7 * i)
        made.append(
            m(
                "lora.product-variance",
                "variance",
                rank * wiggle,
                half_width=0.01 * rank,
                rank=rank,
            )
        )
        made.append(
            m(
                "lora.product-variance",
                "product_variance_ratio",
                wiggle,
                half_width=0.01,
                rank=rank,
            )
        )
        for option, power in (("alpha/r", -1.0), ("alpha/sqrt(r)", 0.0)):
            for law in ("gaussian", "uniform"):
                made.append(
                    m(
                        "lora.update-variance",
                        "variance",
                        wiggle * rank**power,
                        half_width=0.015 * rank**power,
                        option=option,
                        a=law,
                        rank=rank,
                    )
                )
    made.append(
        m(
            "lora.product-variance",
            "product_variance_exponent",
            1.0003,
            half_width=0.002,
        )
    )
    for option, power in (("alpha/r", -1.001), ("alpha/sqrt(r)", 0.002)):
        for law in ("gaussian", "uniform"):
            made.append(
                m(
                    "lora.update-variance",
                    "update_variance_exponent",
                    power,
                    half_width=0.003,
                    option=option,
                    a=law,
                )
            )
    for option in ("learned", "sinusoidal", "rope", "alibi", "none"):
        count = 786_432 if option == "learned" else 0
        made.append(
            m(
                "position.parameters",
                "parameters",
                count,
                unit="parameters",
                option=option,
                choice="positions",
            )
        )
    for option, deviation in (("rope", 3.1e-15), ("sinusoidal", 2.3), ("learned", 0.9)):
        made.append(m("position.relative", "shift_deviation", deviation, option=option))
    made += [
        m("position.embedding-untouched", "embedding_change", 0.0, option="rope", state="trained"),
        m(
            "position.embedding-untouched",
            "norm_change",
            0.0,
            unit="ratio",
            option="rope",
            state="trained",
        ),
        m(
            "position.embedding-untouched",
            "norm_change",
            0.384,
            unit="ratio",
            half_width=0.02,
            option="learned",
            state="trained",
            n=64,
        ),
        m(
            "position.embedding-untouched",
            "norm_change",
            0.031,
            unit="ratio",
            half_width=0.004,
            option="sinusoidal",
            state="trained",
            n=64,
        ),
    ]
    made += [
        m("tying.saving-small", "parameters_saved", 38_597_376, unit="parameters", option="tied"),
        m("tying.saving-small", "parameters", 124_439_808, unit="parameters", option="tied"),
        m("tying.saving-small", "parameters", 163_037_184, unit="parameters", option="untied"),
        m("tying.saving-small", "saved_share", 0.310169, unit="ratio", option="tied", of="tied"),
    ]
    for model, share in (("Llama-2-7B", 0.0194), ("Mistral-7B", 0.0181), ("Llama-3-8B", 0.0654)):
        made.append(
            m(
                "tying.saving-large",
                "saved_share",
                share,
                unit="ratio",
                option="as published",
                model=model,
                source="published configuration",
            )
        )
    for family, model, tied in (
        ("LLaMA", "Llama-2-7B", 0),
        ("LLaMA", "Llama-3.2-1B", 1),
        ("Mistral", "Mistral-7B", 0),
        ("Falcon", "Falcon-7B", 1),
        ("Gemma", "Gemma-2-9B", 1),
    ):
        made.append(
            m(
                "tying.abandoned",
                "tied",
                tied,
                option="tied",
                family=family,
                model=model,
                source="published configuration",
            )
        )
    made += norm_measurements()
    made.append(
        m(
            "cache.fifteen-tokens",
            "speedup",
            1.74,
            half_width=0.16,
            unit="ratio",
            option="cached",
            new_tokens=15,
            n=7,
            source="clock",
        )
    )
    for option, seconds in (("cached", 1.1), ("uncached", 1.9)):
        made.append(
            m(
                "cache.fifteen-tokens",
                "seconds",
                seconds,
                half_width=0.1,
                unit="s",
                option=option,
                new_tokens=15,
                n=7,
                source="clock",
            )
        )
    for option in ("cached", "uncached"):
        for step in range(1, 16):
            made.append(
                m(
                    "cache.fifteenfold-projections",
                    "row_projections",
                    1 if option == "cached" else step,
                    unit="rows",
                    option=option,
                    step=step,
                )
            )
    made.append(m("cache.fifteenfold-projections", "projection_ratio", 8, unit="ratio"))
    for model, per_token in (("reference", 12_288), ("gpt2", 73_728)):
        for batch_size in (1, 3):
            for counted, tokens in (
                ("reserved", 512),
                ("in use", 1),
                ("in use", 64),
                ("in use", 200),
                ("in use", 512),
            ):
                labels = {
                    "model": model,
                    "batch_size": batch_size,
                    "counted": counted,
                    "tokens": tokens,
                    "option": "float32",
                }
                size = batch_size * per_token * tokens
                made.append(m("cache.memory-law", "bytes", size, unit="bytes", **labels))
                made.append(m("cache.memory-law", "bytes_over_law", 1, unit="ratio", **labels))
    for option, gigabytes in (("fp16", 16.777216), ("fp32", 33.554432)):
        made.append(
            m(
                "cache.memory-example",
                "gigabytes",
                gigabytes,
                unit="GB",
                option=option,
                length=32000,
            )
        )
    made.append(m("int8.norm-share", "norm_share", 0.030858, unit="percent", option="layernorm"))
    for metric, value, unit in (
        ("held_out_loss", 2.712, "nats/token"),
        ("bits_per_byte", 1.998, "bits/byte"),
    ):
        made.append(
            m(
                "int8.weights-quality",
                metric,
                value,
                half_width=0.02,
                unit=unit,
                option="float32",
                n=120,
                source="checkpoint",
            )
        )
    for granularity, loss, half in (
        ("per channel", 0.0004, 0.0003),
        ("per tensor", 0.0061, 0.0009),
    ):
        made.append(
            m(
                "int8.weights-quality",
                "loss_increase",
                loss,
                half_width=half,
                unit="nats/token",
                option="int8",
                granularity=granularity,
                n=120,
            )
        )
    for way, loss, half in (
        ("gamma and beta per tensor", 0.0009, 0.0004),
        ("gamma, beta and input per tensor", 0.0093, 0.0015),
        ("integer statistics", 0.0312, 0.0029),
    ):
        made.append(
            m(
                "int8.norm-damage",
                "loss_increase",
                loss,
                half_width=half,
                unit="nats/token",
                option="int8",
                way=way,
                n=120,
            )
        )
    return made


def norm_measurements() -> list[Measurement]:
    def made(metric: str, value: float, spread: float, **labels: Any) -> Measurement:
        half_width = spread if metric == "exponent" else spread * abs(value)
        claim = "norm.gradient-profile"
        return measurement(claim, metric, value, half_width=half_width, n=5, **labels)

    all_made = []
    for option, initialization, slope in (
        ("pre", "xavier", -0.01),
        ("post", "xavier", 0.09),
        ("pre", "gpt2", -0.004),
        ("post", "gpt2", 0.06),
        ("deepnorm", "deepnorm", 0.02),
    ):
        labels = {"option": option, "initialization": initialization}
        for layer in range(1, 49):
            value = 0.2 * math.exp(slope * layer) * (1 + 0.05 * math.sin(layer))
            all_made.append(made("gradient_norm", value, 0.05, depth=48, layer=layer, **labels))
        all_made.append(made("first_to_last_ratio", math.exp(-48 * slope), 0.1, depth=48, **labels))
        power = -0.5 if labels == {"option": "pre", "initialization": "xavier"} else 0.01
        all_made.append(made("exponent", power, 0.04, **labels))
        for depth in (2, 4, 8, 16, 32, 48):
            all_made.append(made("last_layer_gradient", depth**power, 0.05, depth=depth, **labels))
    return all_made


@pytest.fixture(scope="session")
def results() -> Results:
    """Shared: not to be changed."""
    measurements = made_up_measurements()
    entries = []
    for claim in load_claims():
        own = [m for m in measurements if m.claim == claim.id]
        judgement, parts = judge_claim(claim, own, NOT_BUILT)
        entries.append(
            {
                "id": claim.id,
                "lesson": claim.lesson,
                "statement": claim.statement,
                "said_in": claim.said_in,
                "sources": claim.sources,
                "scale": claim.scale,
                "region": "; ".join(requirement.text for requirement in claim.requirements),
                "verdict": judgement.verdict,
                "because": judgement.because,
                "measurements": judgement.measurements,
                "requirements": [
                    {
                        "text": requirement.text,
                        "metric": requirement.metric,
                        "where": requirement.where,
                        "region": requirement.region.as_json(),
                        "verdict": part.verdict,
                        "because": part.because,
                        "measurements": part.measurements,
                    }
                    for requirement, part in zip(claim.requirements, parts, strict=True)
                ],
                "seconds": 3.2 if own else None,
            }
        )
    return {
        "schema": 1,
        "environment": {
            "commit": "8012a56c0ffee00000000000000000000000beef",
            "dirty": True,
            "cpu": "Example CPU @ 2.10GHz",
            "cores": 2,
            "memory_bytes": 33_000_000_000,
            "gpu": "none: this build of torch has no CUDA",
            "driver": "none: this build of torch has no CUDA",
            "platform": "Linux-6.1-x86_64",
            "python": "3.11.7",
            "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
            "profile": "quick",
            "device": "cpu",
            "threads": 2,
            "seed": 0,
            "utc": "2026-11-22T05:26:10+00:00",
        },
        "measurements": [m.as_json() for m in measurements],
        "claims": entries,
    }


@pytest.fixture
def few_results(results: Results) -> Results:
    """A copy of its own with one claim of each verdict, quick to render."""
    chosen = ("tying.abandoned", "int8.norm-damage", "int8.weights-quality", "lora.rank-pays")
    few = copy.deepcopy({**results, "claims": [], "measurements": []})
    few["claims"] = [copy.deepcopy(c) for c in results["claims"] if c["id"] in chosen]
    few["measurements"] = [
        copy.deepcopy(m) for m in results["measurements"] if m["claim"] in chosen
    ]
    return few


@pytest.fixture(scope="session")
def page(results: Results) -> str:
    from reports.render.page import render_page

    return render_page(results)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    """Write anything as tmp_path/results.json."""

    def write_json(content: Any) -> Path:
        path = tmp_path / "results.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write_json
