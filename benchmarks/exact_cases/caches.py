"""Caches in every number of bits: what they give back, hold and refuse; and the codecs alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.exact_cases.case import Case, compiled, refusal
from benchmarks.exact_cases.models import normal, small_model, tokens_of
from benchmarks.exact_cases.outputs import in_pieces
from benchmarks.suite.workloads import of_this_commit, start

if TYPE_CHECKING:
    from reference_model.quantization.codec import Codec

WIDTH = 32  # of a head: what blocks of 32 fill, and Hadamard's matrix has
TOKENS = 40  # more than a group of 32

# Formats of others, and ours beside them: module, class and how it is built. A commit that lacks a
# module lacks its codecs alone.
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "kivi keys": ("kivi", "KiviKeys", {}),
    "kivi values": ("kivi", "KiviValues", {}),
    "kvarn keys": ("kvarn", "KVarNKeys", {"tile": 16}),
    "kvarn values": ("kvarn", "KVarNValues", {"tile": 16}),
    "kvarn keys, relative floor": ("kvarn", "KVarNKeys", {"tile": 16, "relative_floor": True}),
    "kvarn values, signs": ("kvarn", "KVarNValues", {"tile": 16, "seed": 0}),
    "e8": ("e8", "E8Box", {}),
    "e8, one step": ("e8", "E8Box", {"search": False}),
    "e8, unbiased": ("e8", "E8Box", {"scale": "unbiased"}),
    "e8, haar": ("e8", "E8Box", {"rotation": "haar"}),
    "nvfp4": ("fp4", "NVFP4", {"scale": 0.01}),
    "mxfp4": ("fp4", "MXFP4", {}),
    "mxfp4, even": ("fp4", "MXFP4", {"rule": "even"}),
    "q4_0": ("ggml", "Q4_0", {}),
    "q4_1": ("ggml", "Q4_1", {}),
    "q8_0": ("ggml", "Q8_0", {}),
    "q4_0, rotated as keys": ("ggml", "Q4_0", {"rotated": "keys"}),
    "q4_0, rotated as values, signs": ("ggml", "Q4_0", {"rotated": "values", "seed": 0}),
}


@of_this_commit()
def codec_of(name: str, width: int = WIDTH) -> Codec:
    """A codec by name; the last word is its bits where it has a choice of them."""
    start()
    from reference_model.quantization import baselines
    from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

    if name == "oscar":
        return _oscar(width)
    kind, _, bits = name.rpartition(" ")
    if name in FORMATS or kind in FORMATS:
        of, sizes = (name, ()) if name in FORMATS else (kind, (int(bits),))
        module, built, how = FORMATS[of]
        make = getattr(import_module(f"reference_model.quantization.{module}"), built)
        codec: Codec = make(width, *sizes, **how)
        return codec
    kinds: dict[str, Callable[..., Codec]] = {
        "turboquant": TurboQuant,
        "turboquant norm_corrected": partial(TurboQuant, scale="norm_corrected"),
        "turboquant least_squares": partial(TurboQuant, scale="least_squares"),
        "turboquant unbiased": partial(TurboQuant, scale="unbiased"),
        "turboquant hadamard": partial(TurboQuant, rotation="hadamard"),
        "turboquant unsigned": partial(TurboQuant, rotation="unsigned_hadamard"),
        "turboquant unrotated": partial(TurboQuant, rotation="none"),
        "turboquant uniform": partial(TurboQuant, levels="uniform"),
        "turboquant seed 7": partial(TurboQuant, seed=7),
        "prod gaussian": TurboQuantProd,
        "prod orthonormal": partial(TurboQuantProd, projection="orthonormal"),
        "token": baselines.PerToken,
        "channel": baselines.PerChannel,
        "channel of 5": partial(baselines.PerChannel, group=5),
        "blocks": baselines.AbsmaxBlocks,
        "rotated blocks": partial(baselines.AbsmaxBlocks, seed=0),
    }
    if kind in kinds:
        return kinds[kind](width, int(bits))
    plain = {"int8": baselines.Int8, "float8": baselines.Float8, "plain": baselines.Plain}
    return plain[name](width)


def _oscar(width: int) -> Codec:
    """Calibrated by vectors whose directions differ."""
    from reference_model.quantization.oscar import Oscar, oscar_rotation

    moment = normal("moment", width, width)
    return Oscar(width, oscar_rotation(moment @ moment.mT))


CODECS = (
    *(f"turboquant {bits}" for bits in (1, 2, 3, 4)),
    *(f"turboquant {scale} 3" for scale in ("norm_corrected", "least_squares", "unbiased")),
    *(f"turboquant {variant} 2" for variant in ("hadamard", "unsigned", "unrotated")),
    *(f"turboquant {variant} 2" for variant in ("uniform", "seed 7")),
    *(f"prod gaussian {bits}" for bits in (1, 2, 3, 4)),
    "prod orthonormal 3",
    *(f"token {bits}" for bits in (1, 2, 3, 4, 8)),
    *(f"channel {bits}" for bits in (2, 4)),
    "channel of 5 3",
    *(f"blocks {bits}" for bits in (2, 3, 4, 8)),
    "rotated blocks 3",
    "int8",
    "float8",
    "plain",
    *(f"kivi {role} {bits}" for role in ("keys", "values") for bits in (2, 3)),
    *(f"kvarn {role} {bits}" for role in ("keys", "values") for bits in (2, 4)),
    "kvarn keys, relative floor 3",
    "kvarn values, signs 3",
    *(f"e8 {bits}" for bits in (2, 3, 4)),
    "e8, one step 3",
    "e8, unbiased 3",
    "e8, haar 2",
    *("nvfp4", "mxfp4", "mxfp4, even", "q4_0", "q4_1", "q8_0"),
)


def _alone(name: str, width: int = WIDTH) -> object:
    """Bytes and decoded numbers of vectors of many sizes: zeros, outliers, tiny and large ones."""
    codec = codec_of(name, width)
    count = codec.block * 4
    x = normal("vectors", 2, 3, count, width)
    x[0, 0, 0] = 0
    x[0, 1] *= 1e-3
    x[1, 0] *= 100
    x[1, 2, :, 0] *= 50  # an outlier channel
    parts = codec.encode(x)
    turned = codec.rotate(x)
    levels, scales = codec.levels(codec.quantize(turned)), codec.scales(codec.quantize(turned))
    return [
        [part for part in parts if not part.is_floating_point()],
        [part for part in parts if part.is_floating_point()],
        codec.decode(parts),
        turned,
        codec.unrotate(turned),
        levels if scales is None else levels * scales,
        [codec.name, codec.width, codec.block, codec.layout and len(codec.layout)],
        codec.bits_per_value,
        [constant.nbytes for constant in codec.constants],
        refusal(lambda: codec.encode(x[..., : count - 1, :])),
    ]


def _in_pieces_or_whole(name: str) -> object:
    """Many vectors at once are encoded piece by piece, to the same bytes."""
    codec = codec_of(name)
    x = normal("many", 9, 1024, WIDTH)  # more than is encoded at once
    whole, parts = codec.encode(x), codec.encode(x[3:4])
    decoded = codec.decode(whole)
    same = [bool(a[3:4].equal(b)) for a, b in zip(whole, parts, strict=True)]
    return [same, decoded[3], decoded.square().mean()]


def _packed() -> object:
    """Codes of every number of bits and awkward widths, to bytes and back."""
    import torch

    from reference_model.quantization.packing import LookUp, pack, plane_widths, unpack

    found: list[object] = []
    for bits in (1, 2, 3, 4, 8):
        for width in (1, 2, 3, 5, 8, 13, 32, 33, 64):
            codes = (torch.arange(3 * width).view(3, width) * 7 % 2**bits).to(torch.uint8)
            planes = pack(codes, bits)
            levels = torch.linspace(-1, 1, 2**bits)
            found += [
                list(planes),
                plane_widths(bits, width),
                unpack(planes, bits, width).equal(codes),
                LookUp(levels, bits)(planes, width),
            ]
        found.append(refusal(partial(pack, codes, 5)))
    return found


def _codebooks() -> object:
    from reference_model.quantization import codebook
    from reference_model.quantization.rotation import haar, hadamard

    found: list[object] = []
    for width in (3, 14, 64, 128):
        for bits in (1, 2, 3, 4):
            for of in (codebook.lloyd_max, codebook.uniform):
                book = of(width, bits)
                found += [list(book.levels), list(book.edges), book.distortion]
    found += [haar(14, 0), haar(14, 3), hadamard(16, 0), hadamard(16, 1, rounds=1)]
    return [*found, refusal(lambda: hadamard(14, 0)), refusal(lambda: codebook.lloyd_max(14, 9))]


CACHES: dict[str, dict[str, Any]] = {
    "turboquant 2": {"keys": "turboquant 2"},
    "turboquant 3": {"keys": "turboquant 3"},
    "turboquant 4": {"keys": "turboquant 4"},
    "turboquant 3, biases kept": {"keys": "turboquant 3", "drop_biases": False},
    "turboquant 3, window 4": {"keys": "turboquant 3", "window": 4},
    "turboquant 3, rope": {"keys": "turboquant 3", "position": "rope"},
    "turboquant 3, alibi, window 2": {"keys": "turboquant 3", "position": "alibi", "window": 2},
    "turboquant 2 and 4": {"keys": "turboquant 2", "values": "turboquant 4"},
    "prod 3": {"keys": "prod gaussian 3"},
    "token 4": {"keys": "token 4"},
    "channel 4 and token 4": {"keys": "channel 4", "values": "token 4"},
    "channel of 5 and int8, window 3": {"keys": "channel of 5 3", "values": "int8", "window": 3},
    "blocks 4": {"keys": "blocks 4"},
    "float8": {"keys": "float8"},
    "kivi 2": {"keys": "kivi keys 2", "values": "kivi values 2"},
    "kvarn 4 and 2": {"keys": "kvarn keys 4", "values": "kvarn values 2"},
    "e8 3": {"keys": "e8 3"},
    "nvfp4": {"keys": "nvfp4"},
    "q4_0": {"keys": "q4_0"},
    "plain and turboquant 3": {"keys": "plain", "values": "turboquant 3"},
    "turboquant 3, no bias, untied": {"keys": "turboquant 3", "bias": False, "head": "untied"},
}


def _through(
    dtype: str,
    keys: str,
    values: str | None = None,
    window: int = 0,
    drop_biases: bool = True,
    **choices: Any,
) -> object:
    """Logits through a compressed cache, and what it holds; a prompt in pieces and at once."""
    import torch

    from reference_model.quantization.kv_cache import QuantizedKVCache

    model = small_model(dtype, n_embd=3 * WIDTH, context_length=64, **choices)
    codecs = [codec_of(keys)] + ([] if values is None else [codec_of(values)])

    def cache(capacity: int) -> QuantizedKVCache:
        return QuantizedKVCache(model, 2, capacity, *codecs, window=window, drop_biases=drop_biases)

    tokens, tall = tokens_of(model, 2, 7), tokens_of(model, 2, TOKENS)
    whole, long = cache(9), cache(TOKENS)
    with torch.inference_mode():
        found: list[object] = [in_pieces(model, tokens, cache(9)), model(tokens, whole)]
        found += [model(tall[:, :33], long)[:, -2:], model(tall[:, 33:], long)]
    found += [whole.nbytes, whole.nbytes_used, long.nbytes, long.nbytes_used, long.encoded(TOKENS)]
    found.append(refusal(lambda: long.forget(35)))
    found.append(refusal(lambda: model(tokens, whole)))
    found.append(refusal(lambda: QuantizedKVCache(model, 1, 4, codec_of("token 4", 16))))
    return found


def _through_bfloat16() -> object:
    """Logits of a prompt and of tokens behind it, over a cache of half the bytes."""
    import torch

    from reference_model.cache import KVCache

    model = small_model("float32", n_embd=3 * WIDTH, context_length=64)
    cache = KVCache(model.config, 2, 40, torch.bfloat16)
    with torch.inference_mode():
        return [in_pieces(model, tokens_of(model, 2, 7), cache), cache.nbytes_used]


def _plain(kind: str, dtype: str) -> object:
    """A plain cache by itself: append, update, attend, forget and an overflow."""
    import torch

    from reference_model import cache as caches
    from reference_model.config import GPTConfig

    config = GPTConfig(vocab_size=61, context_length=33, n_layer=2, n_head=3, n_embd=42)
    held: Any = vars(caches)[kind](config, 2, 6, getattr(torch, dtype))
    k, v, q = (normal(name, 2, 3, 4, 14) for name in "kvq")
    found: list[object] = [held.nbytes, held.nbytes_used, held.length, held.start, held.span(3)]
    for layer in (0, 1):
        found += list(held.update(layer, k, v))
    found += [held.length, held.start, held.span(1), held.nbytes_used]
    held.forget(2)
    seen = torch.ones(1, held.span(1), dtype=torch.bool)
    seen[:, 3:] = False
    for layer in (0, 1):
        one = slice(0, 1)
        found.append(held.attend(layer, q[:, :, one], k[:, :, one], v[:, :, one], seen))
    found += [held.length, held.nbytes_used, refusal(lambda: held.forget(5))]
    found.append(refusal(lambda: held.update(0, torch.cat((k, k), 2), torch.cat((v, v), 2))))
    return found


SINGLE = (
    *(
        Case(
            f"codec {name}",
            "(2, 3, 4 blocks, 32)",
            "float32",
            "codes, scales or a rotation that are off",
            partial(_alone, name),
        )
        for name in CODECS
    ),
    *(
        Case(
            f"codec {name}, {width} wide",
            f"(2, 3, 4 blocks, {width})",
            "float32",
            "widths that fill no word",
            partial(_alone, name, width),
        )
        for name, width in (
            ("turboquant 3", 13),
            ("turboquant 2", 64),
            ("prod gaussian 3", 20),
            ("token 3", 7),
            ("q4_0, rotated as keys", 128),
            ("q4_0, rotated as values, signs", 128),
            ("oscar", 64),
        )
    ),
    *(
        Case(
            f"codec {name} in pieces",
            "9 × 1,024 vectors of 32",
            "float32",
            "a seam between pieces",
            partial(_in_pieces_or_whole, name),
        )
        for name in ("turboquant 3", "token 4")
    ),
    Case(
        "packing", "1 to 64 codes of 1, 2, 3, 4 and 8 bits", "uint8", "bits that get lost", _packed
    ),
    Case(
        "codebooks and rotations",
        "widths 3, 14, 16, 64 and 128",
        "float64",
        "levels that are not the best",
        _codebooks,
    ),
    *(
        Case(
            f"{kind}, {dtype}",
            "B 2, room 6, 2 layers",
            dtype,
            "a cache that miscounts, or hands out too much",
            partial(_plain, kind, dtype),
        )
        for kind in ("KVCache", "StaticKVCache")
        for dtype in ("float32", "float16")
    ),
)
# Codes may step over an edge where sums are in another order.
ROUNDED = (
    *(
        Case(
            f"cache {name}",
            "B 2, T 7 in pieces and 40",
            "float32",
            "what a compressed cache gives back or holds",
            partial(_through, "float32", **chosen),
        )
        for name, chosen in CACHES.items()
    ),
    Case(
        "cache turboquant 3, bfloat16",
        "B 2, T 7 in pieces and 40",
        "bfloat16",
        "a path that one dtype alone takes",
        partial(_through, "bfloat16", keys="turboquant 3", window=1),
    ),
    *(
        Case(
            f"cache {name}, compiled",
            "(2, 7), (2, 33), (2, 7) of 40",
            "float32",
            "compiled attention that reads or packs otherwise",
            partial(compiled, partial(_through, "float32", **how)),
        )
        for name, how in CACHES.items()
        if name.startswith("turboquant")
    ),
    Case(
        "cache in bfloat16, compiled",
        "(2, 7) of 40",
        "float32",
        "compiled attention that reads otherwise",
        partial(compiled, _through_bfloat16),
    ),
)
