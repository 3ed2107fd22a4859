"""Adapters in the format of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

PEFT knows one adapter for a linear. Adapters of slices (query and value of c_attn, rank r each) are
exactly one of rank k·r: their A stacked, their B in blocks, zero elsewhere. Its alpha keeps the
scale s: α′ = s·kr, or s·√(kr) where rsLoRA is asked for. How it was cut is kept in the tensors
file's metadata, which PEFT does not read. By the names of the Llama type each slice is a linear.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
from torch import Tensor, nn

from reference_model.errors import UserError, notice
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
from reference_model.lora_names import (
    HEADED,
    Layout,
    are_transposed,
    check_names,
    linears_by_their_names,
    parameters_by_their_names,
    places_of,
)
from reference_model.parts import roles_by_name
from reference_model.peft_settings import PEFTSettings, read_settings
from reference_model.reading import parse_json, quoted, shown
from reference_model.tensor_files import Entry, read_file, same

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# PEFT's wrapper holds the model as `base_model.model`.
PREFIX = "base_model.model."


def save_adapters(model: nn.Module, folder: Path, layout: Layout = "reference") -> None:
    """Write A, B and what PEFT has to know of them; merged or not, the base is not looked at.

    Raises `UserError` where there are no adapters, where a layout has no names for them, and where
    the folder cannot be written; it then stays as it was.
    """
    if layout not in get_args(Layout):
        raise UserError(f"layout={layout!r} is not known; use one of {', '.join(get_args(Layout))}")
    linears = lora_linears(model)
    if not linears:
        raise UserError(f"{type(model).__name__} has no adapters to save; add some first")
    if layout == "huggingface":
        check_names(model)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    notes: dict[str, Any] = {}
    for name, linear in linears.items():
        for stored, outputs in places_of(model, name, linear.out_features, layout):
            a, b = _fused(linear, outputs)
            if not len(a):
                continue
            tensors[f"{PREFIX}{stored}.lora_A.weight"] = a.cpu()
            tensors[f"{PREFIX}{stored}.lora_B.weight"] = b.cpu()
            ranks[stored] = len(a)
            alphas[stored] = linear.scale * _divisor(len(a), linear.config.scaling == "rslora")
            slices = [part.outputs for part in linear.parts if _overlap(part.outputs, outputs)]
            notes[stored] = {
                "slices": [
                    [
                        max(each.start, outputs.start) - outputs.start,
                        min(each.stop, outputs.stop) - outputs.start,
                    ]
                    for each in slices
                ],
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
        "fan_in_fan_out": layout == "huggingface" and are_transposed(model),
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
    transformers' GPT-2 or Llama type. A file of PEFT's gives one adapter over all outputs of each
    linear; of queries, keys and values that lie in three linears there, one of each slice. Raises
    `UserError`, and leaves the model as it was, for a missing or damaged file, for a method other
    than LoRA, for names and shapes that are not the model's, and where the configuration and the
    tensors do not agree on what is adapted.
    """
    check_plain(model)
    settings = read_settings(folder / CONFIG_FILE)
    file = folder / WEIGHTS_FILE
    entries, metadata = read_file(file, gpt2.FAMILY.names)
    notes = _notes(metadata, file)
    theirs = linears_by_their_names(model)
    found: dict[str, tuple[nn.Module, list[_Piece]]] = {}
    for own, pair in _pairs(entries, model, file).items():
        stored = pair["A"].key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        if stored in theirs:
            name, outputs = theirs[stored]
            base = model.get_submodule(name)
        else:
            name, base = _find(model, (stored, own, HEADED + own), folder)
            outputs = slice(0, shape_of(base)[1])
        inputs, wide = shape_of(base)[0], outputs.stop - outputs.start
        (rank, a_inputs), (b_outputs, b_rank) = pair["A"].shape, pair["B"].shape
        if (a_inputs, b_outputs, b_rank) != (inputs, wide, rank):
            raise UserError(
                f"{file} has A {pair['A'].shape} and B {pair['B'].shape} for "
                f"{stored}, which maps {inputs} to {wide}; use adapters of this model"
            )
        config = _config_of(stored, rank, inputs + wide, settings)
        a, b = pair["A"].read(), pair["B"].read()
        split, slices = _split(notes.get(stored), config, b) or (config, (slice(0, wide),))
        moved = tuple(slice(s.start + outputs.start, s.stop + outputs.start) for s in slices)
        found.setdefault(name, (base, []))[1].append(_Piece(outputs, a, b, split, moved))
    put_adapters(model, {name: _joined(*of_linear) for name, of_linear in found.items()})
    return list(found)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """What a file holds of some outputs of a linear: A of all slices, and B (outputs, k·r)."""

    outputs: slice
    a: Tensor
    b: Tensor
    config: LoRAConfig
    slices: tuple[slice, ...]


def _joined(base: nn.Module, pieces: list[_Piece]) -> LoRALinear:
    """The adapters of one linear of ours, of linears that lie side by side in it.

    A smaller rank is filled up with zeros, and another scale goes into B: neither changes ΔW.
    """
    first = max(pieces, key=lambda piece: piece.config.rank).config
    targets = tuple(dict.fromkeys(target for each in pieces for target in each.config.targets))
    config = dataclasses.replace(first, targets=targets)
    pieces = sorted(pieces, key=lambda piece: piece.outputs.start)
    slices = tuple(outputs for piece in pieces for outputs in piece.slices)
    linear, parts = LoRALinear(base, config, slices, torch.Generator()), []
    for piece in pieces:
        b, rank = piece.b, piece.config.rank
        if piece.config.scale != config.scale:
            b = b.double() * (piece.config.scale / config.scale)
        for at, outputs in enumerate(piece.slices):
            rows = slice(outputs.start - piece.outputs.start, outputs.stop - piece.outputs.start)
            columns = slice(at * rank, (at + 1) * rank)
            parts.append((piece.a[columns], b[rows, columns]))
    with torch.no_grad():
        for part, (a, b) in zip(linear.parts, parts, strict=True):
            part.A.zero_()[: len(a)] = a
            part.B.zero_()[:, : b.shape[1]] = b
    return linear


def _divisor(rank: int, rslora: bool) -> float:
    return math.sqrt(rank) if rslora else rank


@torch.no_grad()
def _fused(linear: LoRALinear, outputs: slice) -> tuple[Tensor, Tensor]:
    """A (k·r, n) and B (outputs, k·r) of the k slices that reach into ``outputs``, as one."""
    parts = [part for part in linear.parts if _overlap(part.outputs, outputs)]
    like = linear.parts[0].A
    a = torch.cat([part.A for part in parts]) if parts else like.new_zeros(0, like.shape[1])
    b, start = a.new_zeros(linear.out_features, len(a)), 0
    for part in parts:
        b[part.outputs, start : start + len(part.A)] = part.B
        start += len(part.A)
    return a, b[outputs]


def _overlap(one: slice, other: slice) -> bool:
    return one.start < other.stop and other.start < one.stop


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
    own = parameters_by_their_names(model).get(name, name)
    weight = weights.get(own, weights.get(HEADED + own))
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
