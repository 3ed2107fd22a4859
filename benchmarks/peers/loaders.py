"""The same GPT-2, with the same random weights, in each library that we compare with.

A peer is loaded in a process of its own and is then a function: it continues a prompt greedily
and tells each token with its seconds since the call. A library that is not installed raises
ImportError when it is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch

from benchmarks.instruments.limits import matrix_probe, read_probe
from benchmarks.instruments.readings import Unavailable
from benchmarks.peers.llama_cpp import load_llama_cpp, load_llama_cpp_q8
from benchmarks.peers.weights import Run, Step, random_model, timed
from benchmarks.subjects.built import Model, ModelConfig
from reference_model import linear
from reference_model.generate import Decoding, stream
from reference_model.linear import plain_products
from reference_model.quantization.int8 import with_int8_linears

# ---- ours


def load_ours(
    config: ModelConfig,
    folder: Path,
    threads: int,
    use_cache: bool = True,
    plain: bool = False,
    decoding: Decoding = "eager",
) -> Run:
    return decoded_by_us(random_model(config), use_cache, plain, decoding)


def decoded_by_us(
    model: Model, use_cache: bool = True, plain: bool = False, decoding: Decoding = "eager"
) -> Run:
    def run(prompt: list[int], new_tokens: int) -> list[Step]:
        tokens = torch.tensor([prompt]) % model.config.vocab_size
        steps = stream(model, tokens, new_tokens, use_cache=use_cache, decoding=decoding)
        with plain_products() if plain else contextlib.nullcontext():
            return timed(int(token) for token in steps)

    return run


def load_compiled(config: ModelConfig, folder: Path, threads: int) -> Run:
    return load_ours(config, folder, threads, decoding="compiled")


def load_plain(config: ModelConfig, folder: Path, threads: int) -> Run:
    """Our loop with `F.linear` throughout: what PyTorch does by itself."""
    return load_ours(config, folder, threads, plain=True)


def load_uncached(config: ModelConfig, folder: Path, threads: int) -> Run:
    return load_ours(config, folder, threads, use_cache=False)


def load_narrow(config: ModelConfig, folder: Path, threads: int) -> Run:
    """As many layers and heads, but next to nothing to compute: what calling them costs."""
    return load_ours(config.replace(n_embd=2 * config.n_head, vocab_size=97), folder, threads)


def load_narrow_onednn(config: ModelConfig, folder: Path, threads: int) -> Run:
    """The same with the product of the real width, which pays from some width on only."""
    linear.ONEDNN_PAYS_FROM = 0
    return load_narrow(config, folder, threads)


# ---- the same in INT8: their tokens are not float32's


def load_int8_packed(config: ModelConfig, folder: Path, threads: int) -> Run:
    return decoded_by_us(cast(Model, with_int8_linears(random_model(config), "packed").model))


def load_int8_lean(
    config: ModelConfig, folder: Path, threads: int, decoding: Decoding = "eager"
) -> Run:
    """One copy of each weight, the embedding's shared with the head."""
    model = cast(Model, with_int8_linears(random_model(config), "int_mm").model)
    return decoded_by_us(model, decoding=decoding)


def load_quantize_dynamic(config: ModelConfig, folder: Path, threads: int) -> Run:
    """PyTorch's own rewrite of the linears; its embedding stays float32."""
    torch.backends.quantized.engine = "x86"  # its default on this kind of processor
    model = random_model(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = torch.nn.Linear  # it knows this type and none derived from it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated.*")
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    return decoded_by_us(quantised)


# ---- Hugging Face transformers


def load_transformers(config: ModelConfig, folder: Path, threads: int) -> Run:
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.GPT2LMHeadModel(_transformers_config(config)).eval()
    model.load_state_dict(_transformers_weights(random_model(config)))
    return generated_by(model)


def generated_by(model: Any) -> Run:
    """transformers' own `generate`, with its own cache, of one of its models."""

    class Clock:
        """A streamer: `generate` hands it the prompt first, then each token."""

        def __init__(self) -> None:
            self.start, self.steps = perf_counter(), list[Step]()

        def put(self, value: torch.Tensor) -> None:
            if value.numel() == 1:
                self.steps.append((int(value), perf_counter() - self.start))

        def end(self) -> None:
            pass

    def run(prompt: list[int], new_tokens: int) -> list[Step]:
        clock = Clock()
        tokens = torch.tensor([prompt])
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=True,  # its DynamicCache
            eos_token_id=None,
            pad_token_id=0,
            streamer=clock,
        )
        return clock.steps

    return run


def _transformers_config(config: ModelConfig) -> Any:
    import transformers

    return transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
    )


def _transformers_weights(model: Model) -> dict[str, torch.Tensor]:
    """The blocks' matrices lie (in, out) there."""
    matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {
        name if name == "lm_head.weight" else f"transformer.{name}": (
            value.T if name.endswith(matrices) else value
        )
        for name, value in model.state_dict().items()
    }


# ---- CTranslate2


def load_ctranslate2(config: ModelConfig, folder: Path, threads: int) -> Run:
    import ctranslate2

    written = folder / "ctranslate2"
    if not written.exists():
        _write_ctranslate2(config, written)
    generator = ctranslate2.Generator(
        str(written), device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
    )

    def run(prompt: list[int], new_tokens: int) -> list[Step]:
        words = [str(token) for token in prompt]
        # Its length counts the prompt too; words are our ids, none of which ends the text.
        steps = generator.generate_tokens(
            words, max_length=new_tokens, sampling_topk=1, end_token="<end>"
        )
        return timed(step.token_id for step in steps)

    return run


def _write_ctranslate2(config: ModelConfig, folder: Path) -> None:
    from ctranslate2.specs import common_spec, transformer_spec

    weights = {name: value.numpy() for name, value in random_model(config).state_dict().items()}
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config.n_layer, config.n_head, pre_norm=True, activation=common_spec.Activation.GELUTanh
    )

    def norm(target: Any, name: str) -> None:
        target.gamma, target.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def product(target: Any, name: str) -> None:
        target.weight, target.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weights["wte.weight"]
    decoder.position_encodings.encodings = weights["wpe.weight"]
    decoder.projection.weight = weights["lm_head.weight"]
    norm(decoder.layer_norm, "ln_f")
    for index, layer in enumerate(decoder.layer):
        norm(layer.self_attention.layer_norm, f"h.{index}.ln_1")
        product(layer.self_attention.linear[0], f"h.{index}.attn.c_attn")
        product(layer.self_attention.linear[1], f"h.{index}.attn.c_proj")
        norm(layer.ffn.layer_norm, f"h.{index}.ln_2")
        product(layer.ffn.linear_0, f"h.{index}.mlp.c_fc")
        product(layer.ffn.linear_1, f"h.{index}.mlp.c_proj")
    # Words for all ids, and one that is never written; it asks for these three.
    spec.register_vocabulary([*map(str, range(config.vocab_size - 1)), "<end>"])
    spec.config.bos_token = spec.config.unk_token = "0"
    spec.config.eos_token = "<end>"
    spec.validate()
    spec.optimize()
    folder.mkdir()
    spec.save(str(folder))


# ---- the machine's limits, measured in turns with the peers


def limit_seconds() -> dict[str, float]:
    """Bytes read a second, and float32 FLOPs a second: each the best of three."""
    read, multiply = read_probe("cpu"), matrix_probe("float32", "cpu")
    if isinstance(multiply, Unavailable):
        raise RuntimeError(multiply.reason)

    def best(function: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            start = perf_counter()
            function()
            times.append(perf_counter() - start)
        return min(times)

    return {
        "read_bytes_per_second": read.nbytes / best(read.function),
        "flops_per_second": multiply.flops / best(multiply.function),
    }


LOADERS: dict[str, Callable[[ModelConfig, Path, int], Run]] = {
    "ours": load_ours,
    "compiled": load_compiled,
    "plain": load_plain,
    "transformers": load_transformers,
    "ctranslate2": load_ctranslate2,
    "llama.cpp": load_llama_cpp,
    "uncached": load_uncached,
    "narrow": load_narrow,
    "narrow, oneDNN": load_narrow_onednn,
    "int8 packed": load_int8_packed,
    "int8 lean": load_int8_lean,
    "int8 lean, compiled": functools.partial(load_int8_lean, decoding="compiled"),
    "quantize_dynamic": load_quantize_dynamic,
    "llama.cpp q8_0": load_llama_cpp_q8,
}
