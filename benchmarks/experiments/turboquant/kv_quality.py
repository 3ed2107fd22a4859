"""L5: what compressed keys and values cost the checkpoint on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.cache_quality import attention_errors, mean_bits, qualities
from benchmarks.instruments.windows import Windows
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import Subject, subject_of
from benchmarks.subjects.transformers_model import TransformersModel
from reference_model.quantization.baselines import (
    AbsmaxBlocks,
    Float8,
    Int8,
    PerChannel,
    PerToken,
    Plain,
)
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import Projection, Scale, TurboQuant, TurboQuantProd

BITS = (2, 3, 4)
SEEDS, FEW_SEEDS = 5, 2
# Windows that are read, spread over all test plays; two of each of the 27 stretches of text are
# enough, since what the seeds draw scatters as much.
WINDOWS: dict[Profile, int] = {"smoke": 20, "quick": 20, "full": 54}
PROBED_WINDOWS = 20  # of which attention errors are taken, in the full profile
RECENT = 32  # tokens that stay exact in the formats that keep some


@dataclass(frozen=True)
class Way:
    """A way to hold keys and values: one pair of codecs for each seed of what it draws."""

    option: str
    parameters: dict[str, Parameter]
    pairs: Sequence[tuple[Codec, Codec]]
    how: dict[str, int | bool] = field(default_factory=dict)  # of the cache

    @property
    def name(self) -> str:
        return ", ".join([self.option, *(f"{key} {v}" for key, v in self.parameters.items())])

    def caches(
        self, model: Model | TransformersModel, capacity: int
    ) -> Iterator[Callable[[int], Any]]:
        """For each seed what makes an empty cache for so many sequences of ``capacity`` tokens.

        Where transformers runs the model, a cache of its own kind, which grows.
        """
        for keys, values in self.pairs:
            if isinstance(model, TransformersModel):
                yield partial(_empty_of_transformers, keys, values)
            else:
                yield partial(_empty, model, capacity, keys, values, self.how)


def _empty(
    model: Model,
    capacity: int,
    keys: Codec,
    values: Codec,
    how: dict[str, int | bool],
    batch_size: int,
) -> QuantizedKVCache:
    window, drop_biases = int(how.get("window", 0)), bool(how.get("drop_biases", True))
    return QuantizedKVCache(
        model, batch_size, capacity, keys, values, window=window, drop_biases=drop_biases
    )


def _empty_of_transformers(keys: Codec, values: Codec, batch_size: int) -> Any:
    from reference_model.huggingface import packed_cache

    return packed_cache(lambda width: keys, lambda width: values)


def turboquant(width: int, bits: int, seeds: int, scale: Scale = "norm") -> list[Codec]:
    return [TurboQuant(width, bits, scale=scale, seed=seed) for seed in range(seeds)]


def of_both(codecs: Sequence[Codec]) -> list[tuple[Codec, Codec]]:
    return [(codec, codec) for codec in codecs]


# ---- no loss at 3 bits?


def ways_without_loss(settings: Settings) -> Iterator[tuple[str, Way]]:
    """Ways to hold keys and values, each with the prefix of its metrics.

    Of another model than the reference shorter profiles read all sizes, and no peers, the formats
    of others: it is asked for the first time, and a peer costs as much as a size.
    """
    full, smoke = settings.profile == "full", settings.profile == "smoke"
    subject = subject_of(settings)
    width, every_size = subject.width, full or not settings.of_reference
    ours = subject.is_built_here
    seeds = 1 if smoke else FEW_SEEDS if subject.is_large and not full else SEEDS
    for bits in BITS if every_size else (3,):  # the claim speaks of 3 bits
        both: dict[str, Parameter] = {"bits": bits, "compressed": "keys and values"}
        yield "", Way("turboquant", both, of_both(turboquant(width, bits, seeds)))
    exact = Plain(width, torch.float32)
    for bits in BITS if full else ():
        codecs = turboquant(width, bits, seeds)
        for compressed, pairs in (
            ("keys", [(codec, exact) for codec in codecs]),
            ("values", [(exact, codec) for codec in codecs]),
        ):
            yield "", Way("turboquant", {"bits": bits, "compressed": compressed}, pairs)
    if ours and (full or not (smoke or every_size)):
        for way in _formats(subject, seeds if full else 1, full):
            yield "format_", way
    for way in _variations(width, seeds) if full and ours else ():
        yield "variation_", way


def cells_without_loss(settings: Settings) -> list[Cell]:
    return _cells(ways_without_loss(settings))


def of_a_way(settings: Settings, prefix: str, way: str) -> Found:
    return through_caches(settings, _named(ways_without_loss(settings))[prefix, way])


@experiment_of_cells(
    "turboquant.zero-loss",
    cells=cells_without_loss,
    measure=of_a_way,
    smoke=5,
    quick=37,
    full=2400,
    of_any_model=True,
    as_run_elsewhere=True,
)
def zero_loss(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Held-out loss through compressed keys and values, read as a server would read them.

    The peers stand at the bits that they hold: scales included, and tokens in a window at 16 bits.
    """
    record = recorder("turboquant.zero-loss")
    ways = _named(ways_without_loss(settings))
    return [
        m
        for (prefix, way), (_, read) in zip(ways, found, strict=True)
        for m in _of_way(settings, ways[prefix, way], read, record, prefix)
    ]


def _cells(ways: Iterable[tuple[str, Way]]) -> list[Cell]:
    """A cell for each way; each seed reads the text once more."""
    return [
        Cell({"prefix": prefix, "way": way}, share=1 + len(each.pairs))
        for (prefix, way), each in _named(ways).items()
    ]


def _named(ways: Iterable[tuple[str, Way]]) -> dict[tuple[str, str], Way]:
    return {(prefix, way.name): way for prefix, way in ways}


def _formats(subject: Subject, seeds: int, full: bool) -> Iterator[Way]:
    """What keys and values can be held in, at several sizes each: loss against bits."""
    width = subject.width

    def way(option: str, bits: int, pairs: list[tuple[Codec, Codec]], recent: int = 0) -> Way:
        held = _bits_held(*pairs[0], recent, subject.window)
        return Way(option, {"bits": bits, "bits_held": held}, pairs, {"window": recent})

    for bits in BITS if full else (2, 3):
        for scale in get_args(Scale) if full else ("norm",):
            name = f"turboquant, {scale.replace('_', ' ')} scale"
            yield way(name, bits, of_both(turboquant(width, bits, seeds, scale)))
        recent = of_both(turboquant(width, bits, seeds))
        yield way(f"turboquant, window of {RECENT}", bits, recent, RECENT)
        yield way("rounding per token", bits, of_both([PerToken(width, bits)]))
        kivi: list[tuple[Codec, Codec]] = [(PerChannel(width, bits), PerToken(width, bits))]
        yield way(f"KIVI, window of {RECENT}", bits, kivi, RECENT)
        rotated = [AbsmaxBlocks(width, bits, seed=seed) for seed in range(seeds)]
        yield way("rotated absmax blocks", bits, of_both(rotated))
        if full:
            yield way("absmax blocks", bits, of_both([AbsmaxBlocks(width, bits)]))
        for projection in get_args(Projection) if full else ():
            prod = [
                TurboQuantProd(width, bits, projection=projection, seed=seed)
                for seed in range(seeds)
            ]
            yield way(f"turboquant prod, {projection} S", bits, of_both(prod))
    if full:
        yield way("turboquant, norm scale", 1, of_both(turboquant(width, 1, seeds)))
        yield way("float8 e4m3", 8, of_both([Float8(width)]))
    yield way("int8 per token", 8, of_both([Int8(width)]))


def _bits_held(keys: Codec, values: Codec, recent: int, window: int) -> float:
    """Bits a value, scales and exact tokens included, while a window fills up."""
    coded = (keys.bits_per_value + values.bits_per_value) / 2

    def encoded(length: int) -> int:
        return max(0, (length - recent) // keys.block * keys.block)

    return mean_bits(coded, encoded, window)


def _variations(width: int, seeds: int) -> Iterator[Way]:
    """The 3-bit cache with one thing changed."""
    for bits in BITS:
        codecs = of_both(turboquant(width, bits, seeds))
        yield Way("biases kept", {"bits": bits}, codecs, {"drop_biases": False})
        hadamard: list[Codec] = [
            TurboQuant(width, bits, rotation="hadamard", seed=seed) for seed in range(seeds)
        ]
        yield Way("Hadamard rotation", {"bits": bits}, of_both(hadamard))


def through_caches(settings: Settings, way: Way) -> Found:
    """What `read_through` returns of one way.

    The full profile has errors of attention outputs beside it, of fewer windows.
    """
    subject = subject_of(settings)
    model = subject.module()
    read = read_through(subject, text_of(settings), [way])[way.name]
    if settings.profile == "full" and not isinstance(model, TransformersModel):
        caches = {str(seed): make for seed, make in enumerate(way.caches(model, subject.window))}
        errors = attention_errors(model, text_of(settings, PROBED_WINDOWS), caches)
        read["errors"] = [errors[seed].output_errors for seed in caches]
    return read


def read_through(subject: Subject, windows: Windows, ways: Sequence[Way]) -> dict[str, Found]:
    """By the name of each way, means over the tokens of each window, as JSON can hold them.

    Without a cache, which is the same for all, and through the way's own, seed by seed.
    """
    model = subject.module()
    caches = {
        f"{way.name}, seed {seed}": make
        for way in ways
        for seed, make in enumerate(way.caches(model, subject.window))
    }
    baseline, found = qualities(model, windows, caches)
    read: dict[str, Found] = {}
    for way in ways:
        seeds = [found[f"{way.name}, seed {seed}"] for seed in range(len(way.pairs))]
        read[way.name] = {
            "baseline": baseline.mean(axis=1).tolist(),
            "losses": [seed.losses.mean(axis=1).tolist() for seed in seeds],
            "divergences": [seed.divergences.mean(axis=1).tolist() for seed in seeds],
            "agreements": [seed.agreements.mean(axis=1).tolist() for seed in seeds],
        }
    return read


def together(read: Sequence[Found]) -> Found:
    """What `read_through` returned of a way's seeds, some at a time: as if of all at once."""
    rows = ("losses", "divergences", "agreements")
    return {
        "baseline": read[0]["baseline"],
        **{name: [row for some in read for row in some[name]] for name in rows},
    }


def text_of(settings: Settings, count: int | None = None) -> Windows:
    """So many windows of the held-out text; None: as many as the profile reads."""
    return subject_of(settings).windows(count or WINDOWS[settings.profile], settings.seed)


def _of_way(
    settings: Settings,
    way: Way,
    read: Mapping[str, Found],
    record: Callable[..., Measurement],
    prefix: str,
) -> Iterator[Measurement]:
    yield from measurements(text_of(settings), way, read, record, prefix)
    if "errors" in read:
        yield record(
            text_of(settings, PROBED_WINDOWS).crossed_mean(read["errors"]),
            metric=f"{prefix}attention_output_error",
            unit="of ‖y‖²",
            option=way.option,
            parameters={**way.parameters, "seeds": len(way.pairs)},
        )


def recorder(claim: str) -> Callable[..., Measurement]:
    return partial(
        measured, claim=claim, choice="cache format", direction="lower", source="checkpoint"
    )


def measurements(
    windows: Windows,
    way: Way,
    read: Mapping[str, Found],
    record: Callable[..., Measurement],
    prefix: str = "",
) -> Iterator[Measurement]:
    """What one way costs: intervals over windows of text, and over seeds where it has some."""
    labels = {**way.parameters, "seeds": len(way.pairs)}
    record = partial(record, option=way.option, parameters=labels)
    increase = windows.crossed_mean(np.array(read["losses"]) - np.array(read["baseline"]))
    yield record(increase, metric=f"{prefix}loss_increase", unit="nats/token")
    yield record(
        windows.crossed_mean(read["divergences"]),
        metric=f"{prefix}prediction_kl",
        unit="nats/token",
    )
    yield record(
        windows.crossed_mean(read["agreements"]),
        metric=f"{prefix}top1_agreement",
        unit="share of tokens",
        direction="higher",
    )
