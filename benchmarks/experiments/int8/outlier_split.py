"""L6: are INT8 activations repaired by keeping outlier features in 16 bits?

That is the split of LLM.int8() (2208.07339): a feature, one input of a linear, that is larger than
a threshold in any token of a sequence is multiplied in float16, all others in INT8.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.windows import Windows
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.outliers import AS_IT_IS, PLANTED, channels_of, model_with_outliers
from benchmarks.subjects.subject import subject_of
from reference_model.parts import Role, parts_of
from reference_model.quantization.grid import Grid, rounded

CLAIM = "int8.outlier-split"
THRESHOLD = 6.0  # the paper's
LARGEST = 127
# Windows that are read, spread over the held-out text.
WINDOWS: dict[Profile, int] = {"quick": 6, "full": 54}
PLANTED_CHANNELS, STRENGTH = (17, 101, 202), 100.0
SPLITS = {"none": False, "outliers in float16": True}
LINEARS: tuple[Role, ...] = (
    "query", "key", "value", "attention_output", "mlp_in", "mlp_gate", "mlp_out",
)  # fmt: skip

Inputs = Literal["per sequence", "zero point", "per token"]


@dataclass(frozen=True)
class Method:
    """How inputs are rounded to 8 bits, and on which grid the weights are."""

    inputs: Inputs
    weights: Grid


METHODS = {
    "absmax per tensor": Method("per sequence", Grid(granularity="per tensor")),
    "zero point": Method("zero point", Grid(granularity="per tensor", zero="asymmetric")),
    "absmax per row": Method("per token", Grid(granularity="per tensor")),
    "absmax per vector": Method("per token", Grid()),
}
BEST = "absmax per vector"  # what the claim speaks of


def methods(settings: Settings) -> list[str]:
    return list(METHODS) if settings.profile == "full" else [BEST]


def cells(settings: Settings) -> list[Cell]:
    """A cell for each model and method; each reads the text three times."""
    return [
        Cell({"model": model, "method": method})
        for model in (AS_IT_IS, PLANTED)
        for method in methods(settings)
    ]


def of_a_method(settings: Settings, model: str, method: str) -> Found:
    """Mean losses of each window, without INT8 and with each split; shares of outlier features."""
    exact = subject_of(settings).model()
    if model == PLANTED:
        exact = model_with_outliers(exact, channels_of(exact, PLANTED_CHANNELS), STRENGTH)
    windows = text_of(settings)
    found: dict[str, Found] = {settings.dtype: token_losses(exact, windows).mean(axis=1).tolist()}
    for name, split in SPLITS.items():
        changed, linears = with_int8_products(exact, METHODS[method], split)
        found[name] = token_losses(changed, windows).mean(axis=1).tolist()
        found["outliers"] = [linear.share_of_outliers for linear in linears]
    return found


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_method,
    smoke=None,
    quick=3,
    full=250,
    of_any_model=True,
)
def outlier_split(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What INT8 weights and activations cost with and without the split.

    ``share_removed``: by how much of that the split lowers it, where INT8 costs anything. A model
    with planted outliers computes the same as before, so that what INT8 costs more there is theirs.
    """
    windows = text_of(settings)
    return [m for labels, of_cell in found for m in _of_cell(settings, windows, labels, of_cell)]


def text_of(settings: Settings) -> Windows:
    return subject_of(settings).windows(WINDOWS[settings.profile], settings.seed)


def _of_cell(
    settings: Settings, windows: Windows, labels: dict[str, Parameter], found: Found
) -> Iterator[Measurement]:
    named = dict(labels)
    if named["model"] == AS_IT_IS:
        named["model"] = subject_of(settings).label
    record = partial(measured, claim=CLAIM, choice="number format", source="checkpoint")
    exact = np.array(found[settings.dtype])
    plain, split = (np.array(found[name]) - exact for name in SPLITS)
    for name, increase in zip(SPLITS, (plain, split), strict=True):
        yield record(
            windows.mean(increase),
            metric="loss_increase",
            unit="nats/token",
            direction="lower",
            option="int8 weights and activations",
            parameters={**named, "split": name},
        )
    of_split = partial(record, option="int8 with the split", parameters=named)
    if windows.mean(plain).interval[0] > 0:
        removed = windows.ratio_of_means(plain - split, plain)
        yield of_split(removed, metric="share_removed", unit="ratio", direction="higher")
    share = float(np.mean(found["outliers"]))
    read = {**named, "windows": len(windows)}  # an exact count, of these
    yield of_split(
        share, metric="share_of_outliers", unit="ratio", direction="none", parameters=read
    )


# ---- the product


class SplitLinear(nn.Linear):
    """A linear of one sequence or several: INT8 products, simulated; the paper's split if asked.

    Weights are rounded once, outlier columns included, as bitsandbytes does.
    """

    def __init__(self, linear: nn.Linear, method: Method, split: bool) -> None:
        bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.method, self.split = method, split
        self.register_buffer("codes", rounded(linear.weight.detach(), method.weights))
        self.codes: Tensor
        self.outliers, self.features = 0, 0

    @property
    def share_of_outliers(self) -> float:
        """Of the features that sequences had so far."""
        return self.outliers / max(1, self.features)

    def forward(self, input: Tensor) -> Tensor:
        """(B, T, K) → (B, T, N)."""
        outlier = input.abs().amax(-2, keepdim=True) > THRESHOLD  # (B, 1, K)
        self.outliers += int(outlier.sum())
        self.features += outlier.numel()
        if not self.split:
            return F.linear(rounded_inputs(input, self.method.inputs), self.codes, self.bias)
        others = rounded_inputs(input.masked_fill(outlier, 0), self.method.inputs)
        exact = input.masked_fill(~outlier, 0).half().to(input.dtype)
        kept = F.linear(exact, self.weight.half().to(input.dtype))
        return F.linear(others, self.codes, self.bias) + kept


def rounded_inputs(x: Tensor, how: Inputs) -> Tensor:
    """x (B, T, K) on eight bits, with a step for each sequence or each token."""
    if how == "zero point":
        low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
        steps = ((high.clamp(min=0) - low.clamp(max=0)) / 255).clamp(min=1e-30)
        zero = (-low.clamp(max=0) / steps).round()
        return (((x / steps).round() + zero).clamp(0, 255) - zero) * steps
    axes = (-1,) if how == "per token" else (-2, -1)
    steps = (x.abs().amax(axes, keepdim=True) / LARGEST).clamp(min=1e-30)
    return (x / steps).round() * steps


def with_int8_products(
    model: nn.Module, method: Method, split: bool
) -> tuple[nn.Module, Sequence[SplitLinear]]:
    """A copy whose layers' linears are `SplitLinear`, and these; embeddings and head are not."""
    result = copy.deepcopy(model)
    names = {p.name for p in parts_of(result) if p.layer is not None and p.role in LINEARS}
    made = []
    for name in sorted(names):
        parent, _, child = name.rpartition(".")
        linear = result.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        made.append(SplitLinear(linear, method, split))
        setattr(result.get_submodule(parent), child, made[-1])
    return result, made
