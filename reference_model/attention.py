"""Softmax attention of queries over keys and values: over all at once, or piece by piece."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_model.workspace import Workspace

# What is worked on together on a CPU: numbers of keys (as many of values), and scores. Few enough
# to stay in its caches, and enough that the time does not go into calling operators.
KEYS_AT_ONCE, SCORES_AT_ONCE = 3 * 2**19, 2**20
QUERIES_AT_ONCE = 256  # decoding what so many read is little work beside reading it
PIECES_ALIKE = 4  # whose scores are there before their softmax
TOKENS_APART = 32  # sizes of pieces, so that a text of one token more seldom has others

KEYS, VALUES = 0, 1


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q (B, H, T, D) over k, v (B, G, S, D) → (B, H, T, D); H/G heads share each.

    Query head h reads key head h // (H/G), as in published models. mask (T, S) or (H, T, S),
    boolean or added to the scores. Without one there is one new token, which may see everything, or
    no past, and each token sees itself and those before it.
    """
    causal, grouped = mask is None and q.shape[-2] > 1, k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )


class Run(NamedTuple):
    """Pieces of ``size`` tokens each, one behind the other."""

    start: int
    size: int
    pieces: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.start + self.size * self.pieces)


class Source(Protocol):
    """Keys and values that are held in one way, in two factors: levels, and scales if there are."""

    groups: int  # G
    block: int  # tokens that are read together

    def seen(self, query: int) -> tuple[int, int]:
        """First and last + 1 of the tokens that this query may read; both rise with it."""

    def levels(self, which: int, run: Run) -> Iterable[Tensor]:
        """`KEYS` or `VALUES` of each piece, (B, G, size, D), valid until the next is asked for."""

    def scales(self, which: int, tokens: slice) -> Tensor | None:
        """What their levels are to be multiplied by, (B, G, tokens, 1)."""


@torch.no_grad()
def attend_in_pieces(
    q: Tensor,
    sources: Sequence[Source],
    mask: Tensor | None,
    workspace: Workspace,
    capacity: int,
) -> Tensor:
    """q (B, H, T, D) over all that the sources hold → (B, H, T, D).

    Nothing that it computes is as long as what they hold, and no gradient is kept. A query reads
    what `Source.seen` tells, but for what a mask hides, which is one of `attend`.
    """
    B, H, T, D = q.shape
    if q.device.type == "cpu":
        rows = max(1, min(T, QUERIES_AT_ONCE, SCORES_AT_ONCE // (32 * B * H)))
        keys = KEYS_AT_ONCE // (B * sources[0].groups * D)
        size = max(1, min(keys, SCORES_AT_ONCE // (B * H * rows)))
        alike = max(1, min(PIECES_ALIKE, SCORES_AT_ONCE // (B * H * rows * size)))
    else:  # all that one block of queries reads
        rows, size, alike = min(T, QUERIES_AT_ONCE), 2**62, 1
    workspace.room = min(size, capacity)
    # A softmax of base 2 of scores that are log₂ e times as large is the same, and faster.
    q = q * (math.log2(math.e) / math.sqrt(D))
    found = []
    for start in range(0, T, rows):
        block = slice(start, min(start + rows, T))
        runs = ((source, run) for source in sources for run in _runs(source, block, size, alike))
        of_block = None if mask is None else mask[..., block, :]
        found.append(_attend(q[:, :, block], block, runs, of_block, workspace))
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def _runs(source: Source, block: slice, size: int, alike: int) -> Iterator[Run]:
    """All that some query of the block may read, in as few pieces as can be; all but one alike."""
    start, end = source.seen(block.start)[0], source.seen(block.stop - 1)[1]
    if start == end:
        return
    count = math.ceil((end - start) / max(source.block, size // source.block * source.block))
    even = math.ceil((end - start) / count)
    step = math.lcm(source.block, TOKENS_APART) if even > 4 * TOKENS_APART else source.block
    even = math.ceil(even / step) * step
    whole, rest = divmod(end - start, even)
    for first in range(0, whole, alike):
        yield Run(start + first * even, even, min(alike, whole - first))
    if rest:
        yield Run(end - rest, rest, 1)


def _attend(
    q: Tensor,
    block: slice,
    runs: Iterable[tuple[Source, Run]],
    mask: Tensor | None,
    workspace: Workspace,
) -> Tensor:
    """The softmax is carried along from run to run (Milakov and Gimelshein, 1805.02867)."""
    carried: tuple[Tensor, Tensor, Tensor] | None = None  # largest score, sum of weights, of values
    for source, run in runs:
        # The heads that share keys, H/G of them, stand where more queries of one head would.
        queries = q.reshape(q.shape[0] * source.groups, -1, q.shape[-1])
        shape = run.pieces, *queries.shape[:2], run.size
        scores = workspace.empty("scores", *shape, dtype=q.dtype)
        for into, keys in zip(scores, source.levels(KEYS, run), strict=True):
            torch.bmm(queries, keys.flatten(0, 1).mT, out=into)
        _scale(scores, source.scales(KEYS, run.tokens), workspace)
        given = None if mask is None else mask[..., run.tokens]
        for hiding in (given, _readable(source, run.tokens, block, q.device)):
            if hiding is not None:
                _hide(scores.view(run.pieces, *q.shape[:3], run.size), hiding)
        # Where nothing may be seen, −∞ could not be taken off.
        top = scores.amax((0, 3), keepdim=True).clamp_(min=torch.finfo(q.dtype).min)
        if carried is not None:
            top = torch.maximum(top, carried[0])
        weights = scores.sub_(top).exp2_()
        total = weights.sum((0, 3), keepdim=True)
        if carried is None:
            y = torch.zeros_like(queries)
        else:
            fading = carried[0].sub_(top).exp2_()
            total.addcmul_(carried[1], fading)
            y = carried[2].mul_(fading[0])
        _scale(weights, source.scales(VALUES, run.tokens), workspace)
        for of_piece, values in zip(weights, source.levels(VALUES, run), strict=True):
            y.baddbmm_(of_piece, values.flatten(0, 1))
        carried = top, total, y
    assert carried is not None  # a token reads itself
    return (carried[2] / carried[1][0]).view(q.shape)


def _scale(scores: Tensor, scales: Tensor | None, workspace: Workspace) -> None:
    """Multiply scores or weights (pieces, B·G, rows, size) by the scales (B, G, tokens, 1)."""
    if scales is not None:
        count, heads, _, size = scores.shape
        of_pieces = scales.reshape(heads, count, 1, size).transpose(0, 1)
        scores *= workspace.empty("scales", *of_pieces.shape, dtype=scores.dtype).copy_(of_pieces)


def _readable(source: Source, tokens: slice, block: slice, device: torch.device) -> Tensor | None:
    """Which of the tokens each query of the block may read, (T, tokens); None: all of them."""
    last, first = source.seen(block.stop - 1), source.seen(block.start)
    if last[0] <= tokens.start and tokens.stop <= first[1]:
        return None
    seen = torch.tensor([source.seen(n) for n in range(block.start, block.stop)], device=device)
    token = torch.arange(tokens.start, tokens.stop, device=device)
    return (token >= seen[:, :1]) & (token < seen[:, 1:])


def _hide(scores: Tensor, mask: Tensor) -> None:
    """What a mask (…, T, tokens) hides from scores (pieces, B, H, T, size), or adds to them."""
    if mask.dtype == torch.bool and mask.device.type == "cpu" and mask.all():
        return  # as over most of a long past
    of_pieces = mask.unflatten(-1, (len(scores), -1)).movedim(-2, 0)  # (pieces, …, T, size)
    of_pieces = of_pieces[:, None] if mask.ndim == 3 else of_pieces[:, None, None]
    if mask.dtype == torch.bool:
        scores.masked_fill_(~of_pieces, -torch.inf)
    else:
        scores.add_(of_pieces, alpha=math.log2(math.e))
