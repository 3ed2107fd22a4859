"""What the referee compares: a format at its bits, with the options that any format can have.

Sinks, a window of recent tokens and layers of more bits are options of the referee, and no part of
a format: each format is a row without any, and one as its authors use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.instruments.cache_quality import mean_bits
from benchmarks.referee.decoded_once import decoded_once
from benchmarks.referee.formats import FORMATS, Format
from reference_model.errors import UserError
from reference_model.quantization.baselines import Int8
from reference_model.quantization.calibration import Calibration
from reference_model.quantization.codec import Codec, nbytes_of
from reference_model.quantization.kv_cache import QuantizedKVCache

if TYPE_CHECKING:
    from benchmarks.record.results import Parameter
    from benchmarks.subjects.built import Model

# Of what a format draws. They scatter more than windows do: more of them decide sooner.
SEEDS = 5
MOST_EXACT = 0.75  # of a window before the first token that is read decoded
CLAIMED = 3  # bits that the claim is about
TURBOQUANT = "turboquant"  # names of its own variants begin with it


@dataclass(frozen=True)
class Row:
    """A format at its bits, and its options.

    ``sinks`` and ``window``: how many of the first and of the newest tokens are read exactly;
    ``layers``: how many of the first and of the last have INT8 instead.
    """

    format: str
    key_bits: int
    value_bits: int
    sinks: int = 0
    window: int = 0
    layers: int = 0

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What a cell is asked for by: ``Row(**row.parameters)`` is the same row."""
        return asdict(self)

    @property
    def of(self) -> Format:
        return FORMATS[self.format]

    @property
    def seeds(self) -> int:
        return SEEDS if self.of.draws else 1

    @property
    def bare(self) -> bool:
        return not (self.sinks or self.window or self.layers)

    @property
    def waiting(self) -> int:
        """Tokens of a text before the first that is read decoded."""
        return self.sinks + self.window + self.of.block

    @property
    def options(self) -> str:
        """In words."""
        told = [f"{self.sinks} sinks"] * (self.sinks > 0)
        told += [f"a window of {self.window}"] * (self.window > 0)
        told += [f"INT8 in {self.layers} layers at each end"] * (self.layers > 0)
        return " and ".join(told) or "bare"

    @property
    def bits(self) -> str:
        """Of a code, in words: those of keys, and of values where they differ."""
        if self.key_bits == self.value_bits:
            return str(self.key_bits)
        return f"{self.key_bits} + {self.value_bits}"

    @property
    def name(self) -> str:
        return f"{self.of.title}, {self.bits} bits" + f", {self.options}" * (not self.bare)

    @property
    def is_turboquant(self) -> bool:
        """Whether it is TurboQuant, or a variant of it."""
        return self.format.startswith(TURBOQUANT)

    def caches(
        self,
        model: Model,
        capacity: int,
        calibration: Sequence[Calibration] | None,
        *,
        decoded: bool = False,
    ) -> Iterator[Callable[[int], QuantizedKVCache]]:
        """For each seed what makes an empty cache for so many sequences of ``capacity`` tokens.

        ``decoded``: it holds what its codecs give back, which quality alone may ask for.
        """
        for seed in range(self.seeds):
            codecs = self.codecs(model, seed, calibration)
            if decoded:
                of = {codec: decoded_once(codec) for of_role in codecs for codec in of_role}
                codecs = [[of[codec] for codec in of_role] for of_role in codecs]
            yield partial(self._empty, model, capacity, codecs)

    def codecs(
        self, model: Model, seed: int = 0, calibration: Sequence[Calibration] | None = None
    ) -> list[list[Codec]]:
        """Of keys and of values, layer by layer."""
        config = model.config
        found: list[list[Codec]] = []
        for of_role in self.of.codecs(
            config.d_head, self.key_bits, self.value_bits, seed=seed, calibration=calibration
        ):
            if isinstance(of_role, Codec):
                of_role = [of_role] * config.n_layer
            found.append([*of_role])
        if self.layers:
            finer = Int8(config.d_head)
            ends = {*range(self.layers), *range(config.n_layer - self.layers, config.n_layer)}
            found = [[finer if i in ends else c for i, c in enumerate(of)] for of in found]
        return found

    def _empty(
        self, model: Model, capacity: int, codecs: list[list[Codec]], batch_size: int
    ) -> QuantizedKVCache:
        keys, values = codecs
        return QuantizedKVCache(
            model,
            batch_size,
            capacity,
            keys,
            None if keys == values else values,
            window=self.window,
            sinks=self.sinks,
        )


def bits_held(cache: QuantizedKVCache, tokens: int) -> float:
    """Bits a value while a text of so many tokens is read; what is held once is not counted."""
    codecs = [store.codec for of_layer in cache.stores for store in of_layer]
    coded = sum(codec.bits_per_value for codec in codecs) / len(codecs)
    return mean_bits(coded, cache.encoded, tokens)


def bytes_once(cache: QuantizedKVCache) -> int:
    """Bytes that are held however many tokens there are: rotations, tables, calibrated scales."""
    return nbytes_of(
        tensor
        for of_layer in cache.stores
        for store in of_layer
        for tensor in store.codec.constants
    )


def rows(width: int, tokens: int, bits: Sequence[int] | None = None) -> list[Row]:
    """All that are compared, of heads so wide, by windows of so many tokens.

    Each format bare at each of its bits; as its authors use it; and TurboQuant with each option. Of
    ``bits`` of a code alone, where some are given. A row that reads nearly nothing decoded is left
    out: its numbers would be those of the tokens that it keeps exactly.
    """
    found = [*_bare(width), *_as_published(width), *_turboquant_with_options()]
    return [
        row
        for row in found
        if (bits is None or {row.key_bits, row.value_bits} <= {*bits})
        and row.waiting <= MOST_EXACT * tokens
    ]


def with_options(
    chosen: Sequence[Row], sinks: int | None, window: int | None, layers: int | None
) -> list[Row]:
    """The bare ones of these rows, each with the same options; those given as None stay 0."""
    return [
        replace(row, sinks=sinks or 0, window=window or 0, layers=layers or 0)
        for row in chosen
        if row.bare
    ]


def _bare(width: int) -> Iterator[Row]:
    for name, each in FORMATS.items():
        if fits(each, width):
            yield from (Row(name, bits, bits) for bits in each.bits)


def _as_published(width: int) -> Iterator[Row]:
    """KVarN's presets have fewer bits for values, too."""
    for name, each in FORMATS.items():
        if not (each.published and (each.sinks or each.window) and fits(each, width)):
            continue
        shared = [(bits, bits) for bits in each.bits]
        for of_keys, of_values in [*shared, (4, 2)] if name == "kvarn" else shared:
            yield Row(name, of_keys, of_values, each.sinks, each.window)


def _turboquant_with_options() -> Iterator[Row]:
    plain = Row(TURBOQUANT, 3, 3)
    yield from (
        replace(plain, window=32),
        replace(plain, sinks=4, window=32),
        replace(plain, layers=1),
    )


def fits(each: Format, width: int) -> bool:
    """Whether heads so wide can be held in it."""
    moment = torch.eye(width, dtype=torch.float64)
    calibration = [Calibration(moment, moment, 1.0, 1.0, tokens=1)]
    try:
        each.codecs(width, each.bits[0], calibration=calibration)
    except UserError:
        return False
    return True


def one_of_each_format(chosen: Sequence[Row]) -> list[Row]:
    """At 3 bits or the nearest to them: what is timed, and told in depth.

    Bare, or with the options that all rows were given.
    """
    own = [row for row in chosen if row.bare] or chosen
    nearest: dict[str, Row] = {}
    for row in sorted(own, key=lambda row: abs(row.key_bits - CLAIMED)):
        nearest.setdefault(row.format, row)
    return [nearest[name] for name in dict.fromkeys(row.format for row in own)]


def row_of(labels: dict[str, Any]) -> Row:
    """The row of a cell's parameters, whatever else stands in them."""
    return Row(**{name: labels[name] for name in Row.__dataclass_fields__})
