"""Any model under the experiments: which text it reads, what is asked of it, and how it is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.data.assets import play_texts
from benchmarks.experiments.cache import lesson as cache
from benchmarks.experiments.cache import memory_bound
from benchmarks.experiments.catalogue import all_experiments
from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import activations as int8_activations
from benchmarks.experiments.int8 import lesson as int8
from benchmarks.experiments.int8 import speed as int8_speed
from benchmarks.experiments.int8.sensitivity import untied
from benchmarks.experiments.lora.adapters import shapes_of
from benchmarks.experiments.turboquant import (
    kv_quality,
    kv_vectors,
    qjl_budget,
    shares,
    signs,
)
from benchmarks.instruments import limits
from benchmarks.instruments.environment import run_stamp
from benchmarks.judging.claims import load_claims
from benchmarks.record.results import read_results
from benchmarks.running import plan as planning
from benchmarks.running.runner import _resolved
from benchmarks.subjects.subject import digest_of, subject_of
from reference_model.cache import KVCache
from reference_model.checkpoints import REFERENCE_FOLDER
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.export import save_huggingface
from reference_model.families.family import OF_LLAMA
from reference_model.model import GPT
from tests.reference_model.families.test_gguf import settings_of, tensors_of, write
from tests.reference_model.tiny import enlarge

CONFIG = GPTConfig(
    vocab_size=4096, context_length=64, n_layer=2, n_head=4, n_kv_head=2, n_embd=128, d_mlp=96,
    bias=False, **OF_LLAMA,
)  # fmt: skip
COUNTED = "lora.trainable-share,cache.memory-law,cache.fifteenfold-projections,int8.norm-share"


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "scene.txt"
    path.write_text(next(iter(play_texts("test").values()))[:60_000], encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it: two layers of random weights, a real tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    model = GPT(CONFIG)
    enlarge(model)
    save_huggingface(model, folder, eos_token_id=0)
    shutil.copy(REFERENCE_FOLDER / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="session")
def gguf_file(llama: Path) -> Path:
    """The same model as one file."""
    written = pytest.importorskip("gguf")
    from reference_model.checkpoints import load_huggingface

    tokenizer = json.loads((llama / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in
              tokenizer["model"]["merges"]]  # fmt: skip
    model = load_huggingface(llama)
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [1] * len(tokens),
        "merges": merges,
        "eos_token_id": 0,
    }
    settings = settings_of(model.config) | {f"tokenizer.ggml.{k}": v for k, v in fields.items()}
    path = llama.with_name("tiny.gguf")
    write(written, path, tensors_of(model), settings)
    return path


def asked(model: Path | str, text: Path | None = None) -> Settings:
    return Settings("smoke", "cpu", 0, str(model), None if text is None else str(text))


def test_a_model_reads_the_text_of_the_run_in_its_own_tokens(llama: Path, text: Path) -> None:
    subject = subject_of(asked(llama, text))
    windows = subject.windows()
    read = subject.tokenizer.decode(windows.inputs[:40].flatten().tolist())
    assert text.read_text(encoding="utf-8").startswith(read)
    assert windows.inputs.shape[1] == CONFIG.context_length == subject.window
    assert windows.population == "the text of scene.txt"
    assert len(subject.windows(5, seed=1)) == 5


def test_without_a_text_it_reads_the_held_out_plays(llama: Path) -> None:
    assert subject_of(asked(llama)).windows().population == "the text of 3 plays"
    assert subject_of(asked("reference")).windows().inputs.shape[1] == 512


def test_a_file_of_the_same_tensors_loses_what_the_folder_does(
    llama: Path, gguf_file: Path, text: Path
) -> None:
    of_folder, of_file = (int8.weights_quality(asked(m, text)) for m in (llama, gguf_file))
    assert [m.metric for m in of_folder] == [m.metric for m in of_file]
    for one, other in zip(of_folder, of_file, strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-6)


def test_a_model_is_asked_about_in_the_runs_dtype(llama: Path, text: Path) -> None:
    settings = replace(asked(llama, text), dtype="bfloat16")
    subject = subject_of(settings)
    assert {p.dtype for p in subject.model().parameters()} == {torch.bfloat16}
    assert subject.model(torch.float64).wte.weight.dtype == torch.float64
    assert subject.title == "tiny-llama (bfloat16)"
    # The same model in float32 is another subject, whose cells are other cells.
    one, other = (
        planning.plan(s, load_claims(), load_claims(), all_experiments(), run_stamp(s))
        for s in (settings, asked(llama, text))
    )
    keys, others = ({key for claim in each for _, key in claim.cells} for each in (one, other))
    assert keys
    assert not keys & others
    assert run_stamp(settings)["dtype"] == "bfloat16"
    assert "dtype" not in run_stamp(asked(llama, text))


def test_the_reference_in_another_dtype_is_asked_what_any_model_is() -> None:
    settings = replace(asked("reference"), dtype="bfloat16")
    assert not settings.of_reference
    assert subject_of(settings).title == "our 6 M model (bfloat16)"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_experiments_measure_in_the_runs_dtype(llama: Path, text: Path, dtype: Any) -> None:
    settings = replace(asked(llama, text), dtype=dtype)
    loss, *_ = int8._of_variant(settings, dtype)
    exact, *_ = int8._of_variant(asked(llama, text), "float32")
    assert loss.option == dtype
    assert 0 < abs(loss.value - exact.value) < 0.02 * exact.value  # rounding, and no more
    told = {cell.parameters.get("dtype") for cell in cache.cells_of_outputs(settings)} - {None}
    assert told == {dtype, "float64"}
    keys, _ = kv_vectors.keys_and_values(settings, 10)
    assert keys.dtype == subject_of(settings).dtype
    model = subject_of(settings).model()
    assert untied(model).wte.weight.dtype == subject_of(settings).dtype
    sizes = int8_speed.of_a_cell(replace(settings, profile="full"), "sizes")
    assert sizes["float32"] == sum(4 * p.numel() for p in model.parameters())
    assert limits.dtype_of(model) == dtype
    step = memory_bound._decode_step(model, "cpu", 1, samples=1)
    assert step().dtype == subject_of(settings).dtype


def test_keys_and_values_are_drawn_from_the_heads_that_are_cached(llama: Path, text: Path) -> None:
    settings = asked(llama, text)
    keys, values = kv_vectors.keys_and_values(settings, 300)
    assert keys.shape == values.shape == (300, CONFIG.d_head)
    subject = subject_of(settings)
    inputs = subject.windows(kv_vectors.LEAST_WINDOWS, 0).inputs
    kv = KVCache(subject.config, len(inputs), inputs.shape[1])
    with torch.no_grad():
        subject.model()(inputs, kv)
    held = torch.stack(kv.keys).flatten(0, -2)
    assert all((held == key).all(-1).any() for key in keys[:20])


@pytest.fixture(scope="session")
def results(llama: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("results")
    status = main(
        ["run", "--profile", "smoke", "--device", "cpu", "--model", str(llama), "--text", str(text),
         "--only", f"{COUNTED},lora.product-variance", "--jobs", "1",
         "--record", str(folder / "cells.sqlite"), "--out", str(folder / "results.json")]
    )  # fmt: skip
    assert status == 0
    return read_results(folder / "results.json")


def test_each_verdict_says_on_which_model_it_was_reached(
    results: dict[str, Any], llama: Path, text: Path
) -> None:
    measured = [claim for claim in results["claims"] if claim["measurements"]]
    assert {claim["id"] for claim in measured} == set(COUNTED.split(","))
    parameters = sum(p.numel() for p in GPT(CONFIG).parameters())
    for claim in measured:
        assert claim["subject"] == {
            "name": "tiny-llama",
            "parameters": parameters,
            "digest": digest_of(asked(llama, text)),
        }
        assert claim["scale"].startswith("tiny-llama, ")
        assert claim["scale"].endswith("scene.txt in windows of 64 tokens")
    share = next(c for c in measured if c["id"] == "lora.trainable-share")
    assert " of tiny-llama, not 0.18 %" in share["finding"]
    assert results["environment"]["model"] == str(llama.resolve())
    assert "checkpoint" not in results["environment"]


def test_what_says_nothing_of_a_model_is_left_open_with_the_reason(results: dict[str, Any]) -> None:
    (variance,) = (c for c in results["claims"] if c["id"] == "lora.product-variance")
    assert (variance["verdict"], variance["measurements"]) == ("open", [])
    assert "says nothing of this model" in variance["finding"]
    assert "subject" not in variance


def test_the_words_of_a_claim_name_the_model_that_was_measured() -> None:
    (claim,) = (c for c in load_claims() if c.id == "int8.norm-damage")
    other = claim.about("tiny", "tiny, 1 M parameters")
    assert other.scale == "tiny, 1 M parameters"
    assert [r.words.subject for r in other.requirements] == ["tiny"] * 5
    assert [r.where["model"] for r in other.requirements[:3]] == ["tiny"] * 3
    assert other.requirements[3].where["model"] == int8.PLANTED


def test_most_claims_about_caches_and_number_formats_are_put_to_any_model() -> None:
    of_any = {each.claim for each in all_experiments() if each.of_any_model}
    after_training = {c.id for c in load_claims() if c.lesson in ("L5", "L6")}
    assert after_training - of_any == {
        "cache.memory-example",  # of a shape that it names
        "cache.grouped-queries",  # of models that it trains
    }
    assert "position.embedding-untouched" not in of_any


def test_what_is_measured_of_the_model_as_it_is_carries_its_name(llama: Path, text: Path) -> None:
    settings = asked(llama, text)
    damage = int8.norm_damage(settings)
    assert {m.parameters["model"] for m in damage} == {
        "tiny-llama", "planted outliers", "known to be coarse",
    }  # fmt: skip
    quick = Settings("quick", "cpu", 0, settings.model, settings.text)
    ranges = int8_activations.activation_range(quick)
    assert {m.parameters["model"] for m in ranges} == {"tiny-llama", "planted outliers"}
    # 96 inputs of the MLP's last linear are no groups of 64.
    assert not any(m.metric == "gradient_cosine_int4" for m in ranges)
    assert not any("group" in name for name in int8.weights_variants(quick))


def test_a_model_carries_one_name_in_labels_and_in_the_record_wherever_it_lies(
    llama: Path, text: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / llama.name
    shutil.copytree(llama, elsewhere)
    keys, labels = [], []
    for place in (llama, elsewhere):
        settings = asked(place, text)
        chosen = [c for c in load_claims() if c.id == "cache.memory-law"]
        planned = planning.plan(settings, chosen, chosen, [cache.memory_law], run_stamp(settings))
        keys += [key for _, key in planned[0].cells]
        labels += [{m.parameters["model"] for m in cache.memory_law(settings)}]
    assert keys[0] == keys[1]
    assert labels == [{"tiny-llama"}] * 2


def test_a_folder_by_the_name_of_a_shipped_model_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reference", "smollm2", "own"):
        Path(name).mkdir()
    assert [_resolved(name) for name in ("reference", "smollm2")] == ["reference", "smollm2"]
    assert _resolved("own") == str(tmp_path / "own")


def test_runs_are_cut_to_what_a_model_reads_and_no_run_of_the_reference_is(
    llama: Path, text: Path
) -> None:
    for profile, runs in cache.GREEDY.items():
        assert cache._runs(Settings(profile, "cpu", 0)) == list(runs)
        assert cache._lengths(Settings(profile, "cpu", 0)) == cache.LENGTHS[profile]
    assert cache._runs(asked(llama, text)) == [(1, 15), (32, 15)]
    assert cache._lengths(asked(llama, text)) == (1, 2, 33, 64)


def test_adapters_are_compared_on_linears_of_the_models_own_shapes() -> None:
    assert shapes_of(GPT(CONFIG)) == {
        "128 to 128": (128, 128),
        "128 to 64": (128, 64),
        "128 to 96": (128, 96),
        "96 to 128": (96, 128),
    }


def test_the_digest_is_of_the_weights_and_of_the_text(llama: Path, text: Path) -> None:
    found = {digest_of(asked(*given)) for given in ((llama,), (llama, text), ("reference",))}
    assert len(found) == 3
    assert digest_of(asked(llama, text)).startswith(digest_of(asked(llama)))


@pytest.mark.parametrize(
    ("model", "text", "told"),
    [
        ("nowhere", None, "there is no model 'nowhere'"),
        ("reference", "nowhere.txt", "cannot read the text nowhere.txt: No such file"),
        ("reference", "short.txt", "do not fill a window of 512 and its target; use a longer"),
    ],
)
def test_a_model_or_text_that_is_not_there_is_refused_before_anything_is_measured(
    model: str, text: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("To be.", encoding="utf-8")
    given = ["--model", model, *(["--text", text] if text else [])]
    out = tmp_path / "results.json"
    assert main(["run", "--profile", "smoke", *given, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
    with pytest.raises(UserError):
        subject_of(asked(model, Path(text) if text else None)).windows(1)


# ---- as transformers runs it


@pytest.fixture(scope="session")
def gemma(llama: Path) -> Path:
    """A folder of a family that is not built here."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=4096, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, intermediate_size=96, max_position_embeddings=64,
        sliding_window=32, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config)
    enlarge(model)
    folder = llama.with_name("tiny-gemma")
    model.save_pretrained(folder)
    for name in ("tokenizer.json",):
        shutil.copy(llama / name, folder)
    fields = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def through(name: str, text: Path) -> Settings:
    return Settings("smoke", "cpu", 0, f"hf:{name}", str(text))


def test_a_family_that_is_not_built_here_is_measured_as_transformers_runs_it(
    gemma: Path, text: Path
) -> None:
    with pytest.raises(UserError, match="gemma3_text"):
        subject_of(asked(gemma, text))
    settings = through(str(gemma), text)
    subject = subject_of(settings)
    assert (subject.title, subject.width, subject.window) == ("tiny-gemma", 16, 64)
    losses = {m.metric: m for m in int8.weights_quality(settings)}
    assert losses["held_out_loss"].value > 5
    increases = [m for m in kv_quality.zero_loss(settings) if m.metric == "loss_increase"]
    assert [m.parameters["bits"] for m in increases] == [2, 3, 4]
    by_bits = [m.value for m in kv_quality.zero_loss(settings) if m.metric == "prediction_kl"]
    assert by_bits == sorted(by_bits, reverse=True)
    keys, _ = kv_vectors.keys_and_values(settings, 50)
    assert keys.shape == (50, 16)


@pytest.mark.parametrize("of_transformers", [False, True])
def test_signs_and_bits_are_asked_of_another_model(
    of_transformers: bool,
    llama: Path,
    gemma: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module, sizes in (
        (signs, {"TURNED": 300, "ROTATIONS": 2, "PACKED": (3,)}),
        (shares, {"PILOT_WINDOWS": 6, "PILOT_ROTATIONS": range(2)}),
        (qjl_budget, {"WINDOWS": 6, "SEEDS": 2, "TOTAL_BITS": (3,), "COMPRESSED": ("keys",)}),
    ):
        for name, size in sizes.items():
            monkeypatch.setattr(module, name, size)
    asked_of = through(str(gemma), text) if of_transformers else asked(llama, text)
    settings = replace(asked_of, profile="full")
    found = {m.metric for m in (*signs.signs(settings), *shares.keys_need_more(settings))}
    assert {"unsigned_over_signed", "loss_saved"} < found
    # Neither has biases, and nothing was planned for them.
    assert not [metric for metric in found if "biases" in metric or "power" in metric]
    if not of_transformers:
        assert "kl_ratio" in {m.metric for m in qjl_budget.qjl_budget(settings)}


def test_a_model_of_both_ways_loses_the_same_by_int8_and_by_three_bits(
    llama: Path, text: Path
) -> None:
    """Ours, and the same folder as transformers runs it: two implementations, one answer."""
    pytest.importorskip("transformers")
    fields = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (llama / "tokenizer_config.json").write_text(json.dumps(fields), encoding="utf-8")
    ours, theirs = asked(llama, text), through(str(llama), text)
    for experiment in (int8.weights_quality, kv_quality.zero_loss):
        pairs = zip(experiment(ours), experiment(theirs), strict=True)
        for one, other in pairs:
            if one.parameters.get("granularity") == "per tensor":
                continue  # ours has queries, keys and values in one tensor, and so one scale
            assert (one.metric, one.labels) == (other.metric, other.labels)
            assert one.value == pytest.approx(other.value, rel=1e-4, abs=2e-4), one.id


def test_what_asks_for_a_model_built_here_says_so(llama: Path, text: Path) -> None:
    settings = through(str(llama), text)
    experiments, claims = all_experiments(), load_claims()
    planned = planning.plan(settings, claims, claims, experiments, run_stamp(settings))
    why = {each.claim.id: each.absent for each in planned}
    assert "transformers runs it" in why["cache.same-output"]
    assert "says nothing of this model" in why["norm.gradient-profile"]
    assert why["turboquant.zero-loss"] == ""


def test_a_model_that_transformers_cannot_load_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="transformers cannot load hf:") as raised:
        subject_of(Settings("smoke", "cpu", 0, f"hf:{tmp_path}"))
    assert len(str(raised.value).splitlines()) == 1
