"""What a comparison says: milliseconds, how many times as fast as ours, and share of the limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.peers.plan import DECODE, LIMIT, PREFILL, ROUNDED, SAME_TOKENS, Plan, config_of


def table(
    plan: Plan,
    seen: Sequence[Mapping[str, Mapping[str, float]]],
    same: Mapping[str, bool],
) -> str:
    """Milliseconds, how many times as fast as ours with the interval, share of the limit."""
    from tabulate import tabulate

    from benchmarks.judging.rounding import number

    names = [name for name in plan.peers if name in seen[0]]
    quantities = dict.fromkeys(q for name in names for q in seen[0][name])
    blocks = []
    for quantity in quantities:
        rows = [
            [
                name,
                number(1e3 * statistics.median(one[name][quantity] for one in seen)),
                _times_as_fast([one[name][quantity] for one in seen], quantity, seen),
                _median_share(plan, name, quantity, seen),
                {True: "yes", False: "NO"}[same[name]] if name in same else "",
            ]
            for name in names
            if quantity in seen[0][name]
        ]
        titles = (
            "ms (median)",
            "× as fast as ours (95 %)",
            "of the limit",
            f"our {SAME_TOKENS} tokens",
        )
        blocks.append(tabulate(rows, headers=[quantity, *titles], disable_numparse=True))
    reads = [one[LIMIT]["read_bytes_per_second"] / 1e9 for one in seen]
    flops = [one[LIMIT]["flops_per_second"] / 1e9 for one in seen]
    limits = (
        f"limits in the same run: reads {number(min(reads))} to {number(max(reads))} GB/s, "
        f"multiplies {number(min(flops))} to {number(max(flops))} GFLOP/s (float32); "
        f"{plan.threads} threads, "
        f"{len(seen)} observations"
    )
    return "\n\n".join([*blocks, limits])


def _times_as_fast(
    seconds: Sequence[float], quantity: str, seen: Sequence[Mapping[str, Mapping[str, float]]]
) -> str:
    from benchmarks.judging.rounding import figures, number
    from benchmarks.judging.stats import geometric_mean_ratio_interval

    if quantity not in seen[0].get("ours", {}):
        return ""
    ratios = [one["ours"][quantity] / theirs for theirs, one in zip(seconds, seen, strict=True)]
    if len(set(ratios)) == 1:  # ours itself, or a single observation
        return number(ratios[0])
    found = geometric_mean_ratio_interval(ratios)
    told = figures(found.value, found.interval)
    return f"{told.value} ({told.interval})"


def _median_share(
    plan: Plan, name: str, quantity: str, seen: Sequence[Mapping[str, Mapping[str, float]]]
) -> str:
    if name.startswith("narrow") or name in ROUNDED:  # they read less
        return ""
    shares = [share(plan, quantity, one[name][quantity], one[LIMIT]) for one in seen]
    known = [value for value in shares if value is not None]
    return f"{statistics.median(known):.0%}" if known else ""


def share(plan: Plan, quantity: str, seconds: float, limits: Mapping[str, float]) -> float | None:
    """Ideal seconds over measured ones; None for what is a sum of both kinds."""
    from benchmarks.instruments.limits import MachineLimit, decode_bound, prefill_bound

    limit = MachineLimit(
        limits["read_bytes_per_second"],
        {"float32": limits["flops_per_second"]},
        {},
        plan.threads,
    )
    kind, _, tokens = quantity.partition(" ")
    if kind == DECODE:
        middle = plan.prompt_tokens + plan.new_tokens // 2
        return decode_bound(config_of(plan.model), middle, limit).seconds / seconds
    if kind == PREFILL:
        return prefill_bound(config_of(plan.model), int(tokens), limit).seconds / seconds
    return None
