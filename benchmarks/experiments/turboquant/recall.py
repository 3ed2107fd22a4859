"""L5: is what stands in a text found again through compressed keys and values?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    Unavailable,
    experiment_of_cells,
)
from benchmarks.instruments import recall
from benchmarks.instruments.recall import Prompts, points_lost, recalled, sixteen_bits
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import subject_of
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant

CLAIM = "turboquant.recall"
RECALL, NEEDLE = "associative recall", "needle"
SEEDS = {4: 5, 3: 5, 2: 5, 1: 1}  # rotations by bits; one bit only shows that a loss is seen
FEW_SEEDS = {4: 2, 3: 5, 2: 2, 1: 1}  # of a large model
EXACT = 16  # bits, of keys and values that are not compressed
PROMPTS: dict[Profile, int] = {"full": 200}
FEW_PROMPTS: dict[Profile, int] = {"full": 16}  # of a large model, whose prompts are longer
PARTS = 4  # of the prompts, a cell each
LEAST_RECALLED = 0.99  # of the values, without compression, by the model that was trained for it
LEAST_NEEDLES = 20  # that are found without compression; fewer say nothing


def cells(settings: Settings) -> list[Cell]:
    """Parts of the prompts, of each task. Only the reference has a model beside it that recalls."""
    subject = subject_of(settings)
    tasks = {NEEDLE: 1.0}
    if settings.of_reference:
        tasks = {RECALL: 1.0, **tasks}
    memory = (4 if subject.is_large else 1) * GIGABYTE
    return [
        Cell({"task": task, "part": part}, share, memory=memory)
        for task, share in tasks.items()
        for part in range(PARTS)
    ]


def asked(settings: Settings, task: str) -> tuple[Model, Prompts]:
    """Who is asked, and what."""
    subject = subject_of(settings)
    count = (FEW_PROMPTS if subject.is_large else PROMPTS)[settings.profile]
    if task == NEEDLE:
        return subject.model(), recall.needle_prompts(subject, count, settings.seed)
    model = recall.recall_model().to(settings.device)
    return model, recall.recall_prompts(count, settings.seed)


def part_of(prompts: Prompts, part: int) -> Prompts:
    first, end = (len(prompts) * number // PARTS for number in (part, part + 1))
    return prompts[first:end]


def of_a_part(settings: Settings, task: str, part: int) -> Found:
    """By bits, for each rotation: whether each answer is found, 0 or 1 (prompts, asks).

    Only the 16 bits where too few needles are found by them.
    """
    model, prompts = asked(settings, task)
    prompts = part_of(prompts, part)
    exact = recalled(model, prompts, sixteen_bits(model, prompts))
    found = {str(EXACT): [exact.astype(int).tolist()]}
    if lacks := _what_lacks(task, exact):
        if settings.of_reference and task == NEEDLE:
            return found
        raise Unavailable(lacks)
    for bits, seeds in _seeds(settings).items():
        makers = [partial(_empty, model, prompts.length, bits, seed) for seed in range(seeds)]
        found[str(bits)] = [recalled(model, prompts, make).astype(int).tolist() for make in makers]
    return found


def _what_lacks(task: str, exact: recall.Found) -> str:
    """Why these answers, of a part of the prompts without compression, cannot show a loss."""
    if task == NEEDLE and exact.sum() < LEAST_NEEDLES / PARTS:
        return (
            f"without compression the model finds {exact.sum()} of {exact.size} needles, and "
            f"{LEAST_NEEDLES / PARTS:.0f} are needed; ask a model that copies what it has read"
        )
    if task == RECALL and exact.mean() < LEAST_RECALLED:
        return (
            f"without compression the model that was trained to recall finds {exact.mean():.1%} of "
            f"the values, and {LEAST_RECALLED:.0%} are needed; train it again: "
            "python -m benchmarks.training.train_recall"
        )
    return ""


def _seeds(settings: Settings) -> dict[int, int]:
    return FEW_SEEDS if subject_of(settings).is_large else SEEDS


def _empty(model: Model, capacity: int, bits: int, seed: int, batch_size: int) -> QuantizedKVCache:
    codec = TurboQuant(model.config.d_head, bits, seed=seed)
    return QuantizedKVCache(model, batch_size, capacity, codec)


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_part,
    smoke=None,
    quick=None,
    full=600,
    of_any_model=True,
)
def recall_lost(settings: Settings, found: CellsFound) -> list[Measurement]:
    """How many points of the answers are lost at 4, 3, 2 and 1 bits, each prompt against itself.

    Values that a small model was trained to recall, all of them; of needles those that the subject
    finds without compression. Chance can only lose these, so that what is lost and gained of all
    needles stands beside it. A subject that finds too few of them is not asked further.
    """
    parts: dict[str, list[Found]] = {}
    for labels, of_part in found:
        parts.setdefault(str(labels["task"]), []).append(of_part)
    return [m for task, of_task in parts.items() for m in _of_a_task(settings, task, of_task)]


def _of_a_task(settings: Settings, task: str, parts: list[Found]) -> Iterator[Measurement]:
    _, prompts = asked(settings, task)
    record = partial(measured, claim=CLAIM, choice="cache format", source="checkpoint")
    exact, *_ = _joined(parts, EXACT)
    labels: dict[str, Parameter] = {"task": task, "bits": EXACT}
    told = partial(record, option="float16", parameters=labels, direction="none")
    yield told(int(exact.sum()), metric="answers_found", unit="answers")
    yield told(exact.size, metric="answers_asked", unit="answers")
    if any(len(part) == 1 for part in parts):  # too few needles are found at all
        return
    for bits, seeds in _seeds(settings).items():
        found = _joined(parts, bits)
        named: dict[str, Parameter] = {"task": task, "bits": bits, "seeds": seeds}
        lost = partial(
            record, option="turboquant", parameters=named, unit="points", direction="lower"
        )
        counted = exact if task == NEEDLE else None
        yield lost(points_lost(prompts, exact, found, counted), metric="points_lost")
        if task == NEEDLE:
            yield lost(points_lost(prompts, exact, found), metric="points_lost_of_all")


def _joined(parts: list[Found], bits: int) -> list[recall.Found]:
    """For each rotation what all prompts found."""
    of_seeds = zip(*(part[str(bits)] for part in parts), strict=True)
    return [np.concatenate(of_parts).astype(bool) for of_parts in of_seeds]
