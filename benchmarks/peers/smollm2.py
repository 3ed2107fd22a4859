"""SmolLM2-135M-Instruct in each library: decoded from its Q4_1 file to float32, or that file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.peers.llama_cpp import decoded_by_llama_cpp
from benchmarks.peers.loaders import decoded_by_us, generated_by
from benchmarks.peers.weights import Run
from benchmarks.subjects.built import ModelConfig
from reference_model.export import save_huggingface
from reference_model.families import gguf
from reference_model.generate import Decoding
from reference_model.gguf_file import read_gguf
from reference_model.published import SMOLLM2, path_of

NAME = SMOLLM2.name


@functools.cache  # the file is checked whenever it is asked for
def config() -> ModelConfig:
    """With room for what is read and written here, as presets have it."""
    path = path_of(SMOLLM2)
    return gguf.config_of(*read_gguf(path), path).replace(context_length=1024)


def _load_ours(
    config: ModelConfig,
    folder: Path,
    threads: int,
    decoding: Decoding = "eager",
    plain: bool = False,
) -> Run:
    return decoded_by_us(gguf.load_gguf(path_of(SMOLLM2)), plain=plain, decoding=decoding)


def _load_transformers(config: ModelConfig, folder: Path, threads: int) -> Run:
    """A LlamaForCausalLM with our decoded tensors, in float32."""
    import transformers

    transformers.logging.set_verbosity_error()
    written = folder / NAME
    if not written.exists():
        save_huggingface(gguf.load_gguf(path_of(SMOLLM2)), written)
    return generated_by(transformers.LlamaForCausalLM.from_pretrained(written).eval())


def _load_llama_cpp(config: ModelConfig, folder: Path, threads: int) -> Run:
    return decoded_by_llama_cpp(config, path_of(SMOLLM2), threads)


LOADERS: dict[str, Callable[[ModelConfig, Path, int], Run]] = {
    "ours": _load_ours,
    "compiled": partial(_load_ours, decoding="compiled"),
    "plain": partial(_load_ours, plain=True),
    "transformers": _load_transformers,
    "llama.cpp q4_1": _load_llama_cpp,
}
