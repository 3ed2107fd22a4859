"""A model becomes a GPT-2 folder that transformers reads to the same logits, or is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from reference_model.checkpoints import load_huggingface
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.families import gpt2
from reference_model.families.decoding import read_ends
from reference_model.generate import generate
from reference_model.lora import merge_adapters
from reference_model.model import GPT
from tests.reference_model.tiny import TOKENS, adapted

pytestmark = pytest.mark.K3

MOST = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 0.25}  # logits are of order 10
TinyModel = Callable[..., GPT]


@pytest.fixture(scope="module")
def read_by_transformers(transformers: ModuleType) -> Callable[[Path], Any]:
    return lambda folder: transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def merged(model: GPT) -> GPT:
    merge_adapters(adapted(model, targets=("query", "attention_output", "mlp_out")))
    return model


def logits(model: GPT) -> Tensor:
    with torch.no_grad():
        return model(TOKENS)


CHOICES: list[dict[str, object]] = [
    {"head": "tied"},
    {"head": "untied", "norm_epsilon": 1e-3},
    {"bias": False},
    {"dropout": 0.1, "initialization": "xavier"},
]


@pytest.mark.parametrize("dtype", MOST, ids=str)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_transformers_reads_a_merged_model_to_the_same_logits(
    tiny_model: TinyModel,
    read_by_transformers: Callable[[Path], Any],
    choices: dict[str, object],
    dtype: torch.dtype,
    tmp_path: Path,
) -> None:
    model = merged(tiny_model(dtype, **choices))
    save_huggingface(model, tmp_path)
    theirs = read_by_transformers(tmp_path)
    assert theirs.dtype == dtype
    tied = model.config.head == "tied"
    assert (theirs.lm_head.weight is theirs.transformer.wte.weight) == tied
    with torch.no_grad():
        found, expected = theirs(TOKENS).logits, logits(model)
    assert (found - expected).abs().max() <= MOST[dtype]
    assert (expected - logits(tiny_model(dtype, **choices))).abs().max() > 1  # adapters and all
    ours = load_huggingface(tmp_path, dtype)
    assert torch.equal(logits(ours), expected)
    assert ours.config.head == model.config.head


def test_what_transformers_writes_is_written_here_under_the_same_names(
    tiny_model: TinyModel, read_by_transformers: Callable[[Path], Any], tmp_path: Path
) -> None:
    def shapes(folder: Path) -> dict[str, list[int]]:
        with safe_open(folder / "model.safetensors", framework="pt") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118

    for head in ("tied", "untied"):
        save_huggingface(tiny_model(torch.float32, head=head), tmp_path / head)
        read_by_transformers(tmp_path / head).save_pretrained(tmp_path / "theirs")
        assert shapes(tmp_path / head) == shapes(tmp_path / "theirs")
    written, again = (
        json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        for name in ("untied", "theirs")
    )
    # They leave out what is nothing.
    assert {name: again.get(name) for name in written} == written


def test_a_text_ends_where_it_is_told_to_and_nowhere_else(
    tiny_model: TinyModel, read_by_transformers: Callable[[Path], Any], tmp_path: Path
) -> None:
    model, prompt = tiny_model(torch.float32), TOKENS[:1, :4]
    text = generate(model, prompt, 8)
    (last,) = text[:, 7].tolist()  # of the fourth new token

    def written(eos_token_id: int | None) -> Tensor:
        save_huggingface(model, tmp_path, eos_token_id=eos_token_id)
        theirs = read_by_transformers(tmp_path)
        mask = torch.ones_like(prompt)
        found: Tensor = theirs.generate(
            prompt, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        return found

    assert torch.equal(written(None), text)
    assert read_ends(tmp_path) == ()
    assert torch.equal(written(last), text[:, : 1 + text[0, 4:].tolist().index(last) + 4])
    assert read_ends(tmp_path) == (last,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_stored_in_the_dtype_asked_for_and_the_configuration_names_it(
    tiny_model: TinyModel, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_huggingface(tiny_model(torch.float32), tmp_path, dtype)
    fields = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert f"torch.{fields['dtype']}" == str(dtype)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {dtype}  # noqa: SIM118


def test_weights_of_several_dtypes_are_stored_in_the_widest(
    tiny_model: TinyModel, tmp_path: Path
) -> None:
    model = tiny_model(torch.bfloat16)
    model.ln_f.float().weight.data += 1e-4
    save_huggingface(model, tmp_path)
    found = load_huggingface(tmp_path)
    assert torch.equal(found.ln_f.weight, model.ln_f.weight)
    assert torch.equal(found.wte.weight, model.wte.weight.float())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"position": "rope"}, "^GPT-2's layout cannot store position='rope', only 'learn"),
        ({"position": "sinusoidal"}, "^GPT-2's layout cannot store position='sinusoidal', only"),
        ({"position": "alibi"}, "^GPT-2's layout cannot store position='alibi', only"),
        ({"position": "none"}, "^GPT-2's layout cannot store position='none', only"),
        ({"norm": "rmsnorm"}, "^llama's layout cannot store position='learned', only 'rope'"),
        ({"norm_placement": "post"}, "^GPT-2's layout cannot store norm_placement='post', only"),
        (
            {"norm_placement": "double"},
            "^GPT-2's layout cannot store norm_placement='double', only",
        ),
        (
            {"norm_placement": "deepnorm"},
            "^GPT-2's layout cannot store norm_placement='deepnorm', only",
        ),
        (
            {"embedding_scale": "sqrt_width"},
            "^GPT-2's layout cannot store embedding_scale='sqrt_width', only",
        ),
        ({"mlp": "swiglu"}, "^GPT-2's layout cannot store mlp='swiglu', only 'gelu'"),
        ({"qk_norm": True}, "^GPT-2's layout cannot store qk_norm=True, only False"),
        ({"n_kv_head": 1}, "^GPT-2's layout cannot store n_kv_head=1, only 2"),
        ({"d_head": 6}, "^GPT-2's layout cannot store d_head=6, only 8"),
    ],
)
def test_what_gpt2_has_no_place_for_is_refused_by_name(
    tiny_model: TinyModel, choices: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        save_huggingface(tiny_model(torch.float32, **choices), tmp_path / "new")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_every_field_of_a_configuration_is_written_or_refused() -> None:
    written = {
        *("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "norm_epsilon"),
        *("head", "dropout", "d_mlp"),
    }
    as_zeros = {"bias", "qkv_bias", "attention_output_bias", "mlp_bias", "norm_bias"}
    refused = {"n_kv_head", "d_head", *gpt2.CHOICES}
    fields = {field.name for field in dataclasses.fields(GPTConfig)}
    of_rope = {name for name in fields if name.startswith("rope_")}
    assert fields == written | as_zeros | refused | of_rope | {"initialization"}


@pytest.mark.parametrize("eos_token_id", [-1, 23])
def test_an_end_that_is_no_token_is_refused(
    tiny_model: TinyModel, eos_token_id: int, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is no token of the model; use one of 0 … 22, or None"):
        save_huggingface(tiny_model(torch.float32), tmp_path / "new", eos_token_id=eos_token_id)
    assert not (tmp_path / "new").exists()
