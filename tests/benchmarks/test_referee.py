"""The referee of KV formats: what it compares, and what one row finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.turboquant import best_at_three
from benchmarks.instruments.filling import PIECE, fill_by_repeating
from benchmarks.instruments.windows import Windows, windows_of
from benchmarks.referee import controls, quality, recalling, texts
from benchmarks.referee.formats import FORMATS
from benchmarks.referee.rows import (
    Row,
    bits_held,
    bytes_once,
    fits,
    one_of_each_format,
    row_of,
    rows,
    with_options,
)
from benchmarks.subjects.subject import subject_of
from reference_model.checkpoints import load_reference
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.baselines import Int8, Plain
from reference_model.quantization.calibration import calibrate
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant
from tests.benchmarks.small_models import shipped_tokens
from tests.reference_model.tiny import enlarge

FULL = Settings("full", "cpu", 0)
TOKENS = 512
OURS = Row("turboquant", 3, 3)


@pytest.fixture(scope="module")
def model() -> GPT:
    config = GPTConfig(vocab_size=50, context_length=TOKENS, n_layer=3, n_head=2, n_embd=128)
    found = GPT(config)
    enlarge(found)
    return found.eval()


def text(count: int, length: int) -> Windows:
    draws = torch.Generator().manual_seed(0)
    return windows_of(list(torch.randint(50, (count, length + 1), generator=draws)), length)


# ---- rows


def test_every_format_is_a_row_at_each_of_its_bits_and_as_its_authors_use_it() -> None:
    found = rows(64, TOKENS)
    bare = {(row.format, row.key_bits) for row in found if row.bare}
    assert bare == {(n, b) for n, each in FORMATS.items() if n != "kivi-128" for b in each.bits}
    assert not fits(FORMATS["kivi-128"], 64)
    assert fits(FORMATS["kivi-128"], 128)
    kept = {(row.format, row.sinks, row.window) for row in found if not row.bare}
    assert {
        ("kivi-32", 0, 128),
        ("kvarn", 128, 0),
        ("oscar", 64, 256),
        ("turboquant", 0, 32),
        ("turboquant", 4, 32),
    } <= kept
    assert Row("kvarn", 4, 2, sinks=128) in found
    assert len({row.name for row in found}) == len(found)
    assert all(row_of({**row.parameters, "part": "quality"}) == row for row in found)


def test_rows_of_some_bits_are_those_alone_and_options_are_the_same_for_all() -> None:
    chosen = rows(64, TOKENS, (3,))
    assert {(row.key_bits, row.value_bits) for row in chosen} == {(3, 3)}
    found = with_options(chosen, 4, 32, None)
    assert {(row.sinks, row.window, row.layers) for row in found} == {(4, 32, 0)}
    assert {row.format for row in one_of_each_format(found)} == {row.format for row in found}
    assert len(found) == len([row for row in chosen if row.bare])


def test_a_row_that_reads_nearly_nothing_decoded_is_left_out() -> None:
    of_short = {row.format for row in rows(64, 256) if row.sinks and row.format != "turboquant"}
    assert of_short == {"kvarn-tile-64"}


@pytest.mark.parametrize(
    "row",
    [
        OURS,
        Row("turboquant", 3, 3, window=32),
        Row("turboquant", 3, 3, sinks=4, window=32, layers=1),
        Row("kivi-32", 2, 2, window=128),
        Row("kvarn", 4, 2, sinks=128),
    ],
    ids=lambda row: row.name,
)
def test_the_bits_of_a_row_are_those_that_its_cache_holds(row: Row) -> None:
    config = GPTConfig(vocab_size=5, context_length=TOKENS, n_layer=3, n_head=2, n_embd=128)
    cache = next(row.caches(GPT(config).bfloat16(), TOKENS, None))(1)  # exact tokens in 16 bits
    held = []
    for length in range(1, TOKENS + 1):
        cache._lengths = [length] * 3
        held.append(8 * (cache.nbytes_used - bytes_once(cache)) / (2 * 3 * 128 * length))
    assert bits_held(cache, TOKENS) == pytest.approx(np.mean(held))


def test_layers_of_more_bits_are_the_first_and_the_last(model: GPT) -> None:
    of_keys, of_values = Row("turboquant", 3, 3, layers=1).codecs(model)
    assert [type(codec) for codec in of_keys] == [Int8, TurboQuant, Int8]
    assert of_values == of_keys


def test_times_and_peaks_are_those_of_a_cpu() -> None:
    parts = {
        device: [c.parameters["part"] for c in best_at_three.cells(Settings("full", device, 0))]
        for device in ("cpu", "cuda")
    }
    assert {*parts["cpu"]} - {*parts["cuda"]} == {"step", "peak"}
    assert parts["cuda"].count("quality") == parts["cpu"].count("quality") > 50


# ---- text


@pytest.fixture
def file(tmp_path: Path) -> Settings:
    path = tmp_path / "text"
    path.write_text(" ".join(f"word {i}" for i in range(4000)))
    return Settings("full", "cpu", 0, text=str(path))


def test_what_is_calibrated_by_is_not_compared(file: Settings) -> None:
    both = [texts.calibration_text(file), texts.compared(file)]
    used, read = ({tuple(row.tolist()) for row in each.inputs} for each in both)
    assert used
    assert not used & read
    whole = subject_of(file).windows()
    assert len(used) == -(-len(whole) // 10)
    assert len(read) == min(texts.WINDOWS, len(whole) - len(used))
    assert torch.equal(whole.inputs[: len(used)], both[0].inputs)


def test_a_text_that_is_too_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_text("word " * 600)
    with pytest.raises(UserError, match="of which the referee needs 4; use a longer text"):
        texts.compared(Settings("full", "cpu", 0, text=str(path)))


# ---- one row


def test_float32_is_equal_and_an_unsigned_hadamard_harms_keys_that_share_a_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controls, "SEEDS", 2)
    windows = windows_of(shipped_tokens()[:129], 64)
    found = controls.controls(load_reference(), windows, 2)
    for changes in found["changes"].values():
        assert max(changes.values()) < 1e-5
    assert min(found["ratios"]["q4_0"]) > 2
    assert max(found["ratios"]["turboquant"]) < 1.5


def test_texts_agree_until_the_first_token_that_differs(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generated(model: GPT, prompt: torch.Tensor, new: int, cache: Any = None) -> torch.Tensor:
        written = torch.zeros(len(prompt), new, dtype=torch.int64)
        if cache is not None:
            written[0, 1] = 1  # and the same again from there on
        return torch.cat([prompt, written], dim=1)

    monkeypatch.setattr(quality, "PROMPT", 6)
    monkeypatch.setattr(quality, "TEXTS", 3)
    monkeypatch.setattr(quality, "NEW_TOKENS", 4)
    monkeypatch.setattr(quality, "generate", generated)
    caches = {"0": lambda n: QuantizedKVCache(model, n, 16, TurboQuant(64, 3))}
    found = quality.greedy_texts(model, text(4, 12), caches, 16)
    assert found == {"until": [[0.25, 1.0, 1.0]], "windows": [0, 1, 2]}


def test_an_exact_cache_writes_the_same_texts(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "PROMPT", 6)
    monkeypatch.setattr(quality, "NEW_TOKENS", 4)
    caches = {"0": lambda n: QuantizedKVCache(model, n, 16, Plain(64, torch.float32))}
    assert quality.greedy_texts(model, text(4, 12), caches, 16)["until"] == [[1.0] * 4]


def test_predictions_are_by_seed_window_and_depth(model: GPT) -> None:
    caches = {str(i): make for i, make in enumerate(OURS.caches(model, 32, None))}
    found = quality.predictions(model, text(3, 32), caches, 2)
    losses, divergences = (np.array(found[name]) for name in ("losses", "divergences"))
    assert losses.shape == divergences.shape == (OURS.seeds, 3)
    by_depth = np.array(found["by_depth"])
    assert by_depth.shape == (8, OURS.seeds, 3)
    assert by_depth.mean(axis=0) == pytest.approx(divergences)
    assert len({*losses[:, 0]}) == OURS.seeds  # each seed has a rotation of its own


@torch.inference_mode()
@pytest.mark.parametrize("name", [*FORMATS])
def test_what_is_decoded_once_is_what_a_cache_would_decode_again(name: str) -> None:
    width = 128 if name == "kivi-128" else 64
    config = GPTConfig(vocab_size=50, context_length=256, n_layer=2, n_head=2, n_embd=2 * width)
    model = GPT(config).eval()
    enlarge(model)
    tokens = text(2, 256).inputs
    calibration = calibrate(model, [tokens]) if FORMATS[name].calibrated else None
    row = Row(name, FORMATS[name].bits[0], FORMATS[name].bits[-1], sinks=3, window=5)
    makers = [next(row.caches(model, 256, calibration, decoded=given)) for given in (False, True)]
    packed, decoded = (make(2) for make in makers)
    for piece in tokens.split([150, 1, 1, 90, 1, 13], dim=1):
        found = [model(piece, cache) for cache in (packed, decoded)]
        assert (found[0] - found[1]).abs().max() < 1e-4 * found[0].abs().max()
    assert bits_held(packed, 256) == bits_held(decoded, 256)
    assert bytes_once(packed) == bytes_once(decoded)


# ---- recall


def test_a_row_and_no_compression_are_asked_for_the_same_needles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recalling, "NEEDLE_PROMPTS", 2)
    found = [recalling.needles(row, FULL) for row in (None, Row("int8", 8, 8), OURS)]
    assert len({tuple(each["clusters"]) for each in found}) == 1
    assert [len(each["found"]) for each in found] == [len(found[0]["clusters"])] * 3
    assert found[0]["population"] == "needles in 2 pieces of the text"


def test_a_text_too_short_for_needles_is_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_text("word " * 100)
    assert recalling.needles(None, Settings("full", "cpu", 0, text=str(path))) is None


def test_the_recall_of_a_row_is_a_share_for_each_seed_and_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recalling, "PROMPTS", 2)
    (found,) = recalling.recalls(Row("int8", 8, 8), "cpu", 0)
    assert found == pytest.approx([1.0, 1.0], abs=0.02)
    assert recalling.recalls(Row("kivi-128", 3, 3), "cpu", 0) is None  # its groups are too wide


# ---- time


@torch.inference_mode()
@pytest.mark.parametrize("row", [OURS, Row("kvarn", 3, 3)], ids=lambda row: row.name)
def test_a_cache_that_is_filled_by_repeating_holds_the_same_piece_again(
    model: GPT, row: Row
) -> None:
    cache = next(row.caches(model, TOKENS, None))(1)
    fill_by_repeating(cache, model, TOKENS)
    assert cache.length == TOKENS
    for of_layer in cache.stores:
        for store in of_layer:
            decoded = store.codec.decode(store.filled(TOKENS))
            assert decoded.abs().mean() > 0.1
            assert torch.equal(decoded[..., :PIECE, :], decoded[..., PIECE:, :])
    with pytest.raises(ValueError, match="no whole number"):
        fill_by_repeating(cache, model, 300)
