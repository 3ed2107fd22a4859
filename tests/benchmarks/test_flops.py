"""FLOPs of single operators: right where there is a formula, else an error, never a silent 0."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import flop_registry, register_flop_formula

from benchmarks.instruments.counting import count
from benchmarks.instruments.flops import FORMULAS, multiplies_nothing
from reference_model.config import GPTConfig
from reference_model.costs import forward_flops
from reference_model.model import GPT
from reference_model.training import Recipe, batch_loss, make_optimizers

pytestmark = pytest.mark.K7

ones = torch.ones
UNKNOWN = "may multiply matrices, and its FLOPs are not known"

# ---- all of torch's operators

# Words in the names of operators that multiply: products of matrices and vectors, convolutions,
# recurrences, attention, distances by products, decompositions and what is solved by them, Fourier
# transforms, and sums with weights.
PRODUCT = re.compile(
    r"\w*(mm|mv|matmul|dot)|addr|(bi|tri)?linear|conv\w*|attention|encoder|rnn|lstm|gru"
    r"|cdist|pdist|euclidean|linalg|cholesky|\w*solve|inverse|inv|det|svd|eigh?|geqrf|or[gm]qr|qr|lu"
    r"|lstsq|fft|grid|upsample|bag|combination"
)
# Those of such names that multiply nothing: of elements, of one index, or after the products.
BY_NAME_ALONE = re.compile(
    r"_thnn_fused_(lstm|gru)_cell(_backward|_backward_impl)?|_?upsample_nearest\w+|slice_inverse"
    r"|fft_r?fftfreq|linalg_vector_norm|linalg__powsum|_linalg_check_errors|lu_unpack"
)


def operators() -> Iterator[tuple[str, Any]]:
    """Name and overload of all that are not made of others: a dispatch mode sees those instead."""
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = full.partition("::")
        name, _, overload = rest.partition(".")
        if namespace == "aten":
            func = getattr(getattr(torch.ops.aten, name), overload or "default")
            if not func._can_decompose():
                yield name, func


def test_no_operator_of_torch_that_multiplies_is_taken_for_one_that_does_not() -> None:
    seen, wrong = set(), set()
    for name, func in operators():
        if any(PRODUCT.fullmatch(word) for word in name.split("_")):
            seen.add(name)
            if multiplies_nothing(func) != (BY_NAME_ALONE.fullmatch(name) is not None):
                wrong.add(name)
    assert len(seen) > 180
    assert wrong == set()


def test_every_operator_with_a_formula_is_one_that_multiplies() -> None:
    packets = {
        packet for packet in flop_registry if isinstance(packet, torch._ops.OpOverloadPacket)
    }
    for name in FORMULAS:
        namespace, _, rest = name.partition("::")
        packets.add(getattr(getattr(torch.ops, namespace), rest.partition(".")[0]))
    for packet in packets:
        assert not any(multiplies_nothing(getattr(packet, each)) for each in packet.overloads())


def test_operators_of_other_libraries_are_unknown_until_they_have_a_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with torch.library._scoped_library("of_a_test", "FRAGMENT") as library:
        library.define("twice(Tensor a, Tensor b) -> Tensor")
        library.impl("twice", lambda a, b: 2 * (a @ b), "CompositeExplicitAutograd")
        twice = torch.ops.of_a_test.twice
        with pytest.raises(ValueError, match=f"of_a_test::twice {UNKNOWN}"):
            count(lambda: twice(ones(3, 4), ones(4, 5)))
        monkeypatch.setattr("torch.utils.flop_counter.flop_registry", flop_registry)
        register_flop_formula(twice)(lambda a, b, out_shape: 2 * a[0] * a[1] * b[1])
        assert count(lambda: twice(ones(3, 4), ones(4, 5))).flops == 120
        del flop_registry[twice]


# ---- known answers

COUNTED: dict[str, tuple[Callable[[], object], int]] = {
    "addr": (lambda: torch.addr(ones(3, 4), ones(3), ones(4)), 2 * 3 * 4),
    "addmv": (lambda: torch.addmv(ones(3), ones(3, 4), ones(4)), 2 * 3 * 4),
    "addmv in place": (lambda: ones(3).addmv_(ones(3, 4), ones(4)), 2 * 3 * 4),
    "addbmm": (lambda: torch.addbmm(ones(3, 5), ones(2, 3, 4), ones(2, 4, 5)), 2 * 2 * 3 * 4 * 5),
    "baddbmm in place": (lambda: ones(2, 3, 5).baddbmm_(ones(2, 3, 4), ones(2, 4, 5)), 240),
    "addmm, activated": (
        lambda: torch._addmm_activation(ones(5), ones(3, 4), ones(4, 5)),
        2 * 3 * 4 * 5,
    ),
    "mm into a tensor": (lambda: torch.mm(ones(3, 4), ones(4, 5), out=ones(3, 5)), 2 * 3 * 4 * 5),
    "vdot": (lambda: torch.vdot(ones(7), ones(7)), 2 * 7),
    "vecdot": (lambda: torch.linalg.vecdot(ones(7), ones(7)), 2 * 7),
    "inner": (lambda: torch.inner(ones(3, 4), ones(5, 4)), 2 * 3 * 4 * 5),
    "einsum": (lambda: torch.einsum("bij,bkj->bik", ones(2, 3, 4), ones(2, 5, 4)), 240),
    "einsum to a number": (lambda: torch.einsum("i,i->", ones(7), ones(7)), 2 * 7),
    "tensordot": (lambda: torch.tensordot(ones(3, 4, 2), ones(4, 2, 5)), 2 * 3 * 8 * 5),
    "a chain, in its best order": (
        lambda: torch.linalg.multi_dot([ones(3, 4), ones(4, 5), ones(5, 2)]),
        2 * (4 * 5 * 2 + 3 * 4 * 2),
    ),
    "a third power": (lambda: torch.linalg.matrix_power(ones(3, 3), 3), 2 * (2 * 27)),
    "covariance": (lambda: torch.cov(ones(3, 7)), 2 * 3 * 7 * 3),
    "convolution in groups": (
        lambda: nn.Conv2d(4, 6, 3, groups=2)(ones(2, 4, 7, 8)),
        2 * (2 * 6 * 5 * 6) * (2 * 3 * 3),
    ),
    "grouped queries": (
        lambda: F.scaled_dot_product_attention(
            ones(1, 6, 3, 4), ones(1, 2, 5, 4), ones(1, 2, 5, 4), enable_gqa=True
        ),
        2 * 2 * 6 * 3 * 5 * 4,
    ),
    "onednn, added to something": (
        lambda: torch.ops.mkldnn._linear_pointwise(
            ones(1, 3, 5), ones(1, 3, 7), ones(7, 5), None, "add"
        ),
        2 * 3 * 5 * 7,
    ),
    # No matrix product, though numbers are multiplied: each product is of two elements.
    "outer": (lambda: torch.outer(ones(3), ones(4)), 0),
    "kron": (lambda: torch.kron(ones(3, 3), ones(2, 2)), 0),
    "gamma functions": (lambda: torch.lgamma(ones(3)) + torch.mvlgamma(ones(3) * 9, 2), 0),
    "a window": (lambda: torch.hamming_window(8), 0),
    "norms": (lambda: F.rms_norm(ones(3, 4), (4,)) + F.layer_norm(ones(3, 4), (4,)), 0),
    "sorted, drawn and picked": (
        lambda: ones(9).cumsum(0).sort()[0].softmax(0).multinomial(2).unique(),
        0,
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_product_in_whatever_words_has_its_flops(name: str) -> None:
    function, flops = COUNTED[name]
    with torch.no_grad():
        assert count(function).flops == flops
    with torch.inference_mode():
        assert count(function).flops == flops


REFUSED: dict[str, Callable[[], object]] = {
    "cdist": lambda: torch.cdist(ones(3, 4), ones(5, 4)),
    "cdist by a product": lambda: torch.cdist(ones(30, 4), ones(30, 4)),
    "pdist": lambda: F.pdist(ones(3, 4)),
    "bilinear": lambda: F.bilinear(ones(2, 3), ones(2, 4), ones(5, 3, 4)),
    "a matrix exponential": lambda: torch.linalg.matrix_exp(torch.eye(3)),
    "a determinant": lambda: torch.linalg.det(torch.eye(3)),
    "an inverse": lambda: torch.linalg.inv(torch.eye(3)),
    "a solution": lambda: torch.linalg.solve(torch.eye(3), ones(3)),
    "a decomposition": lambda: torch.linalg.svd(torch.eye(3)),
    "Cholesky": lambda: torch.linalg.cholesky(torch.eye(3)),
    "Fourier": lambda: torch.fft.rfft(ones(8)),
    "a sum with weights": lambda: F.embedding_bag(torch.tensor([[1, 2]]), ones(4, 3)),
    "interpolation": lambda: F.interpolate(ones(1, 1, 4), scale_factor=2.0, mode="linear"),
    "complex": lambda: ones(3, 3, dtype=torch.cfloat) @ ones(3, 3, dtype=torch.cfloat),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_product_without_a_formula_is_an_error(name: str) -> None:
    with torch.no_grad(), pytest.raises(ValueError, match="its FLOPs are not known"):
        count(REFUSED[name])


@pytest.mark.parametrize("product", [torch.mm, torch.mul, torch.sparse.mm])
def test_sparse_matrices_are_an_error(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    sparse, dense = torch.eye(3).to_sparse(), ones(3, 3)
    with torch.no_grad(), pytest.raises(ValueError, match=f"a sparse or nested tensor|{UNKNOWN}"):
        count(lambda: product(sparse, dense))


# ---- whole modules


@pytest.fixture(scope="module")
def encoder() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()


def test_a_fused_encoder_layer_counts_what_its_parts_count(
    encoder: nn.TransformerEncoderLayer,
) -> None:
    x = torch.randn(2, 8, 16)
    parts = count(lambda: encoder(x))
    assert "aten::addmm" in parts.by_operator
    with torch.no_grad():
        fused = count(lambda: encoder(x))
    assert fused.by_operator == {"aten::_transformer_encoder_layer_fwd": 1}
    assert fused.flops == parts.flops == 73_728
    assert fused.attention_flops == 0  # it does more than attention
    assert parts.attention_flops == 2 * 2 * 2 * 8 * 8 * 16


def test_an_encoder_layer_of_texts_of_unequal_lengths_is_an_error(
    encoder: nn.TransformerEncoderLayer,
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        texts = torch.nested.nested_tensor([torch.randn(3, 16), torch.randn(5, 16)])
        with pytest.raises(ValueError, match="a sparse or nested tensor"):
            count(lambda: encoder(texts))


@pytest.mark.parametrize("keys", [8, 5])
def test_fused_heads_count_what_their_parts_count(keys: int) -> None:
    heads = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    q, k = torch.randn(2, 8, 16), torch.randn(2, keys, 16)
    k = q if keys == 8 else k
    parts = count(lambda: heads(q, k, k, need_weights=False))
    with torch.no_grad():
        whole = count(lambda: heads(q, k, k, need_weights=False))
    assert whole.flops == parts.flops == 2 * 2 * 16 * (16 * (8 + 2 * keys + 8) + 2 * 8 * keys)
    assert ("aten::_native_multi_head_attention" in whole.by_operator) == (keys == 8)
    assert whole.attention_flops == (0 if keys == 8 else parts.attention_flops)


def gradients_of(module: nn.Module, *inputs: Tensor) -> None:
    outputs, _ = module(inputs[0], inputs[1:] if len(inputs) > 2 else inputs[1])
    outputs.sum().backward()


@pytest.mark.parametrize(
    ("kind", "options", "flops"),
    [
        (nn.LSTM, {}, 65_536),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}, 327_680),
        (nn.GRU, {}, 49_152),
        (nn.RNN, {}, 16_384),
    ],
)
def test_a_recurrent_layer_counts_the_products_of_every_step(
    kind: type[nn.RNNBase], options: dict[str, Any], flops: int
) -> None:
    module, x = kind(16, 16, **options), torch.randn(8, 2, 16, requires_grad=True)
    layers = (1 + module.bidirectional) * module.num_layers
    batch = 8 if module.batch_first else 2
    states = 2 if kind is nn.LSTM else 1
    given = [x, *(torch.zeros(layers, batch, 16, requires_grad=True) for _ in range(states))]
    fused = count(partial(gradients_of, module, *given))
    torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        plain = count(partial(gradients_of, module, *given))
    finally:
        torch.backends.mkldnn.set_flags(_enabled=True)
    assert "aten::mkldnn_rnn_layer" not in plain.by_operator
    assert ("aten::mkldnn_rnn_layer" in fused.by_operator) == (kind is nn.LSTM)
    assert fused.flops == plain.flops == 3 * flops
    with torch.no_grad():
        assert count(lambda: module(x)).flops == flops


def test_weights_that_are_packed_count_by_the_result() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")  # how else to pack?
        weight = torch.quantize_per_tensor(ones(7, 5), 1.0, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    x = torch.randn(2, 3, 5)
    assert count(lambda: torch.ops.quantized.linear_dynamic(x, packed, True)).flops == 420


# ---- training

SIZES = {"vocab_size": 61, "context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 16}


@pytest.mark.parametrize(
    "choices", [{}, {"head": "untied"}, {"position": "alibi"}, {"n_kv_head": 1, "d_head": 6}]
)
def test_a_training_step_is_three_forward_passes_and_the_scores_of_attention_once_more(
    choices: dict[str, object],
) -> None:
    model, batch = GPT(GPTConfig(**SIZES, **choices)), torch.randint(61, (3, 17))
    step = count(lambda: batch_loss(model, batch).backward())
    law = forward_flops(model.config, 16)
    # ALiBi is written out as products, whose weights are kept: no scores are computed anew.
    anew = 0 if "position" in choices else law.attention // 2
    assert step.flops == 3 * (3 * law.total + anew)
    assert step.attention_flops == (0 if "position" in choices else 3 * 7 * law.attention // 2)


def test_the_backward_pass_of_attention_counts_what_its_parts_count_and_the_scores() -> None:
    given = [torch.randn(2, 3, length, 8, requires_grad=True) for length in (5, 7, 7)]

    def step() -> None:
        F.scaled_dot_product_attention(*given).sum().backward()

    fused = count(step)
    with sdpa_kernel(SDPBackend.MATH):
        parts = count(step)
    assert parts.attention_flops == 0
    assert fused.flops - parts.flops == 2 * (2 * 3 * 5 * 7 * 8)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_optimizer_counts_its_own_products(optimizer: str) -> None:
    model = GPT(GPTConfig(**SIZES))
    batch_loss(model, torch.randint(61, (3, 17))).backward()
    made = make_optimizers(model, Recipe(1, 1e-3, optimizer=optimizer))
    flops = count(lambda: [each.step() for each in made]).flops
    assert (flops > 0) == (optimizer == "muon")
