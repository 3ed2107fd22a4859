"""Every position encoding against its definition, written out on its own."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from reference_model.cache import KVCache
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.positions import (
    SinusoidalPositions,
    alibi_bias,
    alibi_slopes,
    rotary_angles,
    rotate,
)


def rope(d_head: int = 8, **choices: object) -> GPTConfig:
    return GPTConfig(vocab_size=5, n_layer=1, n_head=1, n_embd=d_head, position="rope", **choices)


def turn_as_complex_numbers(
    vector: Tensor, position: float, base: float = 10000.0, stretch: float = 1.0
) -> Tensor:
    """RoFormer's definition: coordinates j and j + D/2 as one complex number, times e^(itθ_j)."""
    half = vector.numel() // 2
    out = torch.empty_like(vector)
    for j in range(half):
        angle = position / stretch * base ** (-2 * j / (2 * half))
        turned = complex(vector[j], vector[j + half]) * cmath.exp(1j * angle)
        out[j], out[j + half] = turned.real, turned.imag
    return out


# ---- rotary


@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize("start", [0, 3, 1000])
def test_rotation_equals_the_complex_definition(base: float, start: int) -> None:
    angles = rotary_angles(rope(rope_base=base), start, 6)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    turned = rotate(x, angles.cos(), angles.sin())
    for b in range(2):
        for h in range(3):
            for t in range(6):
                expected = turn_as_complex_numbers(x[b, h, t], start + t, base)
                assert (turned[b, h, t] - expected).abs().max() < 1e-12


def test_attention_turns_queries_and_keys_and_leaves_values_alone(
    tiny_model: Callable[..., GPT], plain_attention: Callable[..., Tensor]
) -> None:
    model = tiny_model(position="rope", n_embd=12, n_head=3)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    with torch.no_grad():
        found = model.h[0].attn(x, rotation=model._rotation(0, 5, x))
        expected = plain_attention(model.h[0].attn, x, turn=turn_as_complex_numbers)
        unturned = plain_attention(model.h[0].attn, x)
    assert (found - expected).abs().max() < 1e-12
    assert (unturned - expected).abs().max() > 0.01


def test_rotary_scores_depend_on_the_distance_only() -> None:
    config = rope()
    q, k = torch.randn(2, 8, dtype=torch.float64)

    def score(at_query: int, at_key: int) -> float:
        turned = [
            rotate(vector[None], angles.cos(), angles.sin())[0]
            for vector, angles in (
                (q, rotary_angles(config, at_query, 1)),
                (k, rotary_angles(config, at_key, 1)),
            )
        ]
        return float(turned[0] @ turned[1])

    for distance in (0, 1, 7, 100):
        scores = [score(distance + shift, shift) for shift in (0, 1, 50, 3000)]
        assert max(scores) - min(scores) < 1e-10
    assert abs(score(0, 0) - score(7, 0)) > 0.01


@pytest.mark.parametrize(
    ("position", "shifts_freely"), [("rope", True), ("learned", False), ("sinusoidal", False)]
)
def test_only_rotary_attention_is_the_same_wherever_the_text_stands(
    tiny_model: Callable[..., GPT], position: str, shifts_freely: bool
) -> None:
    model = tiny_model(position=position, context_length=64)
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        outputs = []
        for start in (0, 40):
            x = model.embed(tokens, start)
            outputs.append(model.h[0](x, None, model._rotation(start, 5, x)))
    change = (outputs[0] - outputs[1]).abs().max()
    assert change < 1e-10 if shifts_freely else change > 0.1


def test_interpolation_divides_every_position_by_the_factor() -> None:
    config = rope(rope_scaling="interpolation", rope_scaling_factor=3.0)
    angles = rotary_angles(config, 4, 5)
    x = torch.randn(5, 8, dtype=torch.float64)
    turned = rotate(x, angles.cos(), angles.sin())
    for t in range(5):
        expected = turn_as_complex_numbers(x[t], 4 + t, stretch=3.0)
        assert (turned[t] - expected).abs().max() < 1e-12


@pytest.mark.parametrize("d_head", [4, 8, 64])
@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_ntk_scaling_stretches_the_slowest_pair_by_the_factor_and_leaves_the_fastest(
    d_head: int, factor: float
) -> None:
    plain = rotary_angles(rope(d_head), 1, 1)[0]
    scaled = rotary_angles(rope(d_head, rope_scaling="ntk", rope_scaling_factor=factor), 1, 1)[0]
    stretch = plain / scaled  # (D/2,), the fastest pair first
    assert stretch[0] == 1.0
    assert float(stretch[-1]) == pytest.approx(factor, rel=1e-12)
    assert (stretch.diff() > 0).all()


@pytest.mark.parametrize("scaling", ["none", "interpolation", "ntk"])
def test_a_factor_of_one_changes_no_angle(scaling: str) -> None:
    angles = rotary_angles(rope(rope_scaling=scaling), 0, 9)
    assert torch.equal(angles, rotary_angles(rope(), 0, 9))


def test_casting_the_model_to_bfloat16_does_not_round_its_angles(
    tiny_model: Callable[..., GPT],
) -> None:
    # Position 5001 itself has no bfloat16: rounded to 4992, its angle would be off by radians.
    model = tiny_model(position="rope").bfloat16()
    cos, sin = model._rotation(5001, 1, torch.zeros(1, dtype=torch.bfloat16))
    for i in range(4):
        angle = 5001 * 10000.0 ** (-i / 4)
        assert abs(float(cos[0, i]) - math.cos(angle)) <= 2**-9
        assert abs(float(sin[0, i]) - math.sin(angle)) <= 2**-9


# ---- sinusoidal


def sinusoid(t: int, coordinate: int, width: int) -> float:
    """PE(t, 2i) = sin(t / 10000^(2i/width)) and PE(t, 2i + 1) = cos of the same."""
    angle = t / 10000 ** (2 * (coordinate // 2) / width)
    return math.cos(angle) if coordinate % 2 else math.sin(angle)


@pytest.mark.parametrize("start", [0, 2, 700])
def test_sinusoidal_positions_equal_the_formula_of_the_paper(start: int) -> None:
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    added = SinusoidalPositions()(x, start) - x
    for t in range(4):
        for c in range(6):
            expected = sinusoid(start + t, c, 6)
            assert added[:, t, c].tolist() == pytest.approx([expected] * 2, abs=1e-12)


def test_casting_the_model_to_bfloat16_does_not_round_the_angles_of_the_sinusoids(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(position="sinusoidal").bfloat16()
    model.wte.weight.data.zero_()
    row = model.embed(torch.zeros(1, 1, dtype=torch.long), start=5001)[0, 0].detach()
    for c in range(16):
        assert abs(float(row[c]) - sinusoid(5001, c, 16)) <= 2**-9


def test_embeddings_are_scaled_before_positions_are_added(tiny_model: Callable[..., GPT]) -> None:
    plain, scaled = (
        tiny_model(embedding_scale=scale, n_embd=16) for scale in ("none", "sqrt_width")
    )
    tokens = torch.arange(6)[None]
    token_part = plain.wte.weight[:6]
    with torch.no_grad():
        assert (plain.embed(tokens, 2)[0] - token_part - plain.wpe.weight[2:8]).abs().max() < 1e-13
        difference = scaled.embed(tokens, 2) - plain.embed(tokens, 2)
    assert (difference[0] - 3 * token_part).abs().max() < 1e-12  # √16 − 1


# ---- rotary, scaled by parts


@pytest.mark.parametrize(
    ("scaling", "there"),
    [
        ("llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("llama3", {"low_freq_factor": 2.0, "high_freq_factor": 3.0}),
        ("yarn", {}),
        ("yarn", {"beta_slow": 2, "beta_fast": 16, "attention_factor": 1.5}),
    ],
)
@pytest.mark.parametrize(("width", "trained", "base"), [(64, 8192, 5e5), (8, 64, 1e4)])
def test_scaling_by_parts_equals_transformers(
    transformers: ModuleType,
    scaling: str,
    there: dict[str, float],
    width: int,
    trained: int,
    base: float,
) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": scaling, "rope_theta": base, "factor": 8.0, **there}
    theirs = transformers.LlamaConfig(
        hidden_size=2 * width,
        num_attention_heads=2,
        max_position_embeddings=8 * trained,
        rope_parameters={**parameters, "original_max_position_embeddings": trained},
    )
    expected, magnitude = ROPE_INIT_FUNCTIONS[scaling](theirs, "cpu")
    low, high = ("low_freq_factor", "high_freq_factor")
    if scaling == "yarn":
        low, high = ("beta_slow", "beta_fast")
    given = {
        "rope_low_turns": low,
        "rope_high_turns": high,
        "rope_attention_factor": "attention_factor",
    }
    ours = rope(
        width,
        context_length=8 * trained,
        rope_base=base,
        rope_scaling=scaling,
        rope_scaling_factor=8.0,
        rope_original_context=trained,
        **{ours: float(there[name]) for ours, name in given.items() if name in there},
    )
    torch.testing.assert_close(rotary_angles(ours, 1, 1)[0].float(), expected)
    assert ours.rope_attention_factor == pytest.approx(magnitude)


def test_slow_pairs_are_interpolated_and_fast_ones_left_alone() -> None:
    choices = {"rope_scaling_factor": 8.0, "rope_original_context": 100, "context_length": 800}
    plain = rotary_angles(rope(16), 1, 1)[0]
    turns = 100 * plain / (2 * math.pi)
    scaled = rotary_angles(rope(16, rope_scaling="llama3", **choices), 1, 1)[0]
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], plain[turns < 1] / 8)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_yarn_makes_turned_queries_and_keys_longer(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(position="rope", rope_scaling="yarn", rope_scaling_factor=8.0)
    cos, sin = model._rotation(3, 1, torch.zeros(1, dtype=torch.float64))
    lengths = (cos.square() + sin.square()).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.1 * math.log(8) + 1))


# ---- ALiBi


def slopes_of_the_paper(heads: int) -> list[float]:
    """2^(−8/H), 2^(−16/H), …; other H take the power below, then every other of the one above."""
    if heads & (heads - 1) == 0:
        first = 2 ** (-8 / heads)
        return [first**h for h in range(1, heads + 1)]
    below = 1 << (heads.bit_length() - 1)
    return slopes_of_the_paper(below) + slopes_of_the_paper(2 * below)[0::2][: heads - below]


def test_eight_heads_have_the_slopes_one_half_to_one_256th() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 7, 12, 16, 20, 25])
def test_slopes_equal_those_of_the_paper_for_every_number_of_heads(heads: int) -> None:
    assert alibi_slopes(heads).tolist() == pytest.approx(slopes_of_the_paper(heads), rel=1e-12)


@pytest.mark.parametrize("start", [0, 3])
def test_alibi_bias_is_minus_slope_times_distance(start: int) -> None:
    bias = alibi_bias(6, start, 4)
    assert bias.shape == (6, 4, start + 4)
    for h, slope in enumerate(slopes_of_the_paper(6)):
        for q in range(4):
            for k in range(start + q + 1):
                assert float(bias[h, q, k]) == pytest.approx(-slope * (start + q - k), abs=1e-12)


def test_attention_adds_the_alibi_bias_to_its_scaled_scores(
    tiny_model: Callable[..., GPT], plain_attention: Callable[..., Tensor]
) -> None:
    model = tiny_model(position="alibi", n_embd=12, n_head=3)
    slopes = slopes_of_the_paper(3)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    with torch.no_grad():
        found = model.h[0].attn(x, mask=model._mask(0, 5, 5, x))
        expected = plain_attention(
            model.h[0].attn, x, bias=lambda head, query, key: -slopes[head] * (query - key)
        )
    assert (found - expected).abs().max() < 1e-12


# ---- beyond the context


def test_learned_positions_end_with_the_context(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(position="learned", context_length=12)
    message = "'learned' has 12 positions, received a sequence of 13 tokens"
    with torch.inference_mode():
        model(torch.zeros(1, 12, dtype=torch.long))
        with pytest.raises(UserError, match=message):
            model(torch.zeros(1, 13, dtype=torch.long))
        cache = KVCache(model.config, 1, 20, torch.float64)
        model(torch.zeros(1, 10, dtype=torch.long), cache)
        with pytest.raises(UserError, match=message):
            model(torch.zeros(1, 3, dtype=torch.long), cache)
        assert cache.length == 10


@pytest.mark.parametrize("position", ["sinusoidal", "rope", "alibi", "none"])
def test_every_other_encoding_goes_on_beyond_the_context(
    tiny_model: Callable[..., GPT], position: str
) -> None:
    model = tiny_model(position=position, context_length=4)
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        logits = model(tokens)
        assert logits.isfinite().all()
        assert (logits[:, :4] - model(tokens[:, :4])).abs().max() < 1e-12


def test_without_positions_earlier_tokens_may_change_places(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(position="none", n_layer=1)  # one layer: later ones see causality's order
    with torch.inference_mode():
        one, other = model(torch.tensor([[1, 2, 3, 4]])), model(torch.tensor([[3, 1, 2, 4]]))
    assert (one[:, -1] - other[:, -1]).abs().max() < 1e-12
