"""FLOPs of one operator: a formula where it multiplies matrices, 0 where it is known not to.

An operator that is on neither list is an error: it may be a product, and a count of 0 would be
believed. A multiplication and an addition are two. Products of elements are none, however they are
broadcast; attention counts the full rectangle of queries and keys, also where it is causal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count


def flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Of one call of an operator of PyTorch, which has returned ``out``.

    Raises ValueError where the operator may multiply matrices and has no formula here, nor one that
    was registered with torch.utils.flop_counter.register_flop_formula; and on what is not dense.
    """
    name, packet = func.name(), func.overloadpacket
    formula = FORMULAS.get(name) or FORMULAS.get(name.partition(".")[0])
    if formula is None and packet not in flop_registry:
        if multiplies_nothing(func):
            return 0
        raise ValueError(
            f"{name} may multiply matrices, and its FLOPs are not known: give it a formula with "
            "torch.utils.flop_counter.register_flop_formula, or replace it"
        )
    if any(tensor.is_complex() for tensor in tensors((args, kwargs))):
        raise ValueError(f"{name} of complex numbers: its FLOPs are not known")
    if formula is not None:
        return formula(*args, out=out)
    return int(flop_registry[packet](*args, **kwargs, out_val=out))


def tensors(values: object) -> Iterator[Tensor]:
    """All that stand in the arguments; ValueError on one whose shape does not say what it holds."""
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            if leaf.layout is not torch.strided or leaf.is_nested:
                raise ValueError("a sparse or nested tensor: neither FLOPs nor bytes are counted")
            yield leaf


# ---- what multiplies matrices


def _linear(x: Tensor, weight: Tensor, *_: Any, out: Any) -> int:
    """x (…, K) and a weight of N rows: 2·rows·K·N."""
    return 2 * x.numel() * weight.shape[0]


def _packed_linear(x: Tensor, *_: Any, out: Tensor) -> int:
    """x (…, K) and a weight that shows no shape: the result is (…, N)."""
    return 2 * x.numel() * out.shape[-1]


def _batches(added: Tensor, a: Tensor, b: Tensor, *_: Any, out: Any) -> int:
    """(…, M, K) times (…, K, N), added to something."""
    return 2 * a.numel() * b.shape[-1]


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, out: Any) -> int:
    """q (B, H, T, D), k (…, S, D), v (…, S, Dv): scores, and the sum that they weigh."""
    B, H, T, D = q.shape
    return 2 * B * H * T * k.shape[-2] * (D + v.shape[-1])


def _attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, out: Any) -> int:
    """Five products: the scores anew, and the gradients of weights, values, queries and keys."""
    # Heads that share keys multiply as those that have their own.
    keys, values = ((*q.shape[:-2], *shared.shape[-2:]) for shared in (k, v))
    return sdpa_backward_flop_count(grad.shape, q.shape, keys, values)


def _heads(q: Tensor, k: Tensor, v: Tensor, width: int, *_: Any, out: Any) -> int:
    """q, k and v (B, T, C), all of one shape: four projections, and attention between them."""
    B, T, C = q.shape
    return 8 * B * T * C * width + 4 * B * T * T * width


def _encoder_layer(x: Tensor, width: int, *rest: Any, out: Any) -> int:
    """x (B, T, C): attention, and two linears between C and the rows of the first one's weight."""
    hidden = rest[12].shape[0]  # ffn_weight_1
    return _heads(x, x, x, width, out=out) + 4 * x.numel() * hidden


def _recurrent(x: Tensor, from_input: Tensor, from_state: Tensor, *_: Any, out: Any) -> int:
    """x (T, B, C), and at each step the weights of all gates, of the input and of the state."""
    rows = x.numel() // x.shape[-1]
    return 2 * rows * (from_input.numel() + from_state.numel())


def _qr(matrix: Tensor, mode: str = "reduced", *_: Any, out: Any) -> int:
    """(…, M, N), M ≥ N: 2·N²·(M − N/3) for R, as much for Q (Golub and Van Loan, Matrix
    Computations, 5.2); the transpose's where it is wide.
    """
    rows, columns = sorted(matrix.shape[-2:], reverse=True)
    of_r = 2 * columns**2 * (3 * rows - columns) // 3
    return matrix.shape[:-2].numel() * of_r * (1 if mode == "r" else 2)


def _twice(formula: Callable[..., int]) -> Callable[..., int]:
    """Of a backward pass that yields the gradient of both factors."""
    return lambda *args, out: 2 * formula(*args, out=out)


# Those that PyTorch's own counter does not know; a name without overload is of all its overloads.
FORMULAS: dict[str, Callable[..., int]] = {
    "aten::_addmm_activation": _batches,
    "aten::_int_mm": lambda a, b, *_, out: 2 * a.numel() * b.shape[1],
    "aten::_native_multi_head_attention": _heads,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::_weight_int8pack_mm": _linear,
    "aten::addbmm": _batches,
    "aten::addbmm_": _batches,
    "aten::addmm_": _batches,
    "aten::addmv": lambda added, matrix, vector, *_, out: 2 * matrix.numel(),
    "aten::addmv_": lambda added, matrix, vector, *_, out: 2 * matrix.numel(),
    "aten::addr": lambda added, a, b, *_, out: 2 * a.numel() * b.numel(),
    "aten::addr_": lambda added, a, b, *_, out: 2 * a.numel() * b.numel(),
    "aten::baddbmm_": _batches,
    "aten::dot": lambda a, b, *_, out: 2 * a.numel(),
    "aten::linalg_qr": _qr,
    "aten::mkldnn_rnn_layer": _recurrent,
    "aten::mkldnn_rnn_layer_backward": _twice(_recurrent),
    "aten::mv": lambda matrix, vector, *_, out: 2 * matrix.numel(),
    "aten::vdot": lambda a, b, *_, out: 2 * a.numel(),
    "mkldnn::_linear_pointwise": _linear,
    "mkldnn::_linear_pointwise.binary": lambda x, other, weight, *_, out: _linear(
        x, weight, out=out
    ),
    "quantized::linear_dynamic": _packed_linear,
}

# ---- what does not

# By the name without leading and trailing "_", "foreach_" and what `SUFFIX` names. Views and what
# PyTorch tags as pointwise need not be here.
NO_PRODUCT = re.compile(
    "|".join(
        (
            # made and drawn
            r"(new_)?(empty|full|ones|zeros)(_like|_permuted|_strided|\w*_quantized)?",
            r"arange|eye|fft_r?fftfreq|linspace|logspace|range|scalar_tensor|efficientzerotensor",
            r"(bartlett|blackman|hamming|hann|kaiser)_window|(tril|triu)_indices",
            r"rand\w*|normal\w*|bernoulli|binomial|cauchy|exponential|geometric|log_normal|poisson",
            r"multinomial|uniform|standard_gamma\w*|sample_dirichlet|dirichlet_grad",
            r"(native_|fused_)?dropout|rrelu_with_noise\w*",
            # moved and changed in form
            r"as_strided\w*|block_diag|cat|chunk_cat|clone|constant_pad_nd|copy|detach|fill|flip",
            r"diag_embed|diagonal\w*|im2col|col2im|lift|lift_fresh|pad_packed_sequence|to",
            r"pack_padded_sequence|pin_memory|pixel_(un)?shuffle|channel_shuffle|polar|complex",
            r"(reflection|replication)_pad\dd|repeat\w*|reshape\w*|resize\w*|roll|rot90|set|slice\w*",
            r"select\w*|(unsafe_)?split\w*|squeeze|stack|t|to_(copy|dense|mkldnn|sparse\w*)|transpose|tril",
            r"triu|unbind|unfold|unsafe_view|unsqueeze|view\w*|zero",
            # asked for one number or a word
            r"allclose|assert_\w+|equal|functional_assert_\w+|is_\w+|local_scalar_dense|lazy_clone",
            r"record_stream|sym_\w+|fused_sdp_choice|linalg_check_errors",
            # looked up, put and sorted
            r"bincount|bucketize|embedding|embedding_dense|embedding_renorm|gather|hash_tensor|histc",
            r"(unsafe_)?index\w*|isin|kthvalue|masked_\w+|(nan)?median|mode|nonzero\w*|put|scatter\w*",
            r"histogram|lu_unpack|searchsorted|segment_reduce|sort|take|topk|unique\w*|unsafe_masked_index\w*|where",
            # added up along an axis, and what is made of that
            r"all|amax|amin|aminmax|any|arg(max|min)|count_nonzero|(log|nan)?sum(exp)?|max|mean|min",
            r"prod|std|std_mean|var|var_mean|linalg_vector_norm|(linalg__)?powsum|(native_)?norm|dist",
            r"cum(max|min)\w*|cumprod|cumsum|logcumsumexp|trace|renorm",
            r"(cudnn_|fused_|miopen_|native_|quantized_)?(batch|group|layer|rms)_norm\w*",
            r"weight_norm_interface|(safe_|log_|masked_)?softmax\w*|upsample_nearest\w*",
            r"(adaptive_|fractional_|mkldnn_|quantized_)*(max|avg)_(un)?pool\d?d?\w*",
            r"(huber|l1|mse|multi_margin|multilabel_margin|nll|smooth_l1|soft_margin)_loss(2d)?(_forward)?",
            r"((use_)?(cudnn|miopen)_)?ctc_loss|binary_cross_entropy\w*",
            # of elements, without the tag
            r"amp_\w+|fused_(adagrad|adam|adamw|sgd)|glu|log_sigmoid\w*|hardswish|prelu_kernel",
            r"thnn_fused_(gru|lstm)_cell\w*|add_relu|floor_divide|transform_bias_rescale_qkv",
            r"(fake_)?quantize_\w+|dequantize|int_repr|q_\w+|qscheme|make_per_\w+_quantized_tensor",
        )
    )
)
LAID_OUT = ("quantized::linear_prepack",)  # weights for a product that comes later
SUFFIX = re.compile(r"(_backward|_backward_data|_copy|_jvp)+$")


@cache
def multiplies_nothing(func: Any) -> bool:
    """Is this one of PyTorch's own operators that have no product of matrices in them?"""
    if func.namespace != "aten":
        return func.namespace == "profiler" or func.name().partition(".")[0] in LAID_OUT
    stem = func.overloadpacket.__name__.strip("_").removeprefix("foreach_").removeprefix("special_")
    stem = SUFFIX.sub("", stem)
    if NO_PRODUCT.fullmatch(stem):
        return True
    plain = getattr(torch.ops.aten, stem, func.overloadpacket)
    return any(
        torch.Tag.pointwise in each.tags or _is_view(each)
        for packet in (func.overloadpacket, plain)
        for each in (getattr(packet, name) for name in packet.overloads())
    )


def _is_view(func: Any) -> bool:
    returned = [each.alias_info for each in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)
