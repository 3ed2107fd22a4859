"""Our decoding beside the peers', batch 1, float32 and fewer bits: who is faster, and by how much?

    python -m benchmarks.peers.decoding                 # after: make peers
    python -m benchmarks.peers.decoding --peers ours plain --observations 3
    python -m benchmarks.peers.decoding --model smollm2

One observation is a fresh process for each peer, ours too, all alive at once in turns; the
order is shuffled for each round. Its ratio is that of their medians, and the interval is over the
observations. The machine's read bandwidth and matrix limit take turns with them, in a process too.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference_model.command_line import Parser

from benchmarks.peers.comparison import table
from benchmarks.peers.plan import (
    DECODE,
    LIMIT,
    LONG_PROMPT,
    PEERS,
    PREFILL,
    ROUNDED,
    SAME_TOKENS,
    VARIANTS,
    Plan,
    config_of,
    loaders_of,
)
from reference_model.errors import UserError
from reference_model.files import write_whole
from reference_model.printing import say, warn

ROOT = Path(__file__).resolve().parents[2]
# Idle OpenMP threads spin for up to 200 ms: the next in turn shall not run beside them.
SETTLE_SECONDS = 0.3


# ---- one peer's process


def serve(name: str, model: str, folder: Path, threads: int) -> None:
    """Answer requests, one JSON line each, until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints shall not mix with the answers
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    from benchmarks.peers import loaders, weights

    config = config_of(model)
    try:
        run = loaders_of(model)[name](config, folder, threads) if name != LIMIT else None
    except ImportError as error:
        print(json.dumps({"absent": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        if run is None:
            answer = dict(loaders.limit_seconds())
        else:
            steps = run(weights.prompt(config, request["prompt_tokens"]), request["new_tokens"])
            answer = {"tokens": [token for token, _ in steps], "at": [at for _, at in steps]}
        print(json.dumps(answer, allow_nan=False), file=answers, flush=True)


class Worker:
    """A peer in a process of its own. Raises MissingPeer where its library is not there."""

    def __init__(self, name: str, plan: Plan, folder: Path) -> None:
        self.name = name
        # A pipe that nobody reads would fill and block.
        self.told = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # -P and the path: the model is the one of this checkout, whatever is installed.
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(plan.threads)}
        command = [sys.executable, "-P", "-m", "benchmarks.peers.decoding", "--serve", name]
        self.process = subprocess.Popen(
            [*command, plan.model, str(folder), str(plan.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.told,
            text=True,
            env=environment,
        )
        first = self._answer()
        if "absent" in first:
            self.close()
            raise MissingPeer(f"{name} is missing ({first['absent']}); make peers installs it")

    def ask(self, prompt_tokens: int = 0, new_tokens: int = 0) -> dict[str, Any]:
        assert self.process.stdin is not None
        request = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self._answer()
        sleep(SETTLE_SECONDS)
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.told.seek(0)
            last = (self.told.read().strip().splitlines() or ["it said nothing"])[-1]
            self.close()
            raise RuntimeError(f"{self.name} failed in its process: {last}")
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.told.close()


class MissingPeer(Exception):
    """A library that is not installed; the message names it and what to do."""


# ---- an observation


def observe(plan: Plan, folder: Path, shuffled: random.Random) -> dict[str, dict[str, float]]:
    """Medians of one set of processes: peer → quantity → value."""
    with processes(plan, folder) as workers:
        for worker in workers.values():  # warm-up: threads, caches, pages
            worker.ask(LONG_PROMPT, 2)
        taken: dict[str, dict[str, list[float]]] = {}
        for turn in range(plan.rounds):
            order = list(workers)
            shuffled.shuffle(order)
            for name in order:
                if name == "uncached" and turn > 0:
                    continue  # it takes as long as all others together
                for quantity, values in turn_of(workers[name], plan).items():
                    taken.setdefault(name, {}).setdefault(quantity, []).extend(values)
    return {
        name: {quantity: statistics.median(values) for quantity, values in quantities.items()}
        for name, quantities in taken.items()
    }


def turn_of(worker: Worker, plan: Plan) -> dict[str, list[float]]:
    if worker.name == LIMIT:
        return {quantity: [value] for quantity, value in worker.ask().items()}
    at = worker.ask(plan.prompt_tokens, plan.new_tokens)["at"]
    found = {
        f"{PREFILL} {plan.prompt_tokens}": [at[0]],
        DECODE: [later - earlier for earlier, later in itertools.pairwise(at)],
        f"all of {plan.prompt_tokens} + {plan.new_tokens}": [at[-1]],
    }
    if worker.name not in VARIANTS:
        found[f"{PREFILL} {LONG_PROMPT}"] = worker.ask(LONG_PROMPT, 1)["at"]
    return found


@contextmanager
def processes(plan: Plan, folder: Path) -> Iterator[dict[str, Worker]]:
    """Every peer that is installed, ready; a missing one is named on stderr."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in (*plan.peers, LIMIT):
            workers[name] = Worker(name, plan, folder)
            stack.callback(workers[name].close)
        yield workers


def installed(plan: Plan, folder: Path) -> tuple[list[str], dict[str, bool]]:
    """The peers that are there, and whether each writes our tokens; others are named."""
    found: list[str] = []
    same: dict[str, bool] = {}
    ours: list[int] = []
    for name in plan.peers:
        try:
            worker = Worker(name, plan, folder)
        except MissingPeer as error:
            warn(error)
            continue
        try:
            if name not in VARIANTS + ROUNDED:
                tokens = worker.ask(plan.prompt_tokens, SAME_TOKENS)["tokens"]
                ours = ours or tokens
                same[name] = tokens == ours
        finally:
            worker.close()
        found.append(name)
    return found, same


def _parser() -> Parser:
    from benchmarks.instruments.environment import usable_cores
    from benchmarks.peers.smollm2 import NAME
    from reference_model.command_line import Parser
    from reference_model.config import PRESETS

    parser = Parser(
        prog="python -m benchmarks.peers.decoding",
        description="Time our decoding beside transformers, CTranslate2 and llama.cpp.",
        example="--model toy --observations 2 --new-tokens 16",
    )
    add = parser.add_argument
    told = "a GPT-2 with random weights, or the real SmolLM2 (default: gpt2)"
    add("--model", choices=(*PRESETS, NAME), default="gpt2", help=told)
    add(
        "--peers",
        nargs="+",
        choices=PEERS,
        help="who decodes (default: all that are installed and have the model)",
    )
    parser.also_as("--contenders", "--peers")
    add("--observations", type=int, default=5, help="sets of fresh processes (default: 5)")
    add("--rounds", type=int, default=3, help="turns of each in a set (default: 3)")
    add("--threads", type=int, default=usable_cores(), help="of each (default: all cores)")
    add("--prompt-tokens", type=int, default=128, help="tokens that are read (default: 128)")
    add("--new-tokens", type=int, default=128, help="tokens that are written (default: 128)")
    add("--seed", type=int, default=0, help="of the order of the turns (default: 0)")
    add("--out", type=Path, help="JSON file for all medians")
    return parser


def main(arguments: Sequence[str]) -> int:
    given = vars(_parser().parse_args(arguments))
    out = given.pop("out")
    having = loaders_of(given["model"])
    chosen = given["peers"] or [name for name in PEERS if name in having]
    if absent := [name for name in chosen if name not in having]:
        known = ", ".join(having)
        raise UserError(f"{absent[0]} cannot run {given['model']}; choose from {known}")
    given["peers"] = chosen
    plan = Plan(**given)
    if out is not None:
        from reference_model.files import check_writable  # an old commit's model has none

        check_writable(out)
    with tempfile.TemporaryDirectory() as folder:
        found, same = installed(plan, Path(folder))
        plan = Plan(**{**given, "peers": found})
        shuffled = random.Random(plan.seed)
        seen = []
        for number in range(1, plan.observations + 1):
            warn(f"observation {number} of {plan.observations}")
            seen.append(observe(plan, Path(folder), shuffled))
            if out is not None:  # after each: minutes of measuring outlive an interruption
                kept = {"same_tokens": same, "observations": seen}
                text = f"{json.dumps(kept, indent=1, allow_nan=False)}\n"
                write_whole(out.parent, {out.name: text.encode()})
    say(table(plan, seen, same))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    else:
        from reference_model.command_line import exit_status

        sys.exit(exit_status(lambda: main(sys.argv[1:])))
