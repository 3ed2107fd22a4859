"""Made-up but realistic measurements: of about half of the claims."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.record.results import Measurement


def measurement(claim: str, metric: str, value: float, **fields: Any) -> Measurement:
    half_width = fields.pop("half_width", None)
    known = {
        "unit": fields.pop("unit", "1"),
        "interval": None if half_width is None else (value - half_width, value + half_width),
        "n": fields.pop("n", None if half_width is None else 8),
        "direction": fields.pop("direction", "none"),
        "choice": fields.pop("choice", "any"),
        "option": fields.pop("option", "any"),
        "source": fields.pop("source", "simulation" if half_width is not None else "counted"),
    }
    return Measurement(claim=claim, metric=metric, value=value, parameters=fields, **known)


def made_up_measurements() -> list[Measurement]:
    made: list[Measurement] = []
    lessons = (lora, lora_training, positions, tying, norms, trained, cache, compressed_cache, int8)
    for lesson in lessons:
        made += lesson()
    return made


def lora() -> Iterator[Measurement]:
    of = partial(measurement, "lora.trainable-share")
    for rank in (2**i for i in range(9)):
        for head, total in (("untied", 163_037_184), ("tied", 124_439_808)):
            share = 100 * 36_864 * rank / total
            labels = {"head": head, "rank": rank, "targets": "query,value"}
            yield of("trainable_share", share, unit="percent", option="LoRA", **labels)
    product = partial(measurement, "lora.product-variance")
    update = partial(measurement, "lora.update-variance")
    yield product("product_variance_exponent", 1.0003, half_width=0.002)
    for rank in (2**i for i in range(11)):
        wiggle = 1 + 0.004 * math.sin(7 * rank)
        yield product("variance", rank * wiggle, half_width=0.01 * rank, rank=rank)
        yield product("product_variance_ratio", wiggle, half_width=0.01, rank=rank)
        for option, power in (("alpha/r", -1), ("alpha/sqrt(r)", 0)):
            size = wiggle * float(rank) ** power
            for a in ("gaussian", "uniform"):
                labels = {"option": option, "a": a, "rank": rank}
                yield update("variance", size, half_width=0.015 * size, **labels)
                yield update("variance_over_law", wiggle, half_width=0.015, **labels)
    for option, power in (("alpha/r", -1), ("alpha/sqrt(r)", 0)):
        for a in ("gaussian", "uniform"):
            labels = {"option": option, "a": a}
            yield update("update_variance_exponent", power + 0.001, half_width=0.003, **labels)
    for check in ("value", "exponent", "equivalence", "dependence"):
        labels = {"choice": "law", "check": check, "a": "gaussian", "n": 4000}
        yield update("false_alarm_rate", 0.05, half_width=0.007, option="alpha/sqrt(r)", **labels)
        yield update("power", 0.999, half_width=0.0009, option="rho = 0.1", **labels)
        blind = check == "dependence"
        metric, rate, half = ("rejection_rate", 0.05, 0.007) if blind else ("power", 0.999, 0.0009)
        yield update(metric, rate, half_width=half, option="alpha/r^0.6", **labels)
    labels = {"choice": "law", "check": "equivalence", "a": "gaussian", "n": 4000}
    for border in ("exponent off by -0.02", "exponent off by 0.02"):
        yield update("false_equivalence_rate", 0.05, half_width=0.007, option=border, **labels)


def lora_training() -> Iterator[Measurement]:
    first = partial(measurement, "lora.real-init")
    moment = partial(measurement, "lora.activation-stability")
    loss = partial(measurement, "lora.rank-pays", unit="nats/token")
    for option, power in (("alpha/r", -1), ("alpha/sqrt(r)", 0)):
        yield first("update_norm", 0.0, option=option, rank=16, step=0)
        for quantity in ("output", "gradient"):
            labels = {"option": option, "step": 40}
            yield moment(f"{quantity}_moment_exponent", power + 0.02, half_width=0.05, **labels)
        for learning_rate in ("equal", "tuned"):
            labels = {"option": option, "learning_rate": learning_rate}
            yield loss("loss_gain", 0.05 + 0.04 * power, half_width=0.004, **labels)
        for rank in (4, 16, 64, 256):
            labels = {"option": option, "rank": rank}
            for kind in ("gain", "norm"):
                metric = f"first_step_{kind}_ratio"
                yield first(metric, 1.001, half_width=0.008, a="gaussian", **labels)
            size = float(rank) ** power
            for quantity in ("output", "gradient"):
                metric = f"{quantity}_moment"
                yield moment(metric, size, half_width=0.02 * size, step=40, **labels)
            for learning_rate in ("equal", "tuned"):
                value, labels = 4.9 - rank / 4000, {**labels, "learning_rate": learning_rate}
                yield loss("held_out_loss", value, half_width=0.05, **labels)


def positions() -> Iterator[Measurement]:
    of = partial(measurement, choice="positions")
    for option in ("learned", "sinusoidal", "rope", "alibi", "none"):
        count = 786_432 if option == "learned" else 0
        yield of("position.parameters", "parameters", count, unit="parameters", option=option)
    for option, deviation in (("rope", 3.1e-15), ("sinusoidal", 2.3), ("learned", 0.9)):
        yield of("position.relative", "shift_deviation", deviation, option=option)
    untouched = partial(of, "position.embedding-untouched", state="trained")
    yield untouched("embedding_change", 0.0, option="rope")
    change = partial(untouched, "norm_change", unit="ratio", n=64)
    yield change(0.384, half_width=0.02, option="learned")
    yield change(0.031, half_width=0.004, option="sinusoidal")


def tying() -> Iterator[Measurement]:
    small = partial(measurement, "tying.saving-small")
    yield small("parameters_saved", 38_597_376, unit="parameters", option="tied")
    yield small("parameters", 124_439_808, unit="parameters", option="tied")
    yield small("parameters", 163_037_184, unit="parameters", option="untied")
    yield small("saved_share", 0.310169, unit="ratio", option="tied", share_of="tied size")
    yield small("saved_share", 0.236740, unit="ratio", option="tied", share_of="untied size")
    published = {"option": "as published", "source": "published configuration"}
    for model, share in (("Llama-2-7B", 0.0194), ("Mistral-7B", 0.0181), ("Llama-3-8B", 0.0654)):
        large = partial(measurement, "tying.saving-large", unit="ratio", **published)
        yield large("saved_share_of_untied", share, model=model)
    for family, model, tied in (
        ("LLaMA", "Llama-2-7B", 0),
        ("LLaMA", "Llama-3.2-1B", 1),
        ("Mistral", "Mistral-7B", 0),
        ("Falcon", "Falcon-7B", 1),
    ):
        abandoned = partial(measurement, "tying.abandoned", **published)
        yield abandoned("tied", tied, family=family, model=model)


def norms() -> Iterator[Measurement]:
    def of(metric: str, value: float, spread: float, **labels: Any) -> Measurement:
        half_width = spread if metric == "exponent" else spread * abs(value)
        claim = "norm.gradient-profile"
        labels["width"] = 128 if metric in ("exponent", "last_layer_gradient") else 768
        return measurement(claim, metric, value, half_width=half_width, n=5, **labels)

    for option, initialization, slope in (
        ("pre", "xavier", -0.01),
        ("post", "xavier", 0.09),
        ("pre", "gpt2", -0.004),
        ("post", "gpt2", 0.06),
        ("deepnorm", "deepnorm", 0.02),
    ):
        labels = {"option": option, "initialization": initialization}
        for layer in range(1, 49):
            value = 0.2 * math.exp(slope * layer) * (1 + 0.05 * math.sin(layer))
            yield of("gradient_norm", value, 0.05, depth=48, layer=layer, **labels)
        yield of("first_to_last_ratio", math.exp(-48 * slope), 0.1, depth=48, **labels)
        power = -0.5 if labels == {"option": "pre", "initialization": "xavier"} else 0.01
        yield of("exponent", power, 0.04, **labels)
        for depth in (2, 4, 8, 16, 32, 48):
            yield of("last_layer_gradient", depth**power, 0.05, depth=depth, **labels)


def trained() -> Iterator[Measurement]:
    """Models that were trained to be compared."""
    for claim, option, other, metric in (
        ("position.quality", "rope", "learned", "loss_advantage"),
        ("tying.quality", "untied", "tied", "loss_advantage"),
        ("norm.quality", "post", "pre", "loss_advantage"),
        ("norm.variants", "rmsnorm", "pre", "loss_excess"),
        ("cache.grouped-queries", "a quarter of the heads", "all heads", "loss_excess"),
    ):
        of = partial(measurement, claim, unit="nats/token", choice="trained")
        yield of(metric, 0.1, half_width=0.02, option=option, over=other, tokens=2048)
        for name, lower in ((option, 0.1), (other, 0.0)):
            for tokens in range(128, 2049, 128):
                loss = 6 - lower - tokens / 1024
                yield of("training_loss", loss, half_width=0.01, option=name, tokens=tokens)
    beyond = partial(measurement, "position.extrapolation", choice="trained")
    for option, rise in (("rope", 0.15), ("alibi", 0.02)):
        for ratio in (2, 4):
            labels = {"option": option, "length_ratio": ratio, "half_width": 0.01}
            yield beyond("loss_rise", rise * ratio / 2, unit="nats/token", **labels)
            yield beyond("copied", 1 / ratio, **labels)
    for option, placement in (("pre", 8), ("post", 1)):
        for depth in (4, 12):
            labels = {"option": option, "depth": depth, "warmup_steps": 0, "n": 3}
            rate = placement * 2.0**-10
            stable = partial(measurement, "norm.stable-range", half_width=rate / 4, **labels)
            yield stable("largest_stable_rate", rate)
    for option, power in (("alpha/r", 0.0), ("alpha/sqrt(r)", -0.25)):
        law = partial(measurement, "lora.learning-rate-law", option=option, choice="scaling")
        yield law("exponent", power, half_width=0.03, rule="three lowest")
        yield law("exponent", power + 0.02, half_width=0.03, rule="four lowest")
        for rank in (4, 16, 64, 256):
            rate = 2e-3 * (rank / 32) ** power
            yield law("best_rate", rate, half_width=rate / 9, rank=rank)


def cache() -> Iterator[Measurement]:
    timed = partial(measurement, "cache.fifteen-tokens", source="clock")
    claimed = partial(timed, new_tokens=15, prompt_tokens=1, n=7)
    yield claimed("speedup", 1.74, half_width=0.16, unit="ratio", option="cached")
    yield claimed("seconds", 1.1, half_width=0.1, unit="s", option="cached")
    yield claimed("seconds", 1.9, half_width=0.1, unit="s", option="uncached")
    for tokens in (4, 8, 16, 32, 64):
        labels = {"new_tokens": tokens, "prompt_tokens": 128, "n": 3}
        yield timed(
            "speedup", 2 + tokens / 12, half_width=0.3, unit="ratio", option="cached", **labels
        )
        for option, rate in (("cached", 46 - 40 / tokens), ("uncached", 7 - tokens / 50)):
            labels["option"] = option
            yield timed("tokens_per_second", rate, half_width=0.8, unit="tokens/s", **labels)
    yield from complexity()
    yield from memory_bound()
    rows = partial(measurement, "cache.fifteenfold-projections")
    yield rows("projection_ratio", 8, unit="ratio", option="cached")
    for step in range(1, 16):
        yield rows("row_projections", 1, unit="rows", option="cached", step=step)
        yield rows("row_projections", step, unit="rows", option="uncached", step=step)
    law = partial(measurement, "cache.memory-law", option="float32")
    for model, per_token in (("reference", 12_288), ("gpt2", 73_728)):
        for batch_size in (1, 3):
            for tokens in (1, 64, 200, 512):
                labels = {"model": model, "batch_size": batch_size, "counted": "in use"}
                size = batch_size * per_token * tokens
                yield law("bytes", size, unit="bytes", tokens=tokens, **labels)
                yield law("bytes_over_law", 1, unit="ratio", tokens=tokens, **labels)
    example = partial(measurement, "cache.memory-example", unit="GB")
    yield example("gigabytes", 16.777216, option="fp16")
    yield example("gigabytes", 33.554432, option="fp32")


def complexity() -> Iterator[Measurement]:
    of = partial(measurement, "cache.complexity", "flops", unit="FLOP")
    for tokens in (16, 32, 64, 128, 256):
        for option, part, size in (
            ("uncached", "projections", 3e6 * tokens**2),
            ("uncached", "attention", 2e3 * tokens**3),
            ("cached", "projections", 6e6 * tokens),
            ("cached", "attention", 6e3 * tokens**2),
        ):
            yield of(size, option=option, part=part, tokens=tokens)


def memory_bound() -> Iterator[Measurement]:
    of = partial(measurement, "cache.memory-bound", dtype="float32")
    timed = partial(of, n=5, source="clock")
    machine = partial(timed, option="machine")
    yield machine("read_bandwidth", 5e10, half_width=4e9, unit="bytes/s")
    yield machine("matrix_rate", 2e11, half_width=5e9, unit="FLOP/s")
    yield timed("intensity_over_balance", 0.12, half_width=0.01, option="decode", batch_size=1)
    for metric, share, half_width in (
        ("reading_share", 0.78, 0.17),
        ("reading_least", 0.62, 0.01),
        ("operator_share", 0.94, 0.01),
        ("computing_share", 0.06, 0.01),
    ):
        labels = {"option": "decode", "batch_size": 1}
        yield timed(metric, share, half_width=half_width, unit="ratio", **labels)
    for labels, intensity, rate in (
        ({"option": "decode", "batch_size": 1}, 0.4996, 1.3e10),
        ({"option": "decode", "batch_size": 4}, 1.892, 3.6e10),
        ({"option": "decode", "batch_size": 16}, 6.241, 8e10),
        ({"option": "prefill", "batch_size": 1, "tokens": 128}, 44.73, 1.6e11),
        ({"option": "prefill", "batch_size": 1, "tokens": 512}, 185.8, 1.7e11),
    ):
        yield of("intensity", intensity, unit="FLOP/byte", **labels)
        yield timed("flops_per_second", rate, half_width=rate / 20, unit="FLOP/s", **labels)
    for batch_size in (1, 4, 16):
        rate = partial(timed, option="decode", unit="tokens/s", batch_size=batch_size)
        yield rate("tokens_per_second", 50 * batch_size**0.6, half_width=2)
        yield rate("tokens_per_second_limit", 90 * batch_size, half_width=9)


def compressed_cache() -> Iterator[Measurement]:
    memory = partial(measurement, "turboquant.memory", unit="ratio", bits=3, tokens=1024)
    for width, smaller in ((64, 4.87), (128, 5.03)):
        labels = {"option": "turboquant", "width": width, "window": 0}
        yield memory("compression", smaller, against="fp16", **labels)
        yield memory("compression", 2 * smaller, against="fp32", **labels)
    law = partial(measurement, "turboquant.beta", n=20_000, width=64)
    for option, distance in (("one coordinate alone", 0.006), ("keys", 0.007)):
        yield law("distance", distance, half_width=0.005, option=option)
        yield law("distance_unrotated", 40 * distance, half_width=0.005, option=option)
    lost = partial(measurement, "turboquant.distortion", width=64)
    for bits in (1, 2, 3, 4):
        exact = 2.5 * 4.0**-bits
        for option, value in (("exact", exact), ("upper bound", 1.1 * exact)):
            yield lost("distortion", value, option=option, bits=bits)
        yield lost("distortion", exact, half_width=exact / 99, option="turboquant", bits=bits)
        ratio = partial(lost, option="turboquant", bits=bits, unit="ratio")
        yield ratio("distortion_over_exact", 1.001, half_width=0.004)
        yield ratio("distortion_over_bound", 0.9, half_width=0.004)
        for option, factor in (("turboquant", 1), ("prod, gaussian S", 4.2)):
            value = factor * exact
            yield lost("inner_product_variance", value, half_width=0.01, option=option, bits=bits)
    unbiased = partial(measurement, "turboquant.unbiased")
    for bits in (2, 3):
        for projection, ratio in (("gaussian", 4.0), ("orthonormal", 1.7)):
            labels = {"option": "prod", "bits": bits, "projection": projection}
            yield unbiased("inner_product_slope", 1.0, half_width=0.002, **labels)
            yield unbiased("attention_kl_ratio", ratio, half_width=0.1, **labels)
            yield unbiased("attention_kl", ratio / 4.0**bits, half_width=0.001, **labels)
    quality = partial(measurement, "turboquant.zero-loss", unit="nats/token", n=20)
    for bits in (2, 3, 4):
        labels = {"option": "turboquant", "bits": bits, "compressed": "keys and values"}
        yield quality("loss_increase", 2.0 * 4.0**-bits, half_width=0.001, **labels)
        for option, more in (("turboquant, norm scale", 0.25), ("rounding per token", 0.5)):
            labels = {"option": option, "bits": bits, "bits_held": bits + more}
            loss = (1 + more) * 4.0**-bits
            yield quality("format_loss_increase", loss, half_width=0.0005, **labels)
            yield quality("format_prediction_kl", loss, half_width=0.0005, **labels)
    yield from formats()
    shared = partial(measurement, "turboquant.keys-need-more", unit="nats/token", n=20)
    for keys, values, loss in ((4, 2, 0.02), (3, 3, 0.03), (2, 4, 0.05)):
        labels = {"option": "turboquant", "key_bits": keys, "value_bits": values}
        yield shared("loss_increase", loss, half_width=0.004, **labels)
    yield shared("loss_saved", 0.03, half_width=0.005)
    work = partial(measurement, "turboquant.rotation-first", bits=3, n=5)
    for option, rotation, codebook in (("keys", 1.01, 1.9), ("keys with outliers", 3.5, 1.9)):
        over = rotation / codebook
        yield work("gain_by_rotation", rotation, half_width=0.02, unit="ratio", option=option)
        yield work("gain_by_codebook", codebook, half_width=0.02, unit="ratio", option=option)
        yield work("rotation_over_codebook", over, half_width=0.01, unit="ratio", option=option)


def formats() -> Iterator[Measurement]:
    referee = partial(measurement, "turboquant.best-at-three", unit="nats/token", n=5)
    for option, factor in (("TurboQuant", 1.0), ("E8 in a box", 0.8), ("KVarN, signs", 1.1)):
        for bits in (2, 3, 4):
            held = bits + 0.25 + 5 * (option == "KVarN, signs")
            labels = {"option": option, "bits": str(bits), "kept": "bare", "bits_held": held}
            yield referee("prediction_kl", factor * 4.0**-bits, half_width=0.001, **labels)
    rival = partial(referee, half_width=0.001, option="E8 in a box, 3 bits", rivals=2)
    yield rival("strongest_rival_kl", -0.003)
    control = partial(measurement, "turboquant.best-at-three")
    for seed in range(5):
        yield control("damaged_control", 4.0, unit="ratio", option="q4_0", seed=seed)
    yield control("equal_control", 1e-7, unit="nats/token", option="float32")


def int8() -> Iterator[Measurement]:
    share = partial(measurement, "int8.norm-share", unit="percent")
    yield share("norm_share", 0.030858, option="layernorm")
    as_it_is = {"option": "float32", "n": 120, "source": "checkpoint", "half_width": 0.02}
    quality = partial(measurement, "int8.weights-quality")
    yield quality("held_out_loss", 2.712, unit="nats/token", **as_it_is)
    yield quality("bits_per_byte", 1.998, unit="bits/byte", **as_it_is)
    rounded = {"option": "int8", "n": 120, "unit": "nats/token"}
    increase = partial(quality, "loss_increase", **rounded)
    yield increase(0.0004, half_width=0.0003, granularity="per channel")
    yield increase(0.0061, half_width=0.0009, granularity="per tensor")
    damage = partial(measurement, "int8.norm-damage", "loss_increase", **rounded)
    size = partial(measurement, "int8.size-speed", unit="ratio")
    for option, share, faster in (("int_mm", 0.257, 2.4), ("packed", 0.335, 3.0)):
        yield size("bytes_ratio", share, option=option)
        for part in ("decode", "prefill"):
            yield size("speedup", faster, half_width=0.1, option=option, part=part)
    bears = partial(measurement, "int8.sensitivity", option="INT4 per group", n=20)
    yield bears("sensitivity_ratio", 40.0, half_width=20.0, unit="ratio")
    for kind, lost in (("qkv", 0.004), ("MLP out", 0.001), ("norms", 0.0001)):
        labels = {"kind": kind, "half_width": lost / 4}
        yield bears("loss_increase", lost, unit="nats/token", **labels)
        yield bears("loss_per_megabyte", lost, unit="nats/token/MB", **labels)
    gradient = partial(measurement, "int8.activation-range", option="W8A8", n=8)
    for layer in range(6):
        labels = {"layer": layer, "half_width": 0.0004, "model": "checkpoint"}
        yield gradient("gradient_cosine", 0.9995 - layer / 10_000, **labels)
    of_checkpoint = partial(damage, model="reference checkpoint")
    yield of_checkpoint(0.0009, half_width=0.0004, way="gamma and beta per tensor")
    yield of_checkpoint(0.0093, half_width=0.0015, way="gamma, beta and input per tensor")
    yield of_checkpoint(0.0312, half_width=0.0029, way="integer statistics")
    for way in ("gamma and beta per tensor", "gamma, beta and input per tensor"):
        yield damage(0.12, half_width=0.01, way=way, model="planted outliers")
    labels = {"way": "integer statistics, 1 fractional bits", "model": "known to be coarse"}
    yield damage(0.02, half_width=0.002, **labels)
