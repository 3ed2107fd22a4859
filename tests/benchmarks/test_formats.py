"""Every format that is compared holds the bytes it says, and gives the same in any company."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.referee.formats import FORMATS, Codecs
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.codec import Codec, Parts, nbytes_of
from reference_model.quantization.kv_cache import QuantizedKVCache
from tests.benchmarks.built_formats import built, decoded, first, plain_calibration
from tests.reference_model.decoding import DecodeThenAttend
from tests.reference_model.sines import relative_error, sines
from tests.reference_model.tiny import enlarge

# Bytes of a key and of a value by width and bits, all but what is held once. Told by the formats'
# definitions, and not read off this code.
BYTES: dict[str, dict[int, dict[int, tuple[int, int]]]] = {
    "turboquant": {
        64: {2: (18, 18), 3: (26, 26), 4: (34, 34)},
        128: {2: (34, 34), 3: (50, 50), 4: (66, 66)},
    },
    "turboquant-qjl": {
        64: {2: (20, 20), 3: (28, 28), 4: (36, 36)},
        128: {2: (36, 36), 3: (52, 52), 4: (68, 68)},
    },
    "kivi-32": {
        64: {2: (24, 24), 3: (32, 32), 4: (40, 40)},
        128: {2: (48, 48), 3: (64, 64), 4: (80, 80)},
    },
    "kivi-128": {128: {2: (36, 36), 3: (52, 52), 4: (68, 68)}},
    "kvarn": {
        64: {2: (20, 21), 3: (28, 29), 4: (36, 37)},
        128: {2: (38, 38), 3: (54, 54), 4: (70, 70)},
    },
    "kvarn-tile-64": {
        64: {2: (22, 22), 3: (30, 30), 4: (38, 38)},
        128: {2: (42, 40), 3: (58, 56), 4: (74, 72)},
    },
    "oscar": {64: {2: (24, 24)}, 128: {2: (40, 40)}},
    "oscar-bfloat16": {64: {2: (20, 20)}, 128: {2: (36, 36)}},
    "nvfp4": {64: {4: (36, 36)}, 128: {4: (72, 72)}},
    "mxfp4": {64: {4: (34, 34)}, 128: {4: (68, 68)}},
    "q4_0": {64: {4: (36, 36)}, 128: {4: (72, 72)}},
    "q4_1": {64: {4: (40, 40)}, 128: {4: (80, 80)}},
    "q8_0": {64: {8: (68, 68)}, 128: {8: (136, 136)}},
    "int8": {64: {8: (66, 66)}, 128: {8: (130, 130)}},
    "float8": {64: {8: (64, 64)}, 128: {8: (128, 128)}},
}
SAME_BYTES = {
    "turboquant-least-squares": "turboquant",
    "turboquant-unbiased": "turboquant",
    "kvarn-relative-floor": "kvarn",
    "kvarn-signs": "kvarn",
    "oscar-signs": "oscar",
    "oscar-uncalibrated": "oscar",
    "e8": "turboquant",
    "e8-unbiased": "turboquant",
    "e8-one-step": "turboquant",
    "nvfp4-scale-1": "nvfp4",
    "mxfp4-even": "mxfp4",
    "q4_0-rotated": "q4_0",
    "q4_0-rotated-signs": "q4_0",
}
# What is held once for 64-wide keys and as much for values, a layer; None: a look-up table, too.
ONCE: dict[str, int | None] = {
    **dict.fromkeys((n for n in FORMATS if n.startswith("turboquant")), None),
    **dict.fromkeys(("oscar", "oscar-bfloat16", "oscar-signs", "oscar-uncalibrated"), 64 * 64 * 4),
    **dict.fromkeys(("nvfp4", "nvfp4-scale-1"), 4),
    **dict.fromkeys(("kvarn-signs", "q4_0-rotated-signs"), 64),  # a sign a channel
    **dict.fromkeys(("e8", "e8-unbiased", "e8-one-step"), 3 * 64),
}
# By a matrix product, which rounds in other places for other shapes.
BY_PRODUCT = ("turboquant", "oscar")
CHANNEL_WISE = ("kivi-32", "kivi-128")
FLOATS = ("nvfp4", "nvfp4-scale-1", "mxfp4", "mxfp4-even", "float8")
TOKENS = 300


def every(width: int = 64) -> Iterator[tuple[str, int]]:
    """Names and bits of all formats that this width fits."""
    for name, each in FORMATS.items():
        if width in BYTES[SAME_BYTES.get(name, name)]:
            yield from ((name, bits) for bits in each.bits)


@pytest.fixture(params=[(n, b) for n, b in every()], ids=lambda param: f"{param[0]}-{param[1]}")
def named(request: pytest.FixtureRequest) -> tuple[str, int]:
    return request.param


@pytest.fixture
def pair(named: tuple[str, int]) -> tuple[Codec, Codec]:
    return built(named[0], 64, named[1])


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=23, context_length=TOKENS, n_layer=1, n_head=2, n_embd=128)
    found = GPT(config)
    enlarge(found)
    return found.eval()


# ---- bytes


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("name", FORMATS)
def test_a_vector_holds_the_bytes_of_its_format(name: str, width: int) -> None:
    table = BYTES[SAME_BYTES.get(name, name)]
    if width not in table:
        with pytest.raises(UserError, match="do not fill a width"):
            built("kivi-128", 64, 2)
        return
    assert tuple(table[width]) == FORMATS[name].bits
    for bits, told in table[width].items():
        for codec, nbytes in zip(built(name, width, bits), told, strict=True):
            parts = codec.encode(torch.randn(2, 256, width))
            assert nbytes_of(parts) == 2 * 256 * nbytes
            assert codec.bits_per_value * width / 8 == nbytes
            for part, (count, dtype) in zip(parts, codec.layout, strict=True):
                assert (part.shape, part.dtype) == ((2, 256 // codec.block, count), dtype)


def test_what_is_held_once_is_counted_and_nothing_else_is_kept(
    named: tuple[str, int], pair: tuple[Codec, Codec]
) -> None:
    once = ONCE.get(named[0], 0)
    for codec in pair:
        codec.encode(torch.randn(256, 64))
        kept = {id(t): t.nbytes for t in vars(codec).values() if isinstance(t, Tensor)}
        counted = sum(constant.nbytes for constant in codec.constants)
        if once is None:
            assert counted >= sum(kept.values()) > 0
        else:
            assert counted == sum(kept.values()) == once


def test_a_cache_holds_its_tokens_bytes_and_what_is_held_once(
    model: GPT, named: tuple[str, int]
) -> None:
    calibration = plain_calibration(64)
    codecs = FORMATS[named[0]].codecs(64, named[1], calibration=calibration)
    cache = QuantizedKVCache(model, 2, 256, *codecs)
    of_key, of_value = BYTES[SAME_BYTES.get(*named[:1] * 2)][64][named[1]]
    waiting = 2 * 2 * 2 * (cache.block - 1) * 64 * 4
    constants = {id(t): t.nbytes for each in codecs for t in first(each).constants}
    assert cache.nbytes == 2 * 2 * 256 * (of_key + of_value) + waiting + sum(constants.values())


def test_bytes_that_were_written_and_read_give_the_same_numbers(
    pair: tuple[Codec, Codec],
) -> None:
    x = torch.randn(3, 128, 64)
    for codec in pair:
        parts = codec.encode(x)
        file = io.BytesIO(b"".join(part.view(torch.uint8).numpy().tobytes() for part in parts))
        read = tuple(
            torch.frombuffer(bytearray(file.read(part.nbytes)), dtype=torch.uint8)
            .view(part.dtype)
            .view(part.shape)
            for part in parts
        )
        assert file.read() == b""
        assert torch.equal(codec.decode(read), codec.decode(parts))


def test_the_page_of_formats_tells_these_bytes(root: Path) -> None:
    page = (root / "reference_model/quantization/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?)\|(.*?)\|(.*?)\|(.*?)\|(.*?)\|$", page, re.MULTILINE)
    told = {
        name: [cell.strip() for cell in cells]
        for names, *cells in rows
        for name in re.findall(r"`(.+?)`", names)
    }
    assert list(told) == [name for name in told if name in FORMATS]
    assert set(told) == set(FORMATS)
    for name, (bits, *widths, once) in told.items():
        assert tuple(map(int, bits.split(", "))) == FORMATS[name].bits
        for width, cell in zip((64, 128), widths, strict=True):
            table = BYTES[SAME_BYTES.get(name, name)].get(width)
            if table is None:
                assert cell == "does not fit"
                continue
            roles = [tuple(map(int, each.split(", "))) for each in cell.split(" / ")]
            of_both = list(zip(roles[0], roles[-1], strict=True))
            assert of_both == list(table.values()), name
        held = ONCE.get(name, 0)
        assert once.startswith("a rotation of 16,384") if held is None else once == f"{held:,}"


# ---- what comes back


def test_zeros_come_back_as_zeros(pair: tuple[Codec, Codec]) -> None:
    for codec in pair:
        assert decoded(codec, torch.zeros(2, 128, 64)).eq(0).all()


@pytest.mark.parametrize("size", [1.5, -3.0])
def test_equal_numbers_in_a_codecs_basis_are_exact_to_float16(
    named: tuple[str, int], pair: tuple[Codec, Codec], size: float
) -> None:
    if named[0].startswith("turboquant") or named[0] in FLOATS:
        return  # its levels lie elsewhere; its numbers are rounded to two significant bits
    y = torch.full((128, 64), size)
    for codec in pair:
        held = codec.dequantize(codec.quantize(y))
        assert (held - y).abs().max() <= 1e-3 * abs(size)


def test_one_channel_50_times_the_others_costs_no_more_than_its_own_size(
    named: tuple[str, int], pair: tuple[Codec, Codec]
) -> None:
    if named[0] == "nvfp4":
        return  # calibrated without it: such a channel is cut
    x = torch.randn(128, 64)
    others = [c for c in range(64) if c != 9]
    plain = x[:, others]
    for codec in pair:
        usual = relative_error(codec, x)
        large = x.clone()
        large[:, 9] *= 50
        found = decoded(codec, large)
        assert relative_error(codec, large) < 2.5 * usual + 0.02
        harmed = (found[:, others] - plain).square().sum() / plain.square().sum()
        if named[0] in CHANNEL_WISE and codec is pair[0]:
            assert torch.equal(found[:, others], decoded(codec, x)[:, others])
        elif named[0] not in FLOATS:
            assert harmed > usual  # a step is shared, or the rotation spreads it


ABSOLUTE = {"kvarn", "kvarn-tile-64", "kvarn-signs", "nvfp4", "nvfp4-scale-1", "float8"}


def test_the_formats_whose_errors_follow_no_size_are_those_with_an_absolute_rule() -> None:
    growth = torch.logspace(-0.6, 0.6, 64) * torch.logspace(-0.3, 0.3, 128)[:, None]
    found = set()
    for name, bits in every():
        for codec, x in product(built(name, 64, bits), (sines(128, 64), growth * sines(128, 64))):
            errors = [relative_error(codec, x * factor) for factor in (1, 1 / 32, 8)]
            if max(errors) > 1.02 * min(errors):
                found.add(name)
    assert found == ABSOLUTE


UNSIGNED = {"q4_0-rotated": "q4_0-rotated-signs", "oscar-uncalibrated": "oscar-signs"}


@pytest.mark.parametrize("name", UNSIGNED)
def test_what_all_channels_share_harms_an_unsigned_hadamard_and_no_signed_one(name: str) -> None:
    x = torch.randn(256, 64)
    shifted = x + 3
    for unsigned, signed in zip(
        *(built(each, 64, FORMATS[name].bits[0]) for each in (name, UNSIGNED[name])), strict=True
    ):
        assert relative_error(unsigned, x) == pytest.approx(relative_error(signed, x), rel=0.1)
        assert relative_error(unsigned, shifted) > 2 * relative_error(signed, shifted)


# ---- in any company


def parts_of(model: GPT, codecs: tuple[Codecs, Codecs], k: Tensor, v: Tensor, piece: int) -> Parts:
    """What a cache of one layer holds once keys and values came in pieces."""
    cache = QuantizedKVCache(model, len(k), TOKENS, *codecs, drop_biases=False)
    for keys, values in zip(k.split(piece, 2), v.split(piece, 2), strict=True):
        cache.append(0, keys, values)
    count = cache.encoded(TOKENS)
    assert count > TOKENS - cache.block
    return tuple(part for store in cache.stores[0] for part in store.filled(count))


def alike(name: str, parts: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """The same bytes; by a product all but a few, where rounding steps over an edge."""
    raw = [
        (a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        for a, b in zip(parts, others, strict=True)
    ]
    if not name.startswith(BY_PRODUCT):
        return all(torch.equal(a, b) for a, b in raw)
    return all(float((a != b).double().mean()) < 0.01 for a, b in raw)


def codecs_of(named: tuple[str, int]) -> tuple[Codecs, Codecs]:
    return FORMATS[named[0]].codecs(64, named[1], calibration=plain_calibration(64))


@torch.inference_mode()
def test_pieces_of_any_length_leave_the_same_bytes(model: GPT, named: tuple[str, int]) -> None:
    k, v = torch.randn(2, 2, 2, TOKENS, 64)
    whole = parts_of(model, codecs_of(named), k, v, TOKENS)
    for piece in (1, 7, 128):
        assert alike(named[0], parts_of(model, codecs_of(named), k, v, piece), whole)


@torch.inference_mode()
def test_sequences_and_heads_have_the_same_bytes_whoever_is_beside_them(
    model: GPT, named: tuple[str, int]
) -> None:
    k, v = torch.randn(2, 2, 2, TOKENS, 64)
    whole = parts_of(model, codecs_of(named), k, v, TOKENS)
    alone = parts_of(model, codecs_of(named), k[1:], v[1:], TOKENS)
    assert alike(named[0], [part[:, 1:] for part in whole], alone)
    k[:, 1], v[:, 1] = 100 * k[:, 1], 1e-3 * v[:, 1]
    beside = parts_of(model, codecs_of(named), k, v, TOKENS)
    assert alike(named[0], [part[:, :, :1] for part in whole], [part[:, :, :1] for part in beside])


@torch.inference_mode()
@pytest.mark.parametrize("bits_of", [min, max])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "kivi-128"])
def test_attention_in_the_codecs_basis_is_that_over_what_is_decoded(
    model: GPT, name: str, bits_of: Callable[[Sequence[int]], int]
) -> None:
    codecs = codecs_of((name, bits_of(FORMATS[name].bits)))
    caches = [
        kind(model, 1, TOKENS, *codecs, window=2) for kind in (QuantizedKVCache, DecodeThenAttend)
    ]
    k, v = torch.randn(2, 1, 2, TOKENS - 1, 64)
    q, new_k, new_v = torch.randn(3, 1, 2, 1, 64)
    for cache in caches:
        cache.append(0, k, v)
    found, expected = (cache.attend(0, q, new_k, new_v) for cache in caches)
    assert (found - expected).abs().max() < 2e-5
