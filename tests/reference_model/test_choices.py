"""Every combination of options is a model that runs forward, learns, and writes."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from reference_model.config import GPTConfig
from reference_model.costs import parameter_count, parameters_by_part
from reference_model.generate import generate
from reference_model.model import GPT

POSITIONS = [
    ("learned", "none"),
    ("sinusoidal", "none"),
    ("rope", "none"),
    ("rope", "interpolation"),
    ("rope", "ntk"),
    ("rope", "llama3"),
    ("rope", "yarn"),
    ("alibi", "none"),
    ("none", "none"),
]
INITIALIZATIONS = ["placement", "gpt2", "xavier", "deepnorm"]


@pytest.mark.parametrize("norm_placement", ["pre", "post", "double", "deepnorm"])
@pytest.mark.parametrize(("position", "rope_scaling"), POSITIONS)
def test_every_combination_builds_runs_learns_and_generates(
    position: str, rope_scaling: str, norm_placement: str
) -> None:
    others = product(
        ["layernorm", "rmsnorm"],
        ["none", "sqrt_width"],
        ["tied", "untied"],
        [True, False],
        INITIALIZATIONS,
    )
    tokens = torch.tensor([[3, 1, 4], [1, 5, 2]])
    for number, (norm, embedding_scale, head, bias, initialization) in enumerate(others):
        config = GPTConfig(
            vocab_size=7,
            context_length=6,
            n_layer=1,
            n_head=2,
            n_embd=8,
            d_mlp=(None, 12)[number // 2 % 2],
            mlp=("gelu", "swiglu")[number % 2],
            n_kv_head=(None, 1)[number // 4 % 2],
            d_head=(None, 6)[number // 8 % 2],
            qk_norm=(False, True)[number // 3 % 2],
            qkv_bias=(None, True, False)[number % 3],
            position=position,
            rope_scaling=rope_scaling,
            rope_scaling_factor=1.0 if rope_scaling == "none" else 2.0,
            norm_placement=norm_placement,
            norm=norm,
            embedding_scale=embedding_scale,
            head=head,
            bias=bias,
            initialization=initialization,
        )
        model = GPT(config)
        assert sum(p.numel() for p in model.parameters()) == parameter_count(config), config
        logits = model(tokens[:, :-1])
        assert logits.shape == (2, 2, 7), config
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, (name, config)
            assert parameter.grad.isfinite().all(), (name, config)
            # The same number is added to all scores of a query, which the softmax does not see.
            unseen = name.endswith("k_norm.bias") and position != "rope"
            assert parameter.grad.any() or unseen, (name, config)
        written = generate(model, tokens[:, :2], 2)
        assert written.shape == (2, 4), config
        assert torch.equal(written[:, :2], tokens[:, :2]), config


def test_every_part_of_the_closed_form_equals_the_modules_of_that_part() -> None:
    config = GPTConfig(
        vocab_size=11, context_length=5, n_layer=3, n_head=2, n_embd=8, head="untied"
    )
    for changes in (
        {},
        {"norm_placement": "double", "norm": "rmsnorm"},
        {"norm_placement": "post", "bias": False},
        {"head": "tied", "position": "rope"},
        {"mlp": "swiglu", "d_mlp": 12},
        {"mlp": "swiglu", "bias": False},
        {"n_kv_head": 1, "d_head": 6, "qk_norm": True},
        {"n_kv_head": 1, "norm": "rmsnorm", "qk_norm": True, "qkv_bias": False},
        {"bias": False, "qkv_bias": True, "norm_bias": True},
        {"bias": False, "attention_output_bias": True, "mlp_bias": True, "mlp": "swiglu"},
    ):
        model = GPT(config.replace(**changes))
        counted = dict.fromkeys(parameters_by_part(model.config), 0)
        prefixes = {
            "wte": "token embedding",
            "wpe": "positions",
            "lm_head": "head",
            "ln_f": "norms",
        }
        for name, parameter in model.named_parameters():
            part = prefixes.get(name.split(".")[0])
            if part is None and "_norm" in name:
                part = "norms"
            if part is None:
                part = {"attn": "attention", "mlp": "mlp"}.get(name.split(".")[2], "norms")
            counted[part] += parameter.numel()
        assert counted == parameters_by_part(model.config)


@pytest.mark.parametrize("norm_placement", ["pre", "post", "double", "deepnorm"])
def test_dropout_acts_on_embeddings_and_on_both_branches_in_training_only(
    norm_placement: str,
) -> None:
    config = GPTConfig(vocab_size=7, context_length=64, n_layer=2, n_head=2, n_embd=8)
    model = GPT(config.replace(dropout=0.5, norm_placement=norm_placement))
    tokens = torch.arange(64)[None] % 7
    zeroed: list[float] = []
    for module in (model, *model.h):
        module.dropout.register_forward_hook(
            lambda m, inputs, out: zeroed.append(float((out == 0).float().mean()))
        )
    model.train()
    model(tokens)
    assert zeroed == pytest.approx([0.5] * 5, abs=0.11)  # five times the deviation of 512 draws
    zeroed.clear()
    model.eval()
    model(tokens)
    assert zeroed == [0.0] * 5
