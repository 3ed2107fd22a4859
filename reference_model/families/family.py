"""What a family of published models has: settings that mean ours, and tensors that hold ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_model.config import GPTConfig
from reference_model.costs import attention_widths
from reference_model.families.decoding import DECODING
from reference_model.settings import ANY, Known
from reference_model.tensor_files import Names

# Keys that change nothing here: of initialisation, other heads than the language model's, labels,
# the library itself, how much is returned, where the file came from; and of decoding.
WITHOUT_EFFECT: Known = dict.fromkeys(
    (
        *("initializer_range", "gradient_checkpointing", "id2label", "label2id", "num_labels"),
        *("_num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        *("architectures", "tokenizer_class", "transformers_version", "_name_or_path"),
        *("name_or_path", "_commit_hash", "dtype", "torch_dtype", "use_bfloat16", "torchscript"),
        *("return_dict", "output_attentions", "output_hidden_states", "output_past"),
        *("use_return_dict", "chunk_size_feed_forward", "attn_implementation"),
        *("_attn_implementation", "_attn_implementation_autoset", "model_parallel", "xla_device"),
        *("is_decoder", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
        *DECODING,
    ),
    ANY,
)


HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Source:
    """A tensor of a folder that is ours, or some rows of ours.

    ``name``: there, without what stands before all names; ``count``: of the rows, None for all;
    ``transposed``: it lies as (in, out) where ours is (out, in).
    """

    name: str
    count: int | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Family:
    """Both ways between a folder of transformers and ours.

    ``layers`` stands before a layer's number. ``config`` reads a `config.json` and ``fields`` gives
    its content; both raise `UserError` for what the other side cannot represent. ``sources`` tells
    where a parameter of ours lies.
    """

    model_types: tuple[str, ...]
    names: Names
    layers: str
    config: Callable[[Mapping[str, Any], Path], GPTConfig]
    fields: Callable[[GPTConfig], dict[str, Any]]
    sources: Callable[[str, GPTConfig], tuple[Source, ...]]

    def full_name(self, source: Source) -> str:
        """As transformers' model with a head calls it."""
        return source.name if source.name == HEAD else f"{self.names.prefix}{source.name}"


# What the Llama type is, in whatever file.
OF_LLAMA = {
    "position": "rope",
    "embedding_scale": "none",
    "norm": "rmsnorm",
    "norm_placement": "pre",
    "mlp": "swiglu",
}
_PARAMETER = re.compile(r"h\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class LlamaNames:
    """How a file names the modules of the Llama type: ours → theirs.

    ``layers``: before a layer's number; ``beside``: those beside the layers; ``within``: those of a
    layer; ``qkv``: its queries, keys and values, which lie in three.
    """

    layers: str
    beside: Mapping[str, str]
    within: Mapping[str, str]
    qkv: tuple[str, str, str]

    def sources(self, name: str, config: GPTConfig) -> tuple[Source, ...]:
        """Where a parameter of ours lies."""
        match = _PARAMETER.fullmatch(name)
        if match is None:
            module, _, which = name.rpartition(".")
            return (Source(f"{self.beside[module]}.{which}"),)
        layer, module, which = match.groups()
        if module == "attn.c_attn":
            queries, keys = attention_widths(config)
            return tuple(
                Source(f"{self.layers}{layer}.{part}.{which}", count)
                for part, count in zip(self.qkv, (queries, keys, keys), strict=True)
            )
        return (Source(f"{self.layers}{layer}.{self.within[module]}.{which}"),)
