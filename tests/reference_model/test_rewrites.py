"""Rewrites of a model work together: each cell of one table works, or is refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model import checkpoints
from reference_model.cache import KVCache
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.generate import generate
from reference_model.lora import (
    LoRAConfig,
    add_adapters,
    lora_linears,
    merge_adapters,
)
from reference_model.lora_files import load_adapters, save_adapters
from reference_model.model import GPT
from reference_model.quantization.grid import Grid, rounded
from reference_model.quantization.int8 import (
    Int8Linear,
    Product,
    packed_is_available,
    with_int8_linears,
)
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant

pytestmark = pytest.mark.K3

SHAPE = {"vocab_size": 40, "context_length": 24, "n_layer": 2, "n_head": 2, "n_embd": 32}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HEADS = ("tied", "untied")
PRODUCTS = get_args(Product)
TOKENS = torch.randint(40, (3, 16), generator=torch.Generator().manual_seed(5))
PROMPT, WRITTEN = TOKENS[:, :6], 8
ALPHA = 4.0

# ---- the table

WORKS = "works"
NOT_MERGED = r"^h\.0\.attn\.c_attn has an adapter that is not merged; use merge_adapters first"
INT8 = "^wte is Int8Embedding where a folder of weights holds Embedding; save the model as it was"
NO_ADAPTERS = "^GPT has no adapters to save"
# The outcome of each rewrite in each use, for every dtype and for a tied and an untied head.
#   save      a folder of ours, which loads as a plain model with the same logits
#   load      a folder of ours, loaded in the dtype and rewritten then, with the same logits
#   adapters  save_adapters, and load_adapters onto the plain model, with the same logits
#   export    a folder in the Hugging Face layout, which loads with the same logits
OUTCOMES: dict[str, dict[str, str]] = {
    "plain": {
        **dict.fromkeys(("forward", "generate", "cache", "save", "load", "export"), WORKS),
        "adapters": NO_ADAPTERS,
    },
    "adapters": {
        **dict.fromkeys(("forward", "generate", "cache", "load", "adapters"), WORKS),
        **dict.fromkeys(("save", "export"), NOT_MERGED),
    },
    "adapters merged": dict.fromkeys(
        ("forward", "generate", "cache", "save", "load", "adapters", "export"), WORKS
    ),
    **{
        product: {
            **dict.fromkeys(("forward", "generate", "cache", "load"), WORKS),
            **dict.fromkeys(("save", "export"), INT8),
            "adapters": NO_ADAPTERS,
        }
        for product in PRODUCTS
    },
}


@cache
def plain(dtype: torch.dtype, head: str) -> GPT:
    """With weights as large as trained ones."""
    model = GPT(GPTConfig(**SHAPE, head=head))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 2:
            parameter.data = noise * (1 if name.startswith("w") else parameter.shape[1] ** -0.5)
        else:
            parameter.data = 0.3 * noise + ("ln_" in name and name.endswith("weight"))
    if head == "tied":
        model.lm_head.weight = model.wte.weight
    return model.to(dtype).eval()


def adapt(model: GPT) -> GPT:
    targets = ("query", "value", "attention_output", "mlp_in", "mlp_out")
    config = LoRAConfig(rank=3, alpha=ALPHA, init_b="gaussian", targets=targets)
    add_adapters(model, config, torch.Generator().manual_seed(2))
    return model


def rewrite(model: GPT, how: str) -> GPT:
    """A rewritten copy."""
    if how in PRODUCTS:
        return with_int8_linears(model, how).model  # type: ignore[arg-type, return-value]
    model = copy.deepcopy(model)
    if how != "plain":
        adapt(model)
    if how == "adapters merged":
        merge_adapters(model)
    return model


@cache
def rewritten(how: str, dtype: torch.dtype, head: str) -> GPT:
    return rewrite(plain(dtype, head), how)


class RoundedProduct(nn.Module):
    """In float64: a rounded weight, and activations rounded as a product rounds them."""

    def __init__(self, linear: nn.Linear, product: str, seven_bits: bool) -> None:
        super().__init__()
        self.weight = rounded(linear.weight.detach(), Grid())
        self.bias = linear.bias
        self.product, self.highest = product, 127 if seven_bits else 255

    def forward(self, x: Tensor) -> Tensor:
        if self.product == "int_mm":
            steps = x.abs().amax(-1, keepdim=True) / 127
            x = (x / steps).round() * steps
        elif self.product == "packed":
            low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
            step = (high - low) / self.highest
            zero = (-low / step).round()
            x = ((x / step).round() + zero).clamp(0, 255).sub(zero) * step
        return F.linear(x, self.weight, self.bias)


@cache
def reference(how: str, dtype: torch.dtype, head: str) -> GPT:
    """What the rewrite means, in float64, of the same weights: written out without its code."""
    model = copy.deepcopy(plain(dtype, head)).double()
    if how.startswith("adapters"):
        for name, linear in lora_linears(rewritten("adapters", dtype, head)).items():
            weight = model.get_submodule(name).get_parameter("weight")
            for part in linear.parts:
                weight.data[part.outputs] += ALPHA / 3 * (part.B.double() @ part.A.double())
    elif how in PRODUCTS:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear):
                found = rewritten(how, dtype, head).get_submodule(name)
                assert isinstance(found, Int8Linear)
                model.set_submodule(name, RoundedProduct(module, how, found.seven_bits))
        model.wte.weight = nn.Parameter(rounded(model.wte.weight.detach(), Grid()))
    return model


# ---- what "works" means in each use


# Relative error of the logits of a token: of half of them, and of any. Where numbers are rounded to
# a grid, noise in the last place may move one of many across an edge, and some tokens with it.
Tolerance = tuple[float, float]
ARITHMETIC: dict[torch.dtype, Tolerance] = {
    torch.float32: (1e-6, 1e-5),
    torch.bfloat16: (0.012, 0.03),
    torch.float16: (0.0016, 0.005),
}
WITH_ROUNDED_ACTIVATIONS: dict[torch.dtype, Tolerance] = {
    torch.float32: (1e-6, 0.05),
    torch.bfloat16: (0.025, 0.05),
    torch.float16: (0.02, 0.05),
}
WITH_THREE_BITS: dict[torch.dtype, Tolerance] = {
    torch.float32: (1e-6, 0.15),
    torch.bfloat16: (0.06, 0.15),
    torch.float16: (0.03, 0.15),
}
Case = tuple[str, torch.dtype, str]


def tolerance_of(how: str, dtype: torch.dtype) -> Tolerance:
    of = WITH_ROUNDED_ACTIVATIONS if how in ("int_mm", "packed") else ARITHMETIC
    return of[dtype]


def errors(found: Tensor, expected: Tensor) -> Tensor:
    """Of each token's logits (B, T, V), relative."""
    difference = (found.double() - expected).norm(dim=-1)
    return (difference / expected.norm(dim=-1)).flatten()


def close(found: Tensor, expected: Tensor, tolerance: Tolerance) -> bool:
    relative = errors(found, expected)
    return float(relative.median()) <= tolerance[0] and float(relative.max()) <= tolerance[1]


def forward(case: Case, folder: Path) -> None:
    found, expected = rewritten(*case)(TOKENS), reference(*case)(TOKENS)
    assert found.dtype == case[1]
    assert close(found, expected, tolerance_of(*case[:2]))


def write(case: Case, folder: Path) -> None:
    """Each token is the reference's likeliest, or close to it, where both take the same steps."""
    text = generate(rewritten(*case), PROMPT, WRITTEN)
    model = reference(*case)
    cache = KVCache(model.config, *text.shape, torch.float64)
    assert torch.equal(text[:, :6], PROMPT)
    read = 0
    for end in range(6, 6 + WRITTEN):
        logits = model(text[:, read:end], cache, last_only=True)[:, -1]  # (B, V)
        chosen, read = logits.gather(-1, text[:, end : end + 1])[:, 0], end
        assert (logits.amax(-1) - chosen).max() <= 0.03 * logits.std()


def compress(case: Case, folder: Path) -> None:
    """Keys and values in three bits, a prompt and then token by token."""

    def read(model: GPT) -> Tensor:
        cache = QuantizedKVCache(model, len(TOKENS), TOKENS.shape[1], TurboQuant(16, 3))
        return torch.cat([model(part, cache) for part in TOKENS.split([11, *[1] * 5], 1)], 1)

    found, expected = read(rewritten(*case)), read(reference(*case))
    assert close(found, expected, WITH_THREE_BITS[case[1]])
    assert errors(expected, reference(*case)(TOKENS)).median() > 0.06  # three bits do act
    cache = QuantizedKVCache(rewritten(*case), len(PROMPT), 8, TurboQuant(16, 3))
    assert generate(rewritten(*case), PROMPT, 3, cache=cache).shape == (len(PROMPT), 9)


def save(case: Case, folder: Path) -> None:
    """What comes back is a plain model, as one that never had adapters: all of it is trained."""
    checkpoints.save(rewritten(*case), folder)
    found = checkpoints.load(folder, case[1])
    assert found.config == plain(*case[1:]).config
    assert torch.equal(found(TOKENS), rewritten(*case)(TOKENS))
    assert list(found.state_dict()) == list(plain(*case[1:]).state_dict())
    assert all(parameter.requires_grad for parameter in found.parameters())


def load(case: Case, folder: Path) -> None:
    how, dtype, head = case
    checkpoints.save(plain(dtype, head), folder)
    found = rewrite(checkpoints.load(folder, dtype), how)
    assert torch.equal(found(TOKENS), rewritten(*case)(TOKENS))


def keep_adapters(case: Case, folder: Path) -> None:
    save_adapters(rewritten(*case), folder)
    found = copy.deepcopy(plain(*case[1:]))
    load_adapters(found, folder)
    if "merged" in case[0]:
        merge_adapters(found)
    assert torch.equal(found(TOKENS), rewritten(*case)(TOKENS))


def export(case: Case, folder: Path) -> None:
    save_huggingface(rewritten(*case), folder)
    found = checkpoints.load_huggingface(folder, case[1])
    assert found.config == plain(*case[1:]).config
    assert torch.equal(found(TOKENS), rewritten(*case)(TOKENS))


USES: dict[str, Callable[[Case, Path], None]] = {
    "forward": forward,
    "generate": write,
    "cache": compress,
    "save": save,
    "load": load,
    "adapters": keep_adapters,
    "export": export,
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("how", OUTCOMES)
def test_a_cell_of_the_table_works_or_is_refused_in_one_line(
    how: str, use: str, dtype: torch.dtype, head: str, tmp_path: Path
) -> None:
    if how == "packed" and not packed_is_available():
        pytest.skip("PyTorch without FBGEMM")
    outcome, folder = OUTCOMES[how][use], tmp_path / "new"
    with torch.inference_mode():
        if outcome == WORKS:
            USES[use]((how, dtype, head), folder)
            return
        with pytest.raises(UserError, match=outcome) as raised:
            USES[use]((how, dtype, head), folder)
    assert "\n" not in str(raised.value)
    assert not folder.exists()  # nothing half written
