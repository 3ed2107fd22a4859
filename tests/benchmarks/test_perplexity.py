"""The loss of a model on held-out text, against cases whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.instruments.perplexity import bits_per_byte, token_losses
from benchmarks.instruments.windows import windows_of
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


def test_a_large_vocabulary_is_added_up_as_float64_would() -> None:
    draws = torch.Generator().manual_seed(2)
    logits = 4 * torch.randn(VOCABULARY, 50_000, generator=draws)
    windows = windows_of(text(41), 10)
    exact = Bigram(logits.double())(windows.inputs).log_softmax(-1)
    expected = -exact.gather(-1, windows.targets[..., None])[..., 0]
    errors = token_losses(Bigram(logits), windows) - expected.detach().numpy()
    assert abs(errors).max() < 2e-5  # with strides in between it is 1e-4
    assert abs(errors.mean()) < 5e-6


def test_a_model_that_knows_nothing_pays_the_log_of_the_vocabulary() -> None:
    losses = token_losses(Bigram(torch.zeros(VOCABULARY, VOCABULARY)), windows_of(text(41), 10))
    assert losses.shape == (4, 10)
    assert losses == pytest.approx(math.log(VOCABULARY))


def test_every_token_is_predicted_from_the_one_before_it_in_the_text() -> None:
    table = torch.randn(VOCABULARY, VOCABULARY, dtype=torch.float64)
    tokens = text(33)
    losses = token_losses(Bigram(table), windows_of(tokens, 8), batch_size=3)
    expected = -table.log_softmax(-1)[tokens[:-1], tokens[1:]]
    assert losses.ravel() == pytest.approx(expected.numpy(), abs=1e-12)


@pytest.mark.parametrize(("length", "windows"), [(9, 1), (16, 1), (17, 2), (40, 4)])
def test_a_remainder_that_fills_no_window_is_left_out(length: int, windows: int) -> None:
    losses = token_losses(Bigram(torch.zeros(VOCABULARY, VOCABULARY)), windows_of(text(length), 8))
    assert losses.shape == (windows, 8)


def test_a_text_shorter_than_a_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="8 tokens do not fill a window of 8"):
        token_losses(Bigram(torch.zeros(VOCABULARY, VOCABULARY)), windows_of(text(8), 8))


def test_a_loss_that_is_not_a_number_is_an_error() -> None:
    table = torch.zeros(VOCABULARY, VOCABULARY)
    table[3] = math.nan
    with pytest.raises(ValueError, match="losses are not finite"):
        token_losses(Bigram(table), windows_of(text(41), 10))


def test_half_precision_logits_are_summed_in_float32() -> None:
    table = torch.randn(VOCABULARY, VOCABULARY).half()
    exact = token_losses(Bigram(table.double()), windows_of(text(41), 10))
    assert token_losses(Bigram(table), windows_of(text(41), 10)) == pytest.approx(exact, abs=1e-6)


def test_dropout_is_off_while_measuring_and_on_again_afterwards() -> None:
    model = nn.Sequential(Bigram(torch.randn(VOCABULARY, VOCABULARY)), nn.Dropout(0.5)).train()
    first = token_losses(model, windows_of(text(41), 10))
    assert (token_losses(model, windows_of(text(41), 10)) == first).all()
    assert model.training


def test_a_known_damage_is_found_and_no_damage_is_exactly_none() -> None:
    table = torch.randn(VOCABULARY, VOCABULARY)
    windows = windows_of([text(1001)[at : at + 51] for at in range(0, 1000, 50)], 10)
    baseline = token_losses(Bigram(table), windows)
    flattened = token_losses(Bigram(table * 0.9), windows)
    increase = windows.mean(flattened - baseline)
    assert increase.value == pytest.approx((flattened - baseline).mean())
    assert increase.interval[0] < increase.value < increase.interval[1]
    none = windows.mean(baseline - baseline.copy())
    assert (none.value, none.interval) == (0, (0, 0))


def test_a_uniform_guess_among_256_bytes_costs_eight_bits_a_byte() -> None:
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)


def test_losses_token_by_token_have_the_mean_that_the_card_states() -> None:
    card = reference_card()
    tokens = load_file(REFERENCE_FOLDER / card["test_slice"]["file"])["tokens"].long()
    losses = token_losses(load_reference(), windows_of(tokens, preset("reference").context_length))
    assert losses.mean() == pytest.approx(card["test_slice"]["loss"], abs=1e-5)
