"""GGUF files: the logits of the folder that they were made of, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference_model import gguf_file
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.families import gguf
from reference_model.families.family import OF_LLAMA
from reference_model.gguf_file import GGML_TYPES, GGUFTensor, read_gguf
from reference_model.model import GPT
from tests.reference_model.tiny import enlarge

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "context_length": 64,
    "n_layer": 2,
    "n_head": 6,
    "n_kv_head": 2,
    "n_embd": 96,
    "d_mlp": 64,
    "norm_epsilon": 2.0**-20,
    "bias": False,
    **OF_LLAMA,
}
TOKENS = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(3))
# As llama.cpp names them.
BESIDE = {
    "wte.weight": "token_embd.weight",
    "ln_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
WITHIN = {
    "ln_1": "attn_norm",
    "attn.c_proj": "attn_output",
    "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm",
    "ln_2": "ffn_norm",
    "mlp.c_gate": "ffn_gate",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


@pytest.fixture(scope="session")
def written() -> ModuleType:
    module: ModuleType = pytest.importorskip("gguf")
    return module


@pytest.fixture
def model() -> Callable[..., GPT]:
    def build(**choices: object) -> GPT:
        made = GPT(GPTConfig(**{**SIZES, **choices}))
        enlarge(made)
        return made.eval()

    return build


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Rows of a head as llama.cpp has them: (2, D/2) becomes (D/2, 2)."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def tensors_of(model: GPT, architecture: str = "llama") -> dict[str, np.ndarray]:
    """By llama.cpp's names."""
    found: dict[str, Tensor] = {}
    config = model.config
    widths = [n * config.d_head for n in (config.n_head, config.n_kv_head, config.n_kv_head)]
    for name, tensor in model.state_dict().items():
        if name in BESIDE:
            found[BESIDE[name]] = tensor
            continue
        _, layer, *module, which = name.split(".")
        if module == ["attn", "c_attn"]:
            q, k, v = tensor.split(widths)
            if architecture == "llama":
                q, k = permuted(q, config.n_head), permuted(k, config.n_kv_head)
            for part, rows in (("q", q), ("k", k), ("v", v)):
                found[f"blk.{layer}.attn_{part}.{which}"] = rows
        else:
            found[f"blk.{layer}.{WITHIN['.'.join(module)]}.{which}"] = tensor
    if config.head == "tied":
        del found["output.weight"]
    return {name: tensor.contiguous().numpy() for name, tensor in found.items()}


def settings_of(config: GPTConfig) -> dict[str, Any]:
    return {
        "context_length": config.context_length,
        "block_count": config.n_layer,
        "embedding_length": config.n_embd,
        "feed_forward_length": config.d_mlp,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.n_kv_head,
        "attention.key_length": config.d_head,
        "attention.value_length": config.d_head,
        "attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "rope.dimension_count": config.d_head,
        "rope.freq_base": config.rope_base,
        "vocab_size": config.vocab_size,
    }


def write(
    written: ModuleType,
    path: Path,
    tensors: dict[str, np.ndarray],
    settings: dict[str, Any],
    architecture: str = "llama",
    encoding: str = "F32",
) -> None:
    """A file by the package's own writer; matrices in an encoding, vectors in float32."""
    writer = written.GGUFWriter(path, architecture)
    for name, value in settings.items():
        key = name if name.startswith(("tokenizer.", "general.")) else f"{architecture}.{name}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    kind = written.GGMLQuantizationType[encoding]
    for name, tensor in tensors.items():
        if tensor.ndim == 1 or encoding == "F32":
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, written.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model: GPT) -> Tensor:
    with torch.no_grad():
        return model(TOKENS)


@pytest.fixture
def file(written: ModuleType, model: Callable[..., GPT], tmp_path: Path) -> Callable[..., Path]:
    """file(settings={…}, tensors={…}) → a plain file with these changed, or left out by None."""

    def build(**changes: dict[str, Any]) -> Path:
        made = model()
        tensors = {**tensors_of(made), **changes.get("tensors", {})}
        settings = {**settings_of(made.config), **changes.get("settings", {})}
        write(
            written,
            tmp_path / "model.gguf",
            {name: value for name, value in tensors.items() if value is not None},
            {name: value for name, value in settings.items() if value is not None},
        )
        return tmp_path / "model.gguf"

    return build


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        gguf.load_gguf(path)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


# ---- the same numbers


@pytest.mark.parametrize(
    ("architecture", "choices"),
    [
        ("llama", {}),
        ("llama", {"head": "untied", "d_head": 10, "n_kv_head": 6}),
        ("llama", {"qkv_bias": True, "attention_output_bias": True, "mlp_bias": True}),
        ("llama", {"rope_scaling": "interpolation", "rope_scaling_factor": 2.0}),
        ("qwen2", {"qkv_bias": True, "rope_base": 1e6}),
        ("qwen3", {"qk_norm": True, "d_head": 8}),
    ],
    ids=str,
)
def test_a_file_gives_the_logits_of_what_it_was_made_of(
    written: ModuleType,
    model: Callable[..., GPT],
    tmp_path: Path,
    architecture: str,
    choices: dict[str, Any],
) -> None:
    made = model(**choices)
    settings = settings_of(made.config)
    if "rope_scaling" in choices:
        settings |= {"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    path = tmp_path / "model.gguf"
    write(written, path, tensors_of(made, architecture), settings, architecture)
    found = gguf.load_gguf(path)
    assert found.config == made.config
    assert torch.equal(logits(found), logits(made))


def test_transformers_reads_the_same_file_to_the_same_logits(
    transformers: ModuleType, written: ModuleType, model: Callable[..., GPT], tmp_path: Path
) -> None:
    made = model(head="untied")
    write(written, tmp_path / "model.gguf", tensors_of(made), settings_of(made.config))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    with torch.no_grad():
        found = theirs.eval()(TOKENS).logits
    torch.testing.assert_close(found, logits(made), rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoding", ["F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1"])
def test_blocks_are_decoded_as_the_package_decodes_them(
    written: ModuleType, model: Callable[..., GPT], tmp_path: Path, encoding: str
) -> None:
    made, path = model(), tmp_path / "model.gguf"
    write(written, path, tensors_of(made), settings_of(made.config), encoding=encoding)
    found = gguf.load_gguf(path)
    kind = written.GGMLQuantizationType[encoding]
    up = made.h[1].mlp.c_fc.weight.detach().numpy()
    expected = written.dequantize(written.quantize(up, kind), kind)
    assert np.array_equal(found.h[1].mlp.c_fc.weight.detach().numpy(), expected)
    bits = {"F16": 11, "BF16": 8, "Q8_0": 7, "Q5_0": 3.5, "Q5_1": 3.5, "Q4_0": 2.5, "Q4_1": 2.5}
    moved = (logits(found) - logits(made)).abs().max() / logits(made).abs().max()
    assert 0 < moved < 4 * 2.0 ** -bits[encoding]


@pytest.mark.parametrize("number", [12, 13, 14])
def test_blocks_of_256_are_decoded_row_by_row(
    written: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    of, rows = GGML_TYPES[number], 5
    content = np.random.default_rng(0).integers(0, 256, (rows, 2, of.type_size), np.uint8)
    scale = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    places = (of.type_size - 2,) if of.name == "Q6_K" else (0, 2)
    for place in places:  # scales that are numbers
        content[:, :, place : place + 2] = scale
    (tmp_path / "raw").write_bytes(b"x" * 7 + content.tobytes())
    tensor = GGUFTensor(tmp_path / "raw", "t", (rows, 512), number, offset=7)
    kind = written.GGMLQuantizationType[of.name]
    expected = torch.from_numpy(written.dequantize(content.reshape(rows, -1), kind))
    monkeypatch.setattr(gguf_file, "MOST_AT_ONCE", 1024)  # two rows
    pieces = list(tensor.pieces(torch.float32))
    assert [at.start for at, _ in pieces] == [0, 2, 4]
    assert torch.equal(torch.cat([piece for _, piece in pieces]), expected)
    assert tensor.nbytes == content.nbytes


def test_encodings_are_as_large_as_the_package_says(written: ModuleType) -> None:
    for number, of in GGML_TYPES.items():
        kind = written.GGMLQuantizationType(number)
        assert (of.name, (of.block_size, of.type_size)) == (
            kind.name,
            written.GGML_QUANT_SIZES[kind],
        )


def test_factors_of_llama_3_are_its_scaling(
    written: ModuleType, model: Callable[..., GPT], tmp_path: Path
) -> None:
    from reference_model.positions import rotary_angles

    made = model(
        d_head=64, context_length=65_536, rope_base=500_000.0, rope_scaling="llama3",
        rope_scaling_factor=8.0, **gguf.LLAMA3,
    )  # fmt: skip
    plain = rotary_angles(made.config.replace(rope_scaling="none", rope_scaling_factor=1.0,
                          rope_original_context=None), 1, 1)[0]  # fmt: skip
    factors = (plain / rotary_angles(made.config, 1, 1)[0]).float().numpy()
    tensors = {**tensors_of(made), "rope_freqs.weight": factors}
    write(written, tmp_path / "model.gguf", tensors, settings_of(made.config))
    found = gguf.load_gguf(tmp_path / "model.gguf")
    assert found.config == made.config
    assert torch.equal(logits(found), logits(made))
    tensors["rope_freqs.weight"] = factors[::-1].copy()
    write(written, tmp_path / "other.gguf", tensors, settings_of(made.config))
    assert "rope_freqs.weight that is not Llama 3's scaling" in refusal(tmp_path / "other.gguf")


def test_the_package_reads_the_same_header(written: ModuleType, file: Callable[..., Path]) -> None:
    path = file(settings={"tokenizer.ggml.tokens": ["a", "é"], "general.name": "tiny"})
    metadata, tensors = read_gguf(path)
    theirs = written.GGUFReader(path)
    own = {name: f.contents() for name, f in theirs.fields.items() if not name.startswith("GGUF.")}
    assert metadata == own
    for tensor in theirs.tensors:
        ours = tensors[tensor.name]
        assert ours.shape == tuple(reversed(tensor.shape.tolist()))
        assert (ours.offset, ours.nbytes) == (tensor.data_offset, tensor.n_bytes)


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": {"rope.scaling.type": "longrope"}}, "has rope.scaling.type='longrope'"),
        ({"settings": {"rope.scaling.type": "linear"}}, "'linear' without rope.scaling.factor"),
        ({"settings": {"attention.sliding_window": 8}}, "has llama.attention.sliding_window=8"),
        ({"settings": {"expert_count": 4}}, "has llama.expert_count=4"),
        ({"settings": {"logit_scale": 2.0}}, "llama.logit_scale is not known"),
        ({"settings": {"rope.dimension_count": 8}}, "has rope.dimension_count=8, but"),
        ({"settings": {"attention.value_length": 8}}, "has attention.value_length=8, but"),
        (
            {"settings": {"vocab_size": 51}},
            "has vocab_size=51, but its other keys and",
        ),
        ({"settings": {"block_count": None}}, "lacks llama.block_count"),
        ({"settings": {"block_count": 3}}, "has 2 layers, its metadata asks for 3"),
        ({"settings": {"feed_forward_length": 65}}, "blk.0.ffn_gate.weight of shape (64, 96)"),
        ({"tensors": {"token_embd.weight": None}}, "lacks token_embd.weight"),
        ({"tensors": {"blk.1.ffn_up.weight": None}}, "such as blk.1.ffn_up.weight"),
        ({"tensors": {"blk.1.attn_q.bias": np.ones(96, np.float32)}}, "blk.1.attn_q.bias"),
        ({"tensors": {"blk.0.attn_sinks": np.ones(6, np.float32)}}, "blk.0.attn_sinks"),
        ({"tensors": {"sinks": np.ones(6, np.float32)}}, "such as sinks"),
        ({"tensors": {"rope_freqs.weight": np.ones(3, np.float32)}}, "not Llama 3's scaling"),
        ({"tensors": {"rope_freqs.weight": np.zeros(8, np.float32)}}, "not Llama 3's scaling"),
        ({"settings": {"rope.scaling.type": [1]}}, "has rope.scaling.type=[1]"),
        (
            {"tensors": {"output_norm.weight": np.full(96, np.nan, np.float32)}},
            "output_norm.weight with numbers that are not finite",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_represented_is_refused_by_name(
    file: Callable[..., Path], changes: dict[str, Any], told: str
) -> None:
    assert told in refusal(file(**changes))


def test_another_architecture_is_refused_by_name(
    written: ModuleType, model: Callable[..., GPT], tmp_path: Path
) -> None:
    made = model()
    write(written, tmp_path / "a.gguf", tensors_of(made), settings_of(made.config), "gemma2")
    assert "has general.architecture='gemma2'" in refusal(tmp_path / "a.gguf")


def test_an_encoding_that_is_not_known_is_refused_by_the_tensors_name(
    written: ModuleType, model: Callable[..., GPT], tmp_path: Path
) -> None:
    made = model(n_embd=256, d_head=16, n_head=16, d_mlp=256)  # rows of whole blocks
    settings = settings_of(made.config)
    write(written, tmp_path / "a.gguf", tensors_of(made), settings, encoding="TQ2_0")
    assert "in encoding 35, which is not known here" in refusal(tmp_path / "a.gguf")


def test_a_factor_without_a_type_is_interpolation(file: Callable[..., Path]) -> None:
    config = gguf.load_gguf(file(settings={"rope.scaling.factor": 4.0})).config
    assert (config.rope_scaling, config.rope_scaling_factor) == ("interpolation", 4.0)


def test_keys_of_those_who_made_the_file_have_no_effect(file: Callable[..., Path]) -> None:
    told = {"general.quantized_by": "somebody", "tokenizer.ggml.fim_pre_token_id": 3}
    assert gguf.load_gguf(file(settings=told)).config.n_layer == 2


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_refused(file: Callable[..., Path], share: float) -> None:
    path = file(settings={"tokenizer.ggml.tokens": ["a"] * 40})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert any(word in refusal(path) for word in ("no GGUF file", "is cut off", "ends before"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04" + bytes(40), "is no GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian; convert it to version 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "is cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "is cut off"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(20), "is cut off"),
    ],
)
def test_no_more_is_believed_than_the_file_has_room_for(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    assert told in refusal(tmp_path / "a.gguf")
