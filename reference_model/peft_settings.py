"""What PEFT's `adapter_config.json` says: which linears are adapted, at which rank and scale.

Keys, defaults and matching are those of PEFT 0.21.2 (LoraConfig, check_target_module_exists).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_model.errors import UserError
from reference_model.reading import quoted, read_json, shown
from reference_model.settings import ANY, NEUTRAL, Known, check_settings

_WITHOUT_EFFECT = (
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "runtime_config", "megatron_core", "qalora_group_size"),
    "fan_in_fan_out",  # PEFT corrects it by the kind of the linear
    # of initialisations, of which none is drawn here
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)
_READ_BELOW = (
    *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
)
# What changes the product without a tensor of its own, or other weights than the linears'.
_MORE_THAN_AB = (
    *("use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config"),
    *("layer_replication", "kasa_config", "monteclora_config", "velora_config", "lora_bias"),
    *("modules_to_save", "trainable_token_indices", "target_parameters", "megatron_config"),
    *("ensure_weight_tying", "enable_lora"),
)
_KNOWN: Known = {
    **dict.fromkeys((*_WITHOUT_EFFECT, *_READ_BELOW), ANY),
    **dict.fromkeys(_MORE_THAN_AB, NEUTRAL),
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_rslora": (False, True),
}
_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_INITS_OF_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # and pissa_niter_4

# A pattern is a regular expression of whoever wrote the file. Those that are read match a name in
# less than a millisecond: a few repeats, none of a group, and no look-around.
LONGEST_PATTERN, MOST_REPEATS, MOST_GROUPS = 200, 2, 2
MOST_VALUES, MOST_REPEATS_TOGETHER = 2000, 16
_LISTS = {
    "target_modules": str,
    "exclude_modules": str,
    "layers_pattern": str,
    "layers_to_transform": int,
}


@dataclass(frozen=True)
class PEFTSettings:
    """What the file says of all linears; ``path`` is for messages."""

    path: Path
    fields: Mapping[str, Any]
    ranks: list[tuple[re.Pattern[str], Any]]
    alphas: list[tuple[re.Pattern[str], Any]]

    @property
    def scaling(self) -> Any:
        """The scaling law, as in `LoRAConfig`."""
        return "rslora" if self.fields.get("use_rslora") else "lora"

    @property
    def gaussian(self) -> bool:
        """Whether A was drawn from N(0, 1/r²)."""
        return self.fields.get("init_lora_weights") == "gaussian"

    def rank(self, linear: str) -> Any:
        """The rank of a linear, by its name in the model that PEFT saw."""
        return _first(self.ranks, linear, self.fields.get("r", 8))

    def alpha(self, linear: str) -> float:
        """Its α. Raises `UserError` for what is no finite number, and for 0."""
        alpha = _first(self.alphas, linear, self.fields.get("lora_alpha", 8))
        if not _is_number(alpha) or alpha == 0:
            raise UserError(
                f"{self.path} has lora_alpha={quoted(alpha)} for {linear}, which scales nothing; "
                "write the adapter again"
            )
        return float(alpha)

    def dropout(self) -> float:
        """Of the adapters' inputs. Raises `UserError` for what is no probability."""
        dropout = self.fields.get("lora_dropout", 0.0)
        if not _is_number(dropout) or not 0 <= dropout < 1:
            raise UserError(
                f"{self.path} has lora_dropout={quoted(dropout)}, which is not a probability; "
                "write the adapter again"
            )
        return float(dropout)

    def adapts(self, linear: str) -> bool:
        """Whether PEFT would put an adapter on the linear of this name."""
        if self._named("exclude_modules", linear, ()):
            return False
        if not self._named("target_modules", linear, ("c_attn",)):  # PEFT's own for GPT-2
            return False
        layers = self.fields.get("layers_to_transform")
        if layers is None or layers == []:
            return True
        index = self._layer(linear)
        return index is not None and index in (layers if isinstance(layers, list) else [layers])

    def _named(self, setting: str, linear: str, otherwise: Iterable[str]) -> bool:
        told = self.fields.get(setting)
        told = otherwise if told is None else told
        if told == "all-linear":
            return linear.split(".")[-1] != "lm_head"
        if isinstance(told, str):
            return _pattern(told, setting, self.path).fullmatch(linear) is not None
        return any(linear == name or linear.endswith(f".{name}") for name in told)

    def _layer(self, linear: str) -> int | None:
        """The number of its layer: behind one of the names asked for, or behind any."""
        told = self.fields.get("layers_pattern")
        told = [told] if isinstance(told, str) else told
        names = [_pattern(name, "layers_pattern", self.path).pattern for name in told or ()]
        before = [rf"(?:^|.*?\.)(?:{name})" for name in names] or [r".*?\.[^.]*"]
        matches = (re.match(rf"{each}\.(\d{{1,9}})\.", linear) for each in before)
        return next((int(match[1]) for match in matches if match), None)


def read_settings(path: Path) -> PEFTSettings:
    """Raises `UserError` for what is more than plain LoRA or not known, by the key's name."""
    fields = read_json(path)
    if "peft_type" not in fields:
        raise UserError(f"{path} has no peft_type; use adapters of PEFT's type LORA")
    check_settings(fields, _KNOWN, path)
    init = fields.get("init_lora_weights")
    plain = init.lower() if isinstance(init, str) else init
    if isinstance(plain, str) and plain.startswith(_INITS_OF_THE_BASE):
        raise UserError(
            f"{path} has init_lora_weights={quoted(init)}, which changes the base weights as well; "
            "convert it to plain LoRA with PEFT first"
        )
    if plain not in _INITS:
        raise UserError(
            f"{path} has init_lora_weights={quoted(init)}, which is not known here; "
            f"it may be one of {', '.join(map(repr, _INITS))}"
        )
    for name, kind in _LISTS.items():
        told = fields.get(name)
        values = told if isinstance(told, list) else [] if told is None else [told]
        if len(values) > MOST_VALUES or any(type(value) is not kind for value in values):
            raise UserError(
                f"{path} has {name}={quoted(told)}; use {kind.__name__}, or a list of at most "
                f"{MOST_VALUES:,}"
            )
    ranks, alphas = (_patterns(fields, name, path) for name in ("rank_pattern", "alpha_pattern"))
    return PEFTSettings(path, fields, ranks, alphas)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _first(patterns: list[tuple[re.Pattern[str], Any]], linear: str, otherwise: Any) -> Any:
    return next((value for pattern, value in patterns if pattern.fullmatch(linear)), otherwise)


def _patterns(
    fields: Mapping[str, Any], setting: str, path: Path
) -> list[tuple[re.Pattern[str], Any]]:
    told = fields.get(setting) or {}
    if not isinstance(told, dict):
        raise UserError(f"{path} has {setting}={quoted(told)}, not an object; write it again")
    if len(told) > MOST_VALUES or sum(map(_repeats, told)) > MOST_REPEATS_TOGETHER:
        raise UserError(
            f"{path} has a {setting} of {len(told):,} patterns; use at most {MOST_VALUES:,}, "
            f"with {MOST_REPEATS_TOGETHER} repeats together"
        )
    return [
        (re.compile(rf"(.*\.)?(?:{_pattern(key, setting, path).pattern})"), value)
        for key, value in told.items()
    ]


def _pattern(text: str, setting: str, path: Path) -> re.Pattern[str]:
    """Raises `UserError` for what is no pattern, and for one that may take for ever."""
    letters = _letters(text)
    if (
        len(text) > LONGEST_PATTERN
        or _repeats(text) > MOST_REPEATS
        or letters.count("(") > MOST_GROUPS
        or re.search(r"\\|\(\?|\)[*+?{]", letters)
    ):
        raise UserError(
            f"{path} has {setting} for {shown(text)}, which may never end to match; "
            "use the linears' names"
        )
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise UserError(
            f"{path} has {setting} for {shown(text)}, which is no pattern; write it again"
        ) from None


def _repeats(text: str) -> int:
    return len(re.findall(r"(?:[*+?]|\{)\??", _letters(text)))


def _letters(text: str) -> str:
    """A pattern with a letter in the place of each class and of what is escaped."""
    plain = re.sub(r"\\[\W_dDwWsS]|\[\^?[^][\\]*\]", "x", text[: LONGEST_PATTERN + 1])
    return plain.replace("(?:", "(")
