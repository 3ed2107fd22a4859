"""The same GPT-2, with the same random weights, in each library that we compare with.

A contender is loaded in a process of its own and is then a function: it continues a prompt greedily
and tells each token with its seconds since the call. A library that is not installed raises
ImportError when it is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch

from benchmarks.instruments.limits import matrix_probe, read_probe
from benchmarks.instruments.readings import Unavailable
from reference_model import linear
from reference_model.config import GPTConfig
from reference_model.generate import Decoding, stream
from reference_model.linear import plain_products
from reference_model.model import GPT
from reference_model.quantization.int8 import with_int8_linears

Step = tuple[int, float]  # a token, and the seconds from the call until it was there
Run = Callable[[list[int], int], list[Step]]
SEED = 0


def random_model(config: GPTConfig) -> GPT:
    """A GPT-2 with random weights, large enough that it does not repeat one token."""
    torch.manual_seed(SEED)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model


def prompt(config: GPTConfig, tokens: int) -> list[int]:
    """Random ids, the same for everybody."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(config.vocab_size, (tokens,), generator=generator).tolist()


def timed(tokens: Iterable[int]) -> list[Step]:
    start = perf_counter()
    return [(token, perf_counter() - start) for token in tokens]


# ---- ours


def load_ours(
    config: GPTConfig,
    folder: Path,
    threads: int,
    use_cache: bool = True,
    plain: bool = False,
    decoding: Decoding = "eager",
) -> Run:
    return _ours(random_model(config), use_cache, plain, decoding)


def _ours(
    model: GPT, use_cache: bool = True, plain: bool = False, decoding: Decoding = "eager"
) -> Run:
    def run(prompt: list[int], new_tokens: int) -> list[Step]:
        tokens = torch.tensor([prompt]) % model.config.vocab_size
        steps = stream(model, tokens, new_tokens, use_cache=use_cache, decoding=decoding)
        with plain_products() if plain else contextlib.nullcontext():
            return timed(int(token) for token in steps)

    return run


def load_compiled(config: GPTConfig, folder: Path, threads: int) -> Run:
    return load_ours(config, folder, threads, decoding="compiled")


def load_plain(config: GPTConfig, folder: Path, threads: int) -> Run:
    """Our loop with `F.linear` throughout: what PyTorch does by itself."""
    return load_ours(config, folder, threads, plain=True)


def load_uncached(config: GPTConfig, folder: Path, threads: int) -> Run:
    return load_ours(config, folder, threads, use_cache=False)


def load_narrow(config: GPTConfig, folder: Path, threads: int) -> Run:
    """As many layers and heads, but next to nothing to compute: what calling them costs."""
    return load_ours(config.replace(n_embd=2 * config.n_head, vocab_size=97), folder, threads)


def load_narrow_onednn(config: GPTConfig, folder: Path, threads: int) -> Run:
    """The same with the product of the real width, which pays from some width on only."""
    linear.ONEDNN_PAYS_FROM = 0
    return load_narrow(config, folder, threads)


# ---- the same in INT8: their tokens are not float32's


def load_int8_packed(config: GPTConfig, folder: Path, threads: int) -> Run:
    return _ours(cast(GPT, with_int8_linears(random_model(config), "packed").model))


def load_int8_lean(
    config: GPTConfig, folder: Path, threads: int, decoding: Decoding = "eager"
) -> Run:
    """One copy of each weight, the embedding's shared with the head."""
    model = cast(GPT, with_int8_linears(random_model(config), "int_mm").model)
    return _ours(model, decoding=decoding)


def load_quantize_dynamic(config: GPTConfig, folder: Path, threads: int) -> Run:
    """PyTorch's own rewrite of the linears; its embedding stays float32."""
    torch.backends.quantized.engine = "x86"  # its default on this kind of processor
    model = random_model(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = torch.nn.Linear  # it knows this type and none derived from it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated.*")
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    return _ours(quantised)


def load_llama_cpp_q8(config: GPTConfig, folder: Path, threads: int) -> Run:
    return load_llama_cpp(config, folder, threads, bits=8)


# ---- Hugging Face transformers


def load_transformers(config: GPTConfig, folder: Path, threads: int) -> Run:
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.GPT2LMHeadModel(_transformers_config(config)).eval()
    model.load_state_dict(_transformers_weights(random_model(config)))

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


def _transformers_config(config: GPTConfig) -> Any:
    import transformers

    return transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
    )


def _transformers_weights(model: GPT) -> dict[str, torch.Tensor]:
    """The blocks' matrices lie (in, out) there."""
    matrices = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {
        name if name == "lm_head.weight" else f"transformer.{name}": (
            value.T if name.endswith(matrices) else value
        )
        for name, value in model.state_dict().items()
    }


# ---- CTranslate2


def load_ctranslate2(config: GPTConfig, folder: Path, threads: int) -> Run:
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


def _write_ctranslate2(config: GPTConfig, folder: Path) -> None:
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


# ---- llama.cpp


def load_llama_cpp(config: GPTConfig, folder: Path, threads: int, bits: int = 32) -> Run:
    import llama_cpp

    written = folder / f"gpt2-{bits}.gguf"
    if not written.exists():
        _write_gguf(config, written, bits)
    llama_cpp.llama_log_set(_quiet(), None)
    model = llama_cpp.llama_model_load_from_file(
        str(written).encode(), llama_cpp.llama_model_default_params()
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


def _write_gguf(config: GPTConfig, path: Path, bits: int) -> None:
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


# ---- the machine's limits, measured in turns with the contenders


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


LOADERS: dict[str, Callable[[GPTConfig, Path, int], Run]] = {
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
