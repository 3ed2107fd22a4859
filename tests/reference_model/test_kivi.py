"""KIVI's groups, steps and offsets are those of its definition, and hold its bytes."""

from __future__ import annotations

import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.baselines import PerChannel, PerToken
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.kivi import KiviKeys, KiviValues
from reference_model.quantization.packing import unpack
from tests.reference_model.sines import relative_error, sines


def test_a_group_of_keys_is_a_channel_over_32_tokens() -> None:
    codes, step, offset = KiviKeys(64, 2).encode(sines(32, 64))
    assert float(step[0, 0]) == pytest.approx(0.64697266, abs=1e-8)
    assert float(offset[0, 0]) == pytest.approx(-0.99707031, abs=1e-8)
    tokens = unpack((codes.view(32, 16),), 2, 64)
    assert tokens[:8, 0].tolist() == [2, 1, 1, 2, 3, 2, 3, 2]


def test_a_group_of_values_is_32_channels_of_a_token() -> None:
    codes, step, offset = KiviValues(64, 2).encode(sines(32, 64))
    assert step[0].tolist() == pytest.approx([0.66601562, 0.66503906], abs=1e-8)
    assert offset[0].tolist() == pytest.approx([-0.99902344, -1], abs=1e-8)
    assert unpack((codes,), 2, 64)[0, :8].tolist() == [2, 3, 0, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("bits", "of_keys", "of_values"), [(2, 0.056231, 0.055817), (4, 0.0025759, 0.0026608)]
)
def test_the_errors_are_those_that_were_told(bits: int, of_keys: float, of_values: float) -> None:
    x = sines(32, 64)
    assert relative_error(KiviKeys(64, bits), x) == pytest.approx(of_keys, rel=5e-5)
    assert relative_error(KiviValues(64, bits), x) == pytest.approx(of_values, rel=5e-5)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_its_numbers_are_those_of_rounding_per_channel_and_per_token(bits: int) -> None:
    x = torch.randn(2, 64, 64)
    pairs = [
        (KiviKeys(64, bits), PerChannel(64, bits)),
        (KiviValues(64, bits, group=64), PerToken(64, bits)),
    ]
    for ours, plain in pairs:
        assert all(map(torch.equal, ours.encode(x), plain.encode(x)))
        assert torch.equal(ours.decode(ours.encode(x)), plain.decode(plain.encode(x)))


@pytest.mark.parametrize(
    ("codec", "nbytes"),
    [
        *((KiviKeys(64, bits), held) for bits, held in ((2, 24), (3, 32), (4, 40))),
        *((KiviValues(128, bits), held) for bits, held in ((2, 48), (3, 64), (4, 80))),
        *((KiviKeys(64, bits, group=128), held) for bits, held in ((2, 18), (3, 26), (4, 34))),
        *((KiviValues(128, bits, group=128), held) for bits, held in ((2, 36), (3, 52), (4, 68))),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_vector_holds_its_bytes_and_nothing_is_held_once(
    codec: KiviKeys | KiviValues, nbytes: int
) -> None:
    assert nbytes_of(codec.encode(torch.randn(128, codec.width))) == 128 * nbytes
    assert not codec.constants


def test_values_refuse_groups_that_do_not_fill_a_vector() -> None:
    with pytest.raises(UserError, match="groups of 128 channels do not fill a width of 64"):
        KiviValues(64, 2, group=128)
