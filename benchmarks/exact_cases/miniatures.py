"""Whole experiments in miniature: a small model, short texts, and a clock that runs by the work.

What stands in for the checkpoint, the presets, the texts and the clock is put into every module of
this suite that has the real one. All else is the experiment's own: how it cuts, draws, compresses,
rounds, trains, pairs, and puts together.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from benchmarks.exact_cases.case import Case
from benchmarks.exact_cases.models import fill

SUITE, OURS = "benchmarks.", "benchmarks.exact_cases."
# Heads are as wide as those of the checkpoint and of GPT-2, which codecs are made for.
SIZES = {"vocab_size": 256, "n_layer": 2, "n_head": 4, "n_embd": 256, "context_length": 256}
LETTERS, PLAYS, TOPICS = 600, 3, 12  # of each text; a token is a letter
Labels = Mapping[str, Any]
SECONDS_PER_FLOP, SECONDS_PER_CALL = 1e-8, 1e-3


PROBES = {  # small ones, of a machine that is not asked
    "instruments.limits.READ_BYTES": {"cpu": 2**20},
    "instruments.limits.MATRIX_SIDE": {"cpu": 64},
}


class Smaller:
    """In the place of a table by profile: the same with some fields of each entry changed."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def of(self, table: Mapping[str, Any]) -> dict[str, Any]:
        return {profile: replace(entry, **self.fields) for profile, entry in table.items()}


@dataclass(frozen=True)
class Miniature:
    """An experiment's profile, and which of its cells are measured: those with these labels.

    All of them where none are named. ``rest``: each other cell has found what the one most like it
    has, its numbers moved a little. ``sizes``: smaller ones for constants, by module and name.
    """

    claim: str
    profile: str
    cells: Sequence[Mapping[str, Any]] = ()
    rest: bool = False
    sizes: Mapping[str, Any] = field(default_factory=dict)


def found_by(miniature: Miniature) -> object:
    """All that it measures, by name, and the verdict that this leads to."""
    from benchmarks.claims import load_claims
    from benchmarks.experiment import Settings, all_experiments
    from benchmarks.verdicts import judge_claim

    (experiment,) = (each for each in all_experiments() if each.claim == miniature.claim)
    (claim,) = (each for each in load_claims() if each.id == miniature.claim)
    settings = Settings(miniature.profile, "cpu", 0)  # type: ignore[arg-type]
    with in_miniature(miniature.sizes):
        cells = [cell.parameters for cell in experiment.cells(settings)]
        chosen = [_first(cells, labels) for labels in miniature.cells] or cells
        found: list[tuple[Any, Any]] = [(c, experiment.measure(settings, **c)) for c in chosen]
        if miniature.rest:
            found = [(labels, _like(labels, found)) for labels in cells]
        measured = experiment.combine(settings, found)
    judged, _ = judge_claim(claim, measured)
    return [{m.id: [m.value, m.interval, m.n, m.unit] for m in measured}, judged.verdict]


def _first(cells: Sequence[Labels], labels: Labels) -> Labels:
    return next(each for each in cells if labels.items() <= each.items())


def _like(labels: Labels, found: Sequence[tuple[Labels, Any]]) -> Any:
    """What the most similar of the measured cells found; moved, where it is not the same cell."""

    def alike(each: tuple[Labels, Any]) -> tuple[int, int]:
        return len(each[0].keys() & labels.keys()), len(each[0].items() & labels.items())

    nearest, numbers = max(found, key=alike)
    return numbers if nearest == labels else _moved(numbers, random.Random(str(labels)))


def _moved(found: Any, draws: random.Random) -> Any:
    if isinstance(found, float):
        return found * draws.uniform(0.95, 1.05)
    if isinstance(found, Mapping):
        return {key: _moved(each, draws) for key, each in found.items()}
    return [_moved(each, draws) for each in found] if isinstance(found, list | tuple) else found


# ---- what stands in


@contextmanager
def in_miniature(sizes: Mapping[str, Any]) -> Iterator[None]:
    """Within, every experiment has the small model, the made-up texts and the clock of work."""
    from benchmarks import assets
    from benchmarks.instruments import clock, memory, topics
    from reference_model import checkpoints, config

    stand_ins = [
        (checkpoints.load_reference, _checkpoint),
        (checkpoints.reference_tokenizer, _tokenizer),
        (config.preset, partial(_preset, config.preset)),
        (assets.play_texts, _plays),
        (clock.interleaved_durations, _durations),
        (clock.generation_timing, _generation),
        (memory.held_rss, _held),
        (memory.peak_rss, lambda *given: {"increase": _held(*given)}),
        (vars(topics)["TOPICS"], {f"topic {i}": _text(f"topic {i}") for i in range(TOPICS)}),
    ]
    modules = [
        vars(module)
        for name, module in list(sys.modules.items())
        if name.startswith(SUITE) and not name.startswith(OURS)
    ]
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
            module, _, name = place.rpartition(".")
            names = vars(import_module(f"{SUITE}{module}"))
            replaced.append((names, name, names[name]))
            names[name] = smaller.of(names[name]) if isinstance(smaller, Smaller) else smaller
        yield
    finally:
        for names, name, real in replaced:
            names[name] = real
        _forget(modules)


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

    from reference_model.config import preset
    from reference_model.model import GPT

    model = GPT(_preset(preset, "reference")).eval()
    fill(model)
    return model.to(dtype or torch.float32)


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


class _Profiled:
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

    def __enter__(self) -> _Profiled:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def key_averages(self) -> list[SimpleNamespace]:
        names = ("key", "self_cpu_time_total", "cpu_time_total")
        return [SimpleNamespace(**dict(zip(names, e, strict=True))) for e in self.EVENTS]


FIRST_STEP = {
    "experiments.lora_first_step.RANKS": {"smoke": [1, 8]},
    "experiments.lora_first_step.STEP_RANKS": {"smoke": (16,)},
    "experiments.lora_first_step.DRAWS_AT_RANK_1": {"smoke": 24},
    "experiments.lora_first_step.LEAST_DRAWS": {"smoke": 3},
    "experiments.lora_first_step.ADAMW_RANKS": (4, 8),
    "experiments.lora_first_step.LEAST_ADAMW_DRAWS": 4,
    "experiments.lora_first_step.LENGTH": 32,
    "experiments.lora_first_step.BATCH_SIZE": 2,
}
MINIATURES = (
    Miniature(
        "lora.update-variance",
        "smoke",
        (
            {"width": 64},
            {"a": "kaiming_uniform"},
            {"checked": "gaussian"},
            {"checked": "kaiming_uniform"},
        ),
        sizes={
            "experiments.lora_checks.REPETITIONS": {"smoke": 40},
            # So few at once that there is a second time.
            "experiments.lora_checks.MOST_NUMBERS": 2**15,
            "experiments.lora.MOST_NUMBERS": 2**15,
        },
    ),
    Miniature("lora.real-init", "smoke", sizes=FIRST_STEP),
    Miniature(
        "lora.activation-stability",
        "quick",
        ({"scaling": "alpha/r"}, {"scaling": "alpha/sqrt(r)"}),
        rest=True,
        sizes={
            "experiments.lora_training.MARKS": {"quick": (1, 2)},
            "experiments.lora_training.MOMENT_BATCH": {"quick": (1, 32)},
        },
    ),
    Miniature(
        "lora.rank-pays",
        "full",
        ({"rank": 4}, {"process": 0}),
        rest=True,
        sizes={
            "experiments.lora_rank.STEPS": 4,
            "experiments.lora_rank.WARMUP_STEPS": 2,
            "experiments.lora_rank.LENGTH": 32,
        },
    ),
    Miniature("position.embedding-untouched", "smoke"),
    Miniature(
        "position.embedding-untouched",
        "quick",
        sizes={"experiments.positions.TRAINING": Smaller(steps=2, seeds={"sqrt_width": 2})},
    ),
    Miniature("norm.gradient-profile", "smoke", sizes={"experiments.norms.DEPTHS": (2, 8, 9)}),
    Miniature(
        "cache.same-output",
        "smoke",
        ({"dtype": "float32"}, {"dtype": "float64"}),
        sizes={
            "experiments.cache.LENGTHS": {"smoke": (1, 33)},
            "experiments.cache.GREEDY": {"smoke": ((9, 3),)},
        },
    ),
    Miniature(
        "cache.complexity",
        "smoke",
        sizes={
            "experiments.cache_complexity.CONSECUTIVE": (1, 2, 3, 4, 5, 6, 7),
            "experiments.cache_complexity.LONGER": (8,),
        },
    ),
    Miniature("cache.fifteenfold-projections", "smoke"),
    Miniature(
        "cache.fifteen-tokens",
        "quick",
        ({"process": 0},),
        rest=True,
        sizes={
            "experiments.cache_speed.LENGTHS": {"quick": (4, 8)},
            **PROBES,
        },
    ),
    Miniature(
        "cache.memory-bound",
        "quick",
        ({"process": 0},),
        rest=True,
        sizes={
            **PROBES,
            "experiments.memory_bound.PREFILLS": (128, 256),
            "experiments.memory_bound.profile": _Profiled,
        },
    ),
    Miniature("cache.memory-law", "smoke"),
    Miniature("position.relative", "smoke"),
    Miniature(
        "turboquant.beta", "smoke", sizes={"experiments.turboquant.ROTATIONS": {"smoke": 40}}
    ),
    Miniature(
        "turboquant.memory",
        "full",
        [{"part": part} for part in ("counted", "resident", "decoding", "copies")],
        rest=True,
        sizes={
            "experiments.turboquant_memory.TOKENS": (64, 256),
            "experiments.turboquant_memory.PACKED": (3,),
            "experiments.kv_speed.CONTEXT": 64,
            "experiments.kv_speed.SHAPE": (2, 2, 64, 64),
        },
    ),
    Miniature(
        "turboquant.distortion",
        "smoke",
        [{"width": 64, "part": part} for part in ("law", "scales", "prod")],
        sizes={"experiments.turboquant.VECTORS": {"smoke": 2000}},
    ),
    Miniature(
        "turboquant.rotation-first",
        "smoke",
        sizes={"experiments.turboquant.SEEDS": 2, "experiments.turboquant.TURNED": 1000},
    ),
    Miniature(
        "turboquant.unbiased",
        "quick",
        ({"part": "slopes"}, {"part": "attention"}),
        rest=True,
        sizes={
            "experiments.residual_bit.SEEDS": 2,
            "experiments.residual_bit.VECTORS": 500,
            "experiments.residual_bit.PROBED_WINDOWS": {"quick": 2},
        },
    ),
    Miniature(
        "turboquant.zero-loss",
        "smoke",
        sizes={"experiments.kv_quality.SEEDS": 2, "experiments.kv_quality.PROBED_WINDOWS": 3},
    ),
    Miniature(
        "turboquant.keys-need-more",
        "full",
        ({},),
        rest=True,
        sizes={"experiments.kv_quality.SEEDS": 2, "experiments.kv_quality.PROBED_WINDOWS": 3},
    ),
    Miniature("int8.weights-quality", "smoke"),
    Miniature("int8.weights-quality", "full"),
    Miniature("int8.norm-damage", "smoke", sizes={"experiments.int8.WINDOWS": {"smoke": 2}}),
    Miniature(
        "int8.activation-range",
        "quick",
        sizes={"experiments.int8_activations.WINDOWS": {"quick": 2}},
    ),
    Miniature(
        "int8.size-speed",
        "full",
        [{"part": part} for part in ("sizes", "seconds", "resident")],
        rest=True,
        sizes={"experiments.int8_speed.PROMPT": 256},
    ),
    Miniature(
        "int8.sensitivity",
        "full",
        ({},),
        rest=True,
        sizes={
            "experiments.int8_sensitivity.RESAMPLES": 99,
            "experiments.int8_sensitivity.WINDOWS": {"full": 3},
        },
    ),
)
CASES = tuple(
    Case(
        f"experiment {each.claim}, {each.profile}, in miniature",
        "2 layers, 256 wide, short texts",
        "float32",
        "an experiment that measures something else",
        partial(found_by, each),
    )
    for each in MINIATURES
)
