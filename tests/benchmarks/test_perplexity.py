"""The loss of a model on held-out text, against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.instruments.perplexity import (
    bits_per_byte,
    held_out_loss,
    loss_difference,
    token_losses,
)
from reference_model.checkpoints import REFERENCE_FOLDER, load_reference, reference_card
from reference_model.config import preset

VOCABULARY = 7


class Bigram(nn.Module):
    """Predicts the next token from the last one alone, by a table of logits."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]  # (B, T, V)


def text(length: int) -> Tensor:
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(1))


def test_a_model_that_knows_nothing_pays_the_log_of_the_vocabulary() -> None:
    losses = token_losses(Bigram(torch.zeros(VOCABULARY, VOCABULARY)), text(41), window=10)
    assert losses.shape == (4, 10)
    assert losses == pytest.approx(math.log(VOCABULARY))


def test_every_token_is_predicted_from_the_one_before_it_in_the_text() -> None:
    table = torch.randn(VOCABULARY, VOCABULARY, dtype=torch.float64)
    tokens = text(33)
    losses = token_losses(Bigram(table), tokens, window=8, batch_size=3)
    expected = -table.log_softmax(-1)[tokens[:-1], tokens[1:]]
    assert losses.ravel() == pytest.approx(expected.numpy(), abs=1e-12)


@pytest.mark.parametrize(("length", "windows"), [(9, 1), (16, 1), (17, 2), (40, 4)])
def test_a_remainder_that_fills_no_window_is_left_out(length: int, windows: int) -> None:
    losses = token_losses(Bigram(torch.zeros(VOCABULARY, VOCABULARY)), text(length), window=8)
    assert losses.shape == (windows, 8)


def test_a_text_shorter_than_a_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="8 tokens do not fill a window of 8"):
        token_losses(Bigram(torch.zeros(VOCABULARY, VOCABULARY)), text(8), window=8)


def test_a_loss_that_is_not_a_number_is_an_error() -> None:
    table = torch.zeros(VOCABULARY, VOCABULARY)
    table[3] = math.nan
    with pytest.raises(ValueError, match="losses are not finite"):
        token_losses(Bigram(table), text(41), window=10)


def test_half_precision_logits_are_summed_in_float32() -> None:
    table = torch.randn(VOCABULARY, VOCABULARY).half()
    exact = token_losses(Bigram(table.double()), text(41), window=10)
    assert token_losses(Bigram(table), text(41), window=10) == pytest.approx(exact, abs=1e-6)


def test_dropout_is_off_while_measuring_and_on_again_afterwards() -> None:
    model = nn.Sequential(Bigram(torch.randn(VOCABULARY, VOCABULARY)), nn.Dropout(0.5)).train()
    first = token_losses(model, text(41), window=10)
    assert (token_losses(model, text(41), window=10) == first).all()
    assert model.training


def test_a_known_damage_is_found_and_no_damage_is_exactly_none() -> None:
    table = torch.randn(VOCABULARY, VOCABULARY)
    tokens = text(1001)
    baseline = token_losses(Bigram(table), tokens, window=10)
    flattened = token_losses(Bigram(table * 0.9), tokens, window=10)
    increase = loss_difference(flattened, baseline)
    assert increase.value == pytest.approx((flattened - baseline).mean())
    assert increase.interval[0] < increase.value < increase.interval[1]
    assert increase.n == 100
    none = loss_difference(baseline, baseline.copy())
    assert (none.value, none.interval) == (0, (0, 0))


def test_the_held_out_loss_is_the_mean_and_its_observations_are_windows() -> None:
    losses = np.random.default_rng(1).normal(2, 0.1, size=(30, 5))
    estimate = held_out_loss(losses)
    assert estimate.value == pytest.approx(losses.mean())
    assert estimate.n == 30


def test_a_uniform_guess_among_256_bytes_costs_eight_bits_a_byte() -> None:
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)


def test_losses_token_by_token_have_the_mean_that_the_card_states() -> None:
    card = reference_card()
    tokens = load_file(REFERENCE_FOLDER / card["test_slice"]["file"])["tokens"].long()
    losses = token_losses(load_reference(), tokens, preset("reference").context_length)
    assert losses.mean() == pytest.approx(card["test_slice"]["loss"], abs=1e-5)
