"""Parts of experiments that take too long as a whole: how they draw, count, and put together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import normal, small_model, tokens_of
from benchmarks.exact_cases.stand_ins import in_miniature

SEED = 7


def _factorial() -> object:
    """What rounded weights and a compressed cache lose together, of losses that are made up."""
    import torch

    from benchmarks.experiments.int8 import factorial as int8_factorial
    from benchmarks.instruments.windows import windows_of

    windows = windows_of([torch.arange(9000), torch.arange(3000)], 64, "made up")
    pairs: list[Any] = [
        (weights, cache)
        for weights in (int8_factorial.FLOAT, int8_factorial.SKIPPED, "other")
        for cache in (int8_factorial.NO_CACHE, "3 bits")
    ]
    losses = {pair: 3 + normal(str(pair), len(windows)).double().numpy() for pair in pairs}
    return list(int8_factorial.measurements(losses, windows))


def _coverage_of_windows() -> object:
    """How often intervals over some windows hold the mean over all, of numbers that are made up."""
    from benchmarks.experiments import interval_coverage
    from benchmarks.experiments.window_differences import CACHE

    rows = (normal("rows", 3, 80).double() + normal("stretches", 10).double().repeat(8)).tolist()
    kept = {
        "stretches": [i % 10 for i in range(80)],
        "nats/token": {CACHE: rows, "other": rows[:2]},
    }
    return list(interval_coverage.coverages(kept, draws=20))


def _of_the_cache() -> object:
    """Pieces, passages, deviations, counted rows, degrees and slopes."""
    import torch

    from benchmarks.experiments.cache import complexity as cache_complexity
    from benchmarks.experiments.cache import lesson as cache

    model = small_model("float64", position="rope")
    wrong = small_model("float64", position="alibi")
    tokens = tokens_of(model, 2, 9)
    found: list[object] = [cache.pieces(11, sizes) for sizes in ((3,), (1, 5), (20,))]
    found += [cache.prompts_from(torch.arange(50), 4, 5)]
    found += [cache.logit_deviation(model, tokens, [4, 1, 4]) < 1e-9]
    found += [cache.deviation_without_cache(model, tokens) < 1e-9]
    found += [cache.tokens_differing(wrong, tokens, 6)]
    for cached in (False, True):
        found.append(cache.counted_rows(model, tokens[:1], 5, cached))
        found.append(cache_complexity.counted_flops(model, 4, cached))
        found.append(cache_complexity.closed_form(model.config, 4, cached))
    values = [[n**degree + 3 * n for n in range(1, 8)] for degree in (1, 2, 3)]
    found += [cache_complexity.polynomial_degree(each) for each in values]
    found += [refusal(lambda: cache_complexity.polynomial_degree([1, 2, 4, 8, 16, 32]))]
    return [*found, cache_complexity.slope({2: 4.0, 4: 16.5, 8: 64.0})]


def _of_activations() -> object:
    """Statistics of inputs with an outlier, and gradients straight through rounded numbers."""
    from benchmarks.experiments.int8 import activations
    from reference_model.quantization.grid import Grid

    x = normal("inputs", 40, 50)
    x[3, 3] = 30
    model = small_model()
    tokens = tokens_of(model, 2, 9)
    exact = activations.block_gradients(model, tokens[:, :-1], tokens[:, 1:])
    found: list[object] = [activations.input_statistics(x), exact]
    for grid, rounded in ((Grid(), False), (None, True), (Grid(4), True)):
        changed = activations.with_fake_rounding(model, grid, rounded)
        found.append(activations.block_gradients(changed, tokens[:, :-1], tokens[:, 1:]))
    return found


def _of_products() -> object:
    """Squared norms of BA by both ways, draws of factors, and what the checks make of them."""
    import numpy as np

    from benchmarks.experiments.lora import checks as lora_checks
    from benchmarks.experiments.lora import lesson as lora

    generator = np.random.default_rng(SEED)
    found: list[object] = []
    for d, rank, n in ((5, 2, 6), (4, 16, 3), (8, 8, 8)):
        b, a = lora.gaussian(generator, (3, d, rank)), lora.uniform(generator, (3, rank, n))
        found.append(lora.squared_norms_of_products(b, a))
    rows = lora_checks.wishart_root(generator, 5, 9, 4)
    found += [rows, lora_checks.equicorrelated(rows, 0.3)]
    for kind in ("gaussian", "kaiming_uniform"):
        simulated = lora_checks.simulate(kind, 0.1, 2, SEED)
        found += [simulated.total, simulated.cross, simulated.scaled(np.array(2.0)).total]
    return [*found, refusal(lambda: lora_checks.wishart_root(generator, 1, 3, 4))]


def _of_formats() -> object:
    """Bits that a cache holds with all of its scales and exact tokens."""
    from benchmarks.exact_cases.caches import codec_of
    from benchmarks.experiments.turboquant import kv_quality

    return [
        kv_quality._bits_held(codec_of(keys), codec_of(values), recent, 512)
        for keys, values in (("turboquant 3", "turboquant 3"), ("channel 4", "token 4"))
        for recent in (0, 1, 64, 600)
    ]


def _later_steps() -> object:
    """What two steps of both optimisers add, by rank and scaling, and what is made of it."""
    import numpy as np

    from benchmarks.experiments.lora import first_step as lora_first_step

    marks, ranks = (1, 2), (4, 8)
    small = {"experiments.lora.first_step.LENGTH": 32, "experiments.lora.first_step.BATCH_SIZE": 2}
    with in_miniature(small):
        walked = lora_first_step.walks(0, marks, ranks)
        found = [walked, (1.05 * np.array(walked)).tolist()]  # as if of another seed
        measured = list(lora_first_step.later_steps(found, marks, ranks))
    return [found, [[m.id, m.value, m.interval] for m in measured]]


def _fine_tune() -> object:
    """Losses of a fine-tune on both texts that it is not trained on, window by window."""
    from benchmarks.instruments import finetuning

    spec = finetuning.FineTune("lora", 4, 1e-2, 0, 2, 1, 2, 16, evaluation_windows=(2, 3))
    with in_miniature({"instruments.finetuning.WINDOW": 32}):
        return finetuning.run(spec)


def _diverged() -> object:
    """A seed whose fine-tune diverged is not left out in silence."""
    from benchmarks.experiments.lora import rank as lora_rank
    from benchmarks.instruments.finetuning import Outcome
    from benchmarks.instruments.rank_sweep import RANKS

    whole = Outcome([1.0, 1.1], [2.0, 2.1, 2.2], 3, 4, 5)
    broken = Outcome([], [], 3, 4, 5)
    rates = [("alpha/r", rank, rate) for rank in RANKS for rate in (1e-3, 3e-3)]
    found = {tried: [whole, whole] for tried in rates} | {rates[0]: [whole, broken]}
    return [
        [lora_rank.held_out(found, tried) for tried in rates[:2]],
        lora_rank.best_rate(found, "alpha/r", RANKS[0]),
        refusal(lambda: list(lora_rank.findings(found))),
        list(lora_rank._of_rates(_labelled, found)),
    ]


def _labelled(value: object, **labels: object) -> Any:
    return [value, labels]


def _digests() -> object:
    """Which modules an experiment's numbers rest on, and which of their changes count."""
    from benchmarks.record import code_digest

    texts = {
        "benchmarks/__init__.py": "",
        "benchmarks/one.py": "import benchmarks.two\nTABLE = 'table.toml'\n",
        "benchmarks/two.py": "def f():\n    from benchmarks.three import g\n    return g()\n",
        "benchmarks/three.py": "if 0:\n    import reference_model.four as four\n",
        "benchmarks/alone.py": "x = 1\n",
        "benchmarks/table.toml": "x = 1\n",
        "reference_model/__init__.py": "",
        "reference_model/four.py": '"""Four."""\n\ny = 4  # four\n',
    }
    changes = {
        "nothing": ("", ""),
        "a remark": ("reference_model/four.py", '"""Vier."""\ny = 4\n'),
        "a number": ("reference_model/four.py", "y = 5\n"),
        "a table": ("benchmarks/table.toml", "x = 2\n"),
        "another module": ("benchmarks/alone.py", "x = 2\n"),
    }
    digests, modules = {}, []
    for name, (file, text) in changes.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for each, content in (texts | ({file: text} if file else {})).items():
                (root / each).parent.mkdir(exist_ok=True)
                (root / each).write_text(content)
            modules.append(sorted(code_digest.closure("benchmarks.one", root)))
            digests[name] = code_digest.code_digest("benchmarks.one", root)
    same = {name: digest == digests["nothing"] for name, digest in digests.items()}
    return [modules, same]


CASES = (
    Case(
        "parts: fine-tunes that diverged",
        "2 seeds, 8 fine-tunes",
        "float64",
        "a seed that is left out",
        _diverged,
    ),
    Case(
        "parts: digests of code",
        "8 files, 5 changes",
        "none",
        "an old number that is taken for one of this code",
        _digests,
    ),
    Case(
        "parts: weights and cache together",
        "187 windows, 6 pairs",
        "float64",
        "an effect with the wrong sign",
        _factorial,
    ),
    Case(
        "parts: intervals over some windows",
        "80 windows, 20 draws",
        "float64",
        "clusters of other windows",
        _coverage_of_windows,
    ),
    Case(
        "parts: caches",
        "T 9, 2 models",
        "float64",
        "a deviation or a degree that is not seen",
        _of_the_cache,
    ),
    Case(
        "parts: factors of an update",
        "widths 3 to 9, ranks 2 to 16",
        "float32",
        "factors of another law",
        _of_products,
    ),
    Case(
        "parts: bits of formats",
        "2 formats, 4 windows",
        "none",
        "scales or exact tokens that are not counted",
        _of_formats,
    ),
)
ROUNDED = (
    Case(
        "parts: a fine-tune",
        "2 layers, 256 wide; rank 4, 2 steps",
        "float32",
        "losses of another text",
        _fine_tune,
    ),
    Case(
        "parts: later steps of fine-tunes",
        "2 layers, 256 wide; ranks 4 and 8, 2 steps",
        "float32",
        "an update of another step, rank or scaling",
        _later_steps,
    ),
    Case(
        "parts: activations",
        "40 × 50; B 2, T 8",
        "float32",
        "statistics or gradients of other numbers",
        _of_activations,
    ),
)
