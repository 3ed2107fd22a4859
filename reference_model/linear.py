"""The linear layers' matrix product: the operator that reads the weights fastest where it runs.

`F.linear` leaves float32 on a CPU to MKL, which answers one row on one thread and favours one
maker's processors. oneDNN, which PyTorch ships as well, takes the same weights as they lie and
shares the work out among all threads. In float16 most CPUs have no product of many rows, and
PyTorch falls back on a slow one. For small weights, on other devices, in other dtypes and wherever
gradients are wanted it is `F.linear`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below 1 MB of weights a call of oneDNN, some 16 µs, is longer than what it saves.
ONEDNN_PAYS_FROM = 2**18
# For this many rows PyTorch's float16 product only reads; for more it computes, slowly.
FEW_HALF_ROWS = 2

# Absent from builds of PyTorch without oneDNN.
onednn = (
    torch.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None
)
_plain = False


@contextmanager
def plain_products() -> Iterator[None]:
    """Inside, every product is `F.linear`: the reference for the others, and what they gain."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, K) times weight (N, K), plus bias (N,) → (…, N), in the dtype of x."""
    if _plain or x.device.type != "cpu" or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    one_row = x.numel() == x.shape[-1]
    if torch.compiler.is_compiling():
        # Of a sum the compiler makes one loop over the weights; F.linear it would leave to MKL.
        y = (x[..., None, :] * weight).sum(-1) if one_row else F.linear(x, weight)
        return y if bias is None else y + bias
    if x.dtype == torch.float32 and weight.numel() >= ONEDNN_PAYS_FROM and onednn is not None:
        return onednn(x, weight, bias, "none", [], "")
    if x.dtype == torch.float16 and x.numel() > FEW_HALF_ROWS * x.shape[-1]:
        wide_bias = None if bias is None else bias.float()
        return linear(x.float(), weight.float(), wide_bias).half()
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear`, parameters and all, with the product above."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        return linear(input, self.weight, self.bias)
