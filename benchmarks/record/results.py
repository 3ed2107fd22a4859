"""The one record type, and results.json: {schema, environment, measurements, claims}."""

from __future__ import annotations

import json
import math
import numbers
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.data.json_files import read_json
from reference_model.errors import UserError
from reference_model.files import write_whole

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

    from benchmarks.judging.stats import Estimate

SCHEMA_VERSION = 2  # of what is written; the claims of 1 had no findings
READABLE = (1, 2)
# Far above what a run of all claims measures (1,973, with 6 parameters of a claim), and few enough
# to check and show within seconds.
MOST = {"measurements": 10_000, "claims": 500}
MOST_PARAMETERS = 50  # that measurements of one claim have together: each is a column
MOST_ERRORS = 100  # of the schema's, among which the most telling one is looked for
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")

Direction = Literal["lower", "higher", "none"]
Parameter = int | float | str | bool


@dataclass(frozen=True)
class Measurement:
    """One number, with what it is a number of.

    An exact value has neither an interval nor an n; any other one has both. Raises ValueError on a
    value that is not finite, or an interval without its n.
    """

    claim: str
    metric: str
    unit: str
    value: float
    interval: tuple[float, float] | None  # 95 %; None: exact
    n: int | None  # independent observations behind the interval; None: exact
    direction: Direction  # which way is better
    choice: str  # axis of design, "positions"
    option: str  # the value on it, "rope"
    parameters: dict[str, Parameter]
    source: str  # "counted", "clock", "simulation", "published configuration", "checkpoint", ...
    population: str | None = None  # what the interval speaks of, such as a text; None: not said

    def __post_init__(self) -> None:
        # numpy's scalars are welcome, but JSON knows only Python's.
        set_field = object.__setattr__
        set_field(self, "value", _plain(self.value))
        set_field(self, "parameters", {k: _plain(v) for k, v in self.parameters.items()})
        if isinstance(self.value, bool | str) or not math.isfinite(self.value):
            raise ValueError(f"{self.id}: the value is {self.value!r}, not a finite number")
        if (self.interval is None) != (self.n is None):
            raise ValueError(f"{self.id}: an interval needs its n, and an exact value has neither")
        if self.interval is not None and self.n is not None:
            low, high = (float(end) for end in self.interval)
            set_field(self, "interval", (low, high))
            set_field(self, "n", int(self.n))
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{self.id}: [{low}, {high}] is not an interval")
            if self.n < 1:
                raise ValueError(f"{self.id}: n is {self.n}")

    @property
    def labels(self) -> dict[str, Parameter]:
        """The option and the parameters: what tells this measurement from its neighbours."""
        return {"option": self.option, **self.parameters}

    @property
    def id(self) -> str:
        labels = ",".join(f"{key}={value}" for key, value in self.labels.items())
        return f"{self.claim}/{self.metric}[{labels}]"

    def as_json(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        return {"id": self.id, **asdict(self), "interval": interval}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Measurement:
        interval = found["interval"]
        fields = {name: found[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "interval": None if interval is None else tuple(interval)})


def measured(
    found: float | Estimate,
    *,
    claim: str,
    metric: str,
    unit: str,
    direction: Direction,
    choice: str,
    option: str,
    parameters: Mapping[str, Parameter],
    source: str,
) -> Measurement:
    """The measurement of a number, which is exact, or of an estimate, with its interval and n."""
    from benchmarks.judging.stats import Estimate  # numpy is heavy for who only reads results

    estimate = found if isinstance(found, Estimate) else None
    return Measurement(
        claim=claim,
        metric=metric,
        unit=unit,
        value=found.value if isinstance(found, Estimate) else found,
        interval=estimate.interval if estimate else None,
        n=estimate.n if estimate else None,
        direction=direction,
        choice=choice,
        option=option,
        parameters=dict(parameters),
        source=source,
        population=estimate.population if estimate else None,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    item = getattr(value, "item", None)  # numpy's bool and 0-dimensional arrays and tensors
    if item is None:
        raise ValueError(f"{value!r} is neither a number, a text nor a truth value")
    return item()


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write beside, then rename: at any moment ``path`` is either whole or untouched.

    Raises ValueError on results that break the schema, UserError where the folder or disk fails.
    """
    problem = _first_problem(results)
    if problem is not None:
        raise ValueError(f"these results break the schema: {problem}")
    write_whole(path.parent, {path.name: results_text(results).encode()})


def results_text(results: dict[str, Any]) -> str:
    return json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_results(path: Path) -> dict[str, Any]:
    """The results in ``path``; UserError, in one line, on anything else than valid ones."""
    remedy = "write them again with python -m benchmarks run"
    try:
        results = read_json(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}; {remedy}") from error
    if not isinstance(results, dict) or "schema" not in results:
        raise UserError(f"{path} holds no results of llm-design-bench; {remedy}")
    version = results["schema"]
    if version not in READABLE or isinstance(version, bool):
        raise UserError(
            f"{path} has results schema {_start(repr(version))}, this program reads "
            f"{' and '.join(map(str, READABLE))}; measure again, or use the version that wrote them"
        )
    problem = _first_problem(results)
    if problem is not None:
        raise UserError(f"{path} breaks the results schema: {problem}; {remedy}")
    return results


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return Draft202012Validator(_spelled_out(schema, schema["$defs"]))


def _spelled_out(part: Any, definitions: dict[str, Any]) -> Any:
    """A schema without references; no definition leads back to itself.

    A reference is looked up for every value, which took half of the time that results take to read.
    """
    if isinstance(part, list):
        return [_spelled_out(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    own = {k: _spelled_out(v, definitions) for k, v in part.items() if k not in ("$ref", "$defs")}
    if name := part.get("$ref", "").removeprefix("#/$defs/"):
        return {**_spelled_out(definitions[name], definitions), **own}
    return own


def _first_problem(results: dict[str, Any]) -> str | None:
    """What the schema says is wrong, or what a schema cannot say: ids that do not match up."""
    from jsonschema.exceptions import best_match

    for kind, most in MOST.items():
        found = results.get(kind)
        if isinstance(found, list) and len(found) > most:
            return f"{len(found):,} {kind} are more than the {most:,} that can be shown"
    error = best_match(islice(_validator().iter_errors(results), MOST_ERRORS))
    if error is not None:
        return " ".join(f"{_start(error.json_path)}: {_start(error.message)}".split())
    claims = {claim["id"] for claim in results["claims"]}
    if len(claims) < len(results["claims"]):
        return "a claim stands in it more than once"
    owners, parameters = {}, defaultdict[str, set[str]](set)
    for measurement in results["measurements"]:
        name, owner = measurement["id"], measurement["claim"]
        if name in owners:
            return f"measurement {_start(repr(name))} stands in it more than once"
        if owner not in claims or not name.startswith(f"{owner}/"):
            return f"measurement {_start(repr(name))} belongs to no claim that is in it"
        owners[name] = owner
        parameters[owner].update(measurement["parameters"])
        if len(parameters[owner]) > MOST_PARAMETERS:
            return f"measurements of {owner} have more than {MOST_PARAMETERS} parameters together"
        low, high = measurement["interval"] or (0, 0)
        if low > high:
            return f"measurement {_start(repr(name))} has an interval that ends before it begins"
    for claim in results["claims"]:
        for part in (claim, *claim["requirements"]):
            if len(set(part["measurements"])) < len(part["measurements"]):
                return f"claim {claim['id']} names a measurement more than once"
            for name in part["measurements"]:
                if owners.get(name) != claim["id"]:
                    return (
                        f"claim {claim['id']} rests on {_start(repr(name))}, which is not a "
                        "measurement of it"
                    )
    return None


def _start(text: str) -> str:
    return text if len(text) < 200 else f"{text[:200]}..."
