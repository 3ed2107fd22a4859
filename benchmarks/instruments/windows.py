"""Windows of text: drawn from all of it where some stand for it, and neighbours are known.

Neighbouring windows are alike (the differences that INT8 makes in windows of 512 tokens correlate
by a third), so an interval over windows has to know which of them stood together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from benchmarks.judging.stats import Estimate, clustered_mean_interval, crossed_mean_interval

# Tokens, about a scene of a play: `experiments/interval_coverage.py` shows that it is enough.
STRETCH = 4096
RESAMPLES = 10_000


@dataclass(frozen=True)
class Windows:
    """Pieces of one text or several, in their order; none reaches from one text into the next."""

    inputs: Tensor  # (windows, T)
    targets: Tensor  # (windows, T), after each input the token that follows it in its text
    stretches: NDArray[np.int64]  # (windows,) number of the stretch of text that each lies in
    population: str  # what an interval over them speaks of

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Windows:
        at = torch.from_numpy(chosen)
        return Windows(self.inputs[at], self.targets[at], self.stretches[chosen], self.population)

    def batches(self, size: int, device: torch.device | str) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, (B, T) each, on ``device``."""
        both = zip(self.inputs.split(size), self.targets.split(size), strict=True)
        return ((x.to(device), y.to(device)) for x, y in both)

    def mean(self, values: ArrayLike) -> Estimate:
        """Mean over the text of ``values``: (windows,), or (windows, values) of each window."""
        return clustered_mean_interval(values, self.stretches).of(self.population)

    def ratio_of_means(self, numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
        """Mean of ``numerators`` over that of ``denominators``, (windows,) each and paired.

        The interval is made of percentiles over resampled stretches, the same ones for both.
        """
        pair = np.array([numerators, denominators], np.float64)
        above, below = self.resampled_means(pair, RESAMPLES)
        low, high = np.percentile(above / below, (2.5, 97.5))
        value, n = pair[0].mean() / pair[1].mean(), len(np.unique(self.stretches))
        return Estimate(float(value), (float(low), float(high)), n, self.population)

    def resampled_means(
        self, rows: NDArray[np.float64], resamples: int, seed: int = 0
    ) -> NDArray[np.float64]:
        """Means of ``rows`` (rows, windows) over stretches drawn with replacement, for all alike.

        (rows, resamples), after Efron's bootstrap, of clusters.
        """
        _, stretches, sizes = np.unique(self.stretches, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(stretches, row) for row in rows])  # (rows, stretches)
        n = len(sizes)
        drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
        means: NDArray[np.float64] = sums[:, drawn].sum(axis=-1) / sizes[drawn].sum(axis=-1)
        return means

    def crossed_mean(self, values: ArrayLike) -> Estimate:
        """Mean of ``values`` (seeds, windows): of the text, and of what the seeds draw."""
        return crossed_mean_interval(values, self.stretches).of(self.population)


def windows_of(texts: Tensor | Sequence[Tensor], window: int, population: str = "") -> Windows:
    """All windows of token ids (N,) of one text, or of several: (windows, window).

    Window i of a text predicts tokens[i*window + 1 : (i+1)*window + 1] from
    tokens[i*window : (i+1)*window]; a remainder that fills no window is left out. Each text is cut
    into stretches of about `STRETCH` tokens. Raises ValueError where no text fills a window.
    """
    inputs, targets, stretches, before = [], [], [], 0
    for tokens in (texts,) if isinstance(texts, Tensor) else texts:
        count = max(0, (len(tokens) - 1) // window)
        inputs.append(tokens[: count * window].view(count, window))
        targets.append(tokens[1 : count * window + 1].view(count, window))
        parts = max(1, round(count * window / STRETCH))
        stretches.append(before + np.arange(count) * parts // max(1, count))
        before += parts
    if not sum(map(len, inputs)):
        longest = max(map(len, texts if not isinstance(texts, Tensor) else [texts]))
        raise ValueError(f"{longest} tokens do not fill a window of {window} and its target")
    return Windows(torch.cat(inputs), torch.cat(targets), np.concatenate(stretches), population)


def spread(windows: Windows, count: int | None, seed: int) -> Windows:
    """``count`` of the windows, from all over them; all, where there are no more or None is asked.

    The text is cut into so many pieces, and of each piece one window is drawn (a stratified sample:
    Cochran, Sampling Techniques, chapter 5). So each window is as likely as any other to be in it,
    and every text has its share. Every n-th window would do worse: what happens to return in the
    text at that pace is then read everywhere or nowhere.
    """
    if count is None or count >= len(windows):
        return windows
    return windows[spread_indices(len(windows), count, seed)]


def spread_indices(of: int, count: int, seed: int) -> NDArray[np.int64]:
    """Which ``count`` of so many `spread` takes, in their order."""
    generator = np.random.default_rng(seed)
    sizes = np.full(count, of // count)
    sizes[generator.permutation(count)[: of % count]] += 1  # pieces differ by one window at most
    return np.cumsum(sizes) - sizes + generator.integers(sizes)
