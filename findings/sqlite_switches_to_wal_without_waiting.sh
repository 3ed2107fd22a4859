#!/usr/bin/env bash
# SQLite 3.54.1 does not wait for a writer where it switches a file to the write-ahead log.
#
# Behaviour: a connection with a busy timeout of three seconds waits that long for another one that
# writes, whether it wants to write or to lock the file. `PRAGMA journal_mode = WAL` fails at once
# with "database is locked" instead; for another one that only reads it does wait. So of several
# processes that open a new file and switch it, some fail although each would wait. A file that has
# the log already answers at once.
# Output seen: reader: switch waited True; writer: insert waited True, switch waited False;
# writer, log there: switch says wal
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.54.1.0
"$folder/venv/bin/python" - "$folder/file.sqlite" <<'PYTHON'
import sys
import time

import apsw

PATIENCE = 3000  # milliseconds
SWITCH = "PRAGMA journal_mode = WAL"


def waited(connection, statement):
    start = time.monotonic()
    try:
        connection.execute(statement).fetchall()
    except apsw.BusyError:
        return time.monotonic() - start > 0.9 * PATIENCE / 1000
    raise AssertionError(f"{statement} was not refused")


first, second = (apsw.Connection(sys.argv[1]) for _ in range(2))
second.set_busy_timeout(PATIENCE)
first.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)")

first.execute("BEGIN; SELECT x FROM t").fetchall()
beside_reader = waited(second, SWITCH)
first.execute("ROLLBACK; BEGIN IMMEDIATE")
insert, switch = waited(second, "INSERT INTO t VALUES (2)"), waited(second, SWITCH)
first.execute("ROLLBACK")
second.execute(SWITCH).fetchall()
first.execute("BEGIN IMMEDIATE")
((answer,),) = second.execute(SWITCH).fetchall()
print(apsw.sqlite_lib_version())
print(f"reader: switch waited {beside_reader}; writer: insert waited {insert}, switch waited {switch};")
print(f"writer, log there: switch says {answer}")
assert (beside_reader, insert, switch, answer) == (True, True, False, "wal"), "SQLite has changed"
PYTHON
