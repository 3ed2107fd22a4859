"""What the cache experiments see: an intact cache, and how a broken one would show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.experiments.cache import lesson as experiments
from benchmarks.experiments.cache.lesson import (
    CHUNKINGS,
    counted_rows,
    deviation_without_cache,
    logit_deviation,
    pieces,
    prompts_from,
    tokens_differing,
)
from benchmarks.experiments.experiment import Settings
from benchmarks.record.results import Measurement
from benchmarks.subjects import subject
from reference_model.cache import KVCache
from reference_model.config import GPTConfig
from reference_model.model import GPT

SETTINGS = Settings("smoke", "cpu", 0)


@pytest.fixture
def model() -> GPT:
    """Xavier and untied, so that attention moves the logits and tokens do not just repeat."""
    config = GPTConfig(
        vocab_size=64,
        context_length=32,
        n_layer=2,
        n_head=2,
        n_embd=32,
        initialization="xavier",
        head="untied",
    )
    return GPT(config).double().eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(64, (2, 24))


@pytest.fixture
def off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that hands out each value one row away from its key."""
    intact = KVCache.update

    def update(self: KVCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = intact(self, layer, k, v)
        return keys, values.roll(1, dims=-2)

    monkeypatch.setattr(KVCache, "update", update)


def values(found: list[Measurement], metric: str) -> list[float]:
    return [m.value for m in found if m.metric == metric]


# ---- the output


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("length", [1, 2, 23, 24])
def test_every_chunking_takes_in_the_whole_prompt(chunking: str, length: int) -> None:
    chunks = CHUNKINGS[chunking](length)
    assert sum(chunks) == length
    assert min(chunks) > 0


def test_pieces_take_turns_and_the_last_takes_what_is_left() -> None:
    assert pieces(12, (1, 4, 3)) == [1, 4, 3, 1, 3]


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_an_intact_cache_moves_no_logit(model: GPT, tokens: Tensor, chunking: str) -> None:
    assert logit_deviation(model, tokens, CHUNKINGS[chunking](24)) < 1e-12
    assert deviation_without_cache(model, tokens) < 1e-12


@pytest.mark.usefixtures("off_by_one")
@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_cache_that_is_off_by_one_is_seen(model: GPT, tokens: Tensor, chunking: str) -> None:
    assert logit_deviation(model, tokens, CHUNKINGS[chunking](24)) > 1e-3


def test_an_intact_cache_changes_no_greedy_token(model: GPT, tokens: Tensor) -> None:
    assert tokens_differing(model, tokens[:, :6], 20) == 0


@pytest.mark.usefixtures("off_by_one")
def test_greedy_tokens_that_a_broken_cache_changes_are_counted(model: GPT, tokens: Tensor) -> None:
    assert tokens_differing(model, tokens[:, :6], 20) > 0


def test_prompts_are_passages_of_the_text() -> None:
    prompts = prompts_from(torch.arange(100), 4, 5)
    assert prompts.tolist() == [list(range(s, s + 5)) for s in (0, 25, 50, 75)]


def test_same_output_reads_the_text_in_both_precisions(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "load_reference", lambda dtype: model.to(dtype))
    monkeypatch.setattr(subject, "reference_tokens", lambda split: torch.randint(64, (100,)))
    monkeypatch.setitem(experiments.LENGTHS, "smoke", (1, 9))
    monkeypatch.setitem(experiments.GREEDY, "smoke", ((1, 4),))
    found = experiments.same_output(SETTINGS)
    deviations = [m for m in found if m.metric == "logit_deviation"]
    read = {(m.parameters["dtype"], m.parameters["batch_size"]) for m in deviations}
    assert read == {("float32", 1), ("float32", 4), ("float64", 1)}
    assert len(deviations) == len(read) * len(CHUNKINGS)
    assert max(m.value for m in deviations if m.parameters["dtype"] == "float64") < 1e-12
    assert max(m.value for m in deviations if m.parameters["dtype"] == "float32") > 1e-9
    assert values(found, "tokens_differing") == [0, 0]


def test_the_full_profile_reads_several_sequences_in_float64_too() -> None:
    read = [cell.parameters for cell in experiments.cells_of_outputs(Settings("full", "cpu", 0))]
    assert {"dtype": "float64", "batch_size": 4} in read


# ---- what is counted


def test_the_counted_rows_are_those_that_were_projected(model: GPT) -> None:
    prompt = torch.zeros(2, 3, dtype=torch.int64)
    assert counted_rows(model, prompt, 4, use_cache=True) == [6, 2, 2, 2]
    assert counted_rows(model, prompt, 4, use_cache=False) == [6, 8, 10, 12]


def test_counting_leaves_no_hook_behind(model: GPT) -> None:
    counted_rows(model, torch.zeros(1, 1, dtype=torch.int64), 2, use_cache=True)
    assert not any(module._forward_hooks for module in model.modules())


def test_fifteen_tokens_project_eight_times_fewer_rows_and_fifteen_at_the_last_step() -> None:
    found = experiments.fifteenfold_projections(SETTINGS)
    ratios = {m.parameters["counted"]: m.value for m in found if m.metric == "projection_ratio"}
    assert ratios == {"whole run": 8, "last step": 15}
    rows = [m for m in found if m.metric == "row_projections"]
    totals = {
        option: sum(m.value for m in rows if m.option == option)
        for option in ("cached", "uncached")
    }
    assert totals == {"cached": 15, "uncached": 120}


def test_rows_that_the_closed_form_does_not_know_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experiments, "counted_rows", lambda *arguments: [1] * 15)
    with pytest.raises(ValueError, match="the closed form says"):
        experiments.fifteenfold_projections(SETTINGS)


def test_the_buffers_hold_what_the_law_says() -> None:
    found = experiments.memory_law(SETTINGS)
    assert set(values(found, "bytes_over_law")) == {1.0}
    assert {m.parameters["counted"] for m in found} == {"in use", "reserved"}


def test_a_cache_with_a_spare_row_breaks_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    intact = KVCache.__init__

    def generous(
        self: KVCache, config: GPTConfig, batch_size: int, capacity: int, *rest: Any
    ) -> None:
        intact(self, config, batch_size, capacity + 1, *rest)

    monkeypatch.setattr(KVCache, "__init__", generous)
    over = [m for m in experiments.memory_law(SETTINGS) if m.metric == "bytes_over_law"]
    assert all((m.value > 1) == (m.parameters["counted"] == "reserved") for m in over)


def test_the_example_needs_as_many_gigabytes_as_its_buffers_hold() -> None:
    found = experiments.memory_example(SETTINGS)
    sizes = {(m.option, m.parameters["counted"]): m.value for m in found}
    assert sizes == {
        ("fp16", "closed form"): 16.777216,
        ("fp16", "buffers"): 16.777216,
        ("fp32", "closed form"): 33.554432,
        ("fp32", "buffers"): 33.554432,
    }
