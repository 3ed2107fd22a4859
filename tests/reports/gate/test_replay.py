"""Replay: known error rates are found, and real runs are compared with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t

from reference_model.errors import UserError
from reports.gate.decision import Rule
from reports.gate.pairs import CONTROL
from reports.gate.validation import lines, real
from reports.gate.validation.__main__ import main
from reports.gate.validation.replay import (
    METRICS,
    TURNED_TOGETHER,
    _with_intervals,
    binomial_range,
    drawn_runs,
    replay,
    replayed_outcomes,
    scatter,
    shift,
)
from reports.gate.validation.seconds import Seconds, seconds_of
from reports.gate.validation.summary import LOADED, QUIET, agreement, of_a_hundred
from reports.gate.validation.targets import SELF, TOY


def recorded(
    blocks: int = 6, pairs: int = 60, scatter: float = 0.01, bias: float = 0.0
) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "kind": "pair",
            "stretch": f"stretch {block}",
            "neighbour": block % 3 == 2,
            "log_ratios": {id: float(rng.normal(bias, scatter)) for id in ("a", "b", "c", CONTROL)},
            "took": 2.0,
        }
        for block in range(blocks)
        for _ in range(pairs)
    ]


def both(**seconds: float) -> dict[bool, Seconds]:
    """Without and with a background load."""
    return dict.fromkeys((False, True), Seconds(**seconds))


def test_replay_finds_no_regression_in_equal_arms_and_every_large_one() -> None:
    rows = replay(
        recorded(), Rule(), (0.0, 0.05), runs=50, seconds=both(before=10.0, first=5.0, around=3.0)
    )
    nothing, slow = rows
    assert nothing["regression"]["value"] == 0
    assert slow["regression"]["value"] == 1
    assert nothing["pass"]["value"] == 1
    assert nothing["seconds"]["value"] == 10 + 5 + 3 + 2 * nothing["pairs"]["value"]


def test_the_scatter_of_a_pair_is_that_within_blocks_and_not_between_them() -> None:
    apart = [
        {**record, "log_ratios": {k: v + number // 60 for k, v in record["log_ratios"].items()}}
        for number, record in enumerate(recorded(scatter=0.02))
    ]
    for records in (recorded(scatter=0.02), apart):
        assert list(scatter(records)) == ["a", "b", "c", CONTROL]
        assert scatter(records)["a"] == pytest.approx(0.02, rel=0.2)
    once = {**recorded()[0], "stretch": "of one pair, which scatters around nothing"}
    assert scatter([*recorded(), once]) == scatter(recorded())
    assert scatter([once]) == {}


def test_an_instrument_that_prefers_a_side_shows_and_one_that_does_not_does_not() -> None:
    for bias in (0.0, -0.005):
        found = shift(recorded(bias=bias, scatter=0.01))
        assert list(found) == ["all benchmarks", "a", "b", "c", CONTROL]
        for name, observed in found.items():
            alike = 3 if name == "all benchmarks" else 1  # benchmarks that scatter on their own
            error = 0.01 / math.sqrt(360 * alike)
            assert observed["standard_error"] == pytest.approx(error, rel=0.15)
            assert observed["mean"] == pytest.approx(bias, abs=3 * error)


def test_what_a_whole_pair_shares_is_one_observation_of_it() -> None:
    alike = [
        r | {"log_ratios": dict.fromkeys(r["log_ratios"], n % 2)} for n, r in enumerate(recorded())
    ]
    assert shift(alike)["all benchmarks"] == shift(alike)["a"]


def test_power_grows_with_the_slowdown() -> None:
    rows = replay(recorded(scatter=0.02), Rule(), (0.01, 0.02, 0.03, 0.05), runs=50)
    found = [row["regression"]["value"] for row in rows]
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] > 0.9


def test_a_slowdown_of_every_benchmark_is_found_more_often_than_that_of_one() -> None:
    one, every = (
        replay(recorded(scatter=0.02), Rule(), (0.02,), runs=50, slowed=slowed)[0]["regression"]
        for slowed in ("one", "every")
    )
    assert every["value"] > one["value"] + 0.2


def test_real_runs_are_compared_with_the_replay_pairs_under_the_same_load() -> None:
    def rows(at_none: float, at_three: float) -> list[dict]:
        return [
            {
                "slowdown": slowdown,
                "regression": {"value": share},
                "pass": {"value": 1 - share},
                "inconclusive": {"value": 0.0},
            }
            for slowdown, share in ((0.0, at_none), (0.03, at_three))
        ]

    one = {QUIET: rows(0.0, 0.9), LOADED: rows(0.3, 0.5)}
    every = {QUIET: rows(0.0, 1.0), LOADED: rows(0.3, 0.6)}
    verdicts = {"0": 14, "10": 6}
    row = {"tool": "gate", "case": "nothing", "neighbour": False, "runs": 20, "verdicts": verdicts}
    assert agreement(row, one, every).startswith("no: 14 pass, 20 to 20 by replay; 6 regression")
    beside_it = row | {"neighbour": True}
    assert agreement(beside_it, one, every) == (
        "yes: 14 pass, 10 to 18 by replay; 6 regression, 2 to 10 by replay; "
        "0 inconclusive, 0 to 0 by replay"
    )
    slower = row | {"case": "slower by 3 %", "verdicts": {"10": 20}}
    assert "yes: 0 pass, 0 to 5 by replay; 20 regression, 15" in agreement(slower, one, every)
    assert agreement(slower | {"tool": "asv continuous"}, one, every) is None


def test_of_a_hundred_gates_those_that_were_run_count_and_only_the_rest_is_replayed() -> None:
    runs = [{"case": "nothing", "exit_status": 0}] * 59 + [{"case": "nothing", "exit_status": 10}]
    slower = [f"{name} slower by 3 %" for name in ("added", "ordered")]
    runs += [{"case": case, "exit_status": 10} for case in slower for _ in range(70)]
    asked = []

    def replayed(rule: Rule, slowdown: float, rest: int) -> dict[str, int]:
        asked.append((slowdown, rest))
        return {"regression": 1 if rest else 0}

    nothing, three = (of_a_hundred(by, runs, TOY, replayed) for by in (0.0, 0.03))
    assert asked == [(0.0, 40), (0.03, 0)]
    assert (nothing["run"], nothing["run, called slower"], nothing["replayed"]) == (60, 1, 40)
    assert nothing["called slower"] == 2
    assert nothing["share called slower"]["interval"] == pytest.approx([0.0024, 0.0704], abs=1e-3)
    assert (three["run"], three["called slower"]) == (140, 140)


def test_replayed_runs_are_as_many_as_asked_for_over_all_blocks() -> None:
    counts = replayed_outcomes(recorded(), Rule(), 0.05, 40)
    assert counts == {"regression": 40, "pass": 0, "inconclusive": 0}
    assert sum(replayed_outcomes(recorded(scatter=0.03), Rule(), 0.03, 41).values()) == 41
    assert sum(replayed_outcomes(recorded(), Rule(), 0.0, 0).values()) == 0


def test_real_runs_that_end_otherwise_than_replayed_ones_do_not_agree() -> None:
    shares = {"regression": 0.0, "pass": 1.0, "inconclusive": 0.0}
    rows = [{"slowdown": 0.0, **{name: {"value": share} for name, share in shares.items()}}]
    row = {"tool": "gate", "case": "nothing", "neighbour": False, "runs": 5}
    for verdicts, agrees in (({"0": 5}, "yes"), ({"11": 5}, "no"), ({"0": 4, "12": 1}, "no")):
        found = agreement(row | {"verdicts": verdicts}, {QUIET: rows}, {QUIET: rows})
        assert found.startswith(f"{agrees}: ")


def test_a_bias_that_is_turned_round_in_blocks_is_no_level_of_its_own() -> None:
    # Recorded pairs with head always slower: were they not turned round, every run would alarm.
    rows = replay(recorded(bias=0.03, scatter=0.005), Rule(), (0.0,), runs=50)
    assert rows[0]["regression"]["value"] < 0.3


def test_intervals_grow_where_blocks_differ() -> None:
    calm = recorded(scatter=0.01)
    mixed = [
        r | {"log_ratios": {k: v * 6 for k, v in r["log_ratios"].items()}} if r["neighbour"] else r
        for r in calm
    ]
    widths = []
    for records in (calm, mixed):
        low, high = replay(records, Rule(), (0.03,), runs=50)[0]["regression"]["interval"]
        widths.append(high - low)
    assert widths[1] > widths[0] + 0.2


def test_what_never_happened_in_any_run_has_an_interval_that_is_not_never() -> None:
    (row,) = replay(recorded(), Rule(), (0.0,), runs=50)
    assert row["regression"]["value"] == 0
    assert 200 < row["distinct runs"] <= row["runs"] == 300
    upper = 1 - 0.025 ** (1 / row["distinct runs"])
    assert row["regression"]["interval"][1] == pytest.approx(upper, rel=1e-3)


def test_a_replayed_run_ends_where_the_budget_of_a_gate_would_end_it() -> None:
    whole, short = (
        replay(
            recorded(scatter=0.05),
            Rule(),
            (0.0,),
            runs=50,
            seconds=both(before=20.0),
            budget=budget,
        )
        for budget in (1000.0, 70.0)
    )
    assert whole[0]["pairs"]["value"] > 25
    # 25 pairs of two seconds fit into what is left.
    assert short[0]["pairs"]["value"] == 25
    assert short[0]["seconds"]["value"] == 70.0
    assert short[0]["inconclusive"]["value"] > whole[0]["inconclusive"]["value"]
    nothing = replay(recorded(), Rule(), (0.0,), runs=5, seconds=both(before=20.0), budget=15.0)
    assert (nothing[0]["inconclusive"]["value"], nothing[0]["pairs"]["value"]) == (1, 0)


def test_pairs_of_fewer_benchmarks_take_less_of_a_replayed_budget() -> None:
    records = recorded(scatter=0.001)
    for record in records:  # the other two are decided by the first look, this one is not
        record["log_ratios"]["a"] *= 100
    as_long, shorter = (
        replay(records, Rule(), (0.0,), runs=50, seconds=both(of_benchmarks=share), budget=40.0)[0]
        for share in (0.0, 0.9)
    )
    assert as_long["pairs"]["value"] == 20  # of two seconds each
    # Eight of two seconds, then of 0.4 times as much, as long as one of two would still fit.
    assert shorter["pairs"]["value"] == 36
    assert shorter["seconds"]["value"] == pytest.approx(8 * 2 + 28 * 0.8)


def test_the_seconds_of_a_gate_are_found_in_its_real_runs() -> None:
    assert seconds_of([]) == Seconds()
    runs = []
    for busy in (1.0, 1.3, 2.0):  # an hour that takes longer cancels
        measured = [12, 12, 6, 3]
        took = [busy * (4 + each / 2) for each in measured]
        took[0] += 5
        exact = {"compared": 80, "seconds": 11.0}
        whole = {"seconds": 11 + sum(took) + 4}
        runs.append({"exact": exact, "measured": measured, "took": took} | whole)
    found = seconds_of(runs)
    assert (found.before, found.first) == pytest.approx((11, 5))
    assert found.of_benchmarks == pytest.approx(0.6)  # 6 of the 10 seconds
    assert found.around == pytest.approx(4)
    of_pairs = found.of_pairs(np.full((1, 2), 10.0), np.array([[1.0, 0.5]]))
    assert of_pairs == pytest.approx(np.array([[15.0, 7.0]]))
    by_the_exact_layer = {"exact": exact, "measured": [], "took": [], "seconds": 12.0}
    not_compared = {"exact": None}
    assert seconds_of([*runs, by_the_exact_layer, not_compared]) == found


def test_a_gate_under_load_is_charged_as_those_under_one() -> None:
    seconds = {False: Seconds(), True: Seconds(before=30.0)}
    (row,) = replay(recorded(), Rule(), (0.0,), runs=20, seconds=seconds)
    pairs, found = row["pairs"]["stretches"], row["seconds"]["stretches"]
    assert [s - 2 * p for s, p in zip(found, pairs, strict=True)] == [0, 0, 30, 0, 0, 30]


@pytest.mark.parametrize("count", [4, 9])
def test_an_interval_over_few_blocks_is_as_wide_as_students(count: int) -> None:
    values = norm.ppf((np.arange(count) + 0.5) / count)
    columns = np.full((count, len(METRICS)), 0.5)
    columns[:, METRICS.index("seconds")] += values
    found = _with_intervals(columns, 1000, np.random.default_rng(0))["seconds"]
    low, high = found["interval"]
    half = t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)
    # Resampled means of so few are bounded by their extremes.
    assert (high - low) / 2 == pytest.approx(min(half, values.max()), rel=0.12)


def test_to_replay_more_often_makes_no_interval_narrower_than_distinct_runs_do() -> None:
    bounds = {}
    for runs in (20, 2000, 4000):
        (row,) = replay(recorded(blocks=2, pairs=10), Rule(), (0.0,), runs=runs)
        assert row["regression"]["value"] == 0
        bounds[runs] = row["regression"]["interval"][1]
        # Of ten pairs in a ring, and of a coin for each five of them.
        assert row["distinct runs"] <= 2 * 10 * 2 ** math.ceil(max(row["pairs"]["stretches"]) / 5)
    assert bounds[20] > bounds[2000] == bounds[4000]
    (slower,) = replay(recorded(blocks=2, pairs=10), Rule(), (0.03,), runs=4000)
    assert slower["distinct runs"] > 2 * row["distinct runs"], "each of three may be slowed"


def test_a_single_block_has_no_interval() -> None:
    rows = replay(recorded(blocks=1), Rule(), (0.0,), runs=10)
    assert rows[0]["regression"]["interval"] is None


def test_drawn_runs_keep_the_order_of_pairs_and_turn_some_in_a_row_round() -> None:
    at, signs = drawn_runs(40, 20, 30, np.random.default_rng(0))
    assert at.shape == signs.shape == (30, 20)
    assert ((np.diff(at, axis=1) - 1) % 40 == 0).all()
    signs = signs.reshape(30, -1, TURNED_TOGETHER)
    assert (signs == signs[:, :, :1]).all()
    assert set(signs.ravel()) == {-1, 1}


def test_replay_without_pairs_is_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(UserError, match="no recorded pairs"):
        replay([], Rule())
    assert main(["replay", f"--lines={tmp_path / 'none'}"]) == 2
    assert "holds no recorded pairs" in capsys.readouterr().err


def test_the_binomial_range_of_a_share_that_never_happens_is_zero() -> None:
    assert binomial_range(0.0, 60) == (0, 0)
    low, high = binomial_range(0.95, 20)
    assert (low, high) == (17, 20)


def test_the_page_draws_every_curve_and_tells_the_real_runs_escaped(tmp_path: Path) -> None:
    from reports.gate.validation.curves import render

    path = tmp_path / "lines.jsonl"
    record = {"kind": "rival", "tool": "<b>", "case": "nothing", "neighbour": True, "seconds": 70.0}
    for status in (0, 0, 11, -9):
        lines.append(path, record | {"exit_status": status})
    (row,) = real.tally(path)
    rows = replay(recorded(), Rule(), (0.0, 0.02, 0.05), runs=20)
    found = {"all": rows, LOADED: rows}
    shifted = {"all": shift(recorded(bias=0.02)), LOADED: shift(recorded(bias=0.02))}
    made = {"command": "<replay>", "utc": "now", "commits": ["0123456789abcdef"]}
    made |= {"machine": {"cpu": "a CPU", "cores": 2}, "target": "toy", "protocol": "protocol 9"}
    real_rows = [row | {"agrees": "no"}]
    hundred = [of_a_hundred(0.0, [], SELF, lambda rule, by, rest: {"regression": 3})]
    summary = {"replay": found, "shift": shifted, "real": real_rows, "of a hundred": hundred}
    page = render(summary | {"made": made})
    assert "<code>&lt;replay&gt;</code> from lines of 0123456789ab\n" in page
    assert "(target: toy; protocol 9)" in page
    assert (
        "<td>nothing</td><td>0 of 0</td><td>3 of 100</td><td>3 of 100</td><td>0.6 to 8.5 %" in page
    )
    assert page.count('class="marks"') == 5
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "<td>no</td>" in page
    assert "<td>1 exit status -9, 2 pass, 1 inconclusive</td>" in page
    assert "+5 %" in page
    assert "<td>all</td><td>control: base against base</td><td>2." in page
    assert "<td>under background load</td><td>control: base against base</td><td>2." in page
    assert "<td>under background load</td><td>+2 %</td>" in page
    assert "<td>background load</td>" in page
    assert "neighbour" not in page, "a legend, too, has the words of today"
