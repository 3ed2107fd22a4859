"""What stands in for the checkpoint, the presets, the texts, the clock and the profiler.

It is put into every module of this suite that has the real one, and taken out again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from benchmarks.exact_cases.models import fill

SUITE, OURS = "benchmarks.", "benchmarks.exact_cases."
# Heads are as wide as those of the checkpoint and of GPT-2, which codecs are made for.
SIZES = {"vocab_size": 256, "n_layer": 2, "n_head": 4, "n_embd": 256, "context_length": 256}
LETTERS, PLAYS, TOPICS = 600, 3, 12  # of each text; a token is a letter
SECONDS_PER_FLOP, SECONDS_PER_CALL = 1e-8, 1e-3
PROBES = {  # small ones, of a machine that is not asked
    "instruments.limits.READ_BYTES": {"cpu": 2**20},
    "instruments.limits.MATRIX_SIDE": {"cpu": 64},
}


class Smaller:
    """The same with some fields changed: of a configuration, or of each entry of a table."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def of(self, found: Any) -> Any:
        if not isinstance(found, Mapping):
            return replace(found, **self.fields)
        return {profile: replace(entry, **self.fields) for profile, entry in found.items()}


@contextmanager
def in_miniature(sizes: Mapping[str, Any]) -> Iterator[None]:
    """Within, every experiment has the small model, the made-up texts and the clock of work."""
    from reference_model import checkpoints, config

    stand_ins = [
        (checkpoints.load_reference, _checkpoint),
        (checkpoints.reference_tokenizer, _tokenizer),
        (config.preset, partial(_preset, config.preset)),
        *((_home(place)[place.rpartition(".")[2]], other) for place, other in OF_SUITE.items()),
    ]
    modules = list(_modules())
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    _forget(modules)
    try:
        for names in modules:
            for name, value in list(names.items()):
                for real, stand_in in stand_ins:
                    if value is real:
                        names[name] = stand_in
                        replaced.append((names, name, real))
        for place, smaller in sizes.items():
            names, name = _home(place), place.rpartition(".")[2]
            replaced.append((names, name, names[name]))
            names[name] = smaller.of(names[name]) if isinstance(smaller, Smaller) else smaller
        yield
    finally:
        for names, name, real in replaced:
            names[name] = real
        _forget(modules)


def _modules() -> Iterator[dict[str, Any]]:
    """The names of each module of the suite that was imported, but for the cases."""
    for name, module in list(sys.modules.items()):
        if name.startswith(SUITE) and not name.startswith(OURS):
            yield vars(module)


def _home(place: str) -> dict[str, Any]:
    """The names of the module that has ``place``: its own, or where it has moved to."""
    module, _, name = place.rpartition(".")
    names = vars(import_module(f"{SUITE}{module}"))
    return names if name in names else next(each for each in _modules() if name in each)


def _forget(modules: Sequence[Mapping[str, Any]]) -> None:
    """What functions have kept of the other texts and models."""
    for names in modules:
        for value in list(names.values()):
            if callable(clear := getattr(value, "cache_clear", None)):
                clear()


def _preset(real: Callable[..., Any], name: str, **choices: Any) -> Any:
    return real(name, **{**SIZES, **choices})


def _checkpoint(dtype: Any = None) -> Any:
    import torch

    return deepcopy(_filled()).to(dtype or torch.float32)


@cache
def _filled() -> Any:
    from reference_model.config import preset
    from reference_model.model import GPT

    model = GPT(_preset(preset, "reference")).eval()
    fill(model)
    return model


def _tokenizer() -> Any:
    """A token for each byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: i for i, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _text(name: str) -> str:
    draws = random.Random(name)
    return "".join(draws.choices("etaoinshr .", k=LETTERS))


def _plays(split: str) -> dict[str, str]:
    return {f"{split} {i}": _text(f"{split} {i}") for i in range(PLAYS)}


def seconds_of(function: Callable[[], object]) -> float:
    """By the FLOPs of one call."""
    from benchmarks.instruments.counting import count

    return SECONDS_PER_CALL + SECONDS_PER_FLOP * count(function).flops


def _durations(
    arms: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds by the FLOPs of a call, growing from round to round."""
    taken = {name: seconds_of(function) for name, function in arms.items()}
    return {
        name: [seconds * (1 + 0.01 * turn) for turn in range(rounds)]
        for name, seconds in taken.items()
    }


def _generation(model: Any, prompt: Any, new_tokens: int, use_cache: bool = True) -> Any:
    """The first token and the next are counted; each later one takes a little more."""
    from benchmarks.instruments.clock import GenerationTiming
    from reference_model.generate import generate

    first, both = (
        seconds_of(partial(generate, model, prompt, n, use_cache=use_cache)) for n in (1, 2)
    )
    steps = [(both - first) * (1 + 0.01 * i) for i in range(new_tokens - 1)]
    return GenerationTiming(first, steps, len(prompt))


def _held(target: str, arguments: Mapping[str, Any], threads: int) -> Any:
    """Bytes by the name of what is held."""
    from benchmarks.instruments.readings import Reading

    return Reading(1e8 * (1 + random.Random(str(arguments)).random()), "bytes", "made up")


# Of this suite, by module and name.
OF_SUITE: dict[str, Any] = {
    "data.assets.play_texts": _plays,
    "instruments.clock.interleaved_durations": _durations,
    "instruments.clock.generation_timing": _generation,
    "instruments.memory.held_rss": _held,
    "instruments.memory.peak_rss": lambda *given: {"increase": _held(*given)},
    "instruments.memory.page_faults": lambda: 0,
    "instruments.topics.TOPICS": {f"topic {i}": _text(f"topic {i}") for i in range(TOPICS)},
}


class Profiled:
    """What PyTorch's profiler tells of a step that is not run; operators are within each other."""

    # Name, microseconds of its own, microseconds with all that it called.
    EVENTS = (
        ("aten::linear", 2, 40),
        ("aten::addmm", 38, 38),
        ("aten::scaled_dot_product_attention", 1, 11),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", 10, 10),
        ("aten::layer_norm", 10, 30),
        ("aten::native_layer_norm", 20, 20),
    )

    def __init__(self, **options: object) -> None:
        pass

    def __enter__(self) -> Profiled:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def key_averages(self) -> list[SimpleNamespace]:
        names = ("key", "self_cpu_time_total", "cpu_time_total")
        return [SimpleNamespace(**dict(zip(names, e, strict=True))) for e in self.EVENTS]
