"""Softmax attention of queries over keys and values, in one place."""

import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q (B, H, T, D) over k, v (B, G, S, D) → (B, H, T, D); H/G heads share each.

    Query head h reads key head h // (H/G), as in published models. mask (T, S) or (H, T, S),
    boolean or added to the scores. Without one there is one new token, which may see everything, or
    no past, and each token sees itself and those before it.
    """
    causal, grouped = mask is None and q.shape[-2] > 1, k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )
