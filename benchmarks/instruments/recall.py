"""Whether a model finds again what stands in its text, through any cache.

Two kinds of prompts. Associative recall (Zoology, 2312.04927): random pairs of a key and a value,
then keys again, each of which asks for its value; of a small model that was trained for it. Needles
(RULER, 2404.06654): a few random tokens each, planted at random depths of the held-out text, whose
first tokens stand again at the end; of any model that is built here. No prompt holds an answer
twice before it is asked for, and nothing but the needle says what it is.

>>> prompts = needle_prompts(subject, 20, seed=0)
>>> exact = recalled(model, prompts, sixteen_bits(model, prompts))
>>> found = recalled(model, prompts, lambda n: QuantizedKVCache(model, n, prompts.length, codec))
>>> points_lost(prompts, exact, [found], exact)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.instruments.windows import spread, windows_of
from benchmarks.judging.stats import Estimate, crossed_mean_interval, scaled
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import Subject
from reference_model.checkpoints import load
from reference_model.errors import UserError
from reference_model.quantization.baselines import Plain
from reference_model.quantization.kv_cache import QuantizedKVCache

Caches = Callable[[int], Any]  # what makes an empty cache for so many sequences
Found = NDArray[np.bool_]  # (prompts, asks), whether each answer was found

RECALL_MODEL = Path(__file__).with_name("recall_model")
RECALL_DIGEST = "02131ca3feed0643"  # of its tensors: results rest on them as on code
KEYS, VALUES = 256, 256  # of the vocabulary: keys first, then values
PAIRS, ASKS = 256, 64  # of a prompt: the keys that are asked for are drawn from all over it

NEEDLE_CONTEXT = 2048  # tokens of a prompt at most
TOKENS_A_NEEDLE = 128  # so many needles that each has as many tokens of a prompt
GIVEN, ANSWERED = 3, 3  # tokens of a needle that stand again at the end, and that shall follow

TOKENS_AT_ONCE = 4096  # read side by side, of all prompts of a batch
PIECE = 512  # tokens of a prompt at once: their logits are what fills memory


@dataclass(frozen=True)
class Prompts:
    """Prompts of one length. Where it asks, a prompt goes on with the answer, given or not.

    ``tokens`` (prompts, T) are int64 ids; ``asked`` (prompts, asks) the positions after which an
    answer of ``answered`` tokens stands. ``clusters`` (prompts,): those of one number are alike.
    """

    tokens: Tensor
    asked: Tensor
    answered: int
    clusters: NDArray[np.int64]
    population: str  # what an interval over them speaks of

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, chosen: slice) -> Prompts:
        tokens, asked, clusters = self.tokens[chosen], self.asked[chosen], self.clusters[chosen]
        return Prompts(tokens, asked, self.answered, clusters, self.population)

    @property
    def length(self) -> int:
        """Tokens that are read, and that a cache must hold: all but the last, an answer's."""
        return self.tokens.shape[1] - 1

    @property
    def answers(self) -> Tensor:
        """(prompts, asks, answered)."""
        return _following(self.tokens, self.asked + 1, self.answered)


def _following(rows: Tensor, at: Tensor, count: int) -> Tensor:
    """From each position ``at`` (B, A) on, ``count`` numbers of that row (B, T): (B, A, count)."""
    places = at[..., None] + torch.arange(count, device=at.device)
    return rows.gather(1, places.flatten(1)).view(places.shape)


@torch.inference_mode()
def recalled(model: Model, prompts: Prompts, make_cache: Caches | None) -> Found:
    """Which answers are the model's likeliest tokens: all tokens of one, each after the true ones.

    Through caches that ``make_cache`` makes, for `Prompts.length` tokens; None: without one.
    """
    device = model.wte.weight.device
    tokens, asked = prompts.tokens[:, :-1].to(device), prompts.asked.to(device)
    size = max(1, TOKENS_AT_ONCE // prompts.length)
    likeliest = []
    for rows in tokens.split(size):
        cache = None if make_cache is None else make_cache(len(rows))
        pieces = [rows] if cache is None else rows.split(PIECE, dim=1)
        read = [model(piece, cache).argmax(-1) for piece in pieces]
        likeliest.append(torch.cat(read, dim=1))
    predicted = _following(torch.cat(likeliest), asked, prompts.answered)
    found: Found = (predicted == prompts.answers.to(device)).all(-1).cpu().numpy()
    return found


def sixteen_bits(model: Model, prompts: Prompts) -> Caches:
    """Caches of keys and values in float16: what compressed ones are compared with."""
    codec = Plain(model.config.d_head, torch.float16)
    return partial(_empty, model, prompts.length, codec)


def _empty(model: Model, capacity: int, codec: Plain, batch_size: int) -> QuantizedKVCache:
    return QuantizedKVCache(model, batch_size, capacity, codec)


def points_lost(
    prompts: Prompts, exact: Found, found: Sequence[Found], counted: Found | None = None
) -> Estimate:
    """How many points of the answers are found less often than by ``exact``; negative: more often.

    ``found`` is one for each seed of what a codec draws; the interval is over prompts and seeds.
    ``counted``: of which answers alone, such as those that are found without compression. Raises
    ValueError where there are none.
    """
    counted = np.ones_like(exact) if counted is None else counted
    if not counted.any():
        raise ValueError("no answer counts, so that none can be lost")
    lost = [exact[counted].astype(np.float64) - each[counted] for each in found]
    clusters = np.repeat(prompts.clusters[:, None], exact.shape[1], axis=1)[counted]
    return scaled(crossed_mean_interval(lost, clusters).of(prompts.population), 100)


# ---- associative recall


def recall_model(dtype: torch.dtype = torch.float32) -> Model:
    """The shipped model that was trained to recall (`benchmarks.training.train_recall`).

    Raises `UserError` where it is not the one that RECALL_DIGEST tells.
    """
    model = load(RECALL_MODEL)
    if (found := digest_of(model)) != RECALL_DIGEST:
        raise UserError(
            f"{RECALL_MODEL} holds another model (digest {found}, not {RECALL_DIGEST}); restore it "
            "with git, or set RECALL_DIGEST where it was trained anew"
        )
    return model.to(dtype)


def digest_of(model: Model) -> str:
    """The start of the SHA-256 of a model's tensors in float32."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def recall_prompts(count: int, seed: int, pairs: int = PAIRS, asks: int = ASKS) -> Prompts:
    """So many prompts of random ``pairs``, of whose keys ``asks`` are asked for.

    Keys and values are drawn without replacement: no value stands twice before it is asked for.
    """
    if not 1 <= asks <= pairs <= min(KEYS, VALUES):
        raise UserError(
            f"a prompt of {pairs} pairs cannot ask for {asks}; use 1 to {min(KEYS, VALUES)} pairs, "
            "and no more questions"
        )
    generator = torch.Generator().manual_seed(seed)
    keys = _drawn(count, KEYS, generator)[:, :pairs]
    values = _drawn(count, VALUES, generator)[:, :pairs] + KEYS
    asked = _drawn(count, pairs, generator)[:, :asks]
    told = torch.stack((keys, values), dim=2).flatten(1)
    again = torch.stack((keys.gather(1, asked), values.gather(1, asked)), dim=2).flatten(1)
    at = 2 * pairs + 2 * torch.arange(asks).expand(count, -1)
    population = "prompts of random pairs"
    return Prompts(torch.cat((told, again), dim=1), at, 1, np.arange(count), population)


def _drawn(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """0 … count − 1 in a random order, for each row."""
    return torch.rand(rows, count, generator=generator).argsort(dim=1)


# ---- needles


def needle_prompts(subject: Subject, count: int, seed: int) -> Prompts:
    """So many prompts as long as the subject's context, of NEEDLE_CONTEXT tokens at most.

    Pieces of its text with needles of GIVEN + ANSWERED tokens; at the end each of them is asked
    for, in another order. Their tokens are among those of the text, but stand nowhere else in the
    prompt. Fewer prompts where the text has no more. Raises `UserError` where it has too few
    different tokens, or is too short for one prompt.
    """
    length = min(subject.context, NEEDLE_CONTEXT)
    needles = max(1, length // TOKENS_A_NEEDLE)
    room = length - 2 * needles * (GIVEN + ANSWERED)
    tokens = subject.tokens().cpu()
    if room < 1 or len(tokens) <= room:
        raise UserError(
            f"needles need {room} tokens of text in a context of {length}, received "
            f"{len(tokens)}; use a longer text, or a model with a longer context"
        )
    windows = spread(windows_of(tokens, room), count, seed)
    generator = torch.Generator().manual_seed(seed)
    vocabulary = tokens.unique()
    planted = [_planted(text, needles, vocabulary, generator) for text in windows.inputs]
    rows, asked = zip(*planted, strict=True)
    population = f"needles in {len(windows)} pieces of the text"
    return Prompts(torch.stack(rows), torch.stack(asked), ANSWERED, windows.stretches, population)


def _planted(
    text: Tensor, needles: int, vocabulary: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One prompt (T,), and where it asks (needles,)."""
    each = GIVEN + ANSWERED
    unused = vocabulary[~torch.isin(vocabulary, text)]
    if len(unused) < needles * each:
        raise UserError(
            f"needles need {needles * each} tokens that a piece of {len(text)} lacks, and the "
            f"text has {len(unused)}; use a longer text"
        )
    drawn = unused[torch.randperm(len(unused), generator=generator)]
    chosen = drawn[: needles * each].view(needles, each)
    depths = torch.randint(len(text) + 1, (needles,), generator=generator).sort().values
    *before, rest = text.tensor_split(depths)
    with_needles = [part for pair in zip(before, chosen, strict=True) for part in pair]
    order = torch.randperm(needles, generator=generator)
    prompt = torch.cat((*with_needles, rest, chosen[order].flatten()))
    first = len(prompt) - needles * each + GIVEN - 1
    return prompt, first + each * torch.arange(needles)
