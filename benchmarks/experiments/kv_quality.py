"""L5: what compressed keys and values cost the checkpoint on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

import numpy as np
import torch

from benchmarks.experiment import Profile, Settings, experiment
from benchmarks.instruments.cache_quality import (
    Array,
    AttentionErrors,
    Quality,
    attention_errors,
    qualities,
)
from benchmarks.instruments.texts import play_windows
from benchmarks.results import Measurement, Parameter, measured
from reference_model.checkpoints import load_reference
from reference_model.config import preset
from reference_model.model import GPT
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

WIDTH = 64  # of the checkpoint's heads
BITS = (2, 3, 4)
SEEDS = 5
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

    def caches(self, model: GPT) -> Iterator[Callable[[int], QuantizedKVCache]]:
        """For each seed what makes an empty cache for so many sequences."""
        for keys, values in self.pairs:
            yield partial(_empty, model, keys, values, self.how)


def _empty(
    model: GPT, keys: Codec, values: Codec, how: dict[str, int | bool], batch_size: int
) -> QuantizedKVCache:
    window, drop_biases = int(how.get("window", 0)), bool(how.get("drop_biases", True))
    return QuantizedKVCache(
        model,
        batch_size,
        model.config.context_length,
        keys,
        values,
        window=window,
        drop_biases=drop_biases,
    )


def turboquant(bits: int, seeds: int, scale: Scale = "norm") -> list[Codec]:
    return [TurboQuant(WIDTH, bits, scale=scale, seed=seed) for seed in range(seeds)]


def of_both(codecs: Sequence[Codec]) -> list[tuple[Codec, Codec]]:
    return [(codec, codec) for codec in codecs]


# ---- no loss at 3 bits?


@experiment("turboquant.zero-loss", smoke=5, quick=37, full=2400)
def zero_loss(settings: Settings) -> list[Measurement]:
    """Held-out loss through compressed keys and values, read as a server would read them.

    The rivals stand at the bits that they hold: scales included, and tokens in a window at 16 bits.
    """
    full, smoke = settings.profile == "full", settings.profile == "smoke"
    seeds = 1 if smoke else SEEDS
    claimed = [
        Way("turboquant", {"bits": bits, "compressed": "keys and values"}, of_both(codecs))
        for bits in ((3,) if smoke else BITS)
        for codecs in [turboquant(bits, seeds)]
    ]
    exact = Plain(WIDTH, torch.float32)
    for bits in () if smoke else BITS if full else (3,):
        codecs = turboquant(bits, seeds)
        for compressed, pairs in (
            ("keys", [(codec, exact) for codec in codecs]),
            ("values", [(exact, codec) for codec in codecs]),
        ):
            claimed.append(Way("turboquant", {"bits": bits, "compressed": compressed}, pairs))
    rivals = [] if smoke else list(_formats(seeds if full else 1, full))
    others = list(_variations(seeds)) if full else []
    ways = {"": claimed, "format_": rivals, "variation_": others}
    measurer = _Measurer(
        settings, "turboquant.zero-loss", [w for kind in ways.values() for w in kind]
    )
    found: list[Measurement] = []
    for prefix, of_kind in ways.items():
        for way in of_kind:
            found += measurer.measurements(way, prefix)
    return found


def _formats(seeds: int, full: bool) -> Iterator[Way]:
    """What keys and values can be held in, at several sizes each: loss against bits."""

    def way(option: str, bits: int, pairs: list[tuple[Codec, Codec]], recent: int = 0) -> Way:
        held = _bits_held(*pairs[0], recent)
        return Way(option, {"bits": bits, "bits_held": held}, pairs, {"window": recent})

    for bits in BITS if full else (2, 3):
        for scale in get_args(Scale) if full else ("norm",):
            name = f"turboquant, {scale.replace('_', ' ')} scale"
            yield way(name, bits, of_both(turboquant(bits, seeds, scale)))
        recent = of_both(turboquant(bits, seeds))
        yield way(f"turboquant, window of {RECENT}", bits, recent, RECENT)
        yield way("rounding per token", bits, of_both([PerToken(WIDTH, bits)]))
        kivi: list[tuple[Codec, Codec]] = [(PerChannel(WIDTH, bits), PerToken(WIDTH, bits))]
        yield way(f"KIVI, window of {RECENT}", bits, kivi, RECENT)
        rotated = [AbsmaxBlocks(WIDTH, bits, seed=seed) for seed in range(seeds)]
        yield way("rotated absmax blocks", bits, of_both(rotated))
        if full:
            yield way("absmax blocks", bits, of_both([AbsmaxBlocks(WIDTH, bits)]))
        for projection in get_args(Projection) if full else ():
            prod = [
                TurboQuantProd(WIDTH, bits, projection=projection, seed=seed)
                for seed in range(seeds)
            ]
            yield way(f"turboquant prod, {projection} S", bits, of_both(prod))
    if full:
        yield way("turboquant, norm scale", 1, of_both(turboquant(1, seeds)))
        yield way("float8 e4m3", 8, of_both([Float8(WIDTH)]))
    yield way("int8 per token", 8, of_both([Int8(WIDTH)]))


def _bits_held(keys: Codec, values: Codec, recent: int) -> float:
    """Bits a value, scales and exact tokens (at 16 bits) included, while a context fills up.

    A mean over the positions at which the loss is taken: early on, most of what is read is recent.
    """
    coded = (keys.bits_per_value + values.bits_per_value) / 2
    shares = []
    for length in range(1, preset("reference").context_length + 1):
        exact = length - max(0, (length - recent) // keys.block * keys.block)
        shares.append((coded * (length - exact) + 16 * exact) / length)
    return float(np.mean(shares))


def _variations(seeds: int) -> Iterator[Way]:
    """The 3-bit cache with one thing changed."""
    for bits in BITS:
        codecs = of_both(turboquant(bits, seeds))
        yield Way("biases kept", {"bits": bits}, codecs, {"drop_biases": False})
        hadamard: list[Codec] = [
            TurboQuant(WIDTH, bits, rotation="hadamard", seed=seed) for seed in range(seeds)
        ]
        yield Way("Hadamard rotation", {"bits": bits}, of_both(hadamard))


class _Measurer:
    """Runs all ways over the same text, and says what each one does to the loss."""

    def __init__(self, settings: Settings, claim: str, ways: Sequence[Way]) -> None:
        self.record = partial(
            measured, claim=claim, choice="cache format", direction="lower", source="checkpoint"
        )
        model = load_reference().to(settings.device)
        length, count = model.config.context_length, WINDOWS[settings.profile]
        self.windows = play_windows("test", length, count, settings.seed)
        caches = {
            (index, seed): make
            for index, way in enumerate(ways)
            for seed, make in enumerate(way.caches(model))
        }
        names = {f"{index}/{seed}": make for (index, seed), make in caches.items()}
        self.baseline, found = qualities(model, self.windows, names)
        self.probed_windows = play_windows("test", length, PROBED_WINDOWS, settings.seed)
        probed: dict[str, AttentionErrors] = {}
        if settings.profile == "full":
            probed = attention_errors(model, self.probed_windows, names)
        self._found: dict[int, list[Quality]] = {
            id(way): [found[f"{index}/{seed}"] for seed in range(len(way.pairs))]
            for index, way in enumerate(ways)
        }
        self._probed: dict[int, list[AttentionErrors]] = {
            id(way): [probed[f"{index}/{seed}"] for seed in range(len(way.pairs))]
            for index, way in enumerate(ways)
            if probed
        }

    def losses(self, way: Way) -> Array:
        """(seeds, windows): means over the tokens of each window."""
        return np.stack([quality.losses.mean(axis=1) for quality in self._found[id(way)]])

    def measurements(self, way: Way, prefix: str = "") -> Iterator[Measurement]:
        """What one way costs: intervals over windows of text, and over seeds where it has some."""
        seen = self._found[id(way)]
        labels = {**way.parameters, "seeds": len(seen)}
        record = partial(self.record, option=way.option, parameters=labels)
        increase = self.windows.crossed_mean(self.losses(way) - self.baseline.mean(axis=1))
        yield record(increase, metric=f"{prefix}loss_increase", unit="nats/token")
        divergences = np.stack([quality.divergences.mean(axis=1) for quality in seen])
        yield record(
            self.windows.crossed_mean(divergences),
            metric=f"{prefix}prediction_kl",
            unit="nats/token",
        )
        agreements = np.stack([quality.agreements.mean(axis=1) for quality in seen])
        yield record(
            self.windows.crossed_mean(agreements),
            metric=f"{prefix}top1_agreement",
            unit="share of tokens",
            direction="higher",
        )
        if id(way) in self._probed:
            errors = [each.output_errors for each in self._probed[id(way)]]
            yield record(
                self.probed_windows.crossed_mean(errors),
                metric=f"{prefix}attention_output_error",
                unit="of ‖y‖²",
            )


# ---- keys against values

SHARES = ((4, 2), (3, 3), (2, 4))  # bits of keys and of values, six in all


@experiment("turboquant.keys-need-more", smoke=None, quick=None, full=200)
def keys_need_more(settings: Settings) -> list[Measurement]:
    """Six bits for a key and its value together, shared out in three ways.

    ``loss_saved``: what the loss falls by when the larger part goes to the keys.
    """
    ways = {
        (of_keys, of_values): Way(
            "turboquant",
            {"key_bits": of_keys, "value_bits": of_values},
            list(zip(turboquant(of_keys, SEEDS), turboquant(of_values, SEEDS), strict=True)),
        )
        for of_keys, of_values in SHARES
    }
    kept = {
        shares: replace(way, how={"drop_biases": False})
        for shares, way in (ways.items() if settings.profile == "full" else ())
    }
    measurer = _Measurer(settings, "turboquant.keys-need-more", [*ways.values(), *kept.values()])
    found: list[Measurement] = []
    # Where biases are kept, keys are as large as the key bias makes them: beside the claim.
    for of_kind, suffix in ((ways, ""), (kept, "_biases_kept")):
        if not of_kind:
            continue
        for way in of_kind.values():
            found += measurer.measurements(way, suffix.removeprefix("_") + "_" * bool(suffix))
        saved = measurer.losses(of_kind[2, 4]) - measurer.losses(of_kind[4, 2])
        found.append(
            measurer.record(
                measurer.windows.crossed_mean(saved),
                metric=f"loss_saved{suffix}",
                unit="nats/token",
                direction="none",
                option="4 bits for keys, 2 for values",
                parameters={"seeds": SEEDS},
            )
        )
    return found
