"""L3, weight tying: what one matrix for embedding and head saves, and who does it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.experiments.experiment import Settings, experiment
from benchmarks.instruments.counting import counted_parameters
from benchmarks.record.results import Measurement, Parameter, measured
from reference_model.config import Head, preset

PUBLISHED_FILE = Path(__file__).with_name("published_models.toml")
ABOUT_7B = (6e9, 9e9)  # parameters
SAID_SAVING, SAID_SIZE = 38.6e6, 6.74e9  # the sum as it is told: GPT-2 small's saving, Llama's size


@experiment("tying.saving-small", smoke=1, quick=1, full=1)
def saving_small(settings: Settings) -> list[Measurement]:
    """What tying saves on GPT-2 small, of the tied size and of the untied one."""
    heads: tuple[Head, Head] = ("tied", "untied")
    tied, untied = (counted_parameters(preset("gpt2", head=head)) for head in heads)
    saved = untied - tied
    found: tuple[tuple[str, str, float, str, dict[str, Parameter]], ...] = (
        ("parameters", "parameters", tied, "tied", {}),
        ("parameters", "parameters", untied, "untied", {}),
        ("parameters_saved", "parameters", saved, "tied", {}),
        ("saved_share", "ratio", saved / tied, "tied", {"share_of": "tied size"}),
        ("saved_share", "ratio", saved / untied, "tied", {"share_of": "untied size"}),
    )
    return [
        _exact(
            "tying.saving-small", metric, unit, value, option, {"model": "gpt2", **of}, "counted"
        )
        for metric, unit, value, option, of in found
    ]


@dataclass(frozen=True)
class PublishedModel:
    """A model of `published_models.toml`. The shape is absent where none could be read."""

    name: str
    family: str
    tied: bool
    field: str
    source: str
    vocab_size: int | None = None
    width: int | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Saving:
    """What tying saves in a published model, or would save where its matrices are two."""

    parameters: int
    share: float  # of the model with two matrices


def published_models() -> list[PublishedModel]:
    """Every model of the file, its source written out."""
    document = tomllib.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    sources = document["sources"]
    return [
        PublishedModel(**{**entry, "source": sources[entry["source"]]})
        for entry in document["model"]
    ]


def saving(model: PublishedModel) -> Saving | None:
    """None without a published shape."""
    if model.vocab_size is None or model.width is None or model.parameters is None:
        return None
    matrix = model.vocab_size * model.width
    with_two = model.parameters + (matrix if model.tied else 0)
    return Saving(matrix, matrix / with_two)


@experiment("tying.saving-large", smoke=0.1, quick=0.1, full=0.1)
def saving_large(settings: Settings) -> list[Measurement]:
    """What tying saves, or would save, by published model, as a share of the untied size.

    The sum as it is told, GPT-2 small's saving over a 7 B model, is an option of its own; models
    of other sizes have metrics of their own, since the claim does not speak of them.
    """
    claim = "tying.saving-large"
    told, llama = "GPT-2 small's saving", {"model": "Llama-2-7B"}
    share = SAID_SAVING / SAID_SIZE
    measurements = [
        _exact(claim, "saved_share_of_untied", "ratio", share, told, llama, "the claim")
    ]
    for model in sorted(published_models(), key=lambda model: model.parameters or 0):
        found = saving(model)
        if found is None or model.parameters is None:
            continue
        other = "" if ABOUT_7B[0] <= model.parameters <= ABOUT_7B[1] else "_at_other_sizes"
        labels: dict[str, Parameter] = {
            "model": model.name,
            "size": model.parameters,
            "head": "tied" if model.tied else "untied",
        }
        for metric, unit, value in (
            ("parameters_saved", "parameters", found.parameters),
            ("saved_share_of_untied", "ratio", found.share),
        ):
            measurements.append(
                _exact(
                    claim,
                    metric + other,
                    unit,
                    value,
                    "as published",
                    labels,
                    "published configuration",
                )
            )
    return measurements


@experiment("tying.abandoned", smoke=0.1, quick=0.1, full=0.1)
def abandoned(settings: Settings) -> list[Measurement]:
    """Whether each published model ties (1) or keeps two matrices (0), with its source."""
    return [
        _exact(
            "tying.abandoned",
            "tied",
            "1",
            int(model.tied),
            "as published",
            {"family": model.family, "model": model.name},
            f"{model.field}: {model.source}",
        )
        for model in published_models()
    ]


def _exact(
    claim: str,
    metric: str,
    unit: str,
    value: float,
    option: str,
    labels: Mapping[str, Parameter],
    source: str,
) -> Measurement:
    return measured(
        value,
        claim=claim,
        metric=metric,
        unit=unit,
        direction="lower" if metric == "parameters" else "none",
        choice="head",
        option=option,
        parameters=labels,
        source=source,
    )
