"""One call of each kind, for what it costs and leaves behind: what footprint.py is asked about."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.exact_cases.caches import WIDTH, codec_of
from benchmarks.exact_cases.case import Case
from benchmarks.exact_cases.footprint import Call, footprint, left_behind, own_folder
from benchmarks.exact_cases.models import normal, small_model, tokens_of
from benchmarks.suite.int8_workloads import skip_packed
from benchmarks.suite.workloads import device, of_this_commit, start


@cache  # several numbers are made of it
@of_this_commit()
def footprint_of(name: str) -> dict[str, int]:
    """Of one call, by `footprint`, and how much of the process it leaves changed."""
    start()
    if device() != "cpu":
        raise NotImplementedError("the CPU's allocator is asked")
    (case,) = (case for case in CALLS if case.name == name)
    build: Callable[[], Any] = case.run
    with own_folder():
        call = build()
        return footprint(call) | {"left behind": left_behind(call)}


def _model_call(read: Callable[[Any], object], **choices: Any) -> Call:
    import torch

    model = small_model(**choices)

    def call() -> object:
        with torch.inference_mode():
            return read(model)

    return call


def _read(length: int, model: Any, last_only: bool = True) -> object:
    return model(tokens_of(model, 2, length), last_only=last_only)


def _cached(length: int, model: Any) -> object:
    """A prompt and a token after it."""
    from reference_model.cache import KVCache

    # With room left: what a cache that is full hands out is its buffers, copied or not.
    kv = KVCache(model.config, 2, length + 12)
    model(tokens_of(model, 2, length), kv, last_only=True)
    return model(tokens_of(model, 2, 1), kv, last_only=True)


def _compressed(codec: str, window: int, model: Any) -> object:
    from reference_model.quantization.kv_cache import QuantizedKVCache

    kv = QuantizedKVCache(model, 2, 20, codec_of(codec), window=window)
    model(tokens_of(model, 2, 8), kv, last_only=True)
    return model(tokens_of(model, 2, 1), kv, last_only=True)


def _at_new_lengths(position: str) -> Call:
    """Prompts and steps of lengths that were not seen before: what a length leaves shows."""
    import torch

    from reference_model.cache import KVCache

    model, lengths = small_model(position=position), count(3)

    def call() -> None:
        length = next(lengths)
        with torch.inference_mode():
            kv = KVCache(model.config, 2, length + 3)
            for piece in (length, 2, 1):
                model(tokens_of(model, 2, piece), kv)

    return call


def _written(options: dict[str, Any], model: Any, prompt: int = 5, new_tokens: int = 8) -> object:
    from reference_model.generate import generate

    return generate(model, tokens_of(model, 2, prompt), new_tokens, **options)


def _streamed(decoding: str) -> Call:
    """Token by token, by a caller who has not turned gradients off."""
    from reference_model.generate import stream

    model = small_model()
    return lambda: list(stream(model, tokens_of(model, 2, 5), 8, decoding=decoding))  # type: ignore[arg-type]


def _codec(name: str, blocks: int = 4) -> Call:
    codec = codec_of(name)
    x = normal("vectors", 2, 3, codec.block * blocks, WIDTH)
    return lambda: codec.decode(codec.encode(x))


def _codecs_anew() -> Call:
    """Codecs of several sizes in turn, as keys and values have them."""
    from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

    return lambda: [
        make(WIDTH, bits, seed=seed)
        for seed in (0, 1)
        for bits in (2, 3, 4)
        for make in (TurboQuant, TurboQuantProd)
    ]


def _tokenizer() -> Call:
    from reference_model.checkpoints import reference_tokenizer
    from reference_model.tokenizer_file import decode, encode

    def call() -> object:
        tokenizer = reference_tokenizer()
        return decode(tokenizer, encode(tokenizer, "To be, or not to be: that is the question."))

    return call


def _adapted(state: str) -> Call:
    import torch

    from reference_model import lora

    model: Any = small_model()
    lora.add_adapters(model, lora.LoRAConfig(4, init_b="gaussian"))
    if state == "merged":
        lora.merge_adapters(model)
    tokens = tokens_of(model, 2, 7)
    if state == "trained":
        return lambda: model(tokens).square().mean().backward()

    def call() -> object:
        with torch.inference_mode():
            return model(tokens)

    return call


def _merging() -> Call:
    from reference_model import lora

    model: Any = small_model()
    lora.add_adapters(model, lora.LoRAConfig(4, init_b="gaussian"))

    def call() -> None:
        lora.merge_adapters(model)
        lora.unmerge_adapters(model)

    return call


def _int8(product: str) -> Call:
    import torch

    from reference_model.quantization.int8 import with_int8_linears

    skip_packed(product)
    model: Any = with_int8_linears(small_model(n_embd=192), product).model  # type: ignore[arg-type]
    tokens = tokens_of(model, 2, 7)

    def call() -> object:
        with torch.inference_mode():
            return model(tokens)

    return call


def _rewriting(kind: str) -> Call:
    from reference_model.quantization.grid import Grid
    from reference_model.quantization.int8 import with_int8_linears
    from reference_model.quantization.norms import NormScheme, with_int8_norms
    from reference_model.quantization.rounding import with_rounded_linears

    skip_packed(kind)
    made: dict[str, Callable[[Any], object]] = {
        "dequantize": lambda model: with_int8_linears(model, "dequantize"),
        "by group": lambda model: with_int8_linears(model, "dequantize", Grid(4, "per group")),
        "int8": lambda model: with_int8_linears(model, "int_mm"),
        "packed": lambda model: with_int8_linears(model, "packed"),
        "rounded": lambda model: with_rounded_linears(model, Grid()),
        "norms": lambda model: with_int8_norms(model, NormScheme(weights="int8", input="int8")),
    }
    # The original is the call's own, and gone when it ends: what is kept is the rewritten model's.
    return lambda: made[kind](small_model(n_embd=192))


def _step() -> Call:
    """Forward, backward and AdamW."""
    from reference_model.training import Recipe, batch_loss, make_optimizers

    model = small_model().train()
    (optimizer,) = make_optimizers(model, Recipe(10, 1e-3))
    batch = tokens_of(model, 2, 8)

    def call() -> None:
        batch_loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def _training() -> Call:
    """Whole, from a new model to a trained one."""
    from reference_model.training import Recipe, train

    def call() -> object:
        model = small_model()
        recipe = Recipe(3, 1e-2, warmup_steps=1, evaluate_every=2)
        text = tokens_of(model, 1, 120)[0]
        return model, list(train(model, lambda step: tokens_of(model, 2, 8), text, recipe))

    return call


def _loss() -> Call:
    from reference_model.training import mean_loss

    model = small_model()
    return lambda: mean_loss(model, tokens_of(model, 1, 40 * 33 + 1)[0])


def _file(kind: str, dtype: str = "float32") -> Call:
    from reference_model import checkpoints, export, lora, lora_files

    folder = Path(tempfile.mkdtemp(prefix="exact-case-"))
    model: Any = small_model(dtype)
    if kind == "adapters":
        lora.add_adapters(model, lora.LoRAConfig(4))

    def call() -> object:
        if kind == "adapters":
            lora_files.save_adapters(model, folder)
            return lora_files.load_adapters(small_model(), folder)
        if kind == "huggingface":
            export.save_huggingface(model, folder)
            return checkpoints.load_huggingface(folder)
        checkpoints.save(model, folder)
        return checkpoints.load(folder)

    return call


def _read_file(kind: str) -> Call:
    """A folder that was written before: what loading alone costs."""
    from reference_model import checkpoints, export

    folder, model = Path(tempfile.mkdtemp(prefix="exact-case-")), small_model()
    if kind == "huggingface":
        export.save_huggingface(model, folder)
        return partial(checkpoints.load_huggingface, folder)
    checkpoints.save(model, folder)
    return partial(checkpoints.load, folder)


SMALL = "2 layers, 42 wide, B 2"
MEMORY = "a copy, a buffer that stays, a wait or a loop"
MODELS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "prompt of 7": (partial(_read, 7), {}),
    "prompt of 33": (partial(_read, 33), {}),
    "all logits of 33": (partial(_read, 33, last_only=False), {}),
    "one token": (partial(_read, 1), {}),
    "prompt, rope, rmsnorm": (partial(_read, 20), {"position": "rope", "norm": "rmsnorm"}),
    "prompt, alibi, post": (partial(_read, 20), {"position": "alibi", "norm_placement": "post"}),
    "prompt, sinusoidal, double": (
        partial(_read, 20),
        {"position": "sinusoidal", "norm_placement": "double"},
    ),
    "prompt, deepnorm, untied": (
        partial(_read, 20),
        {"norm_placement": "deepnorm", "head": "untied"},
    ),
    "cached, 20": (partial(_cached, 20), {}),
    "cached, rope": (partial(_cached, 20), {"position": "rope"}),
    "cached, alibi": (partial(_cached, 20), {"position": "alibi"}),
    "turboquant 3": (partial(_compressed, "turboquant 3", 0), {"n_embd": 3 * WIDTH}),
    "turboquant 2, window 3": (partial(_compressed, "turboquant 2", 3), {"n_embd": 3 * WIDTH}),
    "prod 3": (partial(_compressed, "prod gaussian 3", 0), {"n_embd": 3 * WIDTH}),
    "text": (partial(_written, {}), {}),
    "text, no cache": (partial(_written, {"use_cache": False}), {}),
    "text, static": (partial(_written, {"decoding": "static"}), {}),
    "text, sampled": (partial(_written, {"temperature": 1.0, "top_k": 5}), {}),
    **{
        f"{name}, {dtype}": (read, {"dtype": dtype})
        for dtype in ("bfloat16", "float16")
        for name, read in (
            ("prompt of 20", partial(_read, 20)),
            ("one token", partial(_read, 1)),
            ("cached, 20", partial(_cached, 20)),
            ("text", partial(_written, {})),
            ("text, static", partial(_written, {"decoding": "static"})),
        )
    },
    **{
        f"8 layers, {position}": (partial(_cached, 20), {"n_layer": 8, "position": position})
        for position in ("learned", "sinusoidal", "rope", "alibi")
    },
    # Rooms that are round, where others are odd.
    **{
        f"text, static, room {room}": (
            partial(_written, {"decoding": "static"}, prompt=room - 3, new_tokens=4),
            {"context_length": 512, "n_layer": 1},
        )
        for room in (32, 64, 128, 256)
    },
}
CALLS = (
    *(
        Case(name, SMALL, "float32", MEMORY, partial(_model_call, read, **choices))
        for name, (read, choices) in MODELS.items()
    ),
    *(
        Case(f"codec {name}", "(2, 3, 4 blocks, 32)", "float32", MEMORY, partial(_codec, name))
        for name in (
            "turboquant 2",
            "turboquant 3",
            "turboquant 4",
            "prod gaussian 3",
            "token 3",
            "channel 4",
            "blocks 4",
            "int8",
        )
    ),
    *(
        Case(f"adapters, {state}", SMALL, "float32", MEMORY, partial(_adapted, state))
        for state in ("beside", "merged", "trained")
    ),
    *(
        Case(
            f"codec {name}, long",
            "(2, 3, 2,048, 32)",
            "float32",
            "a peak or a loop that grows with the length",
            partial(_codec, name, blocks=2048),
        )
        for name in ("turboquant 3", "token 4")
    ),
    Case("codecs made anew", "12 of 32 numbers", "float32", "work done twice", _codecs_anew),
    Case("tokenizer", "43 letters", "none", "a file that stays open, or a loop", _tokenizer),
    *(
        Case(
            f"new lengths, {position}",
            "2 layers, 42 wide, T from 3",
            "float32",
            "something that stays for each length",
            partial(_at_new_lengths, position),
        )
        for position in ("learned", "sinusoidal", "rope", "alibi")
    ),
    *(
        Case(f"stream, {decoding}", SMALL, "float32", MEMORY, partial(_streamed, decoding))
        for decoding in ("eager", "static")
    ),
    Case("adapters, merging", SMALL, "float32", MEMORY, _merging),
    *(
        Case(
            f"int8 {product}", "2 layers, 192 wide, B 2", "float32", MEMORY, partial(_int8, product)
        )
        for product in ("dequantize", "int_mm", "packed")
    ),
    *(
        Case(
            f"rewriting, {kind}", "2 layers, 192 wide", "float32", MEMORY, partial(_rewriting, kind)
        )
        for kind in ("dequantize", "by group", "int8", "packed", "rounded", "norms")
    ),
    Case("step of training", SMALL, "float32", MEMORY, _step),
    Case("training", "2 layers, 42 wide, B 2, 3 steps", "float32", MEMORY, _training),
    Case("mean loss", "40 windows of 33", "float32", MEMORY, _loss),
    *(
        Case(f"files, {kind}", SMALL, "float32", MEMORY, partial(_file, kind))
        for kind in ("reference", "huggingface", "adapters")
    ),
    *(
        Case(f"folder read, {kind}", SMALL, "float32", MEMORY, partial(_read_file, kind))
        for kind in ("reference", "huggingface")
    ),
    *(
        Case(
            f"files, {kind}, bfloat16", SMALL, "bfloat16", MEMORY, partial(_file, kind, "bfloat16")
        )
        for kind in ("reference", "huggingface")
    ),
)
