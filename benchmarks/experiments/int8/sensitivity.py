"""L6: what each kind of module, and each layer, loses by rounding for each megabyte it saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.func import functional_call

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import Estimate, scaled
from benchmarks.record.results import Direction, Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import subject_of
from reference_model.parts import Role, parts_of
from reference_model.quantization.grid import Codes, Grid, to_grid

Array = NDArray[np.float64]

INT8, INT4 = Grid(8, "per channel"), Grid(4, "per group")
# Kinds of modules, and their roles.
KINDS: dict[str, tuple[Role, ...]] = {
    "embedding": ("embedding",),
    "qkv": ("query", "key", "value"),
    "attention projection": ("attention_output",),
    "MLP in": ("mlp_gate", "mlp_in"),
    "MLP out": ("mlp_out",),
    "norms": ("norm",),
    "head": ("head",),
}
LINEARS_OF_A_LAYER = ("qkv", "attention projection", "MLP in", "MLP out")
# Windows that are read, spread over all test plays; None: all of them, since what INT8 costs a kind
# of module is of the size of what forty windows scatter.
WINDOWS: dict[Profile, int | None] = {"smoke": 20, "quick": 20, "full": None}
MEGABYTE, SCALE_BYTES = 1e6, 4
# Nats per token and megabyte: what loses less is taken to lose this much. So a ratio stays finite,
# and the floor can only make it smaller.
FLOOR = 1e-6
RESAMPLES = 9999
SAID = 10.0  # times as much, by the claim
PARTS_OF_A_CELL = 4


@dataclass(frozen=True)
class Part:
    """Parameters that are rounded together, all others left as they are."""

    labels: dict[str, Parameter]
    names: tuple[str, ...]
    grid: Grid
    prefix: str  # of the metrics: "" for a kind of module, "layer_", "map_" for both at once


@dataclass(frozen=True)
class Readings:
    """Means over the tokens of each window: of the model, and with each part rounded."""

    baseline: Array  # (windows,) nats
    losses: Array  # (parts, windows) nats
    divergences: Array  # (parts, windows) KL(as it is ‖ rounded) of the predictions, nats

    @property
    def increases(self) -> Array:
        return self.losses - self.baseline


def cells(settings: Settings) -> list[Cell]:
    """A cell for some parts at a time, which are all compared with the same predictions."""
    with torch.device("meta"):
        config = subject_of(settings).config.replace(head="untied")
        count = len(all_parts(Model(config), settings.profile))
    return [Cell({"first_part": first}) for first in range(0, count, PARTS_OF_A_CELL)]


def all_parts(model: Model, profile: Profile) -> list[Part]:
    """One kind of module at a time, one layer at a time and, in full, one kind of one layer."""
    parts = [part for grid in (INT8, INT4) for part in kinds(model, grid)]
    parts += layers(model, INT4)
    if profile == "full":
        parts += [*layers(model, INT8), *kinds_of_layers(model, INT4)]
    return parts


def of_some_parts(settings: Settings, first_part: int) -> Found:
    """Fields of `Readings`."""
    model = untied(subject_of(settings).model()).to(settings.device)
    parts = all_parts(model, settings.profile)[first_part : first_part + PARTS_OF_A_CELL]
    found = readings(model, [rounded_part(model, part) for part in parts], text_of(settings))
    return {name: values.tolist() for name, values in vars(found).items()}


@experiment_of_cells(
    "int8.sensitivity",
    cells=cells,
    measure=of_some_parts,
    smoke=None,
    quick=None,
    full=2400,
    of_any_model=True,
)
def sensitivity(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What each part loses by rounding, all others left as they are.

    Of the checkpoint untied, whose embedding and head can be rounded one without the other.
    """
    model, windows = untied(subject_of(settings).model()), text_of(settings)
    parts = all_parts(model, settings.profile)
    of_cells = [Readings(**{k: np.array(v) for k, v in each.items()}) for _, each in found]
    all_found = Readings(
        of_cells[0].baseline,
        np.concatenate([each.losses for each in of_cells]),
        np.concatenate([each.divergences for each in of_cells]),
    )
    return [
        *_of_parts(model, parts, all_found, windows),
        *ratios(model, parts, all_found, windows),
    ]


def text_of(settings: Settings) -> Windows:
    return subject_of(settings).windows(WINDOWS[settings.profile], settings.seed)


def untied(model: Model) -> Model:
    """The same function with an embedding and a head of their own."""
    result = Model(replace(model.config, head="untied"))
    result.load_state_dict(model.state_dict())
    return result.to(model.wte.weight.dtype).eval()


def names_of(model: Model, kind: str, layer: int | None = None) -> tuple[str, ...]:
    """Parameters of a kind, of one layer or of all: weights, and of norms all that they have."""
    modules = {
        part.name
        for part in parts_of(model)
        if part.role in KINDS[kind] and layer in (None, part.layer)
    }
    return tuple(
        name
        for name, _ in model.named_parameters()
        if name.rpartition(".")[0] in modules and (kind == "norms" or name.endswith(".weight"))
    )


def kinds(model: Model, grid: Grid) -> list[Part]:
    return [Part({"kind": kind}, names_of(model, kind), grid, "") for kind in KINDS]


def layers(model: Model, grid: Grid) -> list[Part]:
    """All linears of one block, its norms left alone."""
    return [
        Part(
            {"layer": layer},
            tuple(name for kind in LINEARS_OF_A_LAYER for name in names_of(model, kind, layer)),
            grid,
            "layer_",
        )
        for layer in range(model.config.n_layer)
    ]


def kinds_of_layers(model: Model, grid: Grid) -> list[Part]:
    return [
        Part({"layer": layer, "kind": kind}, names, grid, "map_")
        for kind in KINDS
        for layer in range(model.config.n_layer)
        if (names := names_of(model, kind, layer))
    ]


def rounded_part(model: Model, part: Part) -> dict[str, Tensor]:
    """The part's parameters on its grid. Raises ValueError where one of them did not change."""
    parameters = dict(model.named_parameters())
    found = {}
    for name in part.names:
        value = parameters[name].detach()
        found[name] = _codes(value, part.grid).values.view_as(value).to(value.dtype)
        if torch.equal(found[name], value):
            raise ValueError(f"{part.grid.name}: rounding changed nothing of {name}")
    return found


def bytes_saved(model: Model, part: Part) -> float:
    """Against float32, exactly: codes at the bits of the grid, and a float32 for each scale."""
    parameters, saved = dict(model.named_parameters()), 0.0
    for name in part.names:
        value = parameters[name].detach()
        scales = _codes(value, part.grid).steps.numel()
        saved += value.numel() * (4 - part.grid.bits / 8) - SCALE_BYTES * scales
    return saved


def _codes(value: Tensor, grid: Grid) -> Codes:
    """A vector, γ or β, is one channel: a scale for each number would round nothing."""
    return to_grid(value if value.ndim > 1 else value[None], grid)


@torch.inference_mode()
def readings(
    model: Model,
    changes: Sequence[Mapping[str, Tensor]],
    windows: Windows,
    batch_size: int = 2,
) -> Readings:
    """The model as it is, and with each of ``changes``, parameters by name, over the same windows.

    Raises ValueError on losses that are not finite.
    """
    plain, losses, divergences = [], [], []
    for x, y in windows.batches(batch_size, model.wte.weight.device):
        expected = model(x).float().log_softmax(-1)  # (B, T, V)
        probabilities = expected.exp()
        plain.append(_window_losses(expected, y))
        of_changes = []
        for change in changes:
            found = functional_call(model, dict(change), x).float().log_softmax(-1)
            divergence = (probabilities * expected.sub(found)).sum(-1).mean(-1)
            of_changes.append(torch.stack((_window_losses(found, y), divergence)))
        both = torch.stack(of_changes, dim=1)  # (2, changes, B)
        losses.append(both[0])
        divergences.append(both[1])
    result = Readings(
        _array(torch.cat(plain)), _array(torch.cat(losses, 1)), _array(torch.cat(divergences, 1))
    )
    if not (np.isfinite(result.baseline).all() and np.isfinite(result.losses).all()):
        raise ValueError("some losses are not finite")
    return result


def _window_losses(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """(B, T, V) and (B, T) → (B,) nats per token."""
    return -log_probabilities.gather(-1, targets[..., None])[..., 0].double().mean(-1)


def _array(values: Tensor) -> Array:
    return values.double().cpu().numpy()


def _of_parts(
    model: Model, parts: Sequence[Part], found: Readings, windows: Windows
) -> Iterator[Measurement]:
    for index, part in enumerate(parts):
        record = partial(_record, prefix=part.prefix, option=part.grid.name, parameters=part.labels)
        saved = bytes_saved(model, part)
        increase = windows.mean(found.increases[index])
        yield record(increase, metric="loss_increase", unit="nats/token")
        divergence = windows.mean(found.divergences[index])
        yield record(divergence, metric="prediction_kl", unit="nats/token")
        yield record(
            saved, metric="bytes_saved", unit="bytes", direction="higher", source="counted"
        )
        per_megabyte = scaled(increase, MEGABYTE / saved)
        yield record(per_megabyte, metric="loss_per_megabyte", unit="nats/token/MB")


def _record(
    found: float | Estimate,
    *,
    prefix: str = "",
    metric: str,
    unit: str,
    direction: Direction = "lower",
    option: str,
    parameters: Mapping[str, Parameter],
    source: str = "checkpoint",
) -> Measurement:
    return measured(
        found,
        claim="int8.sensitivity",
        metric=prefix + metric,
        unit=unit,
        direction=direction,
        choice="number format",
        option=option,
        parameters=parameters,
        source=source,
    )


def ratios(
    model: Model, parts: Sequence[Part], found: Readings, windows: Windows
) -> Iterator[Measurement]:
    """For each grid: the most sensitive kind's loss per megabyte over the least sensitive one's.

    All kinds, as the claim has it; and without the norms, which save next to nothing. And the same
    of the KL of predictions, and how much text would tell the ratio of the losses from the claim's.
    """
    megabytes = np.array([[bytes_saved(model, part) / MEGABYTE] for part in parts])
    losses, divergences = found.increases / megabytes, found.divergences / megabytes
    for grid in (INT8, INT4):
        of_grid = [i for i, p in enumerate(parts) if p.grid == grid and not p.prefix]
        without_norms = [i for i in of_grid if parts[i].labels["kind"] != "norms"]
        for suffix, chosen in (("", of_grid), ("_without_norms", without_norms)):
            record = partial(_record, unit="ratio", direction="none", option=grid.name)
            ratio = sensitivity_ratio(losses[chosen], divergences[chosen], windows)
            yield record(ratio, metric=f"sensitivity_ratio{suffix}", parameters={})
            ratio = sensitivity_ratio(divergences[chosen], divergences[chosen], windows)
            yield record(ratio, metric=f"kl_ratio{suffix}", parameters={})
            needed = text_needed(losses[chosen], divergences[chosen], windows)
            yield record(needed, metric=f"text_needed{suffix}", parameters={})


def sensitivity_ratio(
    losses: Array, divergences: Array, windows: Windows, seed: int = 0
) -> Estimate:
    """Mean loss of the kind with the largest mean divergence over that of the smallest's.

    Both (kinds, windows), per megabyte. Which two kinds are compared is left to the divergence,
    whose noise is small: the largest and the smallest of seven noisy losses lie far apart even
    where all kinds are alike. The interval is made of percentiles over resampled stretches of text,
    the same ones for both kinds. A denominator below `FLOOR` counts as `FLOOR`.
    """
    order = divergences.mean(axis=1).argsort()
    pair = losses[[order[-1], order[0]]]  # (2, windows)
    top, bottom = windows.resampled_means(pair, RESAMPLES, seed)
    n = len(np.unique(windows.stretches))
    low, high = np.percentile(top / np.maximum(bottom, FLOOR), (2.5, 97.5))
    most, least = pair.mean(axis=1)
    ratio = float(most / max(least, FLOOR))
    return Estimate(ratio, (float(low), float(high)), n, windows.population)


def text_needed(
    losses: Array, divergences: Array, windows: Windows, border: float = SAID, power: float = 0.8
) -> float:
    """How many times this text a test at 5 % needs, to tell the two kinds' ratio from ``border``.

    (kinds, windows) each, per megabyte. With ``power``, if losses rise by as much as predictions
    diverge: then the most sensitive kind's loss less ``border`` times the least sensitive one's is
    known, and the standard error of that difference is that of this text's stretches.
    """
    order = divergences.mean(axis=1).argsort()
    weights = np.array([1, -border])
    effect = weights @ divergences[[order[-1], order[0]]].mean(axis=1)
    found = windows.mean(weights @ losses[[order[-1], order[0]]])
    low, high = found.interval
    error = (high - low) / 2 / stats.t.ppf(0.975, found.n - 1)
    wanted = stats.norm.ppf(0.975) + stats.norm.ppf(power)
    return float((wanted * error / effect) ** 2)
