"""Which benchmarks of the asv suite two commits are compared by, and what makes one worse.

Every benchmark is in `EXACT`, in `TIMED` or, with the reason, in `NOT_COMPARED`: a test holds that,
so that a new one cannot be forgotten.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

TIMED = ("bench_gate.Step.time_step",)


@dataclass(frozen=True)
class Exactness:
    """What a difference of a number means that is the same in each run of the same code.

    ``better``: "lower", as asv judges, or "same" where each change has to be looked at.
    ``tolerance``: what another order of the same sums may change, in units of the number.
    ``share``: by how much of itself a number may grow where the same work is cut into operators in
    another way; it is told then, and fails beyond.
    ``of``: whose code decides the number: the model's, or that of the suite itself.
    """

    better: Literal["lower", "same"] = "lower"
    tolerance: float = 0.0
    share: float = 0.0
    of: Literal["model", "suite"] = "model"


IN_HALF = os.environ.get("LLM_DESIGN_BENCH_DTYPE", "float32") != "float32"

COUNTED = Exactness()
# Two operators where there was one write and read what lies between them once more.
# Rewrites of equal meaning had a tenth more at most.
OPERATORS = Exactness(tolerance=2, share=0.15)
MOVED = Exactness(share=0.10)
# On one thread and on two, with oneDNN's products and MKL's, losses differed by 2e-7 nats a token
# at most, fingerprints by 1.2e-6 and deviations by 3e-6. Ten times as much and more is let pass.
LOSS = Exactness(tolerance=1e-5)

EXACT: dict[str, Exactness] = {
    "bench_gate.Work.track_flops": COUNTED,
    "bench_gate.Work.track_operators": OPERATORS,
    "bench_gate.Work.track_bytes_moved": MOVED,
    "bench_gate.Launches.track_launches": OPERATORS,
    "bench_gate.Int8Quality.track_prediction_kl": LOSS,
    "bench_gate.Int8Quality.track_loss_increase": LOSS,
    "bench_gate.Outputs.track_fingerprint": Exactness("same", 2e-2 if IN_HALF else 2e-5),
    "bench_gate.Outputs.track_cached_deviation": Exactness(tolerance=5e-2 if IN_HALF else 5e-5),
    # float64 shows an ε of a norm; what is computed in float32 on the way moves by its rounding.
    "bench_exact.Double.track_fingerprint": Exactness("same", 1e-6),
    "bench_exact.Single.track_fingerprint": Exactness("same", 2e-5),
    "bench_exact.Rounded.track_fingerprint": Exactness("same", 5e-3),
    "bench_exact.Half.track_fingerprint": Exactness("same", 2e-2),
    "bench_exact.Numbers.track_fingerprint": Exactness("same", 1e-9),
    "bench_exact.KnownAnswers.track_fingerprint": Exactness("same", 2e-5, of="suite"),
    "bench_exact.KnownRounded.track_fingerprint": Exactness("same", 5e-3, of="suite"),
    "bench_exact.Timed.track_work": COUNTED,
    "bench_exact.Timed.track_bytes": MOVED,
    "bench_exact.Footprint.track_flops": COUNTED,
    "bench_exact.Footprint.track_peak_bytes": Exactness(tolerance=4096, share=0.15),
    "bench_exact.Footprint.track_allocated_bytes": Exactness(tolerance=4096, share=0.10),
    "bench_exact.Footprint.track_allocations": Exactness(tolerance=8, share=0.15),
    "bench_exact.Footprint.track_kept_bytes": COUNTED,
    "bench_exact.Footprint.track_held_bytes": COUNTED,
    "bench_exact.Footprint.track_waits": COUNTED,
    "bench_exact.Footprint.track_made_anew": OPERATORS,
    "bench_exact.Footprint.track_python_lines": Exactness(tolerance=20, share=0.25),
    "bench_exact.Footprint.track_left_behind": COUNTED,
    "bench_cache.CacheBytes.track_cache_bytes": COUNTED,
    "bench_cache.Work.track_flops_per_token": COUNTED,
    "bench_cache.Work.track_operators_per_token": OPERATORS,
    "bench_head.Weights.track_weight_bytes": COUNTED,
    "bench_int8.Bytes.track_bytes_over_float32": COUNTED,
    "bench_int8.RoundingError.track_rounding_error": Exactness(tolerance=1e-6),
    "bench_kv_codecs.Bytes.track_bits_per_value": COUNTED,
    "bench_kv_codecs.Distortion.track_distortion": Exactness(tolerance=1e-5),
    "bench_kv_codecs.Loss.track_prediction_kl": LOSS,
    "bench_kv_codecs.Loss.track_loss_increase": LOSS,
    "bench_lora.Merging.track_merge_error": Exactness(tolerance=5e-5),
    "bench_lora.Share.track_trained_share": COUNTED,
    "bench_norms.Work.track_operators_per_token": OPERATORS,
    "bench_positions.Work.track_operators_per_token": OPERATORS,
    "bench_positions.Work.track_weight_bytes": COUNTED,
    "bench_precision.Bytes.track_cache_bytes": COUNTED,
    "bench_precision.Bytes.track_weight_bytes": COUNTED,
}

# It reads the claims of all lessons: a case says itself which of them it rests on.
ASIDE = ("benchmarks.judging.claims:load_claims",)

_STEP = "for the history, in its own sizes; a step of bench_gate stands for its choice"
NOT_COMPARED = {
    "bench_cache.Decode.time_step": _STEP,
    "bench_cache.Prefill.time_step": _STEP,
    "bench_head.Decode.time_step": _STEP,
    "bench_int8.Decode.time_step": _STEP,
    "bench_int8.Prefill.time_step": _STEP,
    "bench_int8.Loss.track_loss_increase": "bench_gate.Int8Quality compares the loss on a quarter "
    "of the tokens: without int8 instructions, all of them would take as long as the rest of it",
    "bench_int8.Rounding.time_rounding": "simulated rounding; its error is compared",
    "bench_kv_codecs.Codec.time_decode": "every decode step of a compressed cache has it",
    "bench_kv_codecs.Codec.time_encode": _STEP,
    "bench_kv_codecs.Decode.time_step": _STEP,
    "bench_lora.Forward.time_forward": _STEP,
    "bench_lora.Step.time_step": "a step of training takes longer than a gate's call may",
    "bench_norms.Decode.time_step": _STEP,
    "bench_positions.Decode.time_step": _STEP,
    "bench_precision.Decode.time_step": _STEP,
    "bench_cache.DecodeOverIdeal.track_time_over_ideal": "a time; `Step` times what is compared",
    "bench_cache.PrefillOverIdeal.track_time_over_ideal": "a time",
    "bench_precision.DecodeOverIdeal.track_time_over_ideal": "a time",
    "bench_cache.Generation.track_seconds_per_token": "a time",
    "bench_cache.PeakMemory.track_peak_memory": "resident memory differs from process to process; "
    "a copy that is made and freed shows in the bytes that a step moves",
    "bench_files.Loading.track_peak_over_weights": "resident memory, as above",
    "bench_cache.DeviceMemory.track_nvml_memory": "what else uses the GPU is part of it",
    "bench_lora.OverPlain.track_forward_over_plain": "a time",
    "bench_lora.OverPlain.track_step_over_full": "a time",
    "bench_lora.Exponents.track_deviation_from_law": "draws its own matrices: no code of the model",
    "bench_claims.Exact.track_value": "runs whole experiments, for longer than a gate may take",
}

# Exact as well, though not compared: the history follows what is too long for a gate.
EXACT_BUT_LONG = {
    "bench_claims.Exact.track_value": COUNTED,
    "bench_int8.Loss.track_loss_increase": LOSS,
}
