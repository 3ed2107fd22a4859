"""L1's charts of training: first steps over their closed forms, moments, and loss against rank."""

from __future__ import annotations

from collections.abc import Sequence

from reports.render.marks import Measurement, Panel, bars, curve, dots, labels
from reports.render.selection import CURVE_NEEDS, Claim, Panels, bordered_dots, numbers, of

NAMES = {"sgd": "SGD", "adamw": "AdamW"}


def first_step(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Measured over closed form by rank, for SGD and for AdamW; then ‖ΔW‖ after more steps."""
    panels: Panels = []
    for prefix, optimizer in (("", "sgd"), ("adamw_", "adamw")):
        for kind, what in (("gain", "first-order gain"), ("norm", "squared norm of ΔW")):
            ratios = of(measurements, f"{prefix}first_step_{kind}_ratio")
            # The scale multiplies both sides alike: the ratios of both scalings are the same.
            shown = [_keeping(m, "rank", "a") for m in ratios if m["option"] == ratios[0]["option"]]
            if len({labels(m)["rank"] for m in shown}) >= 2:
                title = f"one step of {NAMES[optimizer]}: {what}, measured over closed form"
                panels.append(_by_rank(title, shown, "ratio"))
    later = [m for m in of(measurements, "update_norm") if "optimizer" in m["parameters"]]
    for optimizer in dict.fromkeys(labels(m)["optimizer"] for m in later):
        for option in dict.fromkeys(m["option"] for m in later):
            chosen = [
                {**_keeping(m, "rank", "step"), "option": option}
                for m in later
                if (m["option"], labels(m)["optimizer"]) == (option, optimizer)
            ]
            title = f"size of the update after k steps of {NAMES[optimizer]}, {_scale(option)}"
            panels.append(_by_rank(title, chosen, "‖ΔW‖", log_y=True))
    return panels


def moments(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """Second moments by rank at the end of the fine-tunes, and exponents along them."""
    panels: Panels = []
    for prefix, optimizer in (("", "adamw"), ("sgd_", "sgd")):
        for quantity, what in (("output", "adapter output"), ("gradient", "input gradient")):
            found = of(measurements, f"{prefix}{quantity}_moment")
            if numbers(found, "rank") < CURVE_NEEDS:
                continue
            last = max(labels(m)["step"] for m in found)
            chosen = [_keeping(m, "rank") for m in found if labels(m)["step"] == last]
            title = f"second moment of the {what} after {last} steps of {NAMES[optimizer]}"
            panels.append(_by_rank(title, chosen, "second moment", log_y=True))
            exponents = of(measurements, f"{prefix}{quantity}_moment_exponent")
            if len(exponents) >= 2:
                title = f"exponent of that moment in the rank, {what}, {NAMES[optimizer]}"
                panels.append(dots(title, exponents, x_title="exponent"))
    return panels


def rank_pays(measurements: Sequence[Measurement], claim: Claim) -> Panels:
    """The claim's gain; loss by rank; what each rate makes of it; what the rank costs."""
    panels: Panels = []
    gains = [_keeping(m, "learning_rate") for m in of(measurements, "loss_gain")]
    if len(gains) >= 2:
        title = "what rank 256 saves over rank 4, held-out text"
        panels.append(bordered_dots(title, gains, claim, "loss saved (nats/token)"))
    losses = of(measurements, "held_out_loss")
    if numbers(losses, "rank") >= CURVE_NEEDS:
        title = "held-out loss against rank"
        panels.append(_by_rank(title, losses, "loss (nats/token)"))
    over = of(measurements, "gain_over_rank_4")
    if len(over) >= 2:
        title = "what each rank saves over rank 4, paired on the same text"
        panels.append(_by_rank(title, over, "loss saved (nats/token)"))
    panels += _by_rate(measurements)
    seconds = of(measurements, "seconds_per_step")
    if len(seconds) >= 2:
        shown = [_keeping(m, "rank") for m in seconds]
        panels.append(bars("seconds of a training step", shown, x_title="seconds"))
    return panels


def _by_rate(measurements: Sequence[Measurement]) -> Panels:
    panels: Panels = []
    gains = of(measurements, "gain_at_rate")
    if numbers(gains, "rate") >= 2:
        title = "what rank 256 saves over rank 4, by learning rate"
        panels.append(_curve(title, gains, "rate", "learning rate", "loss saved (nats/token)"))
    losses = of(measurements, "loss_at_rate")
    for option in dict.fromkeys(m["option"] for m in losses):
        chosen = [m for m in losses if m["option"] == option]
        if numbers(chosen, "rate") >= CURVE_NEEDS:
            title = f"held-out loss by learning rate, {_scale(option)}"
            panels.append(_curve(title, chosen, "rate", "learning rate", "loss (nats/token)"))
    return panels


def _by_rank(title: str, chosen: Sequence[Measurement], y_title: str, log_y: bool = False) -> Panel:
    return _curve(title, chosen, "rank", "rank r", y_title, log_y=log_y)


def _curve(
    title: str,
    chosen: Sequence[Measurement],
    x: str,
    x_title: str,
    y_title: str,
    log_y: bool = False,
) -> Panel:
    return curve(title, chosen, x, x_title=x_title, y_title=y_title, log_x=True, log_y=log_y)


def _scale(option: str) -> str:
    return "α/√r" if option == "alpha/sqrt(r)" else "α/r"


def _keeping(measurement: Measurement, *keys: str) -> Measurement:
    kept = {k: v for k, v in measurement["parameters"].items() if k in keys}
    return {**measurement, "parameters": kept}
