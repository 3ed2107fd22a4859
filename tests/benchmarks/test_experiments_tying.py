"""Weight tying: exact savings, and published facts checked against the library that runs them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.tying import lesson as tying
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement

SMOKE = Settings("smoke", "cpu", seed=0)


def verdict(claim: str, measurements: list[Measurement]) -> str:
    (found,) = (entry for entry in load_claims() if entry.id == claim)
    return judge_claim(found, measurements)[0].verdict


def named(name: str) -> tying.PublishedModel:
    (found,) = (model for model in tying.published_models() if model.name == name)
    return found


def test_tying_saves_vocabulary_times_width_on_gpt2_small() -> None:
    measurements = tying.saving_small(SMOKE)
    (saved,) = (m.value for m in measurements if m.metric == "parameters_saved")
    assert saved == 50_257 * 768
    shares = {m.parameters["share_of"]: m.value for m in measurements if m.metric == "saved_share"}
    assert shares == {
        "tied size": float(Fraction(50_257 * 768, 124_439_808)),
        "untied size": float(Fraction(50_257 * 768, 163_037_184)),
    }
    assert all(m.interval is None for m in measurements)


def test_whether_30_percent_are_saved_depends_on_what_they_are_a_share_of() -> None:
    measurements = tying.saving_small(SMOKE)
    assert verdict("tying.saving-small", measurements) == "depends"
    of_tied_only = [m for m in measurements if m.parameters.get("share_of") != "untied size"]
    assert verdict("tying.saving-small", of_tied_only) == "confirmed"


def test_at_7_billion_each_model_would_save_more_than_was_said() -> None:
    measurements = tying.saving_large(SMOKE)
    assert verdict("tying.saving-large", measurements) == "refuted"
    found = {
        (m.option, m.parameters["model"]): m
        for m in measurements
        if m.metric == "saved_share_of_untied"
    }
    told = found.pop(("GPT-2 small's saving", "Llama-2-7B"))
    assert told.value == pytest.approx(0.0057, abs=5e-5)
    shares = {model: m.value for (_, model), m in found.items()}
    assert shares["Llama-2-7B"] == 32_000 * 4_096 / 6_738_415_616
    assert shares["Llama-3-8B"] == 128_256 * 4_096 / 8_030_261_248
    # A model that ties is compared with what it would be if it did not.
    assert shares["Falcon-7B"] == 65_024 * 4_544 / (6_921_720_704 + 65_024 * 4_544)


def test_only_models_of_about_7_billion_are_judged() -> None:
    judged = {
        str(m.parameters["model"])
        for m in tying.saving_large(SMOKE)
        if m.metric == "saved_share_of_untied" and m.option == "as published"
    }
    sizes = [named(model).parameters or 0 for model in judged]
    assert len(judged) >= 10
    assert 6e9 < min(sizes) < max(sizes) < 9e9


def test_the_three_families_do_not_agree_with_what_is_said_of_them() -> None:
    measurements = tying.abandoned(SMOKE)
    assert verdict("tying.abandoned", measurements) == "depends"
    untied_only = [m for m in measurements if m.value == 0]
    assert verdict("tying.abandoned", untied_only) == "confirmed"


def test_every_published_model_stands_once_and_names_its_source() -> None:
    models = tying.published_models()
    assert len({model.name for model in models}) == len(models) >= 30
    assert len({model.family for model in models}) >= 10
    for model in models:
        assert len(model.source) > 20, model.name
        assert model.field, model.name
        shape = (model.vocab_size, model.width, model.parameters)
        assert all(shape) or not any(shape), model.name


@pytest.mark.parametrize("model", tying.published_models(), ids=lambda model: model.name)
def test_the_configurations_own_words_say_what_is_recorded(model: tying.PublishedModel) -> None:
    if "two matrices" in model.field:
        assert not model.tied
    else:
        word = model.field.replace("=", ":").rpartition(":")[2].strip()
        assert word == str(model.tied).lower()


@pytest.mark.parametrize(
    "model",
    [model for model in tying.published_models() if "Config: " in model.field],
    ids=lambda model: model.name,
)
def test_an_absent_field_means_the_default_of_its_class(model: tying.PublishedModel) -> None:
    transformers = pytest.importorskip("transformers")
    name = model.field.partition("Config: ")[0].rpartition(" ")[2] + "Config"
    assert getattr(transformers, name)().tie_word_embeddings == model.tied


LLAMA_2_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
MISTRAL_7B = {**LLAMA_2_7B, "intermediate_size": 14336, "num_key_value_heads": 8}
SHAPES = {
    "Llama-2-7B": ("LlamaConfig", {**LLAMA_2_7B, "vocab_size": 32000}),
    "Mistral-7B-v0.1": ("MistralConfig", {**MISTRAL_7B, "vocab_size": 32000}),
    "Llama-3-8B": ("LlamaConfig", {**MISTRAL_7B, "vocab_size": 128256}),
    "Falcon-7B": (
        "FalconConfig",
        {
            "vocab_size": 65024,
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "parallel_attn": True,
            "multi_query": True,
            "bias": False,
        },
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_recorded_size_is_that_of_the_model_built_from_its_shape(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind, shape = SHAPES[name]
    config = getattr(transformers, kind)(**shape)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == named(name).parameters
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert (head.weight is embedding.weight) == named(name).tied
    assert tuple(head.weight.shape) == (named(name).vocab_size, named(name).width)
