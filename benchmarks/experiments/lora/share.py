"""L1, LoRA: how few weights it trains, and how long an adapted linear takes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Settings,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.record.results import Measurement, measured
from reference_model.config import preset
from reference_model.costs import LoRATarget, lora_parameters, parameter_count

CLAIM = "lora.trainable-share"
RANKS = [2**i for i in range(9)]  # 1 … 256
TARGETS: dict[str, tuple[LoRATarget, ...]] = {
    "query,value": ("query", "value"),
    "all attention": ("query", "key", "value", "attention_output"),
    "all linears": ("query", "key", "value", "attention_output", "mlp_in", "mlp_out"),
}
PROCESSES = 10  # that are timed


def cells(settings: Settings) -> list[Cell]:
    """What is counted; in full also how long an adapted linear takes, a process at a time."""
    timed = settings.profile == "full" and settings.device == "cpu" and settings.of_reference
    return [Cell({"part": "counted"}, share=0.1)] + [
        Cell({"part": "timed", "process": index}, share=9, timed=True)
        for index in range(PROCESSES if timed else 0)
    ]


def of_a_cell(settings: Settings, part: str, process: int = 0) -> Found:
    """Measurements of what is counted; seconds of one process, and its threads."""
    if part == "counted":
        return as_found(_counted(settings))
    # Not above: the share is in the history of commits that have no adapters yet.
    from benchmarks.experiments.lora.speed import one_sample

    return one_sample()


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=0.1,
    quick=0.1,
    full=90,
    of_any_model=True,
)
def trainable_share(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Trained weights in percent of all frozen ones, GPT-2 small, by rank, targets and head.

    The full profile has beside it how long an adapted linear takes.
    """
    measurements = joined(settings, found[:1])
    if samples := [of_process for _, of_process in found[1:]]:
        from benchmarks.experiments.lora.speed import forward_ratios

        measurements += forward_ratios(CLAIM, samples)
    return measurements


def _counted(settings: Settings) -> Iterator[Measurement]:
    """Of GPT-2 small with each head; of another subject, with its own."""
    configs = [preset("gpt2", head=head) for head in ("untied", "tied")]
    if not settings.of_reference:
        from benchmarks.subjects.subject import subject_of

        configs = [subject_of(settings).config]
    for config in configs:
        head = config.head
        for targets, names in TARGETS.items():
            for rank in RANKS:
                share = 100 * lora_parameters(config, rank, names) / parameter_count(config)
                yield measured(
                    share,
                    claim=CLAIM,
                    metric="trainable_share",
                    unit="percent",
                    direction="lower",
                    choice="adapters",
                    option="LoRA",
                    parameters={"rank": rank, "targets": targets, "head": head},
                    source="closed form",
                )
