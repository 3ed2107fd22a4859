"""Changes for the worse that the gate has to find: edits of the model's files, each a commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reference_model.errors import UserError
from reports.gate.validation.edits import Edit, edit
from reports.gate.verdict import Verdict

MODEL, CACHE = "reference_model/model.py", "reference_model/cache.py"
KV, CODEC = "reference_model/quantization/kv_store.py", "reference_model/quantization/turboquant.py"
INT8 = "reference_model/quantization/int8.py"
LORA = "reference_model/lora.py"
STEPS = "benchmarks/suite/gate_workloads.py"

BEGIN = "        start = cache.start if cache is not None else 0\n        span ="
END = "        return self.lm_head(self.ln_f(x))  # (B, T, V)\n"


@dataclass(frozen=True)
class Injection:
    """Edits, and the verdict they deserve.

    ``slowdown``: by what share something becomes slower and nothing else changes; None: otherwise.
    """

    edits: tuple[Edit, ...]
    expected: Verdict = Verdict.REGRESSION
    slowdown: float | None = None


def _slower(share: float) -> Injection:
    """The whole forward takes so much longer, whatever the machine; no count shows it."""
    return Injection(
        (
            (MODEL, "import math\n", "import math\nimport time\n"),
            (MODEL, BEGIN, f"        began = time.perf_counter()\n{BEGIN}"),
            (
                MODEL,
                END,
                "        y = self.lm_head(self.ln_f(x))  # (B, T, V)\n"
                "        now = time.perf_counter()\n"
                f"        until = now + {share} * (now - began)\n"
                "        while time.perf_counter() < until:\n"
                "            pass\n"
                "        return y\n",
            ),
        ),
        slowdown=share,
    )


def _at_end(line: str) -> Injection:
    """One more statement before the logits."""
    return Injection(((MODEL, END, f"        {line}\n{END}"),))


def _extra_matmul(share: float) -> Injection:
    """A product with so large a share of all weights, which is what a decode step reads."""
    rows = f"int({share} * sum(p.numel() for p in self.parameters()) / x.shape[-1])"
    return _at_end(f"x[:, -1:] @ self.wte.weight[: {rows}].T")


INJECTIONS: dict[str, Injection] = {
    "nothing": Injection((), Verdict.PASS, slowdown=0.0),
    "slower by 3 %": _slower(0.03),
    "slower by 5 %": _slower(0.05),
    "slower by 10 %": _slower(0.1),
    "extra matmul of 2 %": _extra_matmul(0.02),
    "extra matmul of 10 %": _extra_matmul(0.1),
    "extra copy": _at_end("x = x.clone()"),
    "extra synchronisation": _at_end("float(x.flatten()[0])"),
    "cache grown by concatenation": Injection(
        (
            (
                CACHE,
                "        return keys[:, :, :end].to(k.dtype), values[:, :, :end].to(v.dtype)\n",
                "        past = end - k.shape[-2]\n"
                "        return torch.cat((keys[:, :, :past], k), 2), "
                "torch.cat((values[:, :, :past], v), 2)\n",
            ),
        )
    ),
    "cached logits drift": Injection(
        (
            (
                CACHE,
                "        self.keys[layer][:, :, start:end] = k\n",
                "        self.keys[layer][:, :, start:end] = k * 1.001\n",
            ),
        )
    ),
    "dense copy beside the packed cache": Injection(
        (
            (
                KV,
                "        self.recent = weight.new_zeros(*shape, waiting, codec.width)\n",
                "        self.recent = weight.new_zeros(*shape, waiting, codec.width)\n"
                "        self.dense = weight.new_zeros(*shape, capacity, codec.width)\n",
            ),
        )
    ),
    "float32 scale": Injection(
        (
            (
                CODEC,
                "        self.layout = (*planes, (1, torch.float16))\n",
                "        self.layout = (*planes, (1, torch.float32))\n",
            ),
            (
                CODEC,
                "        return *planes, self._scales(x, norm, planes).half()\n",
                "        return *planes, self._scales(x, norm, planes)\n",
            ),
        )
    ),
    "norms quantised": Injection(
        (
            (
                INT8,
                "    kept_alive = []  # an address",
                "    for norm in result.modules():\n"
                "        if isinstance(norm, nn.LayerNorm):\n"
                "            step = norm.weight.abs().max() / 7\n"
                "            norm.weight.copy_((norm.weight / step).round() * step)\n"
                "    kept_alive = []  # an address",
            ),
        )
    ),
    "rope off by one": Injection(
        (
            (
                MODEL,
                "        angles = rotary_angles(self.config, start, length, x.device)",
                "        start = start + (length == 1)\n"
                "        angles = rotary_angles(self.config, start, length, x.device)",
            ),
        )
    ),
    "α/r for α/√r": Injection(
        ((LORA, '"rslora": math.sqrt(self.rank)', '"rslora": self.rank'),),
    ),
    "not a number": Injection(
        ((MODEL, END, END.replace("(self.ln_f(x))", "(self.ln_f(x)) * float('nan')")),),
        Verdict.ERROR,
    ),
    "a benchmark vanished": Injection(
        ((STEPS, '    "decode, rope": (partial(_decode, position="rope"), 1),\n', ""),)
    ),
}


def inject(worktree: Path, name: str, injections: Mapping[str, Injection] = INJECTIONS) -> None:
    """Edit the files of a worktree; `UserError` where what is to be edited is not there once."""
    edit(worktree, name, edits_of(name, injections))


def edits_of(name: str, injections: Mapping[str, Injection] = INJECTIONS) -> tuple[Edit, ...]:
    """`UserError` where no injection is called so."""
    if name not in injections:
        raise UserError(f"no injection is called {name!r}; use one of {', '.join(injections)}")
    return injections[name].edits
