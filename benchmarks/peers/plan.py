"""What is compared: the peers, the models that they have, and how often each has its turn.

Ours is a peer among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.weights import Run
    from benchmarks.subjects.built import ModelConfig

PEERS = (
    "ours",
    "compiled",
    "plain",
    "transformers",
    "ctranslate2",
    "llama.cpp",
    "uncached",
    "narrow",
    "narrow, oneDNN",
    "int8 packed",
    "int8 lean",
    "int8 lean, compiled",
    "quantize_dynamic",
    "llama.cpp q8_0",
    "llama.cpp q4_1",
)
# Ours under other conditions: their tokens say nothing, and the narrow ones are not the model.
VARIANTS = ("uncached", "narrow", "narrow, oneDNN")
# In fewer bits than float32: they write other tokens, and read fewer bytes.
ROUNDED = (
    "int8 packed",
    "int8 lean",
    "int8 lean, compiled",
    "quantize_dynamic",
    "llama.cpp q8_0",
    "llama.cpp q4_1",
)
LIMIT = "limit"
DECODE, PREFILL = "decode", "prefill"  # one token after the first; the first token
LONG_PROMPT = 512
SAME_TOKENS = 256


@dataclass(frozen=True)
class Plan:
    model: str
    peers: Sequence[str]
    observations: int
    rounds: int
    threads: int
    prompt_tokens: int
    new_tokens: int
    seed: int


def loaders_of(model: str) -> Mapping[str, Callable[[ModelConfig, Path, int], Run]]:
    """Loaders of the peers that can run this model, by name."""
    from benchmarks.peers import loaders, smollm2

    return smollm2.LOADERS if model == smollm2.NAME else loaders.LOADERS


def config_of(model: str) -> ModelConfig:
    """The preset, or SmolLM2, with room for what is read and written here."""
    from benchmarks.peers import smollm2
    from reference_model.config import preset

    return smollm2.config() if model == smollm2.NAME else preset(model, context_length=1024)
