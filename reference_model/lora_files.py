"""Adapters in the format of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

PEFT knows one adapter for a linear. Adapters of slices (query and value of c_attn, rank r each) are
exactly one of rank k·r: their A stacked, their B in blocks, zero elsewhere. Its alpha keeps the
scale s: α′ = s·kr, or s·√(kr) where rsLoRA is asked for. How it was cut is kept in the tensors
file's metadata, which PEFT does not read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.errors import UserError, notice
from reference_model.export import family_for
from reference_model.families import gpt2
from reference_model.files import write_whole
from reference_model.lora import (
    LoRAConfig,
    LoRALinear,
    check_plain,
    lora_linears,
    put_adapters,
    shape_of,
)
from reference_model.parts import roles_by_name
from reference_model.peft_settings import PEFTSettings, read_settings
from reference_model.reading import parse_json, quoted, shown
from reference_model.tensor_files import Entry, read_file, same

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# PEFT's wrapper holds the model as `base_model.model`.
PREFIX = "base_model.model."
# Hugging Face's GPT-2 with a head holds its blocks under this name, as Conv1D.
HEADED = "transformer."

# Whose names the file carries: this package's GPT (and transformers' GPT2Model), or
# transformers' GPT2LMHeadModel.
Layout = Literal["reference", "huggingface"]


def save_adapters(model: nn.Module, folder: Path, layout: Layout = "reference") -> None:
    """Write A, B and what PEFT has to know of them; merged or not, the base is not looked at.

    Raises `UserError` where there are no adapters, where a layout has no names for them, and where
    the folder cannot be written; it then stays as it was.
    """
    if layout not in get_args(Layout):
        raise UserError(f"layout={layout!r} is not known; use one of {', '.join(get_args(Layout))}")
    shape = getattr(model, "config", None)
    llama = isinstance(shape, GPTConfig) and family_for(shape) is not gpt2.FAMILY
    if layout == "huggingface" and llama:
        raise UserError(
            "adapters of a model with RMSNorm have no names of transformers' GPT-2; use "
            "layout='reference', or merge_adapters and save_huggingface"
        )
    linears = lora_linears(model)
    if not linears:
        raise UserError(f"{type(model).__name__} has no adapters to save; add some first")
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    notes: dict[str, Any] = {}
    for name, linear in linears.items():
        stored = name.removeprefix(HEADED)
        stored = HEADED + stored if layout == "huggingface" else stored
        a, b = _fused(linear)
        tensors[f"{PREFIX}{stored}.lora_A.weight"] = a.cpu()
        tensors[f"{PREFIX}{stored}.lora_B.weight"] = b.cpu()
        ranks[stored] = len(a)
        alphas[stored] = linear.scale * _divisor(len(a), linear.config.scaling == "rslora")
        notes[stored] = {
            "slices": [[part.outputs.start, part.outputs.stop] for part in linear.parts],
            **dataclasses.asdict(linear.config),
        }
    config = next(iter(linears.values())).config
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if layout == "huggingface" else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.scaling == "rslora",
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": list(ranks),
        "fan_in_fan_out": layout == "huggingface",
        "bias": "none",
        "init_lora_weights": "gaussian" if config.init_a == "peft_gaussian" else True,
    }
    metadata = {"format": "pt", "adapters": json.dumps(notes)}
    write_whole(
        folder,
        {
            WEIGHTS_FILE: safetensors.torch.save(tensors, metadata),
            CONFIG_FILE: (json.dumps(fields, indent=2) + "\n").encode(),
        },
    )


def load_adapters(model: nn.Module, folder: Path) -> list[str]:
    """Freeze a model and put the adapters of a folder on it, in place; returns the linears' names.

    The folder is one that `save_adapters` or PEFT wrote, for this model's names or for those of
    transformers' GPT-2. A file of PEFT's gives one adapter over all outputs of each linear. Raises
    `UserError`, and leaves the model as it was, for a missing or damaged file, for a method other
    than LoRA, for names and shapes that are not the model's, and where the configuration and the
    tensors do not agree on what is adapted.
    """
    check_plain(model)
    settings = read_settings(folder / CONFIG_FILE)
    file = folder / WEIGHTS_FILE
    entries, metadata = read_file(file, gpt2.FAMILY.names)
    notes = _notes(metadata, file)
    found = {}
    for own, pair in _pairs(entries, model, file).items():
        stored = pair["A"].key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        name, base = _find(model, (stored, own, HEADED + own), folder)
        inputs, outputs = shape_of(base)
        (rank, a_inputs), (b_outputs, b_rank) = pair["A"].shape, pair["B"].shape
        if (a_inputs, b_outputs, b_rank) != (inputs, outputs, rank):
            raise UserError(
                f"{file} has A {pair['A'].shape} and B {pair['B'].shape} for "
                f"{stored}, which maps {inputs} to {outputs}; use adapters of this model"
            )
        config = _config_of(stored, rank, inputs + outputs, settings)
        a, b = pair["A"].read(), pair["B"].read()
        split = _split(notes.get(stored), config, b) or (config, (slice(0, outputs),))
        found[name] = base, a, b, *split
    put_adapters(
        model,
        {
            name: _filled(LoRALinear(base, config, slices, torch.Generator()), a, b)
            for name, (base, a, b, config, slices) in found.items()
        },
    )
    return list(found)


@torch.no_grad()
def _filled(linear: LoRALinear, a: Tensor, b: Tensor) -> LoRALinear:
    """With the A and B of a fused adapter, cut into the linear's slices."""
    start = 0
    for part in linear.parts:
        rows = slice(start, start + len(part.A))
        part.A.copy_(a[rows])
        part.B.copy_(b[part.outputs, rows])
        start = rows.stop
    return linear


def _divisor(rank: int, rslora: bool) -> float:
    return math.sqrt(rank) if rslora else rank


@torch.no_grad()
def _fused(linear: LoRALinear) -> tuple[Tensor, Tensor]:
    """A (k·r, n) and B (d, k·r) of all slices as one adapter."""
    a = torch.cat([part.A for part in linear.parts])
    b = a.new_zeros(linear.out_features, len(a))
    start = 0
    for part in linear.parts:
        b[part.outputs, start : start + len(part.A)] = part.B
        start += len(part.A)
    return a, b


def _notes(metadata: dict[str, str], file: Path) -> dict[str, Any]:
    """What `save_adapters` noted of each linear; nothing in a file of PEFT's."""
    try:
        notes = parse_json(metadata.get("adapters", "{}").encode(), file)
    except UserError:
        return {}
    return notes if isinstance(notes, dict) else {}


def _pairs(entries: dict[str, Entry], model: nn.Module, file: Path) -> dict[str, dict[str, Entry]]:
    """Linear → A and B, not read yet. Weights of the model itself have to be its own."""
    found: dict[str, dict[str, Entry]] = {}
    for name, entry in entries.items():
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", name)
        if match is None or len(entry.shape) != 2:
            _check_own(name, entry, model, file)
            continue
        found.setdefault(match[1], {})[match[2]] = entry
    for name, pair in found.items():
        if len(pair) < 2:
            raise UserError(f"{file} has only {next(iter(pair))} for {shown(name)}; write it again")
    if not found:
        raise UserError(f"{file} holds no adapters; write it again")
    return found


def _check_own(name: str, entry: Entry, model: nn.Module, file: Path) -> None:
    """PEFT writes the head below an adapter as well, and puts it in the place of the model's."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    weight = weights.get(name, weights.get(HEADED + name))
    linear = name.removesuffix(".weight")
    if weight is None and any(linear == of for of, _ in model.named_modules() if of):
        notice(f"{file} has {shown(entry.key)}, which is not compared: the model keeps it no more")
        return
    if weight is None:
        raise UserError(
            f"{file} has {shown(entry.key)}, which is no A or B of a linear; "
            "use a plain LoRA adapter"
        )
    if not same(entry.read(), weight.detach().cpu()):
        raise UserError(
            f"{file} has {shown(entry.key)}, which differs from the model's own {name}; "
            "use the model that the adapter was trained on"
        )


def _find(model: nn.Module, names: tuple[str, ...], folder: Path) -> tuple[str, nn.Module]:
    """The linear that a name in the file means, with or without GPT2LMHeadModel's prefix."""
    for name in names:
        try:
            return name, model.get_submodule(name)
        except AttributeError:
            continue
    raise UserError(
        f"{folder} adapts {shown(names[0])}, which {type(model).__name__} lacks; "
        "use adapters of this model"
    )


def _config_of(stored: str, rank: int, largest_rank: int, settings: PEFTSettings) -> LoRAConfig:
    """What PEFT's config says of one linear, whose A has this rank."""
    if not settings.adapts(stored):
        raise UserError(
            f"{settings.path} names no adapter for {stored}, but {WEIGHTS_FILE} holds one; "
            "save the adapter again"
        )
    told = settings.rank(stored)
    if told != rank or not 1 <= rank <= largest_rank:
        raise UserError(
            f"{settings.path} gives rank {quoted(told)} for {stored}, but its A has rank {rank} "
            f"(at most {largest_rank}); save the adapter again"
        )
    targets: Any = roles_by_name(stored)
    return LoRAConfig(
        rank,
        settings.alpha(stored),
        settings.scaling,
        targets if len(targets) == 1 else ("qkv",),
        "peft_gaussian" if settings.gaussian else "kaiming_uniform",
        dropout=settings.dropout(),
    )


def _split(note: Any, fused: LoRAConfig, b: Tensor) -> tuple[LoRAConfig, tuple[slice, ...]] | None:
    """The slices that were fused; None where none were, or the file is no longer what it was.

    Whoever trained on with PEFT may have filled the blocks that were zero, or changed the scale.
    """
    try:
        noted = dict(note)
        slices = tuple(slice(int(start), int(stop)) for start, stop in noted.pop("slices"))
        config = LoRAConfig(**{**noted, "targets": tuple(noted["targets"])})
    except (TypeError, ValueError, KeyError, UserError):
        return None
    borders = [0, *(border for part in slices for border in (part.start, part.stop)), len(b)]
    if len(slices) * config.rank != b.shape[1] or borders != sorted(borders):
        return None
    blocks = torch.zeros_like(b, dtype=torch.bool)
    for i, outputs in enumerate(slices):
        blocks[outputs, i * config.rank : (i + 1) * config.rank] = True
    same_scale = math.isclose(config.scale, fused.scale, rel_tol=1e-9)
    if not same_scale or bool(b[~blocks].any()):
        return None
    return config, slices
