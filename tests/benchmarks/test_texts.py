"""The plays as tokens: windows that together are the text, each time cut elsewhere."""

from __future__ import annotations

import torch

from benchmarks.data.assets import play_texts
from benchmarks.instruments.texts import encode, joined, reference_tokens, shuffled_windows
from reference_model.checkpoints import reference_tokenizer


def test_a_split_is_its_plays_one_after_the_other() -> None:
    plays = list(play_texts("test").values())
    assert joined("test").split("\n" + plays[1])[0] == plays[0]
    assert len(joined("test")) == sum(map(len, plays)) + len(plays) - 1


def test_the_tokens_of_a_split_spell_its_text() -> None:
    tokenizer = reference_tokenizer()
    assert tokenizer.decode(reference_tokens("test").tolist()) == joined("test")
    assert encode(tokenizer, "a b").dtype == torch.int64


def test_an_epoch_shows_each_token_once_and_the_next_one_cuts_elsewhere() -> None:
    batches = shuffled_windows(torch.arange(101), window=10, batch_size=3, seed=0)
    epochs = [torch.cat([batches(3 * epoch + step) for step in range(3)]) for epoch in range(2)]
    for windows in epochs:
        assert windows.shape == (9, 11)
        assert bool((windows.diff(dim=1) == 1).all())  # inputs, and each one's target after it
        assert len(set(windows[:, :-1].flatten().tolist())) == 90
    first, second = (int(windows[0, 0]) % 10 for windows in epochs)
    assert first != second
    assert epochs[0][:, 0].tolist() != sorted(epochs[0][:, 0].tolist())


def test_a_batch_is_a_function_of_the_step_and_the_seed() -> None:
    batches, again, other = (
        shuffled_windows(torch.arange(101), window=10, batch_size=3, seed=seed)
        for seed in (0, 0, 1)
    )
    later = batches(4)
    assert torch.equal(again(4), later)
    assert not torch.equal(other(4), later)
