"""llama.cpp: our GPT-2 as a GGUF file, in float32 or Q8_0, and any GGUF file as it is."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.weights import Run, Step, random_model, timed
from benchmarks.subjects.built import ModelConfig


def load_llama_cpp(config: ModelConfig, folder: Path, threads: int, bits: int = 32) -> Run:
    written = folder / f"gpt2-{bits}.gguf"
    if not written.exists():
        _write_gguf(config, written, bits)
    return decoded_by_llama_cpp(config, written, threads)


def decoded_by_llama_cpp(config: ModelConfig, file: Path, threads: int) -> Run:
    """A GGUF file as it is, with a cache in float32."""
    import llama_cpp

    llama_cpp.llama_log_set(_quiet(), None)
    model = llama_cpp.llama_model_load_from_file(
        str(file).encode(), llama_cpp.llama_model_default_params()
    )
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = config.context_length, 512, 512
    options.n_threads = options.n_threads_batch = threads
    options.type_k = options.type_v = 0  # float32, as everybody's cache here
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise RuntimeError("llama.cpp could not make a context")

    def next_token(tokens: list[int]) -> int:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))):
            raise RuntimeError("llama.cpp could not decode")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(config.vocab_size,)).argmax())

    def tokens_after(prompt: list[int], new_tokens: int) -> Iterator[int]:
        token = next_token(prompt)
        yield token
        for _ in range(new_tokens - 1):
            token = next_token([token])
            yield token

    def run(prompt: list[int], new_tokens: int) -> list[Step]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        return timed(tokens_after(prompt, new_tokens))

    return run


@functools.cache  # C holds no reference to its callback: somebody has to
def _quiet() -> Any:
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


def _write_gguf(config: ModelConfig, path: Path, bits: int) -> None:
    """Everything in float32, or at 8 bits the matrices in Q8_0: blocks of 32 with a scale each."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.norm_epsilon)
    kinds = {32: gguf.LlamaFileType.ALL_F32, 8: gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_file_type(kinds[bits])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    parts = {
        "wte": "token_embd",
        "wpe": "position_embd",
        "ln_f": "output_norm",
        "lm_head": "output",
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
    for name, value in random_model(config).state_dict().items():
        module, _, kind = name.rpartition(".")
        block = ""
        if module.startswith("h."):
            _, index, module = module.split(".", 2)
            block = f"blk.{index}."
        target = f"{block}{parts[module]}.{kind}"
        if bits == 8 and value.ndim == 2 and module != "wpe":
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(value.numpy(), q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(target, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_llama_cpp_q8(config: ModelConfig, folder: Path, threads: int) -> Run:
    return load_llama_cpp(config, folder, threads, bits=8)
