"""The task of copying from a distance: what it asks, and who can do it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.instruments import copy_task
from benchmarks.instruments.copy_task import DISTANCE, LENGTH, SYMBOLS, measure, right, sequences
from benchmarks.instruments.trained_models import config_of
from benchmarks.subjects.built import Model

HERE = Settings("full", "cpu", 0)


class Copier(Model):
    """Names what stood DISTANCE pairs before, as far back as it can see."""

    sees = LENGTH

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        before = torch.roll(tokens, 2 * DISTANCE, dims=1)
        before[:, self.sees :] = 0
        return torch.nn.functional.one_hot(before, SYMBOLS).float()


def test_an_answer_is_the_token_so_many_pairs_before_and_nothing_else_tells_it() -> None:
    tokens = sequences(500, LENGTH, seed=3)
    assert tokens.shape == (500, LENGTH + 1)
    drawn, answers = tokens[:, :-1:2], tokens[:, 1::2]
    assert torch.equal(answers[:, DISTANCE:], drawn[:, :-DISTANCE])
    for off in (1, 2, 3, 5, 6):
        same = (answers[:, off:] == drawn[:, :-off]).float().mean()
        assert same == pytest.approx(1 / SYMBOLS, abs=0.02), off
    assert not torch.equal(tokens, sequences(500, LENGTH, seed=3, step=1))


@pytest.mark.parametrize(("ratio", "sees", "share"), [
    (1, LENGTH, 1.0),
    (2, 2 * LENGTH, 1.0),
    (2, LENGTH, 1 / SYMBOLS),  # what lies within the trained length does not count
])  # fmt: skip
def test_the_share_of_answers_is_that_of_those_beyond(ratio: int, sees: int, share: float) -> None:
    model = Copier(config_of("rope").replace(vocab_size=SYMBOLS))
    model.sees = sees
    assert right(model, ratio, seed=5) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("option", "ratios"), [("rope", ["1", "2", "4"]), ("baseline", ["1"])])
def test_a_cell_finds_a_share_for_every_length_that_can_be_read(
    option: str, ratios: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_task, "STEPS", 4)
    monkeypatch.setattr(copy_task, "JUDGED", 4)
    found = [measure(HERE, option, 7) for _ in range(2)]
    assert found[0] == found[1]
    assert list(found[0]["right"]) == ratios
    assert found[0]["rate"] in copy_task.RATES
