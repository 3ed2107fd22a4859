"""Settings that others wrote, read by a list of what is known; nothing is skipped in silence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference_model.errors import UserError
from reference_model.reading import quoted, shown

ANY = None  # has no effect here, whatever its value, or is checked where it is read
Known = Mapping[str, tuple[Any, ...] | None]
# What an unknown key may hold: it then asks for nothing.
NEUTRAL: tuple[Any, ...] = (None, False, "", [], {})


def check_settings(fields: Mapping[str, Any], known: Known, path: Path) -> None:
    """Raise `UserError` for the first key that asks for what we do not do, or do not know.

    ``known`` has for each key the values that we can represent, the neutral one first.
    """
    for name, value in fields.items():
        if name not in known:
            if not _among(value, NEUTRAL):
                raise UserError(
                    f"{path} has {shown(name)}={quoted(value)}, and {shown(name)} is not known "
                    "here; delete it if it has no effect on what the model computes"
                )
            continue
        allowed = known[name]
        if allowed is not ANY and not _among(value, allowed):
            raise UserError(
                f"{path} has {name}={quoted(value)}, which the reference model cannot represent; "
                f"it knows {' and '.join(map(repr, allowed))}"
            )


def read_setting(
    fields: Mapping[str, Any], names: tuple[str, ...], otherwise: Any, path: Path
) -> Any:
    """The value of a setting that has several names. Raises `UserError` where they differ."""
    told = [(name, fields[name]) for name in names if name in fields]
    for name, value in told[1:]:
        if not _among(value, (told[0][1],)):
            raise UserError(
                f"{path} has {told[0][0]}={quoted(told[0][1])} and {name}={quoted(value)}, two "
                "names of one setting; delete the wrong one"
            )
    return told[0][1] if told else otherwise


def _among(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether it is one of these, and not only equal: to Python, False is 0 and True is 1.0."""
    return any(type(value) is type(one) and value == one for one in allowed)
