"""The reference model. Every choice is a field of `GPTConfig`; this file reads top to bottom.

B batch, T time (new tokens), S time (all tokens, cached ones included), H heads of queries, G heads
of keys and values, D head width, C model width, M width of the MLP, V vocabulary. Parameter names
are GPT-2's own.
"""

import math
from collections.abc import Iterator
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.attention import attend
from reference_model.cache import KVCache
from reference_model.config import GPTConfig
from reference_model.linear import Linear
from reference_model.norms import deepnorm_gain, make_norm, residual_scale
from reference_model.positions import (
    Start,
    alibi_bias,
    make_additive_positions,
    positions_from,
    rotary_angles,
    rotate,
)

Rotation = tuple[Tensor, Tensor]  # cos and sin, (T, D/2) each


class Attention(nn.Module):
    """Causal self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        H, G, D = config.n_head, config.n_kv_head, config.d_head
        self.heads, self.d_head, self.layer = (H, G, G), D, layer
        self.c_attn = Linear(config.n_embd, sum(self.heads) * D, bias=config.qkv_bias)
        self.c_proj = Linear(H * D, config.n_embd, bias=config.attention_output_bias)
        self.qk_norm = config.qk_norm
        self.q_norm = make_norm(config, D) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, D) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """x (B, T, C) → (B, T, C); mask (T, S) or (H, T, S), boolean or added to the scores."""
        B, T, _ = x.shape
        qkv = self.c_attn(x).view(B, T, -1, self.d_head).transpose(1, 2)  # (B, H + 2·G, T, D)
        q, k, v = qkv.split(self.heads, dim=1)  # (B, H, T, D), (B, G, T, D) twice
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:  # of both at once, which lie side by side: half the operators
            both = torch.cat((q, k), dim=1) if self.qk_norm else qkv[:, : -v.shape[1]]
            q, k = rotate(both, *rotation).split(self.heads[:2], dim=1)
        y = attend(q, k, v, mask) if cache is None else cache.attend(self.layer, q, k, v, mask)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, -1))  # (B, T, H·D) → (B, T, C)


class MLP(nn.Module):
    """gelu    W′ gelu(W x), by GPT-2's tanh approximation

    swiglu  W′ (silu(G x) · W x): a gate G beside W
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, M, bias = config.n_embd, config.d_mlp, config.mlp_bias
        self.c_gate = Linear(C, M, bias=bias) if config.mlp == "swiglu" else None
        self.c_fc = Linear(C, M, bias=bias)
        self.c_proj = Linear(M, C, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) → (B, T, C)."""
        if self.c_gate is None:
            return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return self.c_proj(F.silu(self.c_gate(x)) * self.c_fc(x))


class Block(nn.Module):
    """One layer. Where the norm N sits around f = attention, then around f = MLP:

    pre       x + f(N(x))          post      N(x + f(x))
    double    x + N′(f(N(x)))      deepnorm  N(α·x + f(x))
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        before = config.norm_placement in ("pre", "double")
        after = config.norm_placement == "double"
        self.ln_1 = make_norm(config)
        self.attn = Attention(config, layer)
        self.ln_1_out = make_norm(config) if after else nn.Identity()
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config)
        self.ln_2_out = make_norm(config) if after else nn.Identity()
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.norm_before, self.residual_scale = before, residual_scale(config)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """x (B, T, C) → (B, T, C); the rest as in `Attention`."""
        if self.norm_before:
            attended = self.attn(self.ln_1(x), mask, rotation, cache)
            x = x + self.ln_1_out(self.dropout(attended))
            return x + self.ln_2_out(self.dropout(self.mlp(self.ln_2(x))))
        attended = self.attn(x, mask, rotation, cache)
        x = self.ln_1(self.residual_scale * x + self.dropout(attended))
        return self.ln_2(self.residual_scale * x + self.dropout(self.mlp(x)))


class GPT(nn.Module):
    """The model: embeddings, blocks, final norm, head."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = make_additive_positions(config)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        # Post-LN and DeepNorm end every block with a norm: a final one would be the second.
        ends_normed = config.norm_placement in ("post", "deepnorm")
        self.ln_f = nn.Identity() if ends_normed else make_norm(config)
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        if config.head == "tied":
            self.lm_head.weight = self.wte.weight
        if not self.wte.weight.is_meta:  # a model without memory has nothing to draw
            self.initialize()

    def forward(
        self, tokens: Tensor, cache: KVCache | None = None, last_only: bool = False
    ) -> Tensor:
        """Logits (B, T, V) of new tokens (B, T); with last_only, (B, 1, V) of the last one.

        With a cache, the tokens continue what the cache holds, and it grows by T.
        """
        start = cache.start if cache is not None else 0
        span = cache.span(tokens.shape[1]) if cache is not None else tokens.shape[1]
        x = self.embed(tokens, start)  # (B, T, C)
        mask = self._mask(start, tokens.shape[1], span, x)
        rotation = self._rotation(start, tokens.shape[1], x)
        for block in self.h:
            x = block(x, mask, rotation, cache)
        if last_only:
            x = x[:, -1:]
        return self.lm_head(self.ln_f(x))  # (B, T, V)

    def embed(self, tokens: Tensor, start: Start = 0) -> Tensor:
        """The residual stream (B, T, C) that enters the first block."""
        x = self.wte(tokens)
        if self.config.embedding_scale == "sqrt_width":
            x = x * math.sqrt(self.config.n_embd)
        return self.dropout(self.wpe(x, start))

    def _mask(self, start: Start, length: int, span: int, x: Tensor) -> Tensor | None:
        """Who may see whom, (T, S) boolean, or ALiBi's scores to add, (H, T, S); None: causal."""
        ends_now = not isinstance(start, Tensor) and span == start + length
        if self.config.position != "alibi" and ends_now and (span == length or length == 1):
            return None
        q = positions_from(start, length, x.device)
        future = torch.arange(span, device=x.device) > q[:, None]  # (T, S)
        if self.config.position != "alibi":
            return ~future
        bias = alibi_bias(self.config.n_head, start, length, x.device, span)
        return bias.masked_fill(future, -torch.inf).to(x.dtype)

    def _rotation(self, start: Start, length: int, x: Tensor) -> Rotation | None:
        if self.config.position != "rope":
            return None
        angles = rotary_angles(self.config, start, length, x.device)  # (T, D/2)
        cos, sin = angles.cos(), angles.sin()
        if (factor := self.config.rope_attention_factor) != 1:
            cos, sin = factor * cos, factor * sin
        return cos.to(x.dtype), sin.to(x.dtype)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew. Biases are 0, norms are 1; embeddings are N(0, 0.02²) throughout.

        | scheme   | linears            | residual projections (attn.c_proj, mlp.c_proj) |
        |----------|--------------------|------------------------------------------------|
        | gpt2     | N(0, 0.02²)        | N(0, 0.02²/2L)                                 |
        | xavier   | Xavier, gain 1     | Xavier, gain 1 (the theorem's, 2002.04745)     |
        | deepnorm | query, key: gain 1 | gain β, as for value and the MLP's (2203.00555) |

        Xavier treats query, key and value as three matrices of their own, and is normal, not
        uniform. An untied head is an embedding of the output side: N(0, 0.02²).
        """
        for _, weight, spread in self._matrices():
            nn.init.normal_(weight, std=spread, generator=generator)
        self._reset_vectors()

    @torch.no_grad()
    def initialize_by_name(self, seed: int) -> None:
        """The same, each matrix by its name alone: models that share it begin with the same values.

        A matrix that is held twice has the name that comes first.
        """
        drawn: set[int] = set()
        for name, weight, spread in self._matrices():
            if weight.data_ptr() not in drawn:
                drawn.add(weight.data_ptr())
                digest = sha256(f"{seed} {name}".encode()).digest()
                generator = torch.Generator(weight.device)
                generator.manual_seed(int.from_bytes(digest[:8], "big", signed=True))
                nn.init.normal_(weight, std=spread, generator=generator)
        self._reset_vectors()

    def _matrices(self) -> Iterator[tuple[str, Tensor, float]]:
        """Name, values and standard deviation of each that is drawn, in their order."""
        config, scheme = self.config, self.config.initialization_in_force
        gain = deepnorm_gain(config) if scheme == "deepnorm" else 1.0
        widths = [n * config.d_head for n in (config.n_head, config.n_kv_head, config.n_kv_head)]
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding) or name == "lm_head":
                yield name, module.weight, 0.02
            elif isinstance(module, nn.Linear):
                if scheme == "gpt2":
                    depth = 2 * self.config.n_layer if name.endswith("c_proj") else 1
                    yield name, module.weight, 0.02 / math.sqrt(depth)
                elif name.endswith("c_attn"):
                    parts = module.weight.split(widths)
                    gains = {"query": 1.0, "key": 1.0, "value": gain}
                    for (role, of), part in zip(gains.items(), parts, strict=True):
                        yield f"{name}.{role}", part, xavier_spread(part, of)
                else:
                    yield name, module.weight, xavier_spread(module.weight, gain)

    def _reset_vectors(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
                module.reset_parameters()


def xavier_spread(weight: Tensor, gain: float) -> float:
    """Standard deviation of a matrix's values."""
    return gain * math.sqrt(2.0 / sum(weight.shape))
