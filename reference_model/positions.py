"""How a token learns where it stands: learned, sinusoidal, rotary, ALiBi, or not at all.

The first two add a vector (T, C) to the token embeddings, rotary turns queries and keys inside each
head, ALiBi adds a bias (H, T, S) to the attention scores.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import BY_PARTS, GPTConfig
from reference_model.errors import UserError

# Where the new tokens begin: a number, or a scalar tensor where a compiled step moves it along.
Start = int | Tensor


class LearnedPositions(nn.Embedding):
    """A trained vector per position, as in GPT-2. There is none beyond the trained context."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config.context_length, config.n_embd)

    def forward(self, x: Tensor, start: Start = 0) -> Tensor:
        """Token embeddings (B, T, C) of positions start … → the same with positions added."""
        if isinstance(start, Tensor):  # out of range is an IndexError here, on CUDA of the device
            return x + F.embedding(positions_from(start, x.shape[1], x.device), self.weight)
        end = start + x.shape[1]
        if end > self.num_embeddings:
            raise UserError(
                f"position='learned' has {self.num_embeddings} positions, received a sequence of "
                f"{end} tokens; shorten it or choose sinusoidal, rope, alibi or none"
            )
        return x + self.weight[start:end]


class SinusoidalPositions(nn.Module):
    """sin and cos of t / 10000^(2i/C), side by side in pairs (1706.03762, section 3.5)."""

    def forward(self, x: Tensor, start: Start = 0) -> Tensor:
        """Token embeddings (B, T, C) of positions start … → the same with positions added."""
        _, length, width = x.shape
        angles = position_angles(start, length, inverse_frequencies(width, 10000.0, x.device))
        return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(x.dtype)


class NoPositions(nn.Module):
    """Adds nothing: for the choices that act inside attention, or nowhere."""

    def forward(self, x: Tensor, start: Start = 0) -> Tensor:
        """Token embeddings (B, T, C), untouched."""
        return x


def make_additive_positions(config: GPTConfig) -> nn.Module:
    """What is added to the token embeddings for this choice of position."""
    if config.position == "learned":
        return LearnedPositions(config)
    if config.position == "sinusoidal":
        return SinusoidalPositions()
    return NoPositions()


# Frequencies are computed where they are used, in float64, and not kept as buffers: casting a
# model to bfloat16 would cast its buffers too, and round the angles of distant positions.


def inverse_frequencies(width: int, base: float, device: torch.device | str = "cpu") -> Tensor:
    """base^(−2i/width) for i = 0 … width/2 − 1 → (width/2,) float64."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    return torch.pow(base, -exponents)


def positions_from(start: Start, length: int, device: torch.device | str) -> Tensor:
    """start, start + 1, … → (T,) int64."""
    return torch.arange(length, device=device) + start


def position_angles(start: Start, length: int, frequencies: Tensor) -> Tensor:
    """t · frequency for t = start … start + length − 1 → (T, width/2) float64."""
    t = positions_from(start, length, frequencies.device)
    return t[:, None] * frequencies


def rotary_angles(
    config: GPTConfig, start: Start, length: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Angles of rotary positions (RoPE, 2104.09864) start … start + length − 1 → (T, D/2) float64.

    Position interpolation (2306.15595) divides every angle by the factor. NTK-aware scaling raises
    the base by factor^(D/(D−2)) instead, which stretches the slowest pair by the factor and leaves
    the fastest alone. Llama 3 and YaRN divide the slow pairs only, as `_interpolated` tells.
    """
    base, factor = config.rope_base, config.rope_scaling_factor
    if config.rope_scaling == "ntk" and config.d_head > 2:
        base = base * factor ** (config.d_head / (config.d_head - 2))
    frequencies = inverse_frequencies(config.d_head, base, device)
    if config.rope_scaling in BY_PARTS:
        frequencies = frequencies * (1 - _interpolated(config, frequencies) * (1 - 1 / factor))
    angles = position_angles(start, length, frequencies)
    return angles / factor if config.rope_scaling == "interpolation" else angles


def _interpolated(config: GPTConfig, frequencies: Tensor) -> Tensor:
    """How far each pair is interpolated: 0 not at all, 1 by the whole factor → (D/2,) float64.

    A pair is judged by how often it turns over the trained context. Between the two limits Llama 3
    interpolates linearly in that number, YaRN (2309.00071) linearly in the pair's index: from the
    last pair with at least `high` turns to the first with at most `low`.
    """
    low, high = config.rope_low_turns, config.rope_high_turns
    if config.rope_scaling == "llama3":
        turns = config.rope_original_context * frequencies / (2 * math.pi)
        return ((high - turns) / (high - low)).clamp(0, 1)
    width, pairs = config.d_head, torch.arange(len(frequencies), device=frequencies.device)

    def pair_that_turns(times: float) -> float:
        slowness = config.rope_original_context / (times * 2 * math.pi)
        return width * math.log(slowness) / (2 * math.log(config.rope_base))

    first = max(math.floor(pair_that_turns(high)), 0)
    last = min(math.ceil(pair_that_turns(low)), width - 1)
    span = last - first or 0.001  # a step where both are one pair
    return ((pairs.double() - first) / span).clamp(0, 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its angle; cos, sin (T, D/2): (B, H, T, D) → (B, H, T, D).

    The pairs lie half a head apart, as in Llama weights, not side by side as in GGUF files.
    """
    a, b = x.chunk(2, dim=-1)
    turned = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)
    return torch.cat(turned, dim=-1)


def alibi_slopes(n_head: int) -> Tensor:
    """One slope a head (2108.12409, section 3) → (H,).

    A geometric series from 2^(−8/H) for powers of two; for other H the series of the next lower
    power, filled up with every other slope of the next higher one, as in the paper's code.
    """
    lower = 2 ** math.floor(math.log2(n_head))
    slopes = 2.0 ** (-8.0 / lower * torch.arange(1, lower + 1, dtype=torch.float64))
    extra = 2.0 ** (-4.0 / lower * torch.arange(1, 2 * lower + 1, 2, dtype=torch.float64))
    return torch.cat((slopes, extra[: n_head - lower]))


def alibi_bias(
    n_head: int,
    start: Start,
    length: int,
    device: torch.device | str = "cpu",
    span: int | None = None,
) -> Tensor:
    """−slope · distance for T queries from start on over keys 0 … span−1 → (H, T, S) float64.

    Without a span, the keys end with the last query.
    """
    q = positions_from(start, length, device)
    k = torch.arange(int(start) + length if span is None else span, device=device)
    return alibi_slopes(n_head).to(device)[:, None, None] * (k[None, :] - q[:, None])
