"""L1, LoRA: whether the adapters measured here are those of PEFT, the common library.

The same A and B in both give the same ΔW, for both scalings; and adapters that go through a file,
from here to there or back, give the same logits.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.experiments.experiment import Settings, Unavailable, experiment
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.subject import subject_of
from reference_model.checkpoints import load_reference
from reference_model.costs import LoRATarget
from reference_model.lora import LoRAConfig, LoRALinear, ScalingLaw, add_adapters
from reference_model.lora_files import load_adapters, save_adapters
from reference_model.parts import Role, is_transposed, parts_with

CLAIM = "lora.peft-agrees"
SCALINGS: dict[str, ScalingLaw] = {"alpha/r": "lora", "alpha/sqrt(r)": "rslora"}
RANKS = [1, 3, 8, 64, 256]
WIDTHS = [64, 768]
TOKENS = 64
FILES_RANK = 8
TARGETS: dict[str, tuple[LoRATarget, ...]] = {
    "query,value": ("query", "value"),
    "all linears": ("query", "key", "value", "attention_output", "mlp_in", "mlp_out"),
}


@experiment(CLAIM, smoke=None, quick=8, full=8, of_any_model=True, as_run_elsewhere=True)
def peft_agrees(settings: Settings) -> list[Measurement]:
    """Largest deviation of ΔW by scaling, rank and width; of logits by the way a file took.

    Of another subject, of linears of its shapes, and no files.
    """
    peft = import_peft()
    generator = torch.Generator().manual_seed(settings.seed)
    if not settings.of_reference:
        return list(_updates(peft, generator, shapes_of(subject_of(settings).module())))
    widths: dict[str, tuple[int, int]] = {str(width): (width, width) for width in WIDTHS}
    return [*_updates(peft, generator, widths), *_logits(peft, generator)]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name → (inputs, outputs) of each kind of linear that an adapter can stand beside."""
    found = {}
    roles: tuple[Role, ...] = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")
    for role in roles:
        part = parts_with(model, role)[0]
        weight = part.module.get_parameter("weight")
        outputs, inputs = (weight.T if is_transposed(part.module) else weight)[part.outputs].shape
        found[f"{inputs} to {outputs}"] = (inputs, outputs)
    return found


def import_peft() -> Any:
    """PEFT; raises `Unavailable` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its own dependencies say to it
            import peft
    except ImportError as error:
        raise Unavailable(f"PEFT cannot be imported ({error}); pip install peft") from None
    return peft


def _updates(
    peft: Any, generator: torch.Generator, shapes: dict[str, tuple[int, int]]
) -> Iterator[Measurement]:
    record = partial(
        measured, claim=CLAIM, unit="1", choice="scaling", source="compared element by element"
    )
    for option, scaling in SCALINGS.items():
        for name, (inputs, outputs) in shapes.items():
            for rank in RANKS:
                config = LoRAConfig(rank, scaling=scaling, init_b="gaussian")
                ours = LoRALinear(nn.Linear(inputs, outputs), config, generator=generator)
                update = ours.delta_weight()
                deviation = float((update - update_of_peft(peft, ours)).abs().max())
                width: Parameter = inputs if name == str(inputs) else name
                found = partial(record, option=option, parameters={"rank": rank, "width": width})
                yield found(deviation, metric="update_deviation", direction="lower")
                # What the deviation is to be seen against.
                yield found(float(update.abs().max()), metric="largest_update", direction="none")


def update_of_peft(peft: Any, ours: LoRALinear) -> Tensor:
    """ΔW (d, n) that PEFT makes of our A, B and configuration of one linear."""
    config, (part,) = ours.config, ours.parts
    model = nn.Sequential(nn.Linear(ours.in_features, ours.out_features))
    peft.inject_adapter_in_model(
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            use_rslora=config.scaling == "rslora",
            target_modules=["0"],
        ),
        model,
    )
    linear: Any = model[0]
    linear.lora_A["default"].weight.data.copy_(part.A)
    linear.lora_B["default"].weight.data.copy_(part.B)
    update: Tensor = linear.get_delta_weight("default")
    return update.detach()


def _logits(peft: Any, generator: torch.Generator) -> Iterator[Measurement]:
    """Of the reference checkpoint in float64: written here and read by PEFT, and back."""
    tokens = torch.randint(4096, (1, TOKENS), generator=generator)
    for option, scaling in SCALINGS.items():
        for targets, names in TARGETS.items():
            config = LoRAConfig(FILES_RANK, scaling=scaling, targets=names, init_b="gaussian")
            model = load_reference(torch.float64)
            add_adapters(model, config, generator)
            with tempfile.TemporaryDirectory() as folder:
                there, back = Path(folder, "there"), Path(folder, "back")
                save_adapters(model, there)
                read = peft.PeftModel.from_pretrained(load_reference(torch.float64), there).eval()
                read.save_pretrained(back)
                again = load_reference(torch.float64)
                load_adapters(again, back)
            with torch.no_grad():
                logits = model(tokens)
                for way, other in {"here to PEFT": read, "PEFT to here": again}.items():
                    yield measured(
                        float((other(tokens) - logits).abs().max()),
                        claim=CLAIM,
                        metric="logit_deviation",
                        unit="1",
                        direction="lower",
                        choice="scaling",
                        option=option,
                        parameters={"way": way, "targets": targets, "dtype": "float64"},
                        source="checkpoint",
                    )
