"""What bench_int8.py measures of models that really hold int8.

As in workloads.py, only the standard library is imported before a benchmark is set up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.suite.codec_workloads import held_out_tokens, reference_checkpoint
from benchmarks.suite.workloads import (
    Step,
    filled_cache,
    finish,
    model_of,
    of_this_commit,
    repeated_step,
)

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model

# What a model is held in, as bench_int8.py spells it: the linears by a product, norms rounded too.
WAYS = ("dequantize", "int_mm", "packed", "int_mm and norms")
READ = 128  # tokens: on a processor without int8 products, int_mm takes 14 times as long as float32


@cache  # asv sets up anew before each sample; the model is the same
@of_this_commit()
def int8_model(name: str, product: str) -> Model:
    """A preset with random weights, its linears in int8."""
    return _rewritten(model_of(name), product)


@of_this_commit()
def skip_packed(product: str, device: str = "cpu") -> None:
    """NotImplementedError where FBGEMM cannot serve the product on this device or in this build."""
    from reference_model.quantization.int8 import packed_is_available

    if product == "packed" and not (device == "cpu" and packed_is_available()):
        raise NotImplementedError("FBGEMM packs weights on a CPU, and not in every build")


def _rewritten(model: Model, product: str) -> Model:
    from reference_model.quantization.int8 import with_int8_linears

    skip_packed(product, model.wte.weight.device.type)
    rewritten: Any = with_int8_linears(model, product).model  # type: ignore[arg-type]
    return rewritten


def int8_decode_step(name: str, product: str, past: int) -> Step:
    """The token after ``past`` others, again and again."""
    model = int8_model(name, product)
    return repeated_step(model, filled_cache(model, past, 1), past)


@of_this_commit()
def bytes_over_float32(name: str, product: str) -> float:
    """Bytes of all weights, over those in float32."""
    from reference_model.quantization.int8 import weight_bytes

    return weight_bytes(int8_model(name, product)) / weight_bytes(model_of(name, "float32"))


@of_this_commit()
def loss_measurement(way: str) -> Callable[[], float]:
    """What the checkpoint loses on a piece of held-out text, nats a token, once called."""
    from benchmarks.instruments.perplexity import token_losses
    from benchmarks.instruments.windows import windows_of

    model = reference_checkpoint()
    changed = _changed(model, way)
    windows = windows_of(held_out_tokens(model), model.config.context_length)

    def increase() -> float:
        lost = token_losses(changed, windows) - token_losses(model, windows)
        return float(lost.mean())

    return increase


@cache  # two numbers are made of it
@of_this_commit()
def quality_of(way: str) -> dict[str, float]:
    """What the predictions after each of `READ` tokens of held-out text lose, nats a token."""
    import torch

    model = reference_checkpoint()
    changed = _changed(model, way)
    tokens = held_out_tokens(model)[: READ + 1].to(model.wte.weight.device)
    read, follow = tokens[None, :-1], tokens[1:, None]
    with torch.inference_mode():
        p, q = (each(read)[0].double().log_softmax(-1) for each in (model, changed))  # (T, V)
    return {
        "loss_increase": float((p - q).gather(-1, follow).mean()),
        "prediction_kl": float((p.exp() * (p - q)).sum(-1).mean()),
    }


def _changed(model: Model, way: str) -> Any:
    """The model as one of `WAYS` says."""
    from reference_model.quantization.norms import NormScheme, with_int8_norms

    product, _, norms = way.partition(" and ")
    changed: Any = _rewritten(model, product)
    if norms:
        changed, _ = with_int8_norms(changed, NormScheme(weights="int8", input="int8"))
    return changed


# ---- simulated rounding


@of_this_commit()
def rounding(model: Model, granularity: str) -> Callable[[], Model]:
    """A copy of the model, its linears rounded to the grid of INT8."""
    from reference_model.quantization.grid import Grid
    from reference_model.quantization.rounding import with_rounded_linears

    grid = Grid(granularity=granularity)  # type: ignore[arg-type]

    def rounded() -> Model:
        copy, _ = with_rounded_linears(model, grid)
        finish()
        return copy

    return rounded


def relative_error(model: Model, rounded: Model) -> float:
    """Root mean square of what changed, over that of the weights that changed."""
    pairs = [
        (before.detach().double(), after.detach().double())
        for before, after in zip(model.parameters(), rounded.parameters(), strict=True)
        if not before.equal(after)
    ]
    changed = sum(float((after - before).square().sum()) for before, after in pairs)
    return float((changed / sum(float(before.square().sum()) for before, _ in pairs)) ** 0.5)
