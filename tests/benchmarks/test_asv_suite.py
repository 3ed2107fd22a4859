"""The asv suite: what it holds, that all of it runs, and that old commits are skipped."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from asv.config import Config
from asv_runner.benchmarks._base import Benchmark
from asv_runner.discovery import disc_benchmarks

import benchmarks.suite
from benchmarks.data import locks
from benchmarks.gate_worker import Worker
from benchmarks.suite import asked_model
from reference_model.devices import DTYPES
from reference_model.errors import UserError
from tests.benchmarks.places import Places

SUITE = {
    "bench_cache.CacheBytes.track_cache_bytes",
    "bench_cache.Decode.time_step",
    "bench_cache.DecodeOverIdeal.track_time_over_ideal",
    "bench_cache.DeviceMemory.track_nvml_memory",
    "bench_cache.Generation.track_seconds_per_token",
    "bench_cache.PeakMemory.track_peak_memory",
    "bench_cache.Prefill.time_step",
    "bench_cache.PrefillOverIdeal.track_time_over_ideal",
    "bench_cache.Work.track_flops_per_token",
    "bench_cache.Work.track_operators_per_token",
    "bench_claims.Exact.track_value",
    "bench_exact.Double.track_fingerprint",
    "bench_exact.Footprint.track_allocated_bytes",
    "bench_exact.Footprint.track_allocations",
    "bench_exact.Footprint.track_flops",
    "bench_exact.Footprint.track_held_bytes",
    "bench_exact.Footprint.track_kept_bytes",
    "bench_exact.Footprint.track_left_behind",
    "bench_exact.Footprint.track_made_anew",
    "bench_exact.Footprint.track_peak_bytes",
    "bench_exact.Footprint.track_python_lines",
    "bench_exact.Footprint.track_waits",
    "bench_exact.Half.track_fingerprint",
    "bench_exact.KnownAnswers.track_fingerprint",
    "bench_exact.KnownRounded.track_fingerprint",
    "bench_exact.Numbers.track_fingerprint",
    "bench_exact.Rounded.track_fingerprint",
    "bench_exact.Single.track_fingerprint",
    "bench_exact.Timed.track_bytes",
    "bench_exact.Timed.track_work",
    "bench_gate.Int8Quality.track_loss_increase",
    "bench_gate.Int8Quality.track_prediction_kl",
    "bench_gate.Launches.track_launches",
    "bench_gate.Outputs.track_cached_deviation",
    "bench_gate.Outputs.track_fingerprint",
    "bench_gate.Step.time_step",
    "bench_gate.Work.track_bytes_moved",
    "bench_gate.Work.track_flops",
    "bench_gate.Work.track_operators",
    "bench_files.Loading.track_peak_over_weights",
    "bench_head.Decode.time_step",
    "bench_head.Weights.track_weight_bytes",
    "bench_int8.Bytes.track_bytes_over_float32",
    "bench_int8.Decode.time_step",
    "bench_int8.Loss.track_loss_increase",
    "bench_int8.Prefill.time_step",
    "bench_int8.Rounding.time_rounding",
    "bench_int8.RoundingError.track_rounding_error",
    "bench_kv_codecs.Bytes.track_bits_per_value",
    "bench_kv_codecs.Codec.time_decode",
    "bench_kv_codecs.Codec.time_encode",
    "bench_kv_codecs.Decode.time_step",
    "bench_kv_codecs.Distortion.track_distortion",
    "bench_kv_codecs.Loss.track_loss_increase",
    "bench_kv_codecs.Loss.track_prediction_kl",
    "bench_lora.Exponents.track_deviation_from_law",
    "bench_lora.Forward.time_forward",
    "bench_lora.Merging.track_merge_error",
    "bench_lora.OverPlain.track_forward_over_plain",
    "bench_lora.OverPlain.track_step_over_full",
    "bench_lora.Share.track_trained_share",
    "bench_lora.Step.time_step",
    "bench_norms.Decode.time_step",
    "bench_norms.Work.track_operators_per_token",
    "bench_positions.Decode.time_step",
    "bench_positions.Work.track_operators_per_token",
    "bench_positions.Work.track_weight_bytes",
    "bench_precision.Bytes.track_cache_bytes",
    "bench_precision.Bytes.track_weight_bytes",
    "bench_precision.Decode.time_step",
    "bench_precision.DecodeOverIdeal.track_time_over_ideal",
}
NEEDS_A_GPU = {
    "bench_cache.DeviceMemory.track_nvml_memory",
    "bench_gate.Launches.track_launches",
}
# A difference of losses on a few windows of text, and fingerprints.
MAY_BE_NEGATIVE = {
    "bench_exact.Double.track_fingerprint",
    "bench_exact.Half.track_fingerprint",
    "bench_exact.KnownAnswers.track_fingerprint",
    "bench_exact.KnownRounded.track_fingerprint",
    "bench_exact.Numbers.track_fingerprint",
    "bench_exact.Rounded.track_fingerprint",
    "bench_exact.Single.track_fingerprint",
    "bench_gate.Int8Quality.track_loss_increase",
    "bench_int8.Loss.track_loss_increase",
}
# What is said of encodings without weights, and what float32 may round away, can be 0.
MAY_BE_ZERO = {
    "bench_claims.Exact.track_value",
    "bench_exact.Footprint.track_allocated_bytes",  # a tokenizer makes no tensor
    "bench_exact.Footprint.track_allocations",
    "bench_exact.Footprint.track_flops",
    "bench_exact.Footprint.track_held_bytes",
    "bench_exact.Footprint.track_kept_bytes",
    "bench_exact.Footprint.track_left_behind",
    "bench_exact.Footprint.track_made_anew",
    "bench_exact.Footprint.track_peak_bytes",
    "bench_exact.Footprint.track_waits",
    "bench_exact.Timed.track_bytes",  # of what is a ratio
    "bench_exact.Timed.track_work",  # of what multiplies nothing
    "bench_gate.Outputs.track_cached_deviation",
    "bench_gate.Work.track_flops",
}


def names_of_the_suite(modules: dict[str, ModuleType]) -> list[str]:
    return [
        name
        for name in modules
        if name.startswith("benchmarks.suite.bench_")
        or (name.startswith("benchmarks.suite.") and name.endswith("workloads"))
    ]


@pytest.fixture(scope="module")
def suite() -> Iterator[dict[str, Benchmark]]:
    """Name -> benchmark, in the smallest profile, as asv discovers them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_DESIGN_BENCH_PROFILE", "smoke")
        patch.delenv("LLM_DESIGN_BENCH_DEVICE", raising=False)
        for name in names_of_the_suite(sys.modules):
            patch.delitem(sys.modules, name)
            # `from benchmarks import workloads` would find the one of another profile there.
            patch.delattr(benchmarks.suite, name.rpartition(".")[2])
        found = {each.name: each for each in disc_benchmarks("benchmarks")}
        # A loss is a number after one window of text as after six.
        patch.setattr(sys.modules["benchmarks.suite.codec_workloads"], "READ_WINDOWS", 1)
        yield found
        for name in names_of_the_suite(sys.modules):
            del sys.modules[name]  # the profile is read at import
            delattr(benchmarks.suite, name.rpartition(".")[2])


@pytest.fixture(scope="module")
def workloads(suite: dict[str, Benchmark]) -> ModuleType:
    return sys.modules["benchmarks.suite.workloads"]


@pytest.fixture(scope="module")
def shared(suite: dict[str, Benchmark]) -> dict[str, Any]:
    """What one process measures for several benchmarks, by asv's name of it."""
    sharing = {found.setup_cache_key: found for found in suite.values() if found.setup_cache_key}
    return {key: found.do_setup_cache() for key, found in sharing.items()}


def test_asv_finds_the_suite_and_nothing_else(suite: dict[str, Benchmark]) -> None:
    assert set(suite) == SUITE


def test_asv_reads_the_peak_of_no_process_that_it_forked(suite: dict[str, Benchmark]) -> None:
    # It would have in it all that preload.py imports; PeakMemory starts a process of its own.
    assert {found.type for found in suite.values()} == {"time", "track"}


@pytest.mark.parametrize("name", sorted(SUITE))
def test_a_benchmark_names_its_version_unit_and_parameters(
    suite: dict[str, Benchmark], name: str
) -> None:
    found = suite[name]
    assert found.version.isdigit()  # asv's own is a hash that does not see the workloads change
    assert found.unit not in ("", "unit")
    assert len(found.param_names) == len(found.params) > 0
    assert not any(given.startswith("param") for given in found.param_names)
    assert found.timeout <= 180


@pytest.mark.parametrize("name", sorted(SUITE))
def test_every_benchmark_gives_a_finite_number_for_all_its_parameters(
    suite: dict[str, Benchmark], shared: dict[str, Any], name: str
) -> None:
    found = suite[name]
    count = math.prod(len(values) for values in found.params)
    if "track_fingerprint" in name and name.startswith("bench_exact"):
        count = 2  # test_exact_cases.py asks for all of them
    # A process of its own each: both families, and both dtypes.
    apart = name.startswith("bench_files.")
    for index in (0, count - 1) if apart else range(count):
        found.set_param_idx(index)
        found.set_cache(shared.get(found.setup_cache_key))
        skipped = found.do_setup()
        if name in NEEDS_A_GPU:
            assert skipped
            continue
        assert not skipped, found._current_params
        if found.type == "time":
            found.func(*found._current_params)  # a clock gives a number wherever this ends
            continue
        value = found.do_run()
        found.do_teardown()
        assert math.isfinite(value)
        assert value > 0 or name in MAY_BE_NEGATIVE or (value == 0 and name in MAY_BE_ZERO)


def test_the_gate_gets_a_number_that_is_made_with_others(
    suite: dict[str, Benchmark], shared: dict[str, Any]
) -> None:
    work = shared[suite["bench_gate.Work.track_flops"].setup_cache_key]
    asked = "bench_gate.Work.track_flops(decode)"
    assert Worker().exact([asked]) == {"values": {asked: work["decode"]["flops"]}}


class Found(float):
    """A number that a benchmark gets whatever it asks, from whom or from itself."""

    param_names = ("choice",)

    def __getattr__(self, name: str) -> Found:
        return self

    def __call__(self, *_: object) -> Found:
        return self

    def __getitem__(self, _: object) -> Found:
        return self


@pytest.mark.K7
@pytest.mark.parametrize("name", sorted(name for name in SUITE if ".track_" in name))
def test_a_tracked_number_that_is_not_finite_is_an_error_and_not_skipped(
    suite: dict[str, Benchmark], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # What asv calls, with a stand-in for the instance and for every workload.
    track = suite[name].func.__func__
    module = sys.modules[track.__module__]
    parameters = [values[0] for values in suite[name].params]
    for found in map(Found, (1.5, math.nan, math.inf, -math.inf)):
        for used in vars(module):
            if used.endswith("workloads"):
                monkeypatch.setattr(module, used, found)
        # What is made once for all parameters comes first.
        given = [found, *parameters] if suite[name].setup_cache_key else parameters
        if math.isfinite(found):
            assert track(found, *given) in (1.5, 3.0)  # one is a sum of two
            continue
        with pytest.raises(ValueError, match="which is not a measurement") as caught:
            track(found, *given)
        assert str(caught.value).startswith(f"{name}({parameters[-1]}) gives {float(found)},")


def test_a_step_can_be_repeated_as_often_as_it_says(workloads: ModuleType) -> None:
    model = workloads.model_of("toy")
    step = workloads.decode_step(model, past=5, calls=2)
    step()
    step()
    with pytest.raises(UserError, match="room for 7 tokens"):
        step()


def test_a_token_is_less_work_with_a_cache(workloads: ModuleType) -> None:
    model = workloads.model_of("toy")
    cached, uncached = (
        workloads.counts(workloads.decode_step(model, 20, cached)).flops for cached in (True, False)
    )
    assert 5 < uncached / cached < 21


def test_the_threads_are_those_of_the_profile_whatever_they_were(workloads: ModuleType) -> None:
    import torch

    torch.set_num_threads(2)
    workloads.start()
    assert torch.get_num_threads() == workloads.SIZES["smoke"].threads == 1


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [("PROFILE", "huge", "one of smoke, quick, full, gate"), ("DEVICE", "auto", "cpu or cuda")],
)
def test_an_unknown_profile_or_device_is_refused(
    root: Path, variable: str, value: str, told: str
) -> None:
    name = f"LLM_DESIGN_BENCH_{variable}"
    done = subprocess.run(
        [sys.executable, "-c", "import benchmarks.suite.workloads"],
        cwd=root,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == f"ValueError: {name}={value!r}; use {told}"


@pytest.fixture
def elsewhere(workloads: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device without numbers, "meta", stands for a GPU."""

    def forget() -> None:
        for name in names_of_the_suite(sys.modules):
            for each in vars(sys.modules[name]).values():
                if hasattr(each, "cache_clear"):
                    each.cache_clear()

    forget()
    monkeypatch.setattr(workloads, "DEVICE", "meta")
    yield
    forget()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", sorted(name for name in SUITE if ".time_" in name))
def test_what_is_timed_computes_on_the_device_that_was_asked_for(
    suite: dict[str, Benchmark], name: str
) -> None:
    found = suite[name]
    for index in range(math.prod(len(values) for values in found.params)):
        found.set_param_idx(index)
        if "packed" in found._current_params:
            assert found.do_setup()  # skipped: FBGEMM packs weights on a CPU
            continue
        places = Places()
        # Who rounds a weight reads a number off it, which "meta" does not have.
        rounds = "int8" in f"{name} {found._current_params}"
        with pytest.raises(RuntimeError, match="meta tensors") if rounds else nullcontext():
            assert not found.do_setup()
            with places:
                found.func(*found._current_params)
        assert rounds or places.devices == {"meta"}, found._current_params


def test_linears_and_keys_have_the_dtype_that_was_asked_for(
    workloads: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora, codecs, gate = (
        sys.modules[f"benchmarks.suite.{name}_workloads"] for name in ("lora", "codec", "gate")
    )
    for place in (lora, codecs, asked_model):
        monkeypatch.setattr(place, "DTYPE", "bfloat16")
    with Places() as places:
        lora.linear_forward("plain", 4)()
    assert places.dtypes == {torch.float32, torch.bfloat16}  # drawn in float32
    seen: list[torch.dtype] = []
    widen = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: seen.append(x.dtype) or widen(x))
    for step in (codecs.codec_steps("turboquant 3")[0], gate.gate_step("encode, turboquant")):
        seen.clear()
        step()
        assert torch.bfloat16 in seen


def test_the_dtypes_are_those_of_every_command(
    suite: dict[str, Benchmark], workloads: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dtypes = suite["bench_precision.Decode.time_step"].params
    assert dtypes == [repr(dtype) for dtype in DTYPES]
    monkeypatch.setattr(asked_model, "DTYPE", "float31")
    with pytest.raises(ValueError, match="LLM_DESIGN_BENCH_DTYPE='float31'; use one of float32, "):
        workloads.start()
    # Beside a model of an old commit, which has no such list.
    monkeypatch.setitem(sys.modules, "reference_model.devices", None)
    workloads.start()


# ---- old commits


def test_a_commit_that_lacks_the_model_is_skipped_and_it_is_its_own_model_that_counts(
    root: Path, tmp_path: Path
) -> None:
    # An early commit: a package with next to nothing in it. Were the working tree's model the one
    # that is imported, nothing would be skipped.
    (tmp_path / "reference_model").mkdir()
    (tmp_path / "reference_model" / "__init__.py").touch()
    (tmp_path / "reference_model" / "errors.py").write_text("class UserError(ValueError): ...\n")
    program = (
        "import sys\n"
        "from asv_runner._aux import update_sys_path\n"
        "from asv_runner.discovery import get_benchmark_from_name\n"
        "suite, *names = sys.argv[1:]\n"
        "update_sys_path(suite)\n"
        "for name in names:\n"
        "    found = get_benchmark_from_name(suite, name + '-0')\n"
        "    found.set_cache(found.do_setup_cache() if found.setup_cache_key else None)\n"
        "    print(found.do_setup(), name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, root / "benchmarks" / "suite", *sorted(SUITE)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "LLM_DESIGN_BENCH_PROFILE": "smoke"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith(("True ", "False "))]
    # The suite's own functions need no model.
    alone = "bench_exact.KnownAnswers.track_fingerprint"
    assert answers == [f"{name != alone} {name}" for name in sorted(SUITE)]


def test_a_choice_that_a_commit_lacks_is_skipped(workloads: ModuleType) -> None:
    for absent in ({"position": "xpos"}, {"router": "top1"}):
        with pytest.raises(NotImplementedError, match="this commit has no"):
            workloads.model_of("toy", **absent)


def test_a_bug_is_a_failure_and_not_skipped(workloads: ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError), workloads.of_this_commit():
        import no_such_package  # noqa: F401
    with pytest.raises(AttributeError), workloads.of_this_commit():
        workloads.no_such_name  # noqa: B018
    with pytest.raises(NotImplementedError), workloads.of_this_commit():
        from reference_model.config import no_such_choice  # noqa: F401


def test_the_model_of_another_place_than_the_environment_is_refused(
    workloads: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workloads.check_origin()  # asv did not make this environment
    monkeypatch.setenv("ASV_ENV_TYPE", "virtualenv")
    with pytest.raises(RuntimeError, match="was imported from"):
        workloads.check_origin()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    workloads.check_origin()


# ---- asv.conf.json


def test_asv_installs_the_pinned_versions_torch_first(root: Path) -> None:
    pins = dict(line.split(" ")[0].split("==") for line in locks.versions().splitlines())
    wanted = Config.load(str(root / "asv.conf.json")).matrix["req"]
    versions = {name.removeprefix("pip+").replace("_", "-"): v for name, (v,) in wanted.items()}
    assert versions == {name: pins[name] for name in versions}
    assert next(iter(versions)) == "torch"
    assert "asv-runner" in versions
