"""Training: schedules, groups of weights, steps, evaluations, and a run that is taken up again."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import small_model
from benchmarks.suite.workloads import of_this_commit

STEPS, WINDOW, BATCH = 6, 12, 2


def _text(length: int) -> Any:
    import torch

    return (torch.arange(length) * torch.arange(length) * 7 + 3) % 61


def _batches(step: int) -> Any:
    start = step * BATCH * WINDOW % 200
    return _text(400)[start : start + BATCH * (WINDOW + 1)].view(BATCH, WINDOW + 1)


@of_this_commit()
def _recipe(**fields: Any) -> Any:
    from reference_model.training import Recipe

    given: dict[str, Any] = {"steps": STEPS, "learning_rate": 1e-2, "warmup_steps": 2}
    return Recipe(**{**given, "evaluate_every": 2, **fields})


def _trained(choices: dict[str, Any] | None = None, **fields: Any) -> object:
    """Curve, counts and weights after a few steps."""
    from reference_model.training import train

    model = small_model(**(choices or {}))
    seen: list[Any] = []

    def run() -> object:
        seen.extend(train(model, _batches, _text(120), _recipe(**fields)))
        return dict(model.named_parameters())

    return [refusal(run), seen[-1:], len(seen), model.training]


def _taken_up_again() -> object:
    """A run that ends in the middle and goes on from its folder is the run that did not end."""
    from reference_model.training import train

    recipe = _recipe(precision="float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = small_model(dropout=0.1)
        for progress in train(first, _batches, _text(120), recipe, folder, "text"):
            if progress.step == 4:
                break
        again = small_model(dropout=0.1)
        steps = [p.step for p in train(again, _batches, _text(120), recipe, folder, "text")]
        other = _recipe(seed=1)
        refused = refusal(lambda: list(train(again, _batches, _text(120), other, folder, "text")))
        return [
            steps,
            dict(again.named_parameters()),
            refused,
            sorted((p.name, p.stat().st_size // 4096) for p in folder.iterdir()),  # pages
        ]


def _schedule() -> object:
    from reference_model.training import learning_rate_factor

    recipes = [_recipe(steps=s, warmup_steps=w) for s, w in ((10, 3), (10, 0), (5, 5), (3, 100))]
    return [[learning_rate_factor(step, each) for step in range(each.steps)] for each in recipes]


def _groups() -> object:
    """Which weights decay, and at which rates."""
    from reference_model.training import make_optimizers

    found = []
    for head in ("tied", "untied"):
        for optimizer in ("adamw", "muon"):
            model = small_model(head=head)
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            for made in make_optimizers(model, _recipe(optimizer=optimizer)):
                for group in made.param_groups:
                    options = {k: v for k, v in group.items() if k != "params"}
                    found.append(
                        [type(made).__name__, options, [names[id(p)] for p in group["params"]]]
                    )
    return found


def _losses() -> object:
    import torch

    from reference_model.training import batch_loss, mean_loss

    model = small_model(dropout=0.2).train()
    torch.manual_seed(0)
    found = [mean_loss(model, _text(200), batch_size) for batch_size in (1, 2, 16)]
    found.append(mean_loss(model, _text(34)))
    return [
        found,
        model.training,
        batch_loss(model.eval(), _batches(0)),
        refusal(lambda: mean_loss(model, _text(33))),
    ]


RUNS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "Muon": {"optimizer": "muon", "choices": {"head": "untied", "norm": "rmsnorm"}},
    "bfloat16, dropout": {"precision": "bfloat16", "choices": {"dropout": 0.1}, "seed": 3},
    "patience of one": {"patience": 1, "learning_rate": 3.0, "gradient_clip": 1e-3},
    "diverges": {"learning_rate": 1e18, "warmup_steps": 1, "gradient_clip": 1e30},
}
SINGLE = (
    Case(
        "learning rates", "10 and fewer steps", "none", "a schedule that is off by one", _schedule
    ),
    Case(
        "groups of weights",
        "tied and untied, AdamW and Muon",
        "none",
        "weights that decay or rest by mistake",
        _groups,
    ),
    Case(
        "losses",
        "B 1 to 16, windows of 33 tokens",
        "float32",
        "windows that are weighed or cut wrongly",
        _losses,
    ),
    Case(
        "training taken up again",
        "6 steps, ended after 4",
        "float32",
        "a state that is not whole",
        _taken_up_again,
    ),
)
# Each step divides by the size of a gradient: what a sum's order changes grows.
ROUNDED = tuple(
    Case(
        f"training, {name}",
        "6 steps, B 2, T 12",
        "float32",
        "a step that is another one",
        partial(_trained, **run),
    )
    for name, run in RUNS.items()
)
