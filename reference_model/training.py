"""The training loop: deterministic, resumable, and unaware of text.

Batches are a function of the step alone, so a run that was stopped and resumed sees the same
tokens in the same order as one that was not. `Training` is the loop; `train` evaluates on its way,
keeps the best weights and what it needs to go on.
"""

import dataclasses
import io
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import check_choices
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.model import GPT
from reference_model.parts import parts_of

Batches = Callable[[int], Tensor]  # step -> tokens (B, T + 1)
Run = dict[str, Any]  # every field of the model's configuration and of the recipe, and the data

STATE_FILE = "state.pt"
DIGEST_BYTES = 32  # SHA-256 of all before, at the end of the file, where torch.load ignores it


@dataclass(frozen=True)
class Recipe:
    """What decides the outcome of a run, besides the data and the model's configuration.

    `muon` orthogonalises the momentum of every hidden matrix (torch.optim.Muon) and leaves
    embeddings, norms and biases to AdamW; `adamw` uses AdamW for all.
    """

    steps: int
    learning_rate: float  # of AdamW
    optimizer: Literal["adamw", "muon"] = "adamw"
    matrix_learning_rate: float = 0.02  # of Muon
    warmup_steps: int = 100
    decay_steps: int | None = None  # the last ones, down to 0; None: all after the warm-up
    weight_decay: float = 0.1  # of matrices; norms and biases have none
    gradient_clip: float | None = 1.0  # the largest norm of all gradients together; None: any
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward pass (autocast)
    seed: int = 0
    evaluate_every: int = 250
    patience: int = 4  # evaluations without a better validation loss before stopping

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass
class Progress:
    """What a run has seen so far: evaluations, and the best of them."""

    step: int = 0
    tokens: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)  # step, train, validation (nats)
    best_step: int = 0
    best_validation: float = math.inf
    evaluations_since_best: int = 0


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate at a step: linear warm-up, 1, then linear down to 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    decay = recipe.steps - recipe.warmup_steps
    if recipe.decay_steps is not None:
        decay = recipe.decay_steps
    return min(1.0, (recipe.steps - step) / max(1, decay))


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Optimisers over all parameters; weight decay only on those with two dimensions."""
    hidden, embeddings, vectors = [], [], []
    tables: list[nn.Module] = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    tables += [part.module for part in parts_of(model) if part.role == "head"]
    of_tables = {id(p) for table in tables for p in table.parameters()}
    for parameter in model.parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif id(parameter) in of_tables:
            embeddings.append(parameter)
        else:
            hidden.append(parameter)
    adamw: dict[str, Any] = {"lr": recipe.learning_rate, "betas": (0.9, 0.95), "eps": 1e-8}
    if recipe.optimizer == "adamw":
        decayed, others = hidden + embeddings, vectors
    else:
        decayed, others = embeddings, vectors
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, **adamw)]
    if recipe.optimizer == "muon":
        optimizers.append(
            torch.optim.Muon(
                hidden,
                lr=recipe.matrix_learning_rate,
                weight_decay=recipe.weight_decay,
                momentum=0.95,
            )
        )
    return optimizers


def batch_loss(model: GPT, batch: Tensor) -> Tensor:
    """Mean cross-entropy (nats per token) of predicting each next token of (B, T + 1)."""
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.inference_mode()
def mean_loss(model: GPT, tokens: Tensor, batch_size: int = 16) -> float:
    """Mean loss (nats per token) over (N,) tokens in windows of the context length, no overlap.

    What is left over after the last whole window is not read; `UserError` if there is none.
    """
    window = model.config.context_length
    count = (len(tokens) - 1) // window
    if count < 1:
        raise UserError(
            f"a loss needs one window of {window + 1} tokens, received {len(tokens)}; use more text"
        )
    starts = torch.arange(count)[:, None] * window
    windows = tokens[starts + torch.arange(window + 1)]
    was_training = model.training
    model.eval()
    losses = [batch_loss(model, part).item() * len(part) for part in windows.split(batch_size)]
    model.train(was_training)
    return sum(losses) / count


class Training:
    """A model in training. What is to be seen on the way is looked at between two losses.

    >>> training = Training(model, batches, recipe)
    >>> for loss in training.losses():
    ...     print(training.step, loss)

    ``optimizers``: other ones than the recipe's. A copy (`copy.deepcopy`) goes on by itself.
    """

    def __init__(
        self,
        model: GPT,
        batches: Batches,
        recipe: Recipe,
        optimizers: Sequence[torch.optim.Optimizer] | None = None,
    ) -> None:
        self.model, self.batches, self.recipe = model, batches, recipe
        self.optimizers = [*(make_optimizers(model, recipe) if optimizers is None else optimizers)]
        for group in self._groups():
            group["peak_lr"] = group["lr"]
        self.step, self.tokens = 0, 0  # taken so far

    def losses(self, until: int | None = None) -> Iterator[float]:
        """Nats per token of each batch before its step, up to step ``until``, or to the end.

        One that is not finite is the last, and reaches no weight.
        """
        self.model.train()
        device = next(self.model.parameters()).device
        while self.step < (self.recipe.steps if until is None else until):
            # Dropout: the same after a resume.
            torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
            batch = self.batches(self.step).to(device)
            with self._precision(device):
                loss = batch_loss(self.model, batch)
            value = loss.item()
            if math.isfinite(value):
                self._follow(loss)
                self.step += 1
                self.tokens += batch[:, 1:].numel()
            yield value
            if not math.isfinite(value):
                return

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _follow(self, loss: Tensor) -> None:
        """Take the step that lowers it."""
        factor = learning_rate_factor(self.step, self.recipe)
        for group in self._groups():
            group["lr"] = group["peak_lr"] * factor
        loss.backward()
        if self.recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for optimizer in self.optimizers for group in optimizer.param_groups)


def train(
    model: GPT,
    batches: Batches,
    validation_tokens: Tensor,
    recipe: Recipe,
    folder: Path | None = None,
    data: str = "",
) -> Iterator[Progress]:
    """Train in place, yielding after every step; the model ends with its best validation weights.

    With a folder, each evaluation leaves a state there, from which a later call with the same
    recipe, model configuration and name of the data goes on (and yields first where it stands).
    Raises `UserError` when the loss is no longer finite, or when the folder holds another run.
    """
    run = {**dataclasses.asdict(model.config), **dataclasses.asdict(recipe), "data": data}
    training = Training(model, batches, recipe)
    progress = Progress()
    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if folder is not None and (folder / STATE_FILE).exists():
        progress, best = _resume(folder, model, training.optimizers, run)
        training.step, training.tokens = progress.step, progress.tokens
        yield progress
    recent: list[float] = []
    losses = training.losses()
    while progress.step < recipe.steps and progress.evaluations_since_best < recipe.patience:
        recent.append(_finite(next(losses), "loss", progress.step, recipe))
        progress.step, progress.tokens = training.step, training.tokens
        if progress.step % recipe.evaluate_every == 0 or progress.step == recipe.steps:
            _evaluate(model, validation_tokens, progress, recent, best, recipe)
            recent.clear()
            if folder is not None:
                _save(folder, model, training.optimizers, run, progress, best)
        yield progress
    model.load_state_dict(best)


def _finite(loss: float, what: str, step: int, recipe: Recipe) -> float:
    if not math.isfinite(loss):
        raise UserError(
            f"the {what} became {loss} at step {step}; lower the learning rate "
            f"(received {recipe.learning_rate})"
        )
    return loss


def _evaluate(
    model: GPT,
    tokens: Tensor,
    progress: Progress,
    recent: list[float],
    best: dict[str, Tensor],
    recipe: Recipe,
) -> None:
    validation = _finite(mean_loss(model, tokens), "validation loss", progress.step, recipe)
    progress.curve.append(
        {"step": progress.step, "train": sum(recent) / len(recent), "validation": validation}
    )
    if validation < progress.best_validation:
        progress.best_validation, progress.best_step = validation, progress.step
        progress.evaluations_since_best = 0
        for name, tensor in model.state_dict().items():
            best[name].copy_(tensor)
    else:
        progress.evaluations_since_best += 1


def _save(
    folder: Path,
    model: GPT,
    optimizers: list[torch.optim.Optimizer],
    run: Run,
    progress: Progress,
    best: dict[str, Tensor],
) -> None:
    state = {
        "run": run,
        "progress": dataclasses.asdict(progress),
        "model": model.state_dict(),
        "best": best,
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_whole(folder, {STATE_FILE: content + sha256(content).digest()})


def _resume(
    folder: Path, model: GPT, optimizers: list[torch.optim.Optimizer], run: Run
) -> tuple[Progress, dict[str, Tensor]]:
    path = folder / STATE_FILE
    state = _read_state(path)
    try:
        for field_name, value in run.items():
            if state["run"].get(field_name) != value:
                raise UserError(
                    f"{path} belongs to a run with {field_name}="
                    f"{state['run'].get(field_name)!r}, received {value!r}; "
                    "delete it to start anew"
                )
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return Progress(**state["progress"]), state["best"]
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        raise _not_whole(path) from None


def _read_state(path: Path) -> Any:
    """What `_save` wrote. Of a file that is not that bit by bit nothing is unpickled."""
    try:
        content = path.read_bytes() if path.is_file() else b""
        content, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
        if sha256(content).digest() != digest:
            raise _not_whole(path)
        return torch.load(io.BytesIO(content), weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        raise _not_whole(path) from None


def _not_whole(path: Path) -> UserError:
    return UserError(
        f"{path} is not a whole training state of this version; delete it to start anew"
    )
