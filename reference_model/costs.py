"""Closed forms of what a model costs, to stand beside what is counted and measured.

FLOPs count a multiplication and an addition as two, and only matrix products: linears and
attention. Norms, activations, softmax and biases are left out, as is usual.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from reference_model.config import GPTConfig
from reference_model.errors import UserError

# qkv: one adapter over the fused projection of all three, as PEFT makes of c_attn.
LoRATarget = Literal[
    "query", "key", "value", "qkv", "attention_output", "mlp_gate", "mlp_in", "mlp_out"
]


def parameters_by_part(config: GPTConfig) -> dict[str, int]:
    """Parameters of each kind of module; a tied head counts 0, its weights are the embedding's."""
    C, M, L = config.n_embd, config.d_mlp, config.n_layer
    queries, keys = attention_widths(config)
    qkv, into = queries + 2 * keys, linears_into_mlp(config)
    per_block = 4 if config.norm_placement == "double" else 2
    final = 0 if config.norm_placement in ("post", "deepnorm") else 1
    of_qk = 2 * L * norm_parameters(config, config.d_head) if config.qk_norm else 0
    return {
        "token embedding": config.vocab_size * C,
        "positions": config.context_length * C if config.position == "learned" else 0,
        "attention": L
        * (C * (qkv + queries) + qkv * config.qkv_bias + C * config.attention_output_bias),
        "mlp": L * ((into + 1) * C * M + (into * M + C) * config.mlp_bias),
        "norms": (L * per_block + final) * norm_parameters(config, C) + of_qk,
        "head": config.vocab_size * C if config.head == "untied" else 0,
    }


def norm_parameters(config: GPTConfig, width: int) -> int:
    """Parameters of one norm of this width: γ, and β in a LayerNorm with a bias."""
    return width * (2 if config.norm == "layernorm" and config.norm_bias else 1)


def attention_widths(config: GPTConfig) -> tuple[int, int]:
    """Numbers of a token's queries, H·D, and of its keys, G·D, which its values have as well."""
    return config.n_head * config.d_head, config.n_kv_head * config.d_head


def linears_into_mlp(config: GPTConfig) -> int:
    """How many linears read what enters the MLP: a gate is one more."""
    return 2 if config.mlp == "swiglu" else 1


def parameter_count(config: GPTConfig) -> int:
    """All parameters: 124,439,808 for GPT-2 small."""
    return sum(parameters_by_part(config).values())


def weight_bytes(config: GPTConfig, bytes_per_value: int = 4) -> int:
    """Bytes of all parameters in one dtype (float32: 4 bytes a value)."""
    return parameter_count(config) * bytes_per_value


@dataclass(frozen=True)
class Flops:
    """FLOPs of one forward pass of one sequence, by part."""

    projections: int  # c_attn and attn.c_proj
    mlp: int
    attention: int  # scores and weighted sum
    head: int

    @property
    def total(self) -> int:
        return self.projections + self.mlp + self.attention + self.head


def forward_flops(
    config: GPTConfig,
    new_tokens: int,
    past: int = 0,
    *,
    last_only: bool = False,
    attention: Literal["executed", "useful"] = "executed",
) -> Flops:
    """FLOPs of computing new_tokens positions after `past` cached ones, for one sequence.

    Executed attention multiplies the full (T, S) rectangle; useful attention is what causality
    leaves of it: T·past + T(T+1)/2 pairs of query and key.
    """
    C, T, S = config.n_embd, new_tokens, past + new_tokens
    queries, keys = attention_widths(config)
    pairs = T * S if attention == "executed" else T * past + T * (T + 1) // 2
    return Flops(
        projections=config.n_layer * 4 * C * (queries + keys) * T,
        mlp=config.n_layer * 2 * (linears_into_mlp(config) + 1) * C * config.d_mlp * T,
        attention=config.n_layer * 4 * queries * pairs,
        head=2 * C * config.vocab_size * (1 if last_only else T),
    )


def kv_cache_bytes(
    config: GPTConfig, length: int, batch_size: int = 1, bytes_per_value: int = 4
) -> int:
    """2·L·T·G·D·bytes·B: keys and values of every layer, uncompressed."""
    _, keys = attention_widths(config)
    return 2 * config.n_layer * length * keys * bytes_per_value * batch_size


def kv_row_projections(prompt: int, new_tokens: int, *, use_cache: bool) -> list[int]:
    """Rows whose key (or value) one layer computes at each step of a generation.

    Step i yields token i. The first step sees the prompt; with a cache each later one computes
    the row of the token before it, without one all rows anew.
    """
    if use_cache:
        return ([prompt] + [1] * (new_tokens - 1))[:new_tokens]
    return [prompt + i for i in range(new_tokens)]


def generation_flops(
    config: GPTConfig, prompt_tokens: int, new_tokens: int, *, use_cache: bool
) -> int:
    """FLOPs of all steps for one sequence; the head sees the last position of each alone."""
    total, past = 0, 0
    for length in range(prompt_tokens, prompt_tokens + new_tokens):
        total += forward_flops(config, length - past, past, last_only=True).total
        past = length if use_cache else 0
    return total


def read_weight_bytes(config: GPTConfig, bytes_per_value: int = 4) -> int:
    """Bytes of the weights that one step reads: all but tables of which a step reads a few rows.

    A tied head is the embedding, which is read as a whole; of an untied embedding and of the
    positions only a few rows are, which count nothing here.
    """
    parts = parameters_by_part(config)
    looked_up = parts["positions"] + (parts["token embedding"] if config.head == "untied" else 0)
    return (sum(parts.values()) - looked_up) * bytes_per_value


def lora_parameters(config: GPTConfig, rank: int, targets: Iterable[LoRATarget]) -> int:
    """Parameters of rank-r adapters on these projections of every layer: r·(in + out) each."""
    C, M = config.n_embd, config.d_mlp
    queries, keys = attention_widths(config)
    shapes: dict[LoRATarget, tuple[int, int]] = {
        "query": (C, queries),
        "key": (C, keys),
        "value": (C, keys),
        "qkv": (C, queries + 2 * keys),
        "attention_output": (queries, C),
        "mlp_in": (C, M),
        "mlp_out": (M, C),
    }
    if config.mlp == "swiglu":
        shapes["mlp_gate"] = (C, M)
    total = 0
    for target in targets:
        if target not in shapes:
            raise UserError(f"unknown LoRA target {target!r}; use one of {', '.join(shapes)}")
        total += rank * sum(shapes[target])
    return config.n_layer * total
