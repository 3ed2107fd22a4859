"""Positions: exact costs, scores under shifts, and what enters the first block."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.positions import lesson as positions
from benchmarks.instruments.counting import counted_parameters
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from reference_model.config import EmbeddingScale, GPTConfig, Position, preset
from reference_model.costs import parameters_by_part
from reference_model.model import GPT

SMOKE = Settings("smoke", "cpu", seed=0)
SMALL = GPTConfig(vocab_size=64, context_length=32, n_layer=1, n_head=2, n_embd=16)


def judged(claim: str, measurements: list[Measurement]) -> dict[str, str]:
    """Verdict of each requirement by its text, and of the claim under its id."""
    (found,) = (entry for entry in load_claims() if entry.id == claim)
    whole, parts = judge_claim(found, measurements)
    texts = (requirement.text for requirement in found.requirements)
    return {claim: whole.verdict, **{t: p.verdict for t, p in zip(texts, parts, strict=True)}}


# ---- position.parameters


def test_only_learned_positions_cost_parameters() -> None:
    measurements = positions.position_parameters(SMOKE)
    assert judged("position.parameters", measurements)["position.parameters"] == "confirmed"
    counted = {m.option: m.value for m in measurements if m.metric == "parameters"}
    closed = {m.option: m.value for m in measurements if m.metric == "closed_form"}
    assert counted == closed == {p: 1024 * 768 * (p == "learned") for p in positions.POSITIONS}


@pytest.mark.parametrize("position", positions.POSITIONS)
def test_the_closed_form_is_what_a_toy_model_counts(position: Position) -> None:
    config = preset("toy", position=position)
    added = counted_parameters(config) - counted_parameters(config.replace(position="none"))
    assert added == parameters_by_part(config)["positions"]
    assert added == (256 * 128 if position == "learned" else 0)


# ---- position.relative


def test_rotary_scores_depend_on_the_distance_only() -> None:
    measurements = positions.relative(SMOKE)
    assert judged("position.relative", measurements)["position.relative"] == "confirmed"
    deviations = [m for m in measurements if m.metric == "shift_deviation"]
    rope = {str(m.parameters["rope_scaling"]): m.value for m in deviations if m.option == "rope"}
    assert set(rope) == {"none", "interpolation", "ntk", "llama3", "yarn"}
    assert all(0 < value < 1e-11 for value in rope.values())
    others = {m.option: m.value for m in deviations if m.option != "rope"}
    assert others["learned"] > 1
    assert others["sinusoidal"] > 1
    # Not 0 on every processor: the sum of a product may depend on the row that it stands in.
    assert others["alibi"] < 1e-14 > others["none"]


def test_the_deviation_finds_one_score_that_is_out_of_line() -> None:
    distance = torch.arange(6)[None, :] - torch.arange(6)[:, None]
    scores = (distance.double() ** 2).repeat(3, 1, 1)
    assert positions.largest_shift_deviation(scores) == 0
    scores[1, 4, 1] += 0.25
    assert positions.largest_shift_deviation(scores) == 0.25


def test_angles_that_are_not_linear_in_the_position_would_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = positions.rotary_angles
    monkeypatch.setattr(positions, "rotary_angles", lambda *given: exact(*given).float())
    config = SMALL.replace(position="rope", context_length=256)
    scores = positions.scores_at_all_positions(config, torch.Generator().manual_seed(0))
    assert positions.largest_shift_deviation(scores) > 1e-8


def test_a_score_is_that_of_the_models_own_rotation() -> None:
    # One pair of coordinates: the score is |q||k| cos(angle + (i − j)·frequency), frequency 1.
    config = SMALL.replace(position="rope", n_embd=2, n_head=1, context_length=9)
    scores = positions.scores_at_all_positions(config, torch.Generator().manual_seed(0))[0]
    middle, one_on, two_on = scores[0, 0], scores[0, 1], scores[0, 2]
    assert float(middle + two_on) == pytest.approx(2 * math.cos(1) * float(one_on), rel=1e-12)


# ---- position.embedding-untouched


def windows() -> torch.Tensor:
    return torch.randint(64, (12, 32), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("position", ["rope", "alibi", "none"])
def test_what_acts_inside_attention_leaves_the_stream_exactly_alone(position: Position) -> None:
    found = positions.touch(GPT(SMALL.replace(position=position)), windows())
    assert found.largest == 0
    assert bool((found.norm_change == 0).all())
    assert found.cosine.numpy() == pytest.approx(1, abs=1e-12)


def test_orthogonal_positions_change_norm_and_angle_as_geometry_says() -> None:
    model = GPT(SMALL)
    with torch.no_grad():
        model.wte.weight.zero_()[:, 0] = 3.0
        model.wpe.weight.zero_()[:, 1] = 4.0
    found = positions.touch(model, windows())
    assert found.norm_change.numpy() == pytest.approx(5 / 3 - 1, rel=1e-12)
    assert found.cosine.numpy() == pytest.approx(3 / 5, rel=1e-12)
    assert found.largest == 4


def test_a_shrinking_norm_is_a_change_too() -> None:
    model = GPT(SMALL)
    with torch.no_grad():
        model.wte.weight.zero_()[:, 0] = 2.0
        model.wpe.weight.zero_()[:, 0] = -1.0
    found = positions.touch(model, windows())
    assert bool((found.norm_change == 0.5).all())
    assert bool((found.norm_growth == -0.5).all())


class PositionsInEmbed(GPT):
    """A rope model that slips positions in beside those it declares."""

    def embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        t = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return super().embed(tokens, start) + 0.1 * t[:, None]


def test_positions_that_a_rope_model_adds_in_its_embedding_are_found() -> None:
    found = positions.touch(PositionsInEmbed(SMALL.replace(position="rope")), windows())
    assert found.largest == pytest.approx(0.1 * 31, rel=1e-5)
    assert bool((found.norm_change[:, 1:] > 0.05).all())


def test_positions_added_after_the_embedding_are_found() -> None:
    model = GPT(SMALL.replace(position="rope"))
    model.h[0].register_forward_pre_hook(lambda block, inputs: (inputs[0] + 0.5, *inputs[1:]))
    assert positions.touch(model, windows()).largest == pytest.approx(0.5)


def test_looking_at_what_enters_leaves_no_hook_behind() -> None:
    model = GPT(SMALL)
    positions.entering(model, windows())
    assert model(windows()).shape == (12, 32, 64)


@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("sqrt_width", 4)])
def test_scaled_embeddings_are_changed_less(scale: EmbeddingScale, factor: int) -> None:
    model = GPT(SMALL.replace(position="sinusoidal", embedding_scale=scale))
    with torch.no_grad():
        model.wte.weight.zero_()[:, 0] = 1.0
    touched, untouched = positions.streams(model, windows())
    assert untouched.norm(dim=-1).numpy() == pytest.approx(factor)
    # Each pair of sine and cosine adds 1 to the square of the norm, whatever the position.
    added = (touched - untouched).norm(dim=-1)
    assert added.numpy() == pytest.approx(math.sqrt(SMALL.n_embd / 2), rel=1e-6)


def test_a_smoke_run_decides_all_but_the_models_it_has_no_time_to_train() -> None:
    measurements = positions.embedding_untouched(SMOKE)
    verdicts = judged("position.embedding-untouched", measurements)
    assert verdicts["rotary positions change nothing before the first block"] == "confirmed"
    learned = verdicts["trained learned positions change the norm by 5 % or more"]
    assert learned != "open"
    assert verdicts["position.embedding-untouched"] in ("open", "refuted")
    norm = next(m for m in measurements if m.metric == "norm_change")
    assert norm.n is not None
    assert 20 < norm.n < 40  # stretches of the test plays, not their windows or tokens
    assert norm.population == "the text of 3 plays"


def test_a_run_that_trains_has_one_mean_over_models_for_each_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds_of: dict[str, list[int]] = {"sqrt_width": [], "none": []}

    def train(scale: EmbeddingScale, steps: int, seed: int, device: str) -> GPT:
        seeds_of[scale].append(seed)
        torch.manual_seed(seed)
        changes = SMALL.replace(vocab_size=4096, position="sinusoidal", embedding_scale=scale)
        return GPT(changes).eval()

    monkeypatch.setattr(positions, "train_sinusoidal", train)
    monkeypatch.setitem(
        positions.TRAINING, "quick", positions.Training(1, {"sqrt_width": 5, "none": 2})
    )
    measurements = positions.embedding_untouched(Settings("quick", "cpu", seed=3))
    assert seeds_of == {"sqrt_width": [3, 4, 5, 6, 7], "none": [3, 4]}
    changes = {
        m.parameters["embedding_scale"]: m
        for m in measurements
        if m.metric == "norm_change" and m.option == "sinusoidal"
    }
    assert {scale: m.n for scale, m in changes.items()} == {"sqrt_width": 5, "none": 2}
    low, high = changes["sqrt_width"].interval or (0, 0)
    assert 0 < low < changes["sqrt_width"].value < high
    sinusoidal = "sinusoidal positions on embeddings times √C change the norm by 5 % or more"
    verdicts = judged("position.embedding-untouched", measurements)
    (text,) = (text for text in verdicts if text.startswith(sinusoidal))
    assert verdicts[text] == "confirmed"  # untrained embeddings of 0.02 are drowned by any wave
    not_scaled = [m for m in measurements if m.parameters.get("embedding_scale") != "sqrt_width"]
    assert judged("position.embedding-untouched", not_scaled)[text] == "open"


def test_training_moves_the_embeddings_that_sinusoids_are_compared_with() -> None:
    model = positions.train_sinusoidal("sqrt_width", 2, seed=0)
    again = positions.train_sinusoidal("sqrt_width", 2, seed=0)
    torch.manual_seed(0)
    untrained = GPT(model.config)
    assert torch.equal(model.wte.weight, again.wte.weight)
    assert not torch.equal(model.wte.weight, untrained.wte.weight)
