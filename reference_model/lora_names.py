"""By which names adapters of our model lie in a file, and which outputs of a linear each is of.

Our own names, or those of transformers: GPT-2's are ours behind a prefix, and the Llama type keeps
queries, keys and values in three linears, which are slices of one of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import nn

from reference_model.config import GPTConfig
from reference_model.export import family_for
from reference_model.families import gpt2
from reference_model.lora import shape_of
from reference_model.parts import parts_of

# Whose names the file carries: this package's GPT (and transformers' GPT2Model), or those of
# transformers' models with a head.
Layout = Literal["reference", "huggingface"]
# Hugging Face's GPT-2 with a head holds its blocks under this name, as Conv1D.
HEADED = "transformer."

Place = tuple[str, slice]  # a name there, and outputs of our linear


def _llama_config(model: nn.Module) -> GPTConfig | None:
    """Of a model that is ours and what transformers calls a Llama, Qwen2 or Qwen3."""
    config = getattr(model, "config", None)
    ours = isinstance(config, GPTConfig) and family_for(config) is not gpt2.FAMILY
    return config if ours else None


def check_names(model: nn.Module) -> None:
    """`UserError`, by the choice's name, for a model of ours that transformers has no names for."""
    if config := _llama_config(model):
        family_for(config).fields(config)


def are_transposed(model: nn.Module) -> bool:
    """Whether its linears lie as Conv1D in transformers, as GPT-2's do."""
    return _llama_config(model) is None and not _has_queries_apart(model)


def _has_queries_apart(model: nn.Module) -> bool:
    """As transformers' own Llama type has: queries in a linear that does nothing else."""
    modules = {part.role: part.module for part in parts_of(model) if part.layer is not None}
    return "query" in modules and modules["query"] is not modules["key"]


def places_of(model: nn.Module, linear: str, outputs: int, layout: Layout) -> Iterator[Place]:
    """Where a linear's adapters go, all its ``outputs`` together or slice by slice."""
    whole = slice(0, outputs)
    if layout == "reference":
        yield linear.removeprefix(HEADED), whole
    elif _has_queries_apart(model):
        yield linear, whole
    elif (config := _llama_config(model)) is None:
        yield HEADED + linear.removeprefix(HEADED), whole
    else:
        family, start = family_for(config), 0
        for source in family.sources(f"{linear}.weight", config):
            end = start + (source.count or outputs)
            yield family.full_name(source).removesuffix(".weight"), slice(start, end)
            start = end


def linears_by_their_names(model: nn.Module) -> dict[str, Place]:
    """Transformers' name → our linear and its outputs, of a model of ours of the Llama type."""
    if _llama_config(model) is None:
        return {}
    widths = {
        part.name: shape_of(part.module)[1]
        for part in parts_of(model)
        if part.layer is not None and part.role != "norm"
    }
    return {
        theirs: (linear, outputs)
        for linear, width in widths.items()
        for theirs, outputs in places_of(model, linear, width, "huggingface")
    }


def parameters_by_their_names(model: nn.Module) -> dict[str, str]:
    """Transformers' name → our parameter's, where it is one of ours as a whole; as above."""
    config = _llama_config(model)
    if config is None:
        return {}
    family, found = family_for(config), {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        sources = family.sources(name, config)
        if len(sources) == 1:
            found[family.full_name(sources[0])] = name
    return found
