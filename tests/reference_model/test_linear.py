"""The product of the linear layers is `F.linear`'s, by whichever operator it is computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reference_model import linear as module
from reference_model.linear import ONEDNN_PAYS_FROM, Linear, linear, plain_products

LARGE = (1030, 257)  # rows and columns that no vector width divides
SMALL = (33, 17)
ONEDNN = "mkldnn::_linear_pointwise"


class Operators(TorchDispatchMode):
    """The names of all operators that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def operators_of(x: Tensor, weight: Tensor) -> set[str]:
    with Operators() as seen:
        linear(x, weight)
    return seen.names


@pytest.fixture(autouse=True)
def _no_gradients():
    assert LARGE[0] * LARGE[1] >= ONEDNN_PAYS_FROM > SMALL[0] * SMALL[1]
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (1, 1), (5,), (2, 3), (2, 130)])
@pytest.mark.parametrize("shape", [LARGE, SMALL])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # A sum of K products of numbers near 1 rounds by some √K · ε.
    [
        (torch.float64, 1e-13),
        (torch.float32, 1e-4),
        (torch.bfloat16, 0.5),
        (torch.float16, 0.06),
    ],
    ids=str,
)
def test_every_path_agrees_with_float64(
    dtype: torch.dtype,
    tolerance: float,
    shape: tuple[int, int],
    rows: tuple[int, ...],
    bias: bool,
) -> None:
    x = torch.randn(*rows, shape[1]).to(dtype)
    weight = torch.randn(shape).to(dtype)
    offset = torch.randn(shape[0]).to(dtype) if bias else None
    found = linear(x, weight, offset)
    exact = F.linear(x.double(), weight.double(), None if offset is None else offset.double())
    assert found.dtype == dtype
    assert found.shape == (*rows, shape[0])
    assert (found.double() - exact).abs().max() < tolerance


def test_a_slice_of_a_longer_input_is_read_where_it_lies() -> None:
    x, weight = torch.randn(1, 7, LARGE[1]), torch.randn(LARGE)
    for last in (x[:, -1:], x.transpose(0, 1)[2:3]):
        assert torch.allclose(linear(last, weight), F.linear(last, weight), atol=1e-4)


def test_large_float32_weights_go_through_onednn_and_small_ones_do_not() -> None:
    if module.onednn is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    assert ONEDNN in operators_of(torch.randn(1, LARGE[1]), torch.randn(LARGE))
    assert ONEDNN not in operators_of(torch.randn(1, SMALL[1]), torch.randn(SMALL))


def test_many_float16_rows_are_multiplied_in_float32_and_a_single_one_as_it_is() -> None:
    weight = torch.randn(SMALL).half()
    assert "aten::to.dtype" in operators_of(torch.randn(9, SMALL[1]).half(), weight)
    assert "aten::to.dtype" not in operators_of(torch.randn(1, SMALL[1]).half(), weight)


def test_without_onednn_the_product_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "onednn", None)
    x, weight = torch.randn(3, LARGE[1]), torch.randn(LARGE)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_plain_products_hold_inside_their_block_alone() -> None:
    if module.onednn is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    x, weight = torch.randn(1, LARGE[1]), torch.randn(LARGE)
    with plain_products():
        with plain_products():
            pass
        assert ONEDNN not in operators_of(x, weight)
    with pytest.raises(ZeroDivisionError), plain_products():
        1 / 0  # noqa: B018
    assert ONEDNN in operators_of(x, weight)


def test_gradients_flow_where_they_are_wanted() -> None:
    with torch.inference_mode(False):
        layer = Linear(*reversed(LARGE))
        layer(torch.randn(2, LARGE[1])).square().sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().max() > 0


@pytest.mark.parametrize("rows", [(1,), (1, 1), (4,), (2, 3)])
def test_what_the_compiler_is_given_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...]
) -> None:
    x, weight, bias = torch.randn(*rows, LARGE[1]), torch.randn(LARGE), torch.randn(LARGE[0])
    expected = F.linear(x, weight, bias)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with Operators() as seen:
        found = linear(x, weight, bias)
        without = linear(x, weight)
    assert ONEDNN not in seen.names
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(without, expected - bias, atol=1e-4)
