"""What an experiment is: what measures one claim, in one piece or in cells, and how long it takes.

>>> @experiment("tying.saving-small", smoke=0.1, quick=0.1, full=0.1)
... def saving_small(settings: Settings) -> list[Measurement]: ...
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from benchmarks.record.results import Measurement, Parameter

if TYPE_CHECKING:
    from reference_model.devices import Dtype

Profile = Literal["smoke", "quick", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
REFERENCE = "reference"


class Unavailable(Exception):
    """What an experiment needs is not here, such as a library; its claim stays open.

    The message is one line that says what, and how to get it.
    """


@dataclass(frozen=True)
class Settings:
    """What a run was asked for; ``device`` is ``cpu`` or ``cuda``, already resolved.

    ``model``: the reference checkpoint, or what else `benchmarks/subjects` opens; ``text``: a file
    that stands for the held-out plays; ``dtype``: of its weights and of its plain cache.
    """

    profile: Profile
    device: str
    seed: int
    model: str = REFERENCE
    text: str | None = None
    dtype: Dtype = "float32"

    @property
    def of_reference(self) -> bool:
        """Whether it is the checkpoint in float32, on the plays, that is asked about."""
        return self.model == REFERENCE and self.text is None and self.dtype == "float32"


GIGABYTE = 2**30
Found = Any  # what JSON can hold, its numbers finite
CellsFound = Sequence[tuple[dict[str, Parameter], Found]]


@dataclass(frozen=True)
class Cell:
    """A piece of an experiment that is finished, or not, as a whole.

    ``share`` is its part of the experiment's seconds, in any unit. A ``timed`` cell runs alone and
    has all cores; any other has one thread, since sums depend on how many there are. ``shared``
    names the module that measures it for several claims: it is measured once for all of them.
    """

    parameters: dict[str, Parameter] = field(default_factory=dict)
    share: float = 1.0
    timed: bool = False
    memory: int = GIGABYTE  # bytes at its peak; a cell that does not fit waits
    shared: str | None = None


@dataclass(frozen=True)
class Experiment:
    """What measures one claim, cell by cell.

    ``measure`` is given the settings and a cell's parameters, in a process of its own, and returns
    what JSON can hold; ``combine`` makes measurements of what all cells returned, in their order.
    ``seconds`` are those of two CPU cores; None: too long for that profile, where its claim stays
    open. ``further`` names the cells that follow from what all cells before them found, such as
    those at the best of several rates; no more: none. ``design`` says beforehand what it can tell.
    """

    claim: str
    module: str  # whose code, with all that it imports, decides the numbers
    measure: Callable[..., Found]
    cells: Callable[[Settings], Sequence[Cell]]
    combine: Callable[[Settings, CellsFound], list[Measurement]]
    seconds: dict[Profile, float | None]
    protocol: int = 1
    of_any_model: bool = False  # whether it asks the run's subject, and so says something of it,
    as_run_elsewhere: bool = False  # also where transformers runs it
    further: Callable[[Settings, CellsFound], Sequence[Cell]] | None = None
    design: str = ""

    def __call__(self, settings: Settings) -> list[Measurement]:
        """All of it in this process, cell after cell."""
        cells, found = [*self.cells(settings)], []
        while cells:
            found += [
                (each.parameters, self.measure(settings, **each.parameters)) for each in cells
            ]
            cells = [*self.further(settings, found)] if self.further else []
        return self.combine(settings, found)


def as_found(measurements: Iterable[Measurement]) -> Found:
    """Measurements as a cell returns them, where what it found is what the claim needs."""
    return [m.as_json() for m in measurements]


def joined(settings: Settings, found: CellsFound) -> list[Measurement]:
    """The measurements of cells that return `as_found`, one after the other."""
    return [Measurement.from_json(m) for _, of_cell in found for m in of_cell]


def experiment(
    claim: str,
    *,
    smoke: float | None,
    quick: float | None,
    full: float | None,
    timed: Container[Profile] = (),
    memory: int = GIGABYTE,
    protocol: int = 1,
    of_any_model: bool = False,
    as_run_elsewhere: bool = False,
) -> Callable[[Callable[[Settings], list[Measurement]]], Experiment]:
    """Turn the function below into the experiment of ``claim``, which is a single cell.

    ``timed`` are the profiles in which it takes times. ``protocol`` is raised by hand when what its
    numbers mean changes. ``of_any_model``: it asks `subject_of` for the model and the text;
    ``as_run_elsewhere``: for nothing that only a model built here has.
    """

    def decorate(function: Callable[[Settings], list[Measurement]]) -> Experiment:
        def measure(settings: Settings) -> Found:
            return as_found(function(settings))

        def cells(settings: Settings) -> Sequence[Cell]:
            return [Cell(timed=settings.profile in timed, memory=memory)]

        seconds: dict[Profile, float | None] = {"smoke": smoke, "quick": quick, "full": full}
        return Experiment(
            claim,
            function.__module__,
            measure,
            cells,
            joined,
            seconds,
            protocol,
            of_any_model,
            as_run_elsewhere,
        )

    return decorate


def experiment_of_cells(
    claim: str,
    *,
    cells: Callable[[Settings], Sequence[Cell]],
    measure: Callable[..., Found],
    smoke: float | None,
    quick: float | None,
    full: float | None,
    protocol: int = 1,
    of_any_model: bool = False,
    as_run_elsewhere: bool = False,
    further: Callable[[Settings, CellsFound], Sequence[Cell]] | None = None,
    design: str = "",
) -> Callable[[Callable[[Settings, CellsFound], list[Measurement]]], Experiment]:
    """Turn the function below, which combines what ``measure`` found in ``cells``, into one."""

    def decorate(function: Callable[[Settings, CellsFound], list[Measurement]]) -> Experiment:
        seconds: dict[Profile, float | None] = {"smoke": smoke, "quick": quick, "full": full}
        return Experiment(
            claim,
            function.__module__,
            measure,
            cells,
            function,
            seconds,
            protocol,
            of_any_model,
            as_run_elsewhere,
            further,
            design,
        )

    return decorate
