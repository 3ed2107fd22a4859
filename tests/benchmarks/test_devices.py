"""`--device` reaches what trains and what rounds. "meta" stands for a GPU: it holds no numbers.

An operator whose tensors lie on two devices fails. One that gets as far as to read a number off
"meta" has computed all of it there.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora import first_step, rank, training
from benchmarks.experiments.turboquant import lesson, qjl
from benchmarks.instruments import finetuning
from reference_model.lora import LoRAConfig

CONFIG = LoRAConfig(rank=2, targets=finetuning.ALL_LINEARS)
THERE = Settings("smoke", "meta", 0)
READS_A_NUMBER = r"meta tensors|Cannot copy out of meta"


def batches(step: int) -> torch.Tensor:
    return torch.full((2, 9), step)  # on the CPU, where texts are


def test_a_fine_tune_steps_where_its_model_lies() -> None:
    model = finetuning.adapted(CONFIG, seed=0, device="meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    recipe = finetuning.at_constant_rate(1e-2, steps=1)
    for name in ("sgd", "adamw"):
        training = finetuning.adapter_training(model, batches, recipe, name)
        with pytest.raises(RuntimeError, match=READS_A_NUMBER):
            next(training.losses())


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(lambda: rank.of_a_cell(THERE, scaling="alpha/r", rank=4, rate=1e-3, seed=0),
                     id="a fine-tune"),
        pytest.param(lambda: training.of_moments(THERE, "adamw", "alpha/r", 0), id="moments"),
        pytest.param(lambda: first_step.of_a_cell(THERE, "starts"), id="starts"),
        pytest.param(lambda: first_step.of_a_cell(THERE, "ratios"), id="ratios"),
        pytest.param(lambda: first_step.of_a_cell(THERE, "real steps"), id="real steps"),
        pytest.param(lambda: first_step.of_a_cell(THERE, "AdamW's ratios"), id="AdamW's ratios"),
        pytest.param(lambda: first_step.of_a_cell(THERE, "later steps", 0), id="later steps"),
        pytest.param(lambda: lesson.of_distortion(THERE, "law"), id="distortion"),
        pytest.param(lambda: lesson.of_distortion(THERE, "scales"), id="scales"),
        pytest.param(lambda: lesson.of_distortion(THERE, "prod"), id="prod"),
        pytest.param(lambda: qjl.of_a_cell(Settings("quick", "meta", 0), "slopes"), id="slopes"),
    ],
)  # fmt: skip
def test_a_cell_computes_on_the_runs_device(cell) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match=READS_A_NUMBER):
        cell()
