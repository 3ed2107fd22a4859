"""The comparison with peers: the same tokens, ratios of medians, and a missing peer is named."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import decoding, loaders, weights
from benchmarks.peers.comparison import share, table
from benchmarks.peers.decoding import MissingPeer, Worker
from benchmarks.peers.plan import LIMIT, ROUNDED, Plan
from reference_model.config import preset
from reference_model.costs import kv_cache_bytes, read_weight_bytes
from reference_model.errors import UserError
from reference_model.quantization.int8 import packed_is_available

TOY = preset("toy", context_length=1024)
PLAN = Plan(
    model="toy",
    peers=("ours",),
    observations=1,
    rounds=1,
    threads=1,
    prompt_tokens=3,
    new_tokens=4,
    seed=0,
)


@pytest.mark.parametrize("name", ["plain", "uncached", "transformers"])
def test_whoever_runs_on_pytorch_writes_our_tokens_256_of_them(name: str, tmp_path: Path) -> None:
    prompt = weights.prompt(TOY, 32)
    ours = [token for token, _ in loaders.load_ours(TOY, tmp_path, 1)(prompt, 256)]
    theirs = [token for token, _ in loaders.LOADERS[name](TOY, tmp_path, 1)(prompt, 256)]
    assert len(ours) == 256
    assert len(set(ours)) > 30  # not one token over and over
    assert theirs == ours


@pytest.mark.parametrize(
    ("name", "package"), [("ctranslate2", "ctranslate2"), ("llama.cpp", "llama_cpp")]
)
def test_whoever_does_not_writes_them_too_or_is_named_as_missing(
    name: str, package: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(package) is None:
        with pytest.raises(MissingPeer, match=rf"{name} is missing \(.*{package}.*make peers"):
            Worker(name, PLAN, tmp_path)
    else:
        prompt = weights.prompt(TOY, 32)
        ours = loaders.load_ours(TOY, tmp_path, 1)(prompt, 64)
        theirs = loaders.LOADERS[name](TOY, tmp_path, 1)(prompt, 64)
        assert [token for token, _ in theirs] == [token for token, _ in ours]


def whole_run(name: str, folder: Path) -> list[int]:
    prompt = weights.prompt(TOY, 32)
    return [token for token, _ in loaders.LOADERS[name](TOY, folder, 1)(prompt, 256)]


# What is compiled says the same, a minute later.
@pytest.mark.parametrize(
    "name",
    [name for name in ROUNDED if name in loaders.LOADERS and not name.endswith("compiled")],
)
def test_int8_begins_as_float32_does_and_then_goes_its_own_way(name: str, tmp_path: Path) -> None:
    if name.startswith("llama.cpp") and importlib.util.find_spec("llama_cpp") is None:
        with pytest.raises(MissingPeer, match=rf"{name} is missing \(.*llama_cpp.*make peers"):
            Worker(name, PLAN, tmp_path)
        return
    if not packed_is_available():
        pytest.skip("this build of PyTorch has no FBGEMM")
    rounded, exact = whole_run(name, tmp_path), whole_run("plain", tmp_path)
    assert rounded[0] == exact[0]  # of 1,024 tokens: it is the same model
    assert rounded != exact  # and its weights are rounded
    assert len(set(rounded)) > 10


def test_the_seconds_of_tokens_grow(tmp_path: Path) -> None:
    steps = loaders.load_ours(TOY, tmp_path, 1)(weights.prompt(TOY, 5), 6)
    moments = [at for _, at in steps]
    assert moments == sorted(moments)
    assert moments[0] > 0


@pytest.mark.parametrize(("name", "asked"), [("ours", [3, 512]), ("uncached", [3])])
def test_ours_under_other_conditions_is_not_asked_for_a_long_prompt(
    name: str, asked: list[int]
) -> None:
    prompts = []

    class Asked:
        def ask(self, prompt_tokens: int, new_tokens: int) -> dict[str, list[float]]:
            prompts.append(prompt_tokens)
            return {"at": [float(token + 1) for token in range(new_tokens)]}

    worker = Asked()
    worker.name = name
    found = decoding.turn_of(worker, PLAN)
    assert prompts == asked
    assert found["decode"] == [1.0, 1.0, 1.0]


def observation(ours: float, theirs: float) -> dict[str, dict[str, float]]:
    return {
        "ours": {"decode": ours, "prefill 512": ours},
        "peer": {"decode": theirs},
        LIMIT: {"read_bytes_per_second": 1e9, "flops_per_second": 1e12},
    }


def test_the_table_has_the_ratio_of_medians_with_its_interval() -> None:
    # Ours takes 1/3.9 and 1/4.1 of the time: the geometric mean is a quarter of the speed.
    plan = replace(PLAN, peers=("ours", "peer"))
    told = table(plan, [observation(1, 3.9), observation(1, 4.1)], {"ours": True, "peer": False})
    peer = next(line for line in told.splitlines() if line.startswith("peer"))
    assert re.search(r"peer +4,000 +0\.25 \(0\.[\d–.]+\) .* NO$", peer)
    ours = next(line for line in told.splitlines() if line.startswith("ours"))
    assert re.search(r"ours +1,000 +1 .* yes$", ours)
    assert told.count("peer") == 1  # it has no prefill: nothing is made up for it
    assert "reads 1 to 1 GB/s" in told


def test_the_share_of_float32s_limit_is_not_told_of_int8() -> None:
    plan = replace(PLAN, peers=("ours", "int8 lean"))
    seen = [{**observation(1, 2), "int8 lean": {"decode": 0.25}}]
    told = table(plan, seen, {"ours": True})
    lean = next(line for line in told.splitlines() if line.startswith("int8 lean"))
    ours = next(line for line in told.splitlines() if line.startswith("ours"))
    assert re.search(r"int8 lean +250 +4 *$", lean)
    assert "%" in ours


def test_the_share_of_the_limit_is_what_must_be_read_over_what_was_taken() -> None:
    limits = {"read_bytes_per_second": 1e9, "flops_per_second": 1e30}
    nbytes = read_weight_bytes(TOY) + kv_cache_bytes(TOY, 3 + 2)
    assert share(PLAN, "decode", 2 * nbytes / 1e9, limits) == pytest.approx(0.5, rel=0.01)
    assert share(PLAN, "all of 3 + 4", 1.0, limits) is None


def test_the_command_measures_and_tells_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SETTLE_SECONDS", 0.0)
    out = tmp_path / "out.json"
    options = "--model toy --observations 1 --rounds 2 --threads 1 --prompt-tokens 3 --new-tokens 4"
    peers = ["--peers", "ours", "int8 lean"]
    assert decoding.main([*options.split(), *peers, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    for quantity in ("prefill 3", "decode", "all of 3 + 4", "prefill 512"):
        assert quantity in told
    written = json.loads(out.read_text())
    # What computes in 8 bits is asked for a long prompt, but not for float32's tokens.
    assert written["same_tokens"] == {"ours": True}
    (seen,) = written["observations"]
    assert set(seen) == {"ours", "int8 lean", LIMIT}
    assert all("prefill 512" in seen[name] for name in ("ours", "int8 lean"))


def test_peers_are_chosen_by_the_old_option_too_of_which_help_says_nothing() -> None:
    parser = decoding._parser()
    old, new = (parser.parse_args([option, "ours"]) for option in ("--contenders", "--peers"))
    assert old == new
    assert old.peers == ["ours"]
    assert "--contenders" not in parser.format_help()
    assert "--peers" in parser.format_help()


def test_a_peer_that_cannot_run_a_model_is_named() -> None:
    with pytest.raises(UserError, match="ctranslate2 cannot run smollm2; choose from ours, comp"):
        decoding.main(["--model", "smollm2", "--peers", "ctranslate2"])
