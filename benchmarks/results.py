"""The one record type, and results.json: {schema, environment, measurements, claims}."""

from __future__ import annotations

import json
import math
import numbers
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from reference_model.errors import UserError
from reference_model.files import write_whole

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

    from benchmarks.stats import Estimate

SCHEMA_VERSION = 1
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
    from benchmarks.stats import Estimate  # numpy is heavy for who only reads results

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


def check_writable(path: Path) -> None:
    """Raise UserError where ``path`` cannot be written: before hours of measuring, not after."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; name a file in a folder you can write to"
        ) from error


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write beside, then rename: at any moment ``path`` is either whole or untouched.

    Raises ValueError on results that break the schema, UserError where the folder or disk fails.
    """
    problem = _first_problem(results)
    if problem is not None:
        raise ValueError(f"these results break the schema: {problem}")
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path.parent, {path.name: text.encode()})


def read_results(path: Path) -> dict[str, Any]:
    """The results in ``path``; UserError, in one line, on anything else than valid ones."""
    remedy = "write them again with python -m benchmarks run"
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; {remedy}") from error
    version = results.get("schema") if isinstance(results, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise UserError(
            f"{path} has results schema {version!r}, this program reads {SCHEMA_VERSION}; {remedy}"
        )
    problem = _first_problem(results)
    if problem is not None:
        raise UserError(f"{path} breaks the results schema: {problem}; {remedy}")
    return results


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"it contains {constant}, which is not a measurement")


@cache
def _validator() -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


def _first_problem(results: dict[str, Any]) -> str | None:
    """What the schema says is wrong, or what a schema cannot say: ids that do not match up."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(results))
    if error is not None:
        message = error.message if len(error.message) < 200 else f"{error.message[:200]}..."
        return f"{error.json_path}: {message}".replace("\n", " ")
    ids = Counter(measurement["id"] for measurement in results["measurements"])
    repeated = [name for name, count in ids.items() if count > 1]
    if repeated:
        return f"measurement {repeated[0]} stands in it more than once"
    for claim in results["claims"]:
        for part in (claim, *claim["requirements"]):
            missing = [name for name in part["measurements"] if name not in ids]
            if missing:
                return f"claim {claim['id']} rests on {missing[0]}, which is not in it"
    return None
