"""What bench_lora.py measures of adapters.

As in workloads.py, only the standard library is imported before a benchmark is set up.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.suite.asked_model import DTYPE, MODEL
from benchmarks.suite.codec_workloads import reference_checkpoint
from benchmarks.suite.workloads import (
    Step,
    device,
    finish,
    model_of,
    of_this_commit,
    start,
    token_ids,
)

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model, ModelConfig
    from reference_model.lora import LoRAConfig

WIDTH, ROWS = 768, 512
FORWARDS = 40  # of one linear: a few milliseconds each
STEP_TOKENS = 128


@of_this_commit()
def _config(rank: int) -> LoRAConfig:
    """Adapters that add something: B is random too."""
    from reference_model.lora import LoRAConfig

    return LoRAConfig(rank, init_b="gaussian")


@of_this_commit()
def linear_forward(kind: str, rank: int) -> Step:
    """512 tokens through a plain linear, one with an adapter beside it or merged into it."""
    start()
    import torch

    from reference_model.linear import Linear
    from reference_model.lora import LoRALinear

    dtype = getattr(torch, DTYPE)
    linear: Any = Linear(WIDTH, WIDTH).to(device=device(), dtype=dtype)
    if kind != "plain":
        linear = LoRALinear(linear, _config(rank))
    if kind == "merged":
        linear.merge()
    linear = linear.eval()
    x = torch.randn(1, ROWS, WIDTH, device=device(), dtype=dtype)

    def forward() -> None:
        with torch.inference_mode():
            linear(x)
        finish()

    return forward


@of_this_commit()
def training_step(name: str, trained: str, rank: int) -> Step:
    """One step of AdamW on the loss of 128 tokens, on adapters alone or on all weights."""
    start()
    import torch
    import torch.nn.functional as F

    from reference_model.lora import adapter_parameters, add_adapters

    model = _new_model(name)
    if trained == "adapters":
        add_adapters(model, _config(rank))
        parameters = adapter_parameters(model)
    else:
        parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    tokens = token_ids(model, STEP_TOKENS + 1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        finish()

    return step


def _new_model(name: str) -> Model:
    """One of its own, with random weights: it is trained, and given adapters."""
    import torch

    from benchmarks.subjects.built import Model

    return Model(_config_of(name)).to(device=device(), dtype=getattr(torch, DTYPE))


def _config_of(name: str) -> ModelConfig:
    from reference_model.config import preset

    return model_of(name).config if name == MODEL else preset(name)


def ratio(arms: Mapping[str, Step], arm: str, over: str, rounds: int) -> float:
    """Median seconds of one arm over those of another, in turns."""
    from benchmarks.instruments.clock import interleaved_durations

    seconds = interleaved_durations(arms, rounds, warmup=2)
    return statistics.median(seconds[arm]) / statistics.median(seconds[over])


@of_this_commit()
def trained_share(name: str, rank: int) -> float:
    """Weights of the adapters on query and value over all of the model's, counted on it."""
    start()
    import torch

    from benchmarks.subjects.built import Model
    from reference_model.lora import adapter_parameters, add_adapters

    config = _config_of(name)
    with torch.device("meta"):
        model = Model(config)
        total = sum(parameter.numel() for parameter in model.parameters())
        add_adapters(model, _config(rank))
    return sum(parameter.numel() for parameter in adapter_parameters(model)) / total


@of_this_commit()
def merge_error(rank: int) -> Callable[[], float]:
    """Largest difference of the checkpoint's logits, merged against beside, once called."""
    start()
    import torch

    from reference_model.lora import add_adapters, merge_adapters, unmerge_adapters

    model: Any = _copy(reference_checkpoint())
    generator = torch.Generator().manual_seed(0)
    add_adapters(model, _config(rank), generator)
    tokens = token_ids(model, STEP_TOKENS)

    def error() -> float:
        with torch.no_grad():
            beside = model(tokens)
            merge_adapters(model)
            merged = model(tokens)
            unmerge_adapters(model)
        return float((merged - beside).abs().max())

    return error


def _copy(model: Model) -> Model:
    """The checkpoint is shared by all benchmarks of a process; adapters are put on in place."""
    import copy

    return copy.deepcopy(model)


@cache  # one run has all the exponents
@of_this_commit()
def _deviations() -> dict[str, float]:
    start()
    from benchmarks.experiments.lora.lesson import PRECISION_OF_UPDATES, exponent_deviations

    return exponent_deviations(PRECISION_OF_UPDATES["smoke"])


def deviation_from_law(name: str) -> float:
    """|exponent − law| of the variance of s·BA in the rank, by the experiment of the claim.

    ``name``: "scaling, distribution of A".
    """
    return _deviations()[name]
