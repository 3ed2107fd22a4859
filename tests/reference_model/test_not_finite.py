"""What is not finite stays so through everything that rounds: it never comes out as a number."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import nn

from reference_model.linear import Linear
from reference_model.norms import LayerNorm, RMSNorm
from reference_model.quantization import baselines
from reference_model.quantization.codec import Codec
from reference_model.quantization.e8 import E8Box
from reference_model.quantization.fp4 import MXFP4, NVFP4
from reference_model.quantization.ggml import Q4_0, Q4_1, Q8_0
from reference_model.quantization.int8 import Product, with_int8_linears
from reference_model.quantization.kivi import KiviKeys, KiviValues
from reference_model.quantization.kvarn import KVarNKeys, KVarNValues
from reference_model.quantization.norms import NormScheme, with_int8_norms
from reference_model.quantization.oscar import Oscar
from reference_model.quantization.rotation import hadamard
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

pytestmark = pytest.mark.K7

WIDTH, TOKENS = 64, 32
CODECS: dict[str, Codec] = {
    "half": baselines.Plain(WIDTH),
    "int8": baselines.Int8(WIDTH),
    "per token": baselines.PerToken(WIDTH, 3),
    "per channel": baselines.PerChannel(WIDTH, 3),
    "blocks": baselines.AbsmaxBlocks(WIDTH, 3),
    "rotated blocks": baselines.AbsmaxBlocks(WIDTH, 3, seed=0),
    "KIVI keys": KiviKeys(WIDTH, 3),
    "KIVI values": KiviValues(WIDTH, 3),
    "KVarN keys": KVarNKeys(WIDTH, 3, tile=TOKENS),
    "KVarN values": KVarNValues(WIDTH, 3, tile=TOKENS, relative_floor=True),
    "OSCAR": Oscar(WIDTH, hadamard(WIDTH, 0)),
    "E8": E8Box(WIDTH, 3),
    "NVFP4": NVFP4(WIDTH),
    "MXFP4": MXFP4(WIDTH),
    "q4_0": Q4_0(WIDTH),
    "q4_1": Q4_1(WIDTH),
    "q8_0": Q8_0(WIDTH),
    "rotated q4_0": Q4_0(WIDTH, rotated="keys"),
    "turboquant": TurboQuant(WIDTH, 3),
    "prod": TurboQuantProd(WIDTH, 3, projection="orthonormal"),
}
NOT_FINITE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("name", CODECS)
def test_a_codec_gives_back_no_number_for_what_was_none(name: str, bad: float) -> None:
    x = torch.randn(2, TOKENS, WIDTH)
    x[1, 4, 5] = bad
    found = CODECS[name].decode(CODECS[name].encode(x))
    assert not found[1, 4, 5].isfinite()
    assert found[0].isfinite().all()


def test_float8_keeps_nan_and_saturates_at_its_largest_number() -> None:
    codec = baselines.Float8(2)
    found = codec.decode(codec.encode(torch.tensor([[math.nan, math.inf], [1e9, -math.inf]])))
    assert found[0, 0].isnan()
    assert found.flatten()[1:].tolist() == [448.0, 448.0, -448.0]


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("way", ["dequantize", "int_mm"])
def test_an_int8_product_of_what_is_no_number_is_none(way: Product, bad: float) -> None:
    linear = with_int8_linears(nn.Sequential(Linear(WIDTH, 8)), way).model
    x = torch.randn(20, WIDTH)
    x[3, 5] = bad
    with torch.no_grad():
        found = linear(x)
    assert not found[3].isfinite().any()
    assert found[:3].isfinite().all()


@pytest.mark.parametrize("bad", NOT_FINITE)
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
@pytest.mark.parametrize(
    ("weights", "input_", "statistics"),
    [*product(["float", "int8"], ["float", "int8"], ["float", "integer"])],
)
def test_a_norm_in_int8_of_what_is_no_number_is_none(
    kind: type[nn.Module], weights: str, input_: str, statistics: str, bad: float
) -> None:
    scheme = NormScheme(weights, input_, statistics)  # type: ignore[arg-type]
    norm, _ = with_int8_norms(nn.Sequential(kind(WIDTH)), scheme)
    x = torch.randn(3, WIDTH)
    with torch.no_grad():
        assert norm(x).isfinite().all()
        x[1, 2] = bad
        assert not norm(x)[1].isfinite().all()
