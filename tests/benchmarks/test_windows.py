"""Windows that stand for a text: from all of it, and not across the border of two texts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data.assets import play_texts
from benchmarks.instruments.texts import play_windows
from benchmarks.instruments.windows import STRETCH, spread, spread_indices, windows_of

pytestmark = pytest.mark.K10


def test_no_window_and_no_stretch_reaches_from_one_text_into_the_next() -> None:
    texts = [torch.arange(1000), 5000 + torch.arange(700)]
    windows = windows_of(texts, 64)
    assert len(windows) == 999 // 64 + 699 // 64
    assert torch.equal(windows.targets, windows.inputs + 1)
    of_text = windows.inputs[:, 0] // 5000
    assert bool((of_text == windows.inputs[:, -1] // 5000).all())
    for text in (0, 1):
        inside = windows.stretches[of_text.numpy() == text]
        outside = windows.stretches[of_text.numpy() != text]
        assert not set(inside) & set(outside)


def test_a_text_is_cut_into_stretches_of_about_one_length_each() -> None:
    windows = windows_of(torch.zeros(20 * STRETCH + 1000, dtype=torch.int64), 256)
    _, sizes = np.unique(windows.stretches, return_counts=True)
    assert len(sizes) == 20
    assert set(sizes) <= {16, 17}
    assert (np.diff(windows.stretches) >= 0).all()


def test_windows_are_spread_over_all_of_a_text_and_each_is_as_likely_as_any_other() -> None:
    drawn = np.array([spread_indices(215, 40, seed) for seed in range(2000)])
    assert drawn.min() == 0
    assert drawn.max() == 214
    assert (np.diff(drawn, axis=1) > 0).all()
    # One in each piece of five or six windows.
    assert np.diff(drawn, axis=1).max() < 2 * 6
    often = np.bincount(drawn.ravel(), minlength=215) / 2000
    assert np.abs(often - 40 / 215).max() < 0.04


def test_a_sample_is_the_same_for_the_same_seed_and_everything_where_all_is_asked_for() -> None:
    windows = windows_of(torch.arange(1000), 10)
    first, again, other = (spread(windows, 30, seed) for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    assert spread(windows, None, 0) is windows
    assert spread(windows, 99, 0) is windows


def test_every_play_has_its_share_of_a_sample() -> None:
    names = list(play_texts("test"))
    everything = play_windows("test", 512)
    some = play_windows("test", 512, 40)
    starts = {tuple(window.tolist()): at for at, window in enumerate(everything.inputs)}
    places = np.array([starts[tuple(window.tolist())] for window in some.inputs])
    assert len(names) == 3
    assert some.population == "the text of 3 plays"
    # A third of 40 windows lies in each third of the text, and most of its 27 stretches have one.
    assert np.bincount(places * 3 // len(everything)).tolist() == pytest.approx([13.3] * 3, abs=2)
    assert len(set(some.stretches)) >= 22
    assert everything.stretches.max() == 26


def test_a_mean_over_windows_says_what_it_speaks_of() -> None:
    windows = windows_of([torch.arange(40)] * 6, 13, "six counts")
    found = windows.mean(np.arange(18.0))
    assert (found.n, found.population) == (6, "six counts")
    crossed = windows.crossed_mean(np.arange(54.0).reshape(3, 18))
    assert (crossed.n, crossed.population) == (3, "six counts")


def test_texts_that_fill_no_window_are_an_error() -> None:
    with pytest.raises(ValueError, match="12 tokens do not fill a window of 20 and its target"):
        windows_of([torch.arange(8), torch.arange(12)], 20)


def test_no_experiment_takes_the_start_of_a_text_for_the_text(root: Path) -> None:
    prefix = re.compile(r"tokens\(\"\w+\"\)\[|play_texts\(\"\w+\"\)\.values\(\)\)\)")
    sources = {path: path.read_text(encoding="utf-8") for path in root.glob("benchmarks/**/*.py")}
    assert prefix.search('reference_tokens("test")[: 40 * 512 + 1]')
    found = {path.name for path, text in sources.items() if prefix.search(text)}
    # The slice that ships with the checkpoint proves its loss, and stands for no text.
    assert found <= {"train_reference.py"}
