"""What a family of published models has: settings that mean ours, and tensors that hold ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_model.config import GPTConfig
from reference_model.families.decoding import DECODING
from reference_model.settings import ANY, Known
from reference_model.tensor_files import Names

# Of initialisation, other heads than the language model's, labels, the library itself, how much is
# returned and where the file came from; and of decoding.
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
    """Both ways between a folder of transformers and ours; ``layers``: before a layer's number."""

    model_types: tuple[str, ...]
    names: Names
    layers: str
    config: Callable[[Mapping[str, Any], Path], GPTConfig]
    fields: Callable[[GPTConfig], dict[str, Any]]
    sources: Callable[[str, GPTConfig], tuple[Source, ...]]

    def full_name(self, source: Source) -> str:
        """As transformers' model with a head calls it."""
        return source.name if source.name == HEAD else f"{self.names.prefix}{source.name}"
