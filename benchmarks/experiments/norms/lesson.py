"""L4: where the normalisation sits, and what it does to the gradient of an untrained model.

Everything here is one quantity: the norm of the loss gradient of `mlp.c_proj.weight`, the matrix
W² of which the theorem of "On layer normalization in the Transformer" (arXiv:2002.04745) speaks.
Biases and the norms' own weights are left out, there as here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.judging.stats import (
    Estimate,
    geometric_mean_ratio_interval,
    mean_interval,
    unweighted_slopes,
)
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model, ModelConfig
from reference_model.config import Initialization, NormPlacement
from reference_model.parts import parts_with

CLAIM = "norm.gradient-profile"
VOCABULARY, CONTEXT, D_HEAD = 256, 32, 64

DEPTHS = (2, 4, 8, 16, 32, 48)
# The theorem bounds the second moment of the Pre-LN stream after l layers by 1 + l/2 and 1 + 3l/2,
# and its exponent is what remains when the 1, which is the input, no longer counts: from 8 layers
# on it is a fifth of the lower bound at most. Within these bounds the moment still rises a little
# faster than in proportion, since attention makes the tokens alike and then averages less away, so
# that the exponent comes out nearer to -0.55 than to -0.5.
LEAST_DEPTH_OF_LAW = 8

Rows = NDArray[np.float64]  # (seeds, L)
Variant = tuple[NormPlacement, Initialization]
THEOREM: tuple[Variant, ...] = (("post", "xavier"), ("pre", "xavier"))
GPT2: tuple[Variant, ...] = (("post", "gpt2"), ("pre", "gpt2"))
OTHERS: tuple[Variant, ...] = (("double", "gpt2"), ("deepnorm", "deepnorm"))


@dataclass(frozen=True)
class Scale:
    """What is built, how wide, how many of each, and how many sequences each one reads."""

    variants: tuple[Variant, ...]
    width: int
    seeds: int
    batch_size: int


SWEEP: dict[Profile, Scale] = {
    "smoke": Scale(THEOREM, width=128, seeds=4, batch_size=8),
    "quick": Scale(THEOREM, width=128, seeds=8, batch_size=8),  # no requirement rests on GPT-2's
    "full": Scale(THEOREM + GPT2, width=768, seeds=20, batch_size=8),
}
# GPT-2's 0.02 belongs to its width: in a narrow model it makes the layers do next to nothing.
DEEPEST: dict[Profile, Scale] = {
    "quick": Scale(THEOREM + GPT2, width=768, seeds=4, batch_size=2),
    # No requirement rests on the others.
    "full": Scale(THEOREM + GPT2 + OTHERS, width=768, seeds=20, batch_size=8),
}


def cells(settings: Settings) -> list[Cell]:
    """A cell for each part of the experiment, each variant and each depth."""
    found = []
    for part, (scale, depths) in parts(settings.profile).items():
        for placement, initialization in scale.variants:
            for depth in depths:
                numbers = depth * scale.width**2 * 12  # of a model; its gradients are as many
                parameters: dict[str, Parameter] = {
                    "part": part,
                    "placement": placement,
                    "initialization": initialization,
                    "depth": depth,
                }
                found.append(
                    Cell(parameters, share=numbers * scale.seeds, memory=GIGABYTE + 12 * numbers)
                )
    return found


def parts(profile: Profile) -> dict[str, tuple[Scale, tuple[int, ...]]]:
    """Scale and depths of each part that the profile has."""
    found: dict[str, tuple[Scale, tuple[int, ...]]] = {"sweep": (SWEEP[profile], DEPTHS)}
    if profile in DEEPEST:
        found["deepest"] = (DEEPEST[profile], DEPTHS[-1:])
    return found


def of_a_cell(
    settings: Settings,
    part: str,
    placement: NormPlacement,
    initialization: Initialization,
    depth: int,
) -> list[list[float]]:
    """(seeds, L): each row another model that reads other tokens."""
    scale, _ = parts(settings.profile)[part]
    rows = []
    for index in range(scale.seeds):
        seed = int(np.random.SeedSequence((settings.seed, depth, index)).generate_state(1)[0])
        torch.manual_seed(seed)
        model = build(placement, initialization, depth, scale.width, settings.device)
        rows.append(gradient_norms(model, scale.batch_size).tolist())
    return rows


@experiment_of_cells(CLAIM, cells=cells, measure=of_a_cell, smoke=7, quick=82, full=3600)
def gradient_profile(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Gradients at initialisation against depth (one exponent), and layer by layer at 48 layers."""
    rows = {tuple(labels.values()): np.array(of_cell) for labels, of_cell in found}
    measurements: list[Measurement] = []
    for part, (scale, depths) in parts(settings.profile).items():
        of_part = _sweep if part == "sweep" else _deepest
        for variant in scale.variants:
            by_depth = [rows[part, *variant, depth] for depth in depths]
            measurements += of_part(by_depth, _recorder(*variant, scale))
    return measurements


def build(
    placement: NormPlacement,
    initialization: Initialization,
    depth: int,
    width: int,
    device: str = "cpu",
) -> Model:
    """An untrained model, its weights drawn from torch's global generator.

    Under ``xavier`` it meets the theorem's assumption of inputs N(0, I): token embeddings have
    variance 1 and the head, which must not inherit them, is not tied. Otherwise it is GPT-2.
    """
    config = ModelConfig(
        vocab_size=VOCABULARY,
        context_length=CONTEXT,
        n_layer=depth,
        n_head=width // D_HEAD,
        n_embd=width,
        norm_placement=placement,
        initialization=initialization,
        head="untied" if initialization == "xavier" else "tied",
    )
    with torch.device(device):
        model = Model(config)
        if initialization == "xavier":
            torch.nn.init.normal_(model.wte.weight)
    return model


def gradient_norms(model: Model, batch_size: int) -> NDArray[np.float64]:
    """Norm of the gradient of what each layer's MLP ends with, (L,), first layer first.

    The loss is the mean cross-entropy of random tokens, each predicted from random ones before it.
    """
    size = (batch_size, model.config.context_length + 1)
    tokens = torch.randint(model.config.vocab_size, size, device=model.wte.weight.device)
    loss = cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    matrices = [part.module.get_parameter("weight") for part in parts_with(model, "mlp_out")]
    gradients = torch.autograd.grad(loss, matrices)
    return torch.stack([gradient.norm() for gradient in gradients]).double().cpu().numpy()


def exponents(depths: tuple[int, ...], norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponent p of norm = c·depth^p for each seed, (seeds,), from ``norms`` (seeds, depths).

    Each seed is one observation: an interval over them needs no assumption on how the scatter of
    the norms depends on the depth.
    """
    return unweighted_slopes(depths, norms)


def _sweep(by_depth: Sequence[Rows], record: Callable[..., Measurement]) -> Iterator[Measurement]:
    """The last layer's gradient at each depth, and its exponent."""
    last = [norms[:, -1] for norms in by_depth]
    for depth, samples in zip(DEPTHS, last, strict=True):
        yield record(
            "last_layer_gradient", "1", geometric_mean_ratio_interval(samples), depth=depth
        )
    lawful = [depth >= LEAST_DEPTH_OF_LAW for depth in DEPTHS]
    depths = tuple(itertools.compress(DEPTHS, lawful))
    norms = np.stack(last, axis=1)  # (seeds, depths)
    slope = mean_interval(exponents(depths, norms[:, lawful]))
    yield record("exponent", "1", slope, from_depth=depths[0], to_depth=depths[-1])


def _deepest(by_depth: Sequence[Rows], record: Callable[..., Measurement]) -> Iterator[Measurement]:
    """Each layer's gradient in the deepest model, and the first's over the last's."""
    depth, (norms,) = DEPTHS[-1], by_depth  # (seeds, L)
    for layer, samples in enumerate(norms.T, start=1):
        typical = geometric_mean_ratio_interval(samples)
        yield record("gradient_norm", "1", typical, depth=depth, layer=layer)
    ratio = geometric_mean_ratio_interval(norms[:, 0] / norms[:, -1])
    yield record("first_to_last_ratio", "ratio", ratio, depth=depth)


def _recorder(
    placement: NormPlacement, initialization: Initialization, scale: Scale
) -> Callable[..., Measurement]:
    def record(metric: str, unit: str, estimate: Estimate, **labels: int) -> Measurement:
        return measured(
            estimate,
            claim=CLAIM,
            metric=metric,
            unit=unit,
            direction="none",
            choice="norm placement",
            option=placement,
            parameters={"initialization": initialization, "width": scale.width, **labels},
            source="automatic differentiation",
        )

    return record
