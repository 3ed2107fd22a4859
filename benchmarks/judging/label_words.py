"""What a person calls an option or a parameter of a measurement: "64 wide", "an untied head"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from benchmarks.judging.rounding import setting
from benchmarks.record.results import Measurement, Parameter

NAMED_AT_MOST = 6

# Options as results spell them in ASCII, and as people write them.
NOTATION = {
    "alpha/r": "α/r",
    "alpha/sqrt(r)": "α/√r",
    "alpha/r^0.6": "α/r^0.6 for α/√r",
    "init off by sqrt(2)": "√2 in the deviation of A",
    "rho = 0.1": "a correlation of 0.1 across the rank",
}
NAMES: Mapping[str, str] = {
    **NOTATION,
    "exponent off by 0.02": "an exponent 0.02 too high",
    "exponent off by -0.02": "an exponent 0.02 too low",
    "rope": "rotary",
    "alibi": "ALiBi",
    "layernorm": "LayerNorm",
    "rmsnorm": "RMSNorm",
    "deepnorm": "DeepNorm",
    "double": "a double norm",
    "pre": "Pre-LN",
    "post": "Post-LN",
    "int8": "INT8",
    "turboquant": "TurboQuant",
    "gpt2": "GPT-2 small",
    "gpt2-medium": "GPT-2 medium",
    "gpt2-large": "GPT-2 large",
    "gpt2-xl": "GPT-2 XL",
    "checkpoint": "the reference checkpoint",
    "reference": "the reference checkpoint",
    "reference checkpoint": "the reference checkpoint",
    "gamma and beta per tensor": "γ and β per tensor",
    "gamma, beta and input per tensor": "γ, β and input per tensor",
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "a": {"gaussian": "a Gaussian A", "kaiming_uniform": "a uniform A"},
    "check": {
        "value": "the check of the value",
        "exponent": "the check of the exponent",
        "dependence": "the check for a dependence",
        "equivalence": "the check for equivalence",
    },
    "counted": {
        "last step": "the last step",
        "whole run": "the whole run",
        "closed form": "the closed form",
        "in use": "bytes in use",
        "reserved": "bytes reserved",
    },
    "equal": {"width": "equal width", "parameters": "equal parameters"},
    "head": {"tied": "a tied head", "untied": "an untied head"},
    "initialization": {
        "gpt2": "GPT-2's initialisation",
        "xavier": "Xavier's initialisation",
        "deepnorm": "DeepNorm's initialisation",
    },
    "learning_rate": {"equal": "one learning rate", "tuned": "the best learning rate of each"},
    "projection": {
        "gaussian": "a Gaussian projection",
        "orthonormal": "an orthonormal projection",
    },
    "rope_scaling": {
        "none": "no rescaling",
        "ntk": "NTK rescaling",
        "llama3": "Llama 3's rescaling",
        "yarn": "YaRN",
    },
}
NUMBERS: Mapping[str, str] = {
    "batch_size": "batch {}",
    "bits": "{} bits",
    "depth": "{} layers",
    "layer": "layer {}",
    "new_tokens": "{} new tokens",
    "past": "{} tokens before",
    "prompt_tokens": "a prompt of {} tokens",
    "rank": "rank {}",
    "seeds": "{} seeds",
    "step": "step {}",
    "steps": "{} steps",
    "threads": "{} threads",
    "tokens": "{} tokens",
    "width": "{} wide",
    "length_ratio": "{} times the training length",
}
# Labels whose texts speak for themselves.
BARE = frozenset(
    {"chunking", "compressed", "dtype", "family", "granularity", "model", "option", "part"}
    | {"share_of", "state", "way"}
)


def phrase(key: str, value: Parameter) -> str:
    """One label in words: ("rank", 8) is "rank 8", ("head", "tied") is "a tied head"."""
    if isinstance(value, bool):
        return spaced(key) if value else f"no {spaced(key)}"
    if isinstance(value, str):
        known = WORDS.get(key, {}).get(value)
        text = NAMES.get(value, value)
        return known or (text if key in BARE else f"{spaced(key)} {text}")
    return _numbered(key, setting(value))


def phrases(key: str, values: Sequence[Parameter]) -> str:
    """Several values of one label: "3 and 4 bits", "a tied head and an untied head"."""
    if all(map(_is_number, values)):
        return _numbered(key, enumeration([setting(float(v)) for v in values]))
    return enumeration([phrase(key, value) for value in values])


def plain_values(values: Sequence[Parameter]) -> str:
    """Values without what they are values of: "3 and 4", "rotary and ALiBi"."""
    return enumeration([setting(v) if _is_number(v) else NAMES.get(str(v), str(v)) for v in values])


def bound(key: str, value: Parameter, direction: str) -> str:
    """A bound, "rank 4 or more" or "128 or less wide"; ``direction`` is "more" or "less"."""
    return _numbered(key, f"{setting(float(value))} or {direction}")


def case_words(measurement: Measurement, among: Sequence[Measurement]) -> str:
    """The labels in which ``measurement`` differs from any of ``among``: "rotary, rank 8"."""
    labels = measurement.labels
    telling = [k for k, v in labels.items() if any(m.labels.get(k) != v for m in among)]
    return ", ".join(phrase(key, labels[key]) for key in telling)


def enumeration(texts: Sequence[str]) -> str:
    """All as "a, b and c"; of many the first ones and how many more there are."""
    if len(texts) > NAMED_AT_MOST:
        return f"{', '.join(texts[: NAMED_AT_MOST - 1])} and {len(texts) - NAMED_AT_MOST + 1} more"
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def spaced(name: str) -> str:
    """``first_to_last_ratio`` -> "first to last ratio"."""
    return name.replace("_", " ")


def _numbered(key: str, text: str) -> str:
    return NUMBERS.get(key, f"{spaced(key)} {{}}").format(text)


def _is_number(value: Parameter) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
