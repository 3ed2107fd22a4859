"""L5: what TurboQuant holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.experiments.turboquant import kv_speed
from benchmarks.instruments.memory import cache_bytes_held
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model, ModelConfig
from benchmarks.subjects.subject import subject_of
from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

CLAIM = "turboquant.memory"
PACKED = (2, 3, 4)  # sizes of code that people use
WIDTHS = (64, 128)  # of heads, of equal size in all
TOKENS = (64, 256, 1024)
WINDOW = 128  # tokens that stay uncompressed, as deployments keep them
# Processes of each kind that are timed; none: only what is counted.
PROCESSES: dict[Profile, int] = {"smoke": 0, "quick": 0, "full": 5}


def cells(settings: Settings) -> list[Cell]:
    """What is counted; in full also, a process at a time, what the clock and the system say."""
    found = [Cell({"part": "counted"}, share=2)]
    processes = PROCESSES[settings.profile]
    if settings.device == "cpu":  # what is timed there is written for it
        found += [
            Cell({"part": part, "process": index}, share=15, timed=True, memory=2 * GIGABYTE)
            for part in kv_speed.SAMPLES
            for index in range(processes)
        ]
    return found


def of_a_cell(settings: Settings, part: str, process: int = 0) -> Found:
    return as_found(_counted(settings)) if part == "counted" else kv_speed.sample(part)


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=1.5,
    quick=2,
    full=240,
    of_any_model=True,
)
def memory(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Bytes of real buffers over those of the same cache uncompressed: everything is counted."""
    samples = {
        part: [of_process for labels, of_process in found if labels["part"] == part]
        for part in kv_speed.SAMPLES
    }
    return joined(settings, found[:1]) + list(kv_speed.measurements(CLAIM, samples))


def _counted(settings: Settings) -> Iterator[Measurement]:
    """GPT-2's shape with heads of two widths; of another subject, its own."""
    shape = preset("gpt2", vocab_size=8)
    configs = [shape.replace(n_head=shape.n_embd // width) for width in WIDTHS]
    if not settings.of_reference:
        configs = [subject_of(settings).config.replace(vocab_size=8)]
    for config in configs:
        width = config.d_head
        with torch.device(settings.device):
            model = Model(config)
        codecs: dict[str, dict[int, Codec]] = {
            "turboquant": {bits: TurboQuant(width, bits) for bits in PACKED},
            "prod": {bits: TurboQuantProd(width, bits) for bits in PACKED},
        }
        for option, of_bits in codecs.items():
            for bits, codec in of_bits.items():
                for tokens in TOKENS:
                    labels: dict[str, Parameter] = {"bits": bits, "width": width, "tokens": tokens}
                    yield from _bytes(model, config, codec, option, labels)


def _bytes(
    model: Model, config: ModelConfig, codec: Codec, option: str, labels: dict[str, Parameter]
) -> Iterator[Measurement]:
    """Compression, and bits held a value. The claim is about the longest and without a window."""
    record = partial(measured, claim=CLAIM, choice="cache format", option=option, source="buffers")
    tokens, device = int(labels["tokens"]), model.wte.weight.device
    plain = {
        name: cache_bytes_held(KVCache(config, 1, tokens, dtype, device))["reserved"].value
        for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32))
    }
    values = 2 * config.n_layer * tokens * config.n_kv_head * config.d_head
    for window in (0, WINDOW):
        if window >= tokens:
            continue
        cache = QuantizedKVCache(model, 1, tokens, codec, window=window)
        held = cache_bytes_held(cache)["reserved"].value
        named = {**labels, "window": window}
        yield record(
            8 * held / values,
            metric="bits_held",
            unit="bits/value",
            direction="lower",
            parameters=named,
        )
        claimed = window == 0 and tokens == max(TOKENS) and option == "turboquant"
        for against, nbytes in plain.items():
            yield record(
                nbytes / held,
                metric="compression" if claimed else "compression_otherwise",
                unit="ratio",
                direction="higher",
                parameters={**named, "against": against},
            )
