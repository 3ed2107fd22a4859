"""KVarN's tiles have the factors and codes of its definition, and its floor is absolute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.kvarn import (
    KVarN,
    KVarNKeys,
    KVarNValues,
    even_factors,
    imbalance,
)
from reference_model.quantization.packing import unpack
from tests.reference_model.sines import relative_error, sines

ROLES: dict[str, type[KVarN]] = {"keys": KVarNKeys, "values": KVarNValues}


def graded() -> Tensor:
    """Channels that grow 16-fold over a head, and tokens 8-fold over a tile: (128, 64)."""
    tokens = torch.arange(128, dtype=torch.float64)[:, None]
    channels = torch.arange(64, dtype=torch.float64)
    growth = 2 ** (-2 + 4 * channels / 63) * 2 ** (-1 + 2 * tokens / 127)
    return (growth * sines(128, 64).double()).float()


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("keys", {4: 0.0092820, 3: 0.0426701, 2: 0.2449905}),
        ("values", {4: 0.0077667, 3: 0.0355557, 2: 0.1924837}),
    ],
)
def test_the_errors_of_a_tile_are_those_that_were_told(role: str, told: dict[int, float]) -> None:
    found = {bits: relative_error(ROLES[role](64, bits), sines(128, 64)) for bits in told}
    assert found == pytest.approx(told, abs=2e-6)


@pytest.mark.parametrize(
    ("role", "told"),
    [("keys", {4: 0.0093660, 2: 0.2421858}), ("values", {4: 0.0097582, 2: 0.2559578})],
)
def test_sixteen_iterations_of_a_wider_tile_do_so_too(role: str, told: dict[int, float]) -> None:
    x = sines(128, 128)
    found = {bits: relative_error(ROLES[role](128, bits, iterations=16), x) for bits in told}
    assert found == pytest.approx(told, abs=2e-6)


def test_a_tile_of_keys_holds_codes_two_numbers_a_channel_and_one_a_token() -> None:
    codes, step, offset, column = KVarNKeys(64, 4).encode(sines(128, 64))
    assert column[0, :4].tolist() == pytest.approx([0.77149, 0.79158, 0.74082, 0.80328], abs=5e-4)
    assert (float(step[0, 0]), float(offset[0, 0])) == (0.298828125, -2.216796875)
    tokens = unpack((codes.view(128, 32),), 4, 64)
    assert tokens[:8, 0].tolist() == [6, 8, 10, 7, 4, 12, 4, 8]


def test_the_floor_is_absolute_small_tiles_are_not_normalised() -> None:
    x = graded()
    assert relative_error(KVarNKeys(64, 4), x) == pytest.approx(0.00815, abs=6e-6)
    assert relative_error(KVarNKeys(64, 4), x / 32) == pytest.approx(0.01292, abs=6e-6)
    assert relative_error(KVarNValues(64, 2), x) == pytest.approx(0.17712, abs=6e-6)
    assert relative_error(KVarNValues(64, 2), x / 32) == pytest.approx(0.17975, abs=6e-6)
    without = KVarNKeys(64, 4, iterations=0)
    assert relative_error(KVarNKeys(64, 4), x / 32) == pytest.approx(
        relative_error(without, x), rel=1e-3
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_relative_floor_normalises_a_tile_of_any_size(role: str) -> None:
    x, codec = graded(), ROLES[role](64, 3, relative_floor=True)
    errors = [relative_error(codec, x * spread) for spread in (0.05, 1, 5)]
    assert errors == pytest.approx([errors[1]] * 3, rel=1e-3)
    large = relative_error(ROLES[role](64, 3), x * 32)  # where the published floor is far below
    assert errors[0] == pytest.approx(large, rel=0.01)
    assert relative_error(ROLES[role](64, 3), x * 0.05) > 1.005 * errors[0]


def test_a_constant_channel_says_nothing_of_a_tiles_size() -> None:
    turned = graded() / 32
    without = KVarNKeys(64, 4, relative_floor=True)
    error = {}
    for constant in (None, 1 / 3):
        x = turned.clone()
        if constant is not None:  # but for what rounding may leave of it
            x[:, 5] = constant + 1e-7 * (torch.arange(128) % 2)
            assert 0 < float(x[:, 5].std()) < 1e-6
        found = without.dequantize(without.quantize(x)) - x
        others = [c for c in range(64) if c != 5]
        error[constant] = float(found[:, others].square().sum())
    assert error[1 / 3] < 1.2 * error[None]  # twice as much where nothing is made even


@pytest.mark.parametrize(("role", "bits", "told"), [("keys", 4, 0.0039), ("values", 2, 0.0665)])
def test_the_rotation_mixes_the_channels_whose_spreads_differ(
    role: str, bits: int, told: float
) -> None:
    codec, x = ROLES[role](64, bits), graded()
    unturned = codec.dequantize(codec.quantize(x)) - x
    assert float(unturned.square().sum() / x.square().sum()) == pytest.approx(told, abs=6e-5)
    assert relative_error(codec, x) > 2 * told


def test_factors_make_deviations_even_and_are_never_worse_than_none() -> None:
    m = graded().mT[None] * 100
    rows, columns = even_factors(m, 8, relative_floor=False)
    assert float(imbalance(m)) > 20
    assert float(imbalance(m / columns / rows)) < 3  # 2: all are alike
    generator = torch.Generator().manual_seed(0)
    uneven = torch.randn(17, 24, generator=generator).exp()
    m = torch.randn(1, 16, 24, generator=generator) * uneven[:16, :1] * uneven[16] / 2
    reached = [
        float(imbalance(m / c / r)) for r, c in (even_factors(m, n, False) for n in range(9))
    ]
    assert reached == sorted(reached, reverse=True)
    assert reached[-1] == reached[2] < reached[1]  # later ones are worse
    rows, columns = even_factors(sines(1, 6, 5) / 1000, 8, relative_floor=False)
    assert rows.eq(rows[0, 0]).all()


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("role", ROLES)
def test_a_tile_holds_its_bytes_and_nothing_is_held_once(role: str, width: int) -> None:
    told = {
        ("keys", 64): (20, 28, 36),
        ("keys", 128): (38, 54, 70),
        ("values", 64): (21, 29, 37),
        ("values", 128): (38, 54, 70),
    }
    for bits, nbytes in zip((2, 3, 4), told[role, width], strict=True):
        codec = ROLES[role](width, bits)
        assert nbytes_of(codec.encode(torch.randn(2, 256, width))) == 2 * 256 * nbytes
        assert not codec.constants
    assert nbytes_of(ROLES[role](width, 2, seed=0).constants) == width


def test_an_offset_of_all_channels_is_one_row_of_keys_and_signs_help_values_alone() -> None:
    x, offset = torch.randn(2, 128, 64), torch.full((64,), 5.0)

    def harm(codec: KVarN) -> float:
        return (
            relative_error(codec, x + offset)
            * float((x + offset).square().sum())
            / float(x.square().sum())
            / relative_error(codec, x)
        )

    assert harm(KVarNKeys(64, 3)) == pytest.approx(1, abs=0.15)
    assert harm(KVarNValues(64, 3)) > 5
    assert harm(KVarNValues(64, 3, seed=0)) < 0.5 * harm(KVarNValues(64, 3))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("size", [0.0, 1.5])
def test_equal_tokens_stay_what_they_are(role: str, size: float) -> None:
    for relative_floor in (False, True):
        codec = ROLES[role](64, 3, relative_floor=relative_floor)
        x = size * sines(1, 64).expand(128, 64) if role == "keys" else torch.full((128, 64), size)
        assert (codec.decode(codec.encode(x)) - x).abs().max() <= 4e-3 * size


def test_a_tile_of_one_token_is_refused() -> None:
    with pytest.raises(UserError, match="tile=1 has no deviations; use 2 tokens or more"):
        KVarNKeys(64, 3, tile=1)
