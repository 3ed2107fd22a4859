"""Changes of the toy for the worse: each function slower by a share, and exact ones."""

from __future__ import annotations

from reports.gate.validation.edits import Edit
from reports.gate.validation.injections import Injection
from reports.gate.verdict import Verdict

MODEL, BENCH = "reference_model/__init__.py", "benchmarks/bench_toy.py"
BODIES = {
    "added": """\
    total = 0
    for row in rows:
        total += sum(row)
    return total
""",
    "checked": """\
    found = 0
    for _ in range(rounds):
        found = crc32(data, found)
    return found
""",
    "ordered": """\
    return sorted(values)
""",
    "allocated": """\
    total = 0
    for _ in range(buffers):
        total += len(bytearray(size))
    return total
""",
    "multiplied": """\
    for _ in range(products):
        product = a @ b
    return product
""",
}


def _slower(name: str, share: float) -> Injection:
    """One function takes so much longer, whatever the machine; no count shows it."""
    *before, last = BODIES[name].splitlines(keepends=True)
    body = (
        "    began = time.perf_counter()\n"
        f"{''.join(before)}"
        f"    found = {last.removeprefix('    return ')}"
        "    now = time.perf_counter()\n"
        f"    until = now + {share} * (now - began)\n"
        "    while time.perf_counter() < until:\n"
        "        pass\n"
        "    return found\n"
    )
    edits: tuple[Edit, ...] = (
        (
            MODEL,
            "from zlib import crc32\n",
            "import time\nfrom zlib import crc32\n",
        ),
        (MODEL, BODIES[name], body),
    )
    return Injection(edits, slowdown=share)


def slower(share: float) -> dict[str, Injection]:
    """By name, one of each function."""
    return {f"{name} slower by {100 * share:g} %": _slower(name, share) for name in BODIES}


INJECTIONS: dict[str, Injection] = {
    "nothing": Injection((), Verdict.PASS, slowdown=0.0),
    **slower(0.03),
    **slower(0.05),
    **slower(0.1),
    "another result": Injection(((MODEL, "sum(row)", "sum(row, 1)"),)),
    "a product in half precision": Injection(
        ((MODEL, "product = a @ b", "product = (a.half() @ b.half()).float()"),)
    ),
    "a larger buffer": Injection(((MODEL, "bytearray(size)", "bytearray(size + 24)"),)),
    "sorted twice": Injection(
        ((MODEL, "return sorted(values)", "return sorted(sorted(values)[::-1])"),)
    ),
    "not a number": Injection(
        ((MODEL, "return product", "return product * float('nan')"),), Verdict.ERROR
    ),
    "a benchmark vanished": Injection(((BENCH, '    "ordered",\n', ""),)),
}
