"""The record: one SQLite file to which finished cells are added, and in which none is changed.

Only the process that hands cells out writes. A line is there as a whole or not at all, whatever
kills the writer; several runs may write at once.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from reference_model.errors import UserError, notice

Outcome = Literal["done", "failed"]

APPLICATION, LAYOUT = 0x6C646221, 1  # how SQLite tells this file from others, and from later ones
PATIENCE = 60  # seconds that a writer waits for another one

TABLES = """
CREATE TABLE runs (
    digest TEXT PRIMARY KEY,
    environment TEXT NOT NULL
);
CREATE TABLE cells (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    claim TEXT NOT NULL,
    parameters TEXT NOT NULL,
    subject TEXT NOT NULL,
    profile TEXT NOT NULL,
    device TEXT NOT NULL,
    seed INTEGER NOT NULL,
    threads INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    versions TEXT NOT NULL,
    machine TEXT NOT NULL,
    code TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('done', 'failed')),
    found TEXT NOT NULL,
    seconds REAL NOT NULL,
    utc TEXT NOT NULL,
    run TEXT NOT NULL REFERENCES runs (digest)
);
CREATE INDEX of_claims ON cells (claim, parameters);
"""


@dataclass(frozen=True)
class Key:
    """What decides a cell's numbers; two cells that share it all have the same."""

    claim: str
    parameters: str  # JSON, in the order of their names
    subject: str  # the model that is asked about, and the digest of its weights
    profile: str
    device: str
    seed: int
    threads: int
    protocol: int  # of the measurement, raised by hand when what it means changes
    versions: str  # JSON: Python and the packages that compute
    machine: str  # empty where nothing is timed
    code: str  # digest of the code that the cell imports, without remarks


OF_A_MACHINE = ("machine", "threads")
QUESTION = tuple(name for name in Key.__dataclass_fields__ if name != "code")


@dataclass(frozen=True)
class Line:
    """A finished cell. ``found`` is what it returned; of a failed one, its error in one line."""

    key: Key
    outcome: Outcome
    found: Any
    seconds: float
    utc: str
    environment: dict[str, Any]
    number: int = 0  # in the order of their ends; 0: not in a record yet


def as_json(value: Any) -> str:
    """In the order that it has; ValueError on what is not finite, TypeError on what is no JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """JSON that is the same for the same value, whatever the order of its names."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


class Record:
    """The cells in the file at ``path``, which is made where it is missing.

    UserError, in one line, on a file that is no record, one of a later layout, or a full disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open_patiently()

    def _open_patiently(self) -> None:
        # SQLite waits for a writer, but not where another one makes the write-ahead log, or puts it
        # away: it tells at once that the file is locked.
        end = time.monotonic() + PATIENCE
        while True:
            # Every statement is its own transaction unless one is begun.
            self._sqlite = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                return self._open()
            except sqlite3.OperationalError as error:
                self._sqlite.close()
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _open(self) -> None:
        # In one transaction: another run may be making the tables of this file just now.
        with self._transaction("DEFERRED"):
            application, layout = self._number("application_id"), self._number("user_version")
            empty = not self._has_tables()
        if not empty and application != APPLICATION:
            raise UserError(f"{self.path} is a database of something else; name another file")
        if layout > LAYOUT:
            raise UserError(
                f"{self.path} has layout {layout}, this program reads {LAYOUT}; "
                "use the version that wrote it, or name another file"
            )
        # With a write-ahead log readers and a writer do not wait for each other. Some file systems
        # have no shared memory for it.
        (mode,) = self._sqlite.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            notice(f"{self.path}: its disk allows no write-ahead log; SQLite uses {mode} instead")
        self._sqlite.execute("PRAGMA synchronous = FULL")
        if empty:
            self._make_tables()

    def _make_tables(self) -> None:
        with self._writing():
            if self._has_tables():  # made by another run, since this one looked
                return
            for statement in TABLES.split(";\n"):
                if statement.strip():
                    self._sqlite.execute(statement)
            self._sqlite.execute(f"PRAGMA application_id = {APPLICATION}")
            self._sqlite.execute(f"PRAGMA user_version = {LAYOUT}")

    def _has_tables(self) -> bool:
        return bool(self._sqlite.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])

    def _number(self, pragma: str) -> int:
        return int(self._sqlite.execute(f"PRAGMA {pragma}").fetchone()[0])

    def add(self, line: Line) -> int:
        """The line's number, once it is on the disk; ValueError on what is not finite."""
        found = as_json(line.found)
        if not math.isfinite(line.seconds):
            raise ValueError(f"{line.key.claim}: {line.seconds} seconds are no duration")
        environment = as_json(line.environment)
        run = sha256(environment.encode()).hexdigest()
        values = {name: getattr(line.key, name) for name in (*QUESTION, "code")}
        values |= {"outcome": line.outcome, "found": found, "seconds": float(line.seconds)}
        values |= {"utc": line.utc, "run": run}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self._told(), self._writing():
            self._sqlite.execute("INSERT OR IGNORE INTO runs VALUES (?, ?)", (run, environment))
            done = self._sqlite.execute(
                f"INSERT INTO cells ({names}) VALUES ({marks})", tuple(values.values())
            )
            return int(done.lastrowid or 0)

    def latest(
        self, key: Key, *, any_code: bool = False, any_machine: bool = False, after: int = 0
    ) -> Line | None:
        """The last line of this key, of those with a number above ``after``.

        With ``any_code`` also one that other code measured, if this code has none; with
        ``any_machine`` also times of another machine, if this one has none.
        """
        free = OF_A_MACHINE if any_machine and key.machine else ()
        names = [name for name in QUESTION if name not in free]
        wanted = " AND ".join(f"{name} IS ?" for name in names)
        values = [*(getattr(key, name) for name in names), after]
        lines = list(self._lines(f"WHERE {wanted} AND number > ? ORDER BY number DESC", values))
        lines.sort(key=lambda line: line.key.machine != key.machine)
        own = [line for line in lines if line.key.code == key.code]
        return next(iter(own or (lines if any_code else [])), None)

    def lines(self, claims: Sequence[str] | None = None) -> Iterator[Line]:
        """Every line in the order in which they were added; of these claims, if some are given."""
        marks = ", ".join("?" * len(claims or ()))
        where = f"WHERE claim IN ({marks}) " if claims is not None else ""
        return self._lines(f"{where}ORDER BY number", list(claims or ()))

    @property
    def last_number(self) -> int:
        with self._told():
            (number,) = self._sqlite.execute("SELECT max(number) FROM cells").fetchone()
        return int(number or 0)

    def _lines(self, rest: str, values: Sequence[Any]) -> Iterator[Line]:
        names = (*QUESTION, "code")
        with self._told():
            rows = self._sqlite.execute(
                f"SELECT {', '.join(names)}, outcome, found, seconds, utc, environment, number "
                f"FROM cells JOIN runs ON run = digest {rest}",
                values,
            ).fetchall()
        for row in rows:
            key = Key(**dict(zip(names, row[: len(names)], strict=True)))
            outcome, found, seconds, utc, environment, number = row[len(names) :]
            yield Line(
                key, outcome, json.loads(found), seconds, utc, json.loads(environment), number
            )

    def forget(self, numbers: Sequence[int]) -> None:
        """Delete these lines, which is the only way in which one goes."""
        with self._told(), self._writing():
            self._sqlite.executemany("DELETE FROM cells WHERE number = ?", [(n,) for n in numbers])
            self._sqlite.execute("DELETE FROM runs WHERE digest NOT IN (SELECT run FROM cells)")
        with self._told():
            self._sqlite.execute("VACUUM")

    def close(self) -> None:
        self._sqlite.close()

    def __del__(self) -> None:
        """Close what nobody holds any more: Python 3.13 warns of a connection that is left open."""
        with suppress(AttributeError, sqlite3.Error):
            self._sqlite.close()

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
        self._sqlite.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            if self._sqlite.in_transaction:  # a full disk has ended it already
                self._sqlite.execute("ROLLBACK")
            raise
        self._sqlite.execute("COMMIT")

    def _writing(self) -> AbstractContextManager[None]:
        return self._transaction("IMMEDIATE")  # waits for another writer here, and not later

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"the record {self.path}: {error}; free some space, or name another: --record"
            ) from None
        except OSError as error:
            raise UserError(
                f"the record {self.path}: {error.strerror}; name another: --record"
            ) from None
