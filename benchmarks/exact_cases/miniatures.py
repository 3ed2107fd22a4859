"""Whole experiments in miniature: a small model, short texts, and a clock that runs by the work.

What stands in is in stand_ins.py. All else is the experiment's own: how it cuts, draws, compresses,
rounds, trains, pairs, and puts together.
"""

from __future__ import annotations

from functools import partial

from benchmarks.exact_cases.begins import begins_of_experiment
from benchmarks.exact_cases.case import Case
from benchmarks.exact_cases.miniature import Miniature, found_by
from benchmarks.exact_cases.stand_ins import PROBES, Profiled, Smaller

FIRST_STEP = {
    "experiments.lora.first_step.RANKS": {"smoke": [1, 8]},
    "experiments.lora.first_step.STEP_RANKS": {"smoke": (16,)},
    "experiments.lora.first_step.DRAWS_AT_RANK_1": {"smoke": 24},
    "experiments.lora.first_step.LEAST_DRAWS": {"smoke": 3},
    "experiments.lora.first_step.ADAMW_RANKS": (4, 8),
    "experiments.lora.first_step.LEAST_ADAMW_DRAWS": 4,
    "experiments.lora.first_step.LENGTH": 32,
    "experiments.lora.first_step.BATCH_SIZE": 2,
}
# Of trained comparisons one option's cells, and of stable rates those of one depth.
FEW = ({"option": "baseline"}, {"option": "four heads"}, {"depth": 4}, {"process": 0})
TRAINED = {
    "instruments.trained_models.CONFIG": Smaller(n_layer=2, n_embd=32),
    "instruments.trained_models.HALF": 5 * 1024,
    "instruments.trained_models.WHOLE": 10 * 1024,
    "instruments.trained_models.CURVE": 2,
    "instruments.stable_range.STEPS": {4: 3, 12: 2},
    "instruments.stable_range.RATES": (0.01, 0.1),
    "instruments.stable_range.WIDTH": 16,
    "instruments.norm_cost.ROUNDS": 1,
}
MINIATURES = (
    Miniature(
        "int8.outlier-split",
        "full",
        ({"model": "planted outliers", "method": "zero point"}, {"method": "absmax per vector"}),
        rest=True,
        sizes={"experiments.int8.outlier_split.WINDOWS": {"full": 2}},
    ),
    Miniature("lora.product-variance", "smoke", ({"width": 64},)),
    Miniature(
        "lora.update-variance",
        "smoke",
        (
            {"width": 64},
            {"a": "kaiming_uniform"},
            {"checked": "gaussian"},
            {"checked": "kaiming_uniform"},
        ),
        sizes={
            "experiments.lora.checks.REPETITIONS": {"smoke": 40},
            # So few at once that there is a second time.
            "experiments.lora.checks.MOST_NUMBERS": 2**15,
            "experiments.lora.lesson.MOST_NUMBERS": 2**15,
        },
    ),
    Miniature("lora.real-init", "smoke", sizes=FIRST_STEP),
    Miniature(
        "lora.activation-stability",
        "quick",
        ({},),
        rest=True,
        sizes={
            "experiments.lora.training.MARKS": {"quick": (1, 2)},
            "experiments.lora.training.MOMENT_BATCH": {"quick": (1, 32)},
        },
    ),
    Miniature(
        "lora.rank-pays",
        "full",
        ({"rank": 4}, {"process": 0}),
        rest=True,
        sizes={
            "instruments.rank_sweep.STEPS": 4,
            "instruments.rank_sweep.WARMUP_STEPS": 2,
            "instruments.rank_sweep.LENGTH": 32,
        },
    ),
    Miniature(
        "lora.learning-rate-law",
        "full",
        ({"rank": 4},),
        rest=True,
        sizes={
            "instruments.rank_sweep.STEPS": 4,
            "instruments.rank_sweep.WARMUP_STEPS": 2,
            "instruments.rank_sweep.LENGTH": 32,
            "instruments.rate_law.DESIGNS": 4,
        },
    ),
    Miniature(
        "lora.rslora-is-a-rate",
        "full",
        ({"seed": 30},),
        rest=True,
        sizes={
            "instruments.rank_sweep.STEPS": 4,
            "instruments.rank_sweep.WARMUP_STEPS": 2,
            "instruments.rank_sweep.LENGTH": 32,
        },
    ),
    Miniature("position.embedding-untouched", "smoke"),
    Miniature(
        "position.embedding-untouched",
        "quick",
        sizes={"experiments.positions.lesson.TRAINING": Smaller(steps=2, seeds={"sqrt_width": 2})},
    ),
    *(
        Miniature(claim, "full", FEW, rest=True, sizes=TRAINED)
        for claim in (
            "position.quality",
            "tying.quality",
            "norm.quality",
            "norm.stable-range",
            "norm.variants",
            "cache.grouped-queries",
        )
    ),
    Miniature(
        "position.extrapolation",
        "full",
        ({"option": "rope"}, {"task": "copy"}),
        rest=True,
        sizes={
            **TRAINED,
            "instruments.trained_models.MARGIN": -10.0,  # nats: whatever it learnt, it trained
            "instruments.extrapolation.TUNED_STEPS": 2,
            "instruments.copy_task.STEPS": 15,
            "instruments.copy_task.WIDTH": 16,
            "instruments.copy_task.BATCH_SIZE": 2,
            "instruments.copy_task.JUDGED": 4,
        },
    ),
    Miniature(
        "norm.gradient-profile",
        "smoke",
        sizes={
            "experiments.norms.lesson.DEPTHS": (2, 8, 9),
            "experiments.norms.lesson.SWEEP": Smaller(seeds=2),
        },
    ),
    Miniature(
        "cache.same-output",
        "smoke",
        ({"dtype": "float32"}, {"dtype": "float64"}),
        sizes={
            "experiments.cache.lesson.LENGTHS": {"smoke": (1, 33)},
            "experiments.cache.lesson.GREEDY": {"smoke": ((9, 3),)},
        },
    ),
    Miniature(
        "cache.complexity",
        "smoke",
        sizes={
            "experiments.cache.complexity.CONSECUTIVE": (1, 2, 3, 4, 5, 6, 7),
            "experiments.cache.complexity.LONGER": (8,),
        },
    ),
    Miniature("cache.fifteenfold-projections", "smoke"),
    Miniature(
        "cache.fifteen-tokens",
        "quick",
        ({"process": 0},),
        rest=True,
        sizes={
            "experiments.cache.speed.LENGTHS": {"quick": (4, 8)},
            **PROBES,
        },
    ),
    Miniature(
        "cache.memory-bound",
        "quick",
        ({"process": 0},),
        rest=True,
        sizes={
            **PROBES,
            "experiments.cache.memory_bound.PREFILLS": (128, 256),
            "experiments.cache.memory_bound.profile": Profiled,
        },
    ),
    Miniature(
        "cache.compressed-speed",
        "full",
        [
            {"kernels": "plain", "part": part}
            for part in ("step", "grouped step", "batched step", "encoding", "prefill", "peak")
        ],
        rest=True,
        sizes={
            "experiments.cache.compressed_speed.TOKENS": (64, 256),
            "experiments.cache.compressed_speed.PROMPT": 128,
            "experiments.cache.compressed_speed.ENCODED": 64,
            "experiments.cache.compressed_speed.OTHER_STEPS": 128,
        },
    ),
    Miniature("cache.memory-law", "smoke"),
    Miniature("position.relative", "smoke"),
    Miniature(
        "turboquant.beta", "smoke", sizes={"experiments.turboquant.lesson.ROTATIONS": {"smoke": 40}}
    ),
    Miniature(
        "turboquant.memory",
        "full",
        [{"part": part} for part in ("counted", "resident", "decoding", "copies")],
        rest=True,
        sizes={
            "experiments.turboquant.memory.TOKENS": (64, 256),
            "experiments.turboquant.memory.PACKED": (3,),
            "experiments.turboquant.kv_speed.CONTEXT": 64,
            "experiments.turboquant.kv_speed.SHAPE": (2, 2, 64, 64),
        },
    ),
    Miniature(
        "turboquant.distortion",
        "smoke",
        [{"width": 64, "part": part} for part in ("law", "scales", "prod")],
        sizes={"experiments.turboquant.lesson.VECTORS": {"smoke": 2000}},
    ),
    Miniature(
        "turboquant.rotation-first",
        "smoke",
        sizes={
            "experiments.turboquant.lesson.SEEDS": 2,
            "experiments.turboquant.lesson.TURNED": 1000,
        },
    ),
    Miniature(
        "turboquant.signs",
        "full",
        sizes={
            "experiments.turboquant.signs.TURNED": 500,
            "experiments.turboquant.signs.ROTATIONS": 2,
        },
    ),
    Miniature(
        "turboquant.unbiased",
        "quick",
        ({"part": "slopes"}, {"part": "attention"}),
        rest=True,
        sizes={
            "experiments.turboquant.qjl.SEEDS": 2,
            "experiments.turboquant.qjl.VECTORS": 500,
            "experiments.turboquant.qjl.PROBED_WINDOWS": {"quick": 2},
        },
    ),
    Miniature(
        "turboquant.qjl-budget",
        "full",
        [{"compressed": compressed} for compressed in ("keys", "values", "keys and values")],
        rest=True,
        sizes={
            "experiments.turboquant.qjl_budget.TOTAL_BITS": (3,),
            "experiments.turboquant.qjl_budget.SEEDS": 2,
            "experiments.turboquant.qjl_budget.WINDOWS": 3,
        },
    ),
    Miniature(
        "turboquant.zero-loss",
        "smoke",
        sizes={
            "experiments.turboquant.kv_quality.SEEDS": 2,
            "experiments.turboquant.kv_quality.PROBED_WINDOWS": 3,
        },
    ),
    Miniature(
        "turboquant.keys-need-more",
        "full",
        ({},),
        rest=True,
        sizes={
            "experiments.turboquant.shares.AT_ONCE": 1,
            "experiments.turboquant.shares.PILOT_WINDOWS": 2,
            "experiments.turboquant.shares.WINDOWS": 4,
            "experiments.turboquant.shares.ROTATIONS": range(5, 7),
        },
    ),
    Miniature(
        "turboquant.best-at-three",
        "full",
        [
            {"part": "controls"},
            *(
                {"part": part, "format": "turboquant", "key_bits": 3}
                for part in ("quality", "needles", "step", "peak")
            ),
            {"part": "needles"},
        ],
        rest=True,
        sizes={
            "experiments.turboquant.best_at_three.CONTROL_WINDOWS": 1,
            "referee.comparing.REACH": 0.005,
            "referee.controls.SEEDS": 2,
            "referee.quality.NEW_TOKENS": 4,
            "referee.quality.PROMPT": 12,
            "referee.quality.TEXTS": 2,
            "referee.recalling.NEEDLE_PROMPTS": 2,
            "referee.rows.SEEDS": 2,
            "referee.speed.LENGTHS": (256, 512),
            "referee.texts.WINDOWS": 3,
        },
    ),
    Miniature(
        "turboquant.recall",
        "full",
        ({"task": "associative recall"}, {"task": "needle"}),
        rest=True,
        sizes={
            "experiments.turboquant.recall.SEEDS": {3: 2, 1: 1},
            "experiments.turboquant.recall.PROMPTS": {"full": 4},
            "experiments.turboquant.recall.LEAST_RECALLED": 0.5,
            # So short a text that it lacks some of the letters.
            "instruments.recall.NEEDLE_CONTEXT": 12,
            "instruments.recall.GIVEN": 1,
            "instruments.recall.ANSWERED": 1,
        },
    ),
    Miniature("int8.weights-quality", "smoke"),
    Miniature(
        "int8.weights-quality",
        "full",
        (
            {"variant": "INT8 per group"},
            {"factorial": "float32 weights"},
            {"factorial": "INT8, norms skipped"},
            {"factorial": "INT8, norms too"},
        ),
        sizes={
            "experiments.int8.factorial.BITS": (3,),
            "experiments.int8.factorial.WINDOWS": {"full": 3},
        },
    ),
    Miniature("int8.norm-damage", "smoke", sizes={"experiments.int8.lesson.WINDOWS": {"smoke": 2}}),
    Miniature(
        "int8.activation-range",
        "quick",
        sizes={"experiments.int8.activations.WINDOWS": {"quick": 2}},
    ),
    Miniature(
        "int8.size-speed",
        "full",
        [{"part": part} for part in ("sizes", "seconds", "resident")],
        rest=True,
        sizes={"experiments.int8.speed.PROMPT": 256},
    ),
    Miniature(
        "int8.sensitivity",
        "full",
        ({},),
        rest=True,
        sizes={
            "experiments.int8.sensitivity.RESAMPLES": 99,
            "experiments.int8.sensitivity.WINDOWS": {"full": 3},
        },
    ),
)
CASES = tuple(
    Case(
        f"experiment {each.claim}, {each.profile}, in miniature",
        "2 layers, 256 wide, short texts",
        "float32",
        "an experiment that measures something else",
        partial(found_by, each),
        partial(begins_of_experiment, each.claim),
    )
    for each in MINIATURES
)
