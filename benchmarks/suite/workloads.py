"""What the benchmarks of `bench_*.py` measure: models, steps and prompts, and how large they are.

The suite comes from the working tree and the model from any commit. asv imports this file beside
each of them, so that only the standard library is imported before a benchmark is set up; and what
an old commit lacks is NotImplementedError, which asv records as skipped.
"""

from __future__ import annotations

import os
import statistics
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from benchmarks.suite.asked_model import DEVICE, DTYPE, MODEL, asked_model, check_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.experiments.experiment import Experiment
    from benchmarks.instruments.counting import Counts
    from benchmarks.instruments.limits import Bound, MachineLimit
    from benchmarks.record.results import Measurement
    from benchmarks.subjects.built import Model
    from reference_model.cache import KVCache

Step = Callable[[], object]

PROMPT_TOKENS, NEW_TOKENS = 128, 16


@dataclass(frozen=True)
class Size:
    """How much one profile measures. Models are names of presets."""

    model: str
    small_model: str  # where a choice costs no more in a large one
    lengths: tuple[int, ...]
    rounds: int  # observations behind a tracked time
    threads: int  # stated, never inherited; on a GPU those of the host
    windows: int = 6  # of held-out text behind a loss


SIZES = {
    "smoke": Size("toy", "toy", (16, 64), rounds=1, threads=1),
    "quick": Size("gpt2", "reference", (128, 512), rounds=3, threads=2),
    "full": Size("gpt2", "gpt2", (16, 128, 512, 896), rounds=20, threads=2),
    # What two commits are compared by (reports/gate): seconds for all that is counted.
    "gate": Size("reference", "reference", (64,), rounds=1, threads=1, windows=1),
}
PROFILE = os.environ.get("LLM_DESIGN_BENCH_PROFILE", "quick")
if PROFILE not in SIZES:
    raise ValueError(f"LLM_DESIGN_BENCH_PROFILE={PROFILE!r}; use one of {', '.join(SIZES)}")
SIZE = replace(SIZES[PROFILE], model=MODEL, small_model=MODEL) if MODEL else SIZES[PROFILE]

# ---- what a commit may lack


@contextmanager
def of_this_commit() -> Iterator[None]:
    """A module or a name that the commit's model lacks becomes NotImplementedError.

    Any other error stays what it is, so that a bug is recorded as a failure.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "reference_model":
            raise
        raise NotImplementedError(f"this commit lacks it: {error}") from error


def check_origin() -> None:
    """RuntimeError unless the model comes from the environment asv made for its commit.

    Were it the working tree's, every commit would be given the speed of the newest.
    """
    if os.environ.get("ASV_ENV_TYPE", "existing") == "existing":
        return
    import reference_model

    found, wanted = Path(reference_model.__file__).parent, Path(sysconfig.get_path("purelib"))
    if found.resolve().parent != wanted.resolve():
        raise RuntimeError(f"reference_model was imported from {found}; it belongs in {wanted}")


@of_this_commit()
def start() -> None:
    """State the threads, and make sure which model is measured."""
    import torch

    check_origin()
    check_dtype()
    torch.set_num_threads(SIZE.threads)
    torch.manual_seed(0)


def device() -> str:
    """Where models lie, and steps compute."""
    return DEVICE


def measured_for(choices: Iterable[str], measure: Callable[[str], Any]) -> dict[str, Any]:
    """Choice → what one process measures of it, or why this commit does not have it.

    For `setup_cache` where several benchmarks, or all choices, need no process of their own.
    """
    found: dict[str, Any] = {}
    for choice in choices:
        try:
            found[choice] = measure(choice)
        except NotImplementedError as error:
            found[choice] = str(error)
    return found


def skip_without(found: Any) -> None:
    """NotImplementedError where a reason stands in for what would have been measured."""
    if isinstance(found, str):
        raise NotImplementedError(found)


# ---- models and caches


@cache  # asv sets up anew before each sample; the model is the same
@of_this_commit()
def model_of(name: str, dtype: str = DTYPE, **choices: str) -> Model:
    """A preset with random weights, or `MODEL`, in evaluation mode.

    Skipped where it has not these choices.
    """
    start()
    import torch

    if name == MODEL:
        return asked_model(dtype, choices).to(device())
    from benchmarks.subjects.built import Model
    from reference_model.config import preset

    check_choices(choices)
    model = Model(preset(name, **choices)).eval()
    return model.to(device=device(), dtype=getattr(torch, dtype))


def check_choices(choices: Mapping[str, Any]) -> None:
    """NotImplementedError for a field or an option that this commit's model does not have."""
    from benchmarks.subjects.built import ModelConfig

    hints, known = get_type_hints(ModelConfig), {field.name for field in fields(ModelConfig)}
    for field, value in choices.items():
        listed = get_args(hints[field]) if field in known and isinstance(value, str) else ()
        if field not in known or value not in (listed or (value,)):
            raise NotImplementedError(f"this commit has no {field}={value!r}")


@of_this_commit()
def filled_cache(model: Model, past: int, room: int = 0) -> KVCache:
    """A cache that holds ``past`` tokens, and has room for more."""
    import torch

    from reference_model.cache import KVCache

    config, weight = model.config, model.wte.weight
    kv = KVCache(config, 1, past + room, weight.dtype, weight.device)
    rows = torch.randn(1, cached_heads(config), past, config.d_head).to(weight)
    for layer in range(config.n_layer):
        kv.update(layer, rows, rows)
    return kv


def cached_heads(config: Any) -> int:
    """Heads of keys and values; an old commit's model has as many as of queries."""
    return int(getattr(config, "n_kv_head", config.n_head))


# ---- steps


def decode_step(model: Model, past: int, cached: bool = True, calls: int = 1) -> Step:
    """The token after ``past`` others; with a cache, each call adds one, up to ``calls``."""
    kv = filled_cache(model, past, calls) if cached else None
    return partial(forward, model, token_ids(model, 1 if cached else past + 1), kv)


def repeated_step(model: Model, kv: KVCache, past: int) -> Step:
    """The token after the ``past`` ones that a cache holds, again and again."""
    tokens = token_ids(model, 1)

    def step() -> None:
        kv.forget(past)
        forward(model, tokens, kv)

    return step


@of_this_commit()
def prefill_step(model: Model, length: int, cached: bool = True) -> Step:
    """A prompt, all at once; a cache is new each time and part of what a prefill costs."""
    from reference_model.cache import KVCache

    tokens, weight = token_ids(model, length), model.wte.weight

    def prefill() -> None:
        kv = KVCache(model.config, 1, length, weight.dtype, weight.device) if cached else None
        forward(model, tokens, kv)

    return prefill


def token_ids(model: Model, length: int) -> Tensor:
    import torch

    return torch.arange(length, device=model.wte.weight.device)[None] % model.config.vocab_size


def finish() -> None:
    """Wait for the GPU, if one computes: a kernel that was launched has not yet run."""
    if device() == "cuda":
        import torch

        torch.cuda.synchronize()


def forward(model: Model, tokens: Tensor, kv: KVCache | None) -> None:
    import torch

    with torch.inference_mode():
        model(tokens, kv, last_only=True)
    finish()


@of_this_commit()
def generation(model: Model, new_tokens: int, cached: bool = True) -> Step:
    """A greedy generation after `PROMPT_TOKENS`."""
    from reference_model.generate import generate

    return partial(generate, model, token_ids(model, PROMPT_TOKENS), new_tokens, use_cache=cached)


def one_generation(model: str, cached: bool) -> None:
    """Build and generate: what a fresh process does while its memory is watched."""
    generation(model_of(model), NEW_TOKENS, cached)()


# ---- figures


def seconds_per_token(model: Model, cached: bool) -> float:
    """Of all tokens but the first, whose time is that of the prompt."""
    from benchmarks.instruments.clock import interleaved_durations

    arms = {n: generation(model, n, cached) for n in (1, 1 + NEW_TOKENS)}
    seconds = interleaved_durations({str(n): arm for n, arm in arms.items()}, SIZE.rounds)
    first, all_of_them = (statistics.median(samples) for samples in seconds.values())
    return (all_of_them - first) / NEW_TOKENS


@of_this_commit()
def decode_bound(model: Model, past: int, dtype: str = DTYPE) -> Callable[[MachineLimit], Bound]:
    """Limit of the machine → the least seconds of one decode step."""
    from benchmarks.instruments import limits

    return lambda limit: limits.decode_bound(model.config, past, limit, dtype)  # type: ignore[arg-type]


@of_this_commit()
def prefill_bound(model: Model, length: int, dtype: str = DTYPE) -> Callable[[MachineLimit], Bound]:
    """Limit of the machine → the least seconds of one prefill."""
    from benchmarks.instruments import limits

    return lambda limit: limits.prefill_bound(model.config, length, limit, dtype)  # type: ignore[arg-type]


def over_ideal(step: Step, bound: Callable[[MachineLimit], Bound], dtype: str = DTYPE) -> float:
    """Median seconds of a step over the least possible, by a limit probed in turns with it."""
    from benchmarks.instruments.limits import durations_beside, probes_for

    probes = probes_for(device(), dtype)  # type: ignore[arg-type]
    limit, seconds = durations_beside(probes, {"step": step}, SIZE.rounds)
    return statistics.median(seconds["step"]) / bound(limit).seconds


@of_this_commit()
def counts(step: Step) -> Counts:
    """FLOPs and operators of one call."""
    from benchmarks.instruments.counting import count

    return count(step)


@of_this_commit()
def launches(step: Step) -> float:
    """Kernels of one call on the GPU; without one, the reason is NotImplementedError."""
    _skip_on_a_cpu()
    from benchmarks.instruments.counting import kernel_launches

    return value_of(kernel_launches(step))


@of_this_commit()
def weight_bytes(model: Model) -> float:
    from benchmarks.instruments.memory import weight_bytes_held

    return weight_bytes_held(model).value


@of_this_commit()
def cache_bytes(kv: KVCache) -> float:
    from benchmarks.instruments.memory import cache_bytes_held

    return cache_bytes_held(kv)["reserved"].value


def peak_bytes(model: str, cached: bool) -> float:
    """What a generation adds to the memory of a fresh process."""
    from benchmarks.instruments.memory import peak_rss

    arguments: dict[str, Any] = {"model": model, "cached": cached}
    target = "benchmarks.suite.workloads:one_generation"
    return value_of(peak_rss(target, arguments, SIZE.threads)["increase"])


def device_bytes() -> float:
    """What is in use on the GPU by NVML; without one, the reason is NotImplementedError."""
    _skip_on_a_cpu()
    from benchmarks.instruments.nvml import device_readings

    return value_of(device_readings()["used"])


def _skip_on_a_cpu() -> None:
    if device() == "cpu":
        raise NotImplementedError("of a GPU alone; measure on one: --device cuda")


def value_of(reading: Any) -> float:
    """Of a reading; where the machine gives none, the reason is NotImplementedError."""
    if hasattr(reading, "reason"):
        raise NotImplementedError(f"{reading.source}: {reading.reason}")
    return float(reading.value)


# ---- the claims


def exact_numbers(wanted: Sequence[str]) -> dict[str, float | str]:
    """Number → its value, or why this commit does not have it; each experiment runs once."""
    claim_of = {number: number.partition(":")[0] for number in wanted}
    claims = measured_for(dict.fromkeys(claim_of.values()), _exact_numbers_of)
    found: dict[str, float | str] = {}
    for number, claim in claim_of.items():
        of_claim, missing = claims[claim], "the experiment does not measure it"
        found[number] = of_claim if isinstance(of_claim, str) else of_claim.get(number, missing)
    return found


@of_this_commit()
def _exact_numbers_of(claim: str) -> dict[str, float]:
    from benchmarks.experiments.experiment import Settings

    start()
    measurements = _experiment_of(claim)(Settings("smoke", "cpu", seed=0))
    return {number_name(m): m.value for m in measurements if m.interval is None}


def _experiment_of(claim: str) -> Experiment:
    """Its lesson alone must be there: an old commit has some lessons' parts and not others."""
    from benchmarks.experiments.catalogue import LESSON_MODULES
    from benchmarks.experiments.experiment import Experiment

    missing = NotImplementedError(f"no experiment measures {claim}")
    for name in LESSON_MODULES:
        try:
            with of_this_commit():
                lesson = vars(import_module(f"benchmarks.experiments.{name}"))
        except NotImplementedError as error:
            missing = error
            continue
        for entry in lesson.values():
            if isinstance(entry, Experiment) and entry.claim == claim:
                return entry
    raise missing


def number_name(measurement: Measurement) -> str:
    """As bench_claims.py spells it: claim, metric, option, parameters."""
    m = measurement
    labels = ", ".join(f"{key}={value}" for key, value in m.parameters.items())
    return f"{m.claim}: {m.metric}, {m.option}; {labels}"
