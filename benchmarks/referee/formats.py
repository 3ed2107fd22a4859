"""The formats of keys and values that are compared, by name: how their codecs are built.

What each does, holds and comes from: reference_model/quantization/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import Float8, Int8
from reference_model.quantization.calibration import Calibration
from reference_model.quantization.codec import Codec
from reference_model.quantization.e8 import E8Box
from reference_model.quantization.fp4 import MXFP4, NVFP4, nvfp4_scale
from reference_model.quantization.ggml import Q4_0, Q4_1, Q8_0, Role
from reference_model.quantization.kivi import KiviKeys, KiviValues
from reference_model.quantization.kvarn import TILE, KVarN, KVarNKeys, KVarNValues
from reference_model.quantization.oscar import KEY_CLIP, VALUE_CLIP, Oscar, oscar_rotation
from reference_model.quantization.rotation import sylvester
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

Codecs = Codec | Sequence[Codec]  # for all layers, or one for each
SMALL = (2, 3, 4)


@dataclass(frozen=True)
class Asked:
    """What one codec is built for: of one layer where it is calibrated."""

    width: int
    bits: int  # of a code
    seed: int
    layer: Calibration | None

    @property
    def calibration(self) -> Calibration:
        assert self.layer is not None  # `Format.codecs` has asked for it
        return self.layer


Build = Callable[[Asked], Codec]


@dataclass(frozen=True)
class Format:
    """Keys and values in one format. Published: as its authors have it; otherwise our variant.

    ``sinks`` and ``window``: how many of the first and of the newest tokens its authors keep exact.
    ``draws``: whether a seed decides its rotation or its signs; ``block``: how many tokens its keys
    or its values are encoded by.
    """

    title: str
    bits: tuple[int, ...]  # of a code: those that can be asked for
    builders: tuple[Build, Build]  # of keys and of values
    published: bool = True
    calibrated: bool = False
    draws: bool = False
    block: int = 1
    sinks: int = 0
    window: int = 0

    def codecs(
        self,
        width: int,
        key_bits: int,
        value_bits: int | None = None,
        *,
        seed: int = 0,
        calibration: Sequence[Calibration] | None = None,
    ) -> tuple[Codecs, Codecs]:
        """Of keys and of values, as `QuantizedKVCache` takes them; equal bits where one is given.

        A format that treats both alike has one codec for both. ``calibration``: of each layer, by a
        text that the comparison does not read; formats that are not calibrated ignore it.
        """
        value_bits = key_bits if value_bits is None else value_bits
        for bits in (key_bits, value_bits):
            if bits not in self.bits:
                raise UserError(
                    f"{self.title} has no {bits} bits; use {' or '.join(map(str, self.bits))}"
                )
        keys, values = self.builders
        if not self.calibrated:
            of_keys = keys(Asked(width, key_bits, seed, None))
            if values is keys and value_bits == key_bits:
                return of_keys, of_keys
            return of_keys, values(Asked(width, value_bits, seed, None))
        if not calibration:
            raise UserError(f"{self.title} is calibrated; give what calibrate() finds in a text")
        return (
            [keys(Asked(width, key_bits, seed, layer)) for layer in calibration],
            [values(Asked(width, value_bits, seed, layer)) for layer in calibration],
        )


def _alike(build: Build) -> tuple[Build, Build]:
    return build, build


def _kivi(group: int) -> tuple[Build, Build]:
    return (
        lambda a: KiviKeys(a.width, a.bits, group=group),
        lambda a: KiviValues(a.width, a.bits, group=group),
    )


def _kvarn(
    tile: int = TILE, relative_floor: bool = False, signs: bool = False
) -> tuple[Build, Build]:
    def of(codec: type[KVarN]) -> Build:
        return lambda a: codec(
            a.width,
            a.bits,
            tile=tile,
            relative_floor=relative_floor,
            seed=a.seed if signs else None,
        )

    return of(KVarNKeys), of(KVarNValues)


def _oscar(signs: bool = False, numbers: torch.dtype = torch.float32) -> tuple[Build, Build]:
    def turned(moment: Tensor, a: Asked) -> Tensor:
        return oscar_rotation(moment, seed=a.seed if signs else None)

    return (
        lambda a: Oscar(a.width, turned(a.calibration.queries, a), KEY_CLIP, numbers=numbers),
        lambda a: Oscar(a.width, turned(a.calibration.values, a), VALUE_CLIP, numbers=numbers),
    )


def _hadamard_alone(clip: float) -> Build:
    return lambda a: Oscar(a.width, sylvester(a.width) / a.width**0.5, clip)


def _rotated_q4_0(signs: bool = False) -> tuple[Build, Build]:
    def of(role: Role) -> Build:
        return lambda a: Q4_0(a.width, rotated=role, seed=a.seed if signs else None)

    return of("keys"), of("values")


def _nvfp4() -> tuple[Build, Build]:
    return (
        lambda a: NVFP4(a.width, nvfp4_scale(a.calibration.largest_key)),
        lambda a: NVFP4(a.width, nvfp4_scale(a.calibration.largest_value)),
    )


_TURBOQUANT = _alike(lambda a: TurboQuant(a.width, a.bits, seed=a.seed))
_LEAST_SQUARES = _alike(lambda a: TurboQuant(a.width, a.bits, scale="least_squares", seed=a.seed))
_UNBIASED = _alike(lambda a: TurboQuant(a.width, a.bits, scale="unbiased", seed=a.seed))
_QJL = _alike(lambda a: TurboQuantProd(a.width, a.bits, seed=a.seed))
_E8 = _alike(lambda a: E8Box(a.width, a.bits, seed=a.seed))
_E8_ONE_STEP = _alike(lambda a: E8Box(a.width, a.bits, search=False, seed=a.seed))
_E8_UNBIASED = _alike(lambda a: E8Box(a.width, a.bits, search=False, scale="unbiased", seed=a.seed))

FORMATS: dict[str, Format] = {
    "turboquant": Format("TurboQuant", SMALL, _TURBOQUANT, draws=True),
    "turboquant-least-squares": Format(
        "TurboQuant, least-squares scale", SMALL, _LEAST_SQUARES, published=False, draws=True
    ),
    "turboquant-unbiased": Format(
        "TurboQuant, unbiased scale", SMALL, _UNBIASED, published=False, draws=True
    ),
    "turboquant-qjl": Format("TurboQuant, one bit of them QJL", SMALL, _QJL, draws=True),
    "kivi-32": Format("KIVI, groups of 32", SMALL, _kivi(32), block=32, window=128),
    "kivi-128": Format("KIVI, groups of 128", SMALL, _kivi(128), block=128, window=128),
    "kvarn": Format("KVarN", SMALL, _kvarn(), block=TILE, sinks=128),
    "kvarn-tile-64": Format("KVarN, tiles of 64", SMALL, _kvarn(tile=64), block=64, sinks=128),
    "kvarn-relative-floor": Format(
        "KVarN, relative floor",
        SMALL,
        _kvarn(relative_floor=True),
        published=False,
        block=TILE,
        sinks=128,
    ),
    "kvarn-signs": Format(
        "KVarN, signs",
        SMALL,
        _kvarn(signs=True),
        published=False,
        draws=True,
        block=TILE,
        sinks=128,
    ),
    "oscar": Format("OSCAR", (2,), _oscar(), calibrated=True, sinks=64, window=256),
    "oscar-bfloat16": Format(
        "OSCAR, bfloat16 scales",
        (2,),
        _oscar(numbers=torch.bfloat16),
        calibrated=True,
        sinks=64,
        window=256,
    ),
    "oscar-signs": Format(
        "OSCAR, signs",
        (2,),
        _oscar(signs=True),
        published=False,
        calibrated=True,
        draws=True,
        sinks=64,
        window=256,
    ),
    "oscar-uncalibrated": Format(
        "OSCAR, Hadamard alone",
        (2,),
        (_hadamard_alone(KEY_CLIP), _hadamard_alone(VALUE_CLIP)),
        published=False,
        sinks=64,
        window=256,
    ),
    "e8": Format("E8 in a box", SMALL, _E8, published=False, draws=True),
    "e8-one-step": Format(
        "E8 in a box, one step", SMALL, _E8_ONE_STEP, published=False, draws=True
    ),
    "e8-unbiased": Format(
        "E8 in a box, one step, unbiased scale", SMALL, _E8_UNBIASED, published=False, draws=True
    ),
    "nvfp4": Format("NVFP4", (4,), _nvfp4(), calibrated=True),
    "nvfp4-scale-1": Format("NVFP4, scale 1", (4,), _alike(lambda a: NVFP4(a.width))),
    "mxfp4": Format("MXFP4", (4,), _alike(lambda a: MXFP4(a.width))),
    "mxfp4-even": Format("MXFP4, even", (4,), _alike(lambda a: MXFP4(a.width, "even"))),
    "q4_0": Format("q4_0", (4,), _alike(lambda a: Q4_0(a.width))),
    "q4_0-rotated": Format("q4_0, rotated as in llama.cpp", (4,), _rotated_q4_0()),
    "q4_0-rotated-signs": Format(
        "q4_0, rotated with signs", (4,), _rotated_q4_0(signs=True), published=False, draws=True
    ),
    "q4_1": Format("q4_1", (4,), _alike(lambda a: Q4_1(a.width))),
    "q8_0": Format("q8_0", (8,), _alike(lambda a: Q8_0(a.width))),
    "int8": Format("INT8 per token", (8,), _alike(lambda a: Int8(a.width))),
    "float8": Format("FP8 (E4M3)", (8,), _alike(lambda a: Float8(a.width))),
}
