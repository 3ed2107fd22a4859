"""L6: how far activations reach, and what eight bits do to the gradient, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
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
from benchmarks.instruments.windows import Windows
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.outliers import PLANTED, channels_of, model_with_outliers
from benchmarks.subjects.subject import subject_of
from reference_model.parts import Role, parts_of
from reference_model.quantization.grid import Grid, groups_fit, rounded

# Windows that are read, spread over all test plays.
WINDOWS: dict[Profile, int] = {"smoke": 4, "quick": 8, "full": 40}
WINDOWS_OF_A_CELL = 10
OUTLIER = 6  # standard deviations, as in LLM.int8() (2208.07339)
PLANTED_CHANNELS, PLANTED_STRENGTH = (17, 101, 202), 100.0
INPUTS: dict[Role, str] = {  # queries, keys and values read the same
    "query": "qkv",
    "attention_output": "attention projection",
    "mlp_in": "MLP in",
    "mlp_out": "MLP out",
}
W8, W4 = Grid(8, "per channel"), Grid(4, "per group")
# Model → metric of a cosine → what is rounded, and the weights' grid.
FORMATS: dict[str, dict[str, tuple[str, Grid]]] = {
    "checkpoint": {"gradient_cosine": ("W8A8", W8), "gradient_cosine_int4": ("W4A8", W4)},
    PLANTED: {"gradient_cosine_planted": ("W8A8", W8)},
}
STATISTICS = (("activation_range", "ratio"), ("outlier_share", "ratio"), ("kurtosis", "1"))

Where = tuple[int, str]  # block, kind of linear
Gradients = list[Tensor]  # of each block, all its parameters in one row


def cells(settings: Settings) -> list[Cell]:
    """A cell for each model and some of the windows."""
    return [
        Cell({"model": name, "first": first}, share=1 + len(FORMATS[name]))
        for name in FORMATS
        for first in range(0, WINDOWS[settings.profile], WINDOWS_OF_A_CELL)
    ]


def of_some_windows(settings: Settings, model: str, first: int) -> Found:
    """Statistics of the linears' inputs, and cosines: window by window."""
    exact = subject_of(settings).model()
    if model == PLANTED:
        channels = channels_of(exact, PLANTED_CHANNELS)
        exact = model_with_outliers(exact, channels, PLANTED_STRENGTH)
    fakes = {
        metric: with_fake_rounding(exact, grid, activations=True)
        for metric, (_, grid) in FORMATS[model].items()
        if grid.granularity != "per group" or groups_fit(exact)
    }
    windows = text_of(settings)
    some = windows[np.arange(first, min(first + WINDOWS_OF_A_CELL, len(windows)))]
    statistics: dict[Where, list[tuple[float, ...]]] = {}
    cosines: dict[str, list[list[float]]] = {metric: [] for metric in fakes}
    for x, y in some.batches(1, settings.device):
        with _watching(exact, statistics):
            gradients = block_gradients(exact, x, y)
        for metric, fake in fakes.items():
            cosines[metric].append(_cosines(gradients, block_gradients(fake, x, y)))
    of_linears = [[*where, values] for where, values in statistics.items()]
    return {"statistics": of_linears, "cosines": cosines}


@experiment_of_cells(
    "int8.activation-range",
    cells=cells,
    measure=of_some_windows,
    smoke=None,
    quick=10,
    full=130,
    of_any_model=True,
)
def activation_range(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Of the checkpoint, and of the same function with outliers planted.

    A cosine compares gradients of one model's own weights: those of planted columns are
    ``PLANTED_STRENGTH`` times as large as they were, and speak loudest.

    The claim's verdict rests on ``gradient_cosine``, which is the checkpoint's at W8A8 alone.
    """
    windows, subject = text_of(settings), subject_of(settings)
    titles = {} if settings.of_reference else {"checkpoint": subject.title}
    return [
        m
        for name in FORMATS
        for m in _of_model(
            name,
            titles.get(name, name),
            [each for p, each in found if p["model"] == name],
            windows,
            settings.dtype,
        )
    ]


def text_of(settings: Settings) -> Windows:
    return subject_of(settings).windows(WINDOWS[settings.profile], settings.seed)


def _of_model(
    name: str, title: str, found: Sequence[Found], windows: Windows, dtype: str
) -> Iterator[Measurement]:
    """Means over the windows of all cells of a model."""
    record = partial(_record, windows, model=title)
    for of_cells in zip(*(each["statistics"] for each in found), strict=True):
        layer, kind, _ = of_cells[0]
        of_windows = [values for *_, of_cell in of_cells for values in of_cell]
        for (metric, unit), values in zip(STATISTICS, zip(*of_windows, strict=True), strict=True):
            labels: dict[str, Parameter] = {"layer": layer, "kind": kind}
            yield record(values, metric=metric, unit=unit, option=dtype, labels=labels)
    for metric, (option, _) in FORMATS[name].items():
        if metric not in found[0]["cosines"]:
            continue
        cosines = [values for each in found for values in each["cosines"][metric]]
        for layer, values in enumerate(zip(*cosines, strict=True)):
            labels = {"layer": layer}
            yield record(values, metric=metric, unit="1", option=option, labels=labels)


def _record(
    windows: Windows,
    values: tuple[float, ...],
    *,
    metric: str,
    unit: str,
    option: str,
    model: str,
    labels: dict[str, Parameter],
) -> Measurement:
    return measured(
        windows.mean(values),  # one value a window
        claim="int8.activation-range",
        metric=metric,
        unit=unit,
        direction="higher" if "cosine" in metric else "lower",
        choice="number format",
        option=option,
        parameters={"model": model, **labels},
        source="checkpoint",
    )


# ---- what linears read


@contextmanager
def _watching(model: Model, found: dict[Where, list[tuple[float, ...]]]) -> Iterator[None]:
    """Inside, each linear of a block adds the statistics of its input, one entry a call."""

    def watch(where: Where, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found.setdefault(where, []).append(input_statistics(arguments[0].detach()))

    handles = [
        part.module.register_forward_pre_hook(partial(watch, (part.layer, INPUTS[part.role])))
        for part in parts_of(model)
        if part.layer is not None and part.role in INPUTS
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_statistics(x: Tensor) -> tuple[float, float, float]:
    """max |x| over the root mean square; share with |x| > 6 σ; kurtosis, 3 of a Gaussian.

    Of all numbers of x together; σ is the root mean square about the mean.
    """
    x = x.double()
    deviation = x - x.mean()
    variance = deviation.square().mean()
    reach = x.abs().amax() / x.square().mean().sqrt()
    share = (x.abs() > OUTLIER * variance.sqrt()).double().mean()
    return reach.item(), share.item(), (deviation.pow(4).mean() / variance**2).item()


# ---- gradients straight through


class FakeRoundedLinear(nn.Linear):
    """A linear that multiplies rounded numbers; the gradient passes as if none were rounded.

    Shares the parameters of ``linear``. Activations are rounded to eight bits, symmetric, with a
    step for each token, as an INT8 product does.
    """

    def __init__(self, linear: nn.Linear, grid: Grid | None, activations: bool) -> None:
        bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias, device="meta")
        self.weight, self.bias, self.activations = linear.weight, linear.bias, activations
        weight = linear.weight.detach()
        error = torch.zeros_like(weight) if grid is None else rounded(weight, grid) - weight
        self.register_buffer("error", error)
        self.error: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        x = input
        if self.activations:
            steps = x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
            x = x + ((x.detach() / steps).round() * steps - x.detach())
        return F.linear(x, self.weight + self.error, self.bias)


def with_fake_rounding(model: Model, grid: Grid | None, activations: bool) -> Model:
    """A copy whose linears, the head among them, are `FakeRoundedLinear`; None: float weights.

    A tied embedding is still looked up in float32.
    """
    result = copy.deepcopy(model)
    for name, module in list(result.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            fake = FakeRoundedLinear(module, grid, activations)
            setattr(result.get_submodule(parent), child, fake)
    return result


def block_gradients(model: Model, x: Tensor, y: Tensor) -> Gradients:
    """Of the mean loss of tokens x (B, T) and their targets, a row for each block.

    In the model's dtype.
    """
    of_blocks = [list(block.parameters()) for block in model.h]
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    found = iter(torch.autograd.grad(loss, [p for block in of_blocks for p in block]))
    return [torch.cat([next(found).flatten() for _ in block]) for block in of_blocks]


def _cosines(exact: Gradients, found: Gradients) -> list[float]:
    return [
        F.cosine_similarity(a.double(), b.double(), dim=0).item()
        for a, b in zip(exact, found, strict=True)
    ]
