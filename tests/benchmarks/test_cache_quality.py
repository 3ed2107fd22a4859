"""What a compressed cache does is seen where it acts, and an error where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.instruments.cache_quality import (
    AttentionProbe,
    Quality,
    attention_errors,
    qualities,
)
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.windows import windows_of
from reference_model.cache import KVCache
from reference_model.checkpoints import REFERENCE_FOLDER, load_reference
from reference_model.config import GPTConfig
from reference_model.model import GPT
from reference_model.quantization.baselines import Int8, PerChannel, Plain
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

WINDOW = 64


@pytest.fixture(scope="module")
def model() -> GPT:
    return load_reference()


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    """Three windows of the text that ships with the checkpoint, and the last target."""
    whole = load_file(REFERENCE_FOLDER / "test_slice.safetensors")["tokens"]
    return whole[: 3 * WINDOW + 1].long()


def empty(model: GPT, codec: Codec, **how: int) -> Callable[[int], QuantizedKVCache]:
    return lambda batch_size: QuantizedKVCache(model, batch_size, WINDOW, codec, **how)


def through(model: GPT, tokens: Tensor, codec: Codec, **how: int) -> tuple[np.ndarray, Quality]:
    baseline, found = qualities(
        model,
        windows_of(tokens, WINDOW),
        {"it": lambda n: QuantizedKVCache(model, n, WINDOW, codec, **how)},
    )
    return baseline, found["it"]


def test_an_exact_cache_changes_no_loss_of_a_large_vocabulary() -> None:
    config = GPTConfig(vocab_size=50_000, context_length=WINDOW, n_layer=1, n_head=1, n_embd=64)
    model = GPT(config).eval()
    torch.nn.init.normal_(model.wte.weight, std=0.5)  # so that predictions are no even ones
    tokens = torch.randint(50_000, (WINDOW + 1,), generator=torch.Generator().manual_seed(0))
    exact = {"it": empty(model, Plain(64, torch.float32))}
    baseline, found = qualities(model, windows_of(tokens, WINDOW), exact, may_be_exact=exact)
    assert abs((found["it"].losses - baseline).mean()) < 2e-6


def test_reading_a_window_at_once_is_reading_it_token_by_token(model: GPT, tokens: Tensor) -> None:
    codec = TurboQuant(64, 3)
    for window in (0, 8):
        _, at_once = through(model, tokens, codec, window=window)
        cache = QuantizedKVCache(model, 3, WINDOW, codec, window=window)
        text = tokens[:-1].view(3, WINDOW)
        with torch.inference_mode():
            steps = torch.cat([model(token, cache) for token in text.split(1, dim=1)], dim=1)
        targets = tokens[1:].view(3, WINDOW)
        alone = cross_entropy(steps.mT, targets, reduction="none").double().numpy()
        # Rounding can move a number across an edge of the codebook, here and there.
        assert np.abs(alone - at_once.losses).mean() < 1e-3
        assert abs(alone.mean() - at_once.losses.mean()) < 2e-4


def test_the_baseline_is_the_loss_without_a_cache(model: GPT, tokens: Tensor) -> None:
    baseline, _ = through(model, tokens, TurboQuant(64, 3))
    assert np.allclose(baseline, token_losses(model, windows_of(tokens, WINDOW)), atol=1e-5)


def test_a_cache_that_changes_nothing_is_an_error(model: GPT, tokens: Tensor) -> None:
    idle = {
        "plain": lambda n: KVCache(model.config, n, WINDOW),
        "float32": lambda n: QuantizedKVCache(model, n, WINDOW, Plain(64, torch.float32)),
        "window": lambda n: QuantizedKVCache(model, n, WINDOW, TurboQuant(64, 2), window=WINDOW),
    }
    for name, make in idle.items():
        with pytest.raises(ValueError, match=f"{name}: predictions are what they were"):
            qualities(model, windows_of(tokens, WINDOW), {name: make})


def test_a_cache_that_may_be_exact_changes_nothing(model: GPT, tokens: Tensor) -> None:
    exact = {"exact": empty(model, Plain(64, torch.float32))}
    baseline, found = qualities(model, windows_of(tokens, WINDOW), exact, may_be_exact={"exact"})
    assert np.allclose(found["exact"].losses, baseline, atol=1e-4)
    assert abs(found["exact"].divergences).max() < 1e-5


def test_a_cache_that_yields_no_numbers_is_an_error(model: GPT, tokens: Tensor) -> None:
    class Broken(Plain):
        def dequantize(self, parts: tuple[Tensor, ...]) -> Tensor:
            return super().dequantize(parts) * math.nan

    with pytest.raises(ValueError, match="losses are not finite"):
        through(model, tokens, Broken(64))


def test_fewer_bits_do_more_harm_by_every_measure(model: GPT, tokens: Tensor) -> None:
    found = {bits: through(model, tokens, TurboQuant(64, bits)) for bits in (1, 2, 4)}
    increases = [float((q.losses - b).mean()) for b, q in found.values()]
    divergences = [float(q.divergences.mean()) for _, q in found.values()]
    agreements = [float(q.agreements.mean()) for _, q in found.values()]
    assert increases == sorted(increases, reverse=True)
    assert divergences == sorted(divergences, reverse=True)
    assert agreements == sorted(agreements)
    assert increases[0] > 0.1
    assert min(float(q.divergences.min()) for _, q in found.values()) > -1e-5
    assert set(np.unique(found[2][1].agreements)) == {0.0, 1.0}


def test_eight_bits_do_next_to_no_harm(model: GPT, tokens: Tensor) -> None:
    baseline, quality = through(model, tokens, Int8(64))
    assert abs(float((quality.losses - baseline).mean())) < 1e-3
    assert 1e-7 < float(quality.divergences.mean()) < 1e-4


# ---- attention by attention


def test_the_probe_leaves_the_model_as_it_is(model: GPT, tokens: Tensor) -> None:
    text = tokens[:WINDOW][None]
    probe = AttentionProbe(model, 1, WINDOW, {"2": empty(model, TurboQuant(64, 2))})
    with torch.inference_mode():
        assert torch.allclose(model(text, probe), model(text), atol=1e-5)
    assert float(probe.divergences["2"]) > 0
    assert float(probe.output_errors["2"]) > 0


def test_what_is_not_rounded_has_no_error_and_more_bits_have_less(
    model: GPT, tokens: Tensor
) -> None:
    codecs: dict[str, Codec] = {
        "exact": Plain(64, torch.float32),
        "4": TurboQuant(64, 4),
        "2": TurboQuant(64, 2),
        "prod": TurboQuantProd(64, 2),
    }
    caches = {name: empty(model, codec) for name, codec in codecs.items()}
    found = attention_errors(model, windows_of(tokens, WINDOW), caches, batch_size=2)
    kl = {name: np.array(errors.divergences) for name, errors in found.items()}
    output = {name: np.array(errors.output_errors) for name, errors in found.items()}
    assert all(len(values) == 3 for values in (*kl.values(), *output.values()))
    assert np.abs(kl["exact"]).max() < 1e-6
    assert output["exact"].max() < 1e-9
    for errors in (kl, output):
        assert (errors["4"] < errors["2"]).all()
        assert (errors["2"] < errors["prod"]).all()


def test_the_divergence_is_the_one_worked_out_by_hand(model: GPT) -> None:
    # Keys of 0 make attention even: KL(p ‖ even) over t keys is log t minus the entropy of p.
    class Zero(Plain):
        def dequantize(self, parts: tuple[Tensor, ...]) -> Tensor:
            return torch.zeros_like(super().dequantize(parts))

    q, k, v = torch.randn(3, 1, 4, 5, 64)
    probe = AttentionProbe(model, 1, 5, {"zero": empty(model, Zero(64, torch.float32))})
    probe.attend(0, q, k, v)
    expected = []
    for head in range(4):
        for t in range(5):
            p = (q[0, head, t].double() @ k[0, head, : t + 1].double().T / 8).softmax(0)
            expected.append(math.log(t + 1) + float((p * p.log()).sum()))
    assert float(probe.divergences["zero"]) == pytest.approx(np.mean(expected), rel=1e-4)


def test_a_codec_that_yields_no_numbers_is_an_error_of_attention(
    model: GPT, tokens: Tensor
) -> None:
    class Broken(Plain):
        def dequantize(self, parts: tuple[Tensor, ...]) -> Tensor:
            return super().dequantize(parts) * math.nan

    with pytest.raises(ValueError, match="broken: some errors of attention are not finite"):
        attention_errors(model, windows_of(tokens, WINDOW), {"broken": empty(model, Broken(64))})


def test_attention_errs_by_what_it_reads_decoded_and_not_by_what_waits(
    model: GPT, tokens: Tensor
) -> None:
    # Groups of 32 tokens: the first 32 queries read nothing decoded, a window of 32 spares 32 more.
    caches = {
        "whole": empty(model, TurboQuant(64, 2)),
        "groups": empty(model, PerChannel(64, 2)),
        "groups and window": empty(model, PerChannel(64, 2), window=32),
        "all in the window": empty(model, TurboQuant(64, 2), window=WINDOW),
    }
    found = attention_errors(model, windows_of(tokens, WINDOW), caches)
    error = {name: np.mean(errors.output_errors) for name, errors in found.items()}
    assert error["all in the window"] < 1e-9 < error["groups and window"] < error["groups"]
    assert error["groups"] < error["whole"]
    # Weights of tokens that are read both ways at once are no longer one distribution.
    assert [name for name, errors in found.items() if errors.divergences] == ["whole"]


def test_the_probe_refuses_what_is_no_whole_prompt(model: GPT) -> None:
    q, k, v = torch.randn(3, 1, 4, 2, 64)
    probe = AttentionProbe(model, 1, 4, {})
    probe.attend(0, q, k, v)
    with pytest.raises(ValueError, match="whole prompts, into an empty cache"):
        probe.attend(0, q, k, v)
