"""A format is asked for by name and bits, and what it cannot be is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.referee.formats import FORMATS
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.calibration import Calibration, calibrate
from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.oscar import Oscar, oscar_rotation
from tests.benchmarks.built_formats import built, decoded, first, plain_calibration
from tests.benchmarks.test_formats import ONCE, every
from tests.reference_model.tiny import enlarge


def test_calibrated_formats_want_a_calibration_and_have_a_codec_for_each_layer() -> None:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=23, context_length=12, n_layer=2, n_head=2, n_embd=128)
    model = GPT(config).eval()
    enlarge(model)
    text = torch.randint(23, (2, 12))
    calibration = calibrate(model, [text])
    calibrated = [name for name, each in FORMATS.items() if each.calibrated]
    assert calibrated == ["oscar", "oscar-bfloat16", "oscar-signs", "nvfp4"]
    for name in calibrated:
        bits = FORMATS[name].bits[0]
        with pytest.raises(UserError, match=r"is calibrated; give what calibrate\(\) finds"):
            FORMATS[name].codecs(64, bits)
        keys, values = FORMATS[name].codecs(64, bits, calibration=calibration)
        assert [len(each) for each in (keys, values)] == [2, 2]
        cache = QuantizedKVCache(model, 2, 12, keys, values)
        assert (
            cache.nbytes - 4 * ONCE[name]
            == QuantizedKVCache(model, 2, 12, *(Bare(each[0]) for each in (keys, values))).nbytes
        )
        with torch.inference_mode():
            assert (model(text, cache) - model(text)).abs().max() > 1e-3


def test_keys_are_calibrated_by_queries_and_the_largest_key_and_values_by_their_own() -> None:
    x = torch.randn(2, 100, 64, dtype=torch.float64) * torch.logspace(0, 1, 64)
    of_queries, of_values = x.mT @ x
    layer = Calibration(of_queries, of_values, largest_key=1.0, largest_value=7.0, tokens=100)
    keys, values = map(first, FORMATS["oscar"].codecs(64, 2, calibration=[layer]))
    for codec, moment, clip in ((keys, of_queries, 0.96), (values, of_values, 0.92)):
        assert isinstance(codec, Oscar)
        assert torch.equal(codec.rotation.T, oscar_rotation(moment))
        assert codec.clip == clip
    keys, values = map(first, FORMATS["nvfp4"].codecs(64, 4, calibration=[layer]))
    largest = [float(decoded(codec, torch.full((1, 64), 100.0)).max()) for codec in (keys, values)]
    assert largest == pytest.approx([1, 7])


class Bare(Codec):
    """The bytes of another codec's vectors, and nothing held once."""

    def __init__(self, other: Codec) -> None:
        self.name, self.width, self.layout = other.name, other.width, other.layout

    def quantize(self, x: Tensor) -> Parts:
        raise NotImplementedError

    def dequantize(self, parts: Parts) -> Tensor:
        raise NotImplementedError


def test_keys_and_values_may_have_bits_of_their_own_and_share_a_codec_where_they_can() -> None:
    keys, values = FORMATS["kvarn"].codecs(64, 4, 2)
    assert [first(each).bits_per_value for each in (keys, values)] == [36 / 8, 21 / 8]
    both = FORMATS["e8"].codecs(64, 3)
    assert both[0] is both[1]
    assert first(FORMATS["e8"].codecs(64, 3, 2)[1]).bits_per_value == 18 / 8
    seeds = [first(FORMATS["e8"].codecs(64, 3, seed=seed)[0]) for seed in (0, 1)]
    assert not torch.equal(*(codec.constants[0] for codec in seeds))


def test_bits_that_a_format_has_not_are_refused() -> None:
    with pytest.raises(UserError, match="OSCAR has no 3 bits; use 2"):
        FORMATS["oscar"].codecs(64, 3)
    with pytest.raises(UserError, match="KVarN has no 8 bits; use 2 or 3 or 4"):
        FORMATS["kvarn"].codecs(64, 4, 8)


@pytest.mark.parametrize("name", FORMATS)
def test_a_seed_changes_what_is_held_once_of_the_formats_that_draw(name: str) -> None:
    each = FORMATS[name]
    if name == "kivi-128":  # does not fit
        return
    held = []
    for seed in (0, 1):
        codecs = each.codecs(64, each.bits[0], seed=seed, calibration=plain_calibration(64))
        held.append([t for of_role in codecs for t in first(of_role).constants])
    same = all(torch.equal(a, b) for a, b in zip(*held, strict=True))
    assert same != each.draws


@pytest.mark.parametrize(("name", "bits"), [*every()])
def test_a_format_says_by_how_many_tokens_it_is_encoded(name: str, bits: int) -> None:
    assert max(codec.block for codec in built(name, 64, bits)) == FORMATS[name].block


def test_published_forms_and_ours_are_told_apart() -> None:
    variants = [name for name, each in FORMATS.items() if not each.published]
    assert {"kvarn-signs", "kvarn-relative-floor", "q4_0-rotated-signs", "oscar-signs"} <= set(
        variants
    )
    assert {"kvarn", "q4_0-rotated", "oscar", "kivi-32"}.isdisjoint(variants)
    titles = [each.title for each in FORMATS.values()]
    assert len(set(titles)) == len(titles)
