"""How far a group has read, kept in a SQLite file that the copies on one machine share.

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairlead.errors import BrokerError, BrokerUnavailable

_BUSY_S = 10.0
_PAUSE_S = 0.02
# What another try may find mended.
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_TABLE = """
CREATE TABLE IF NOT EXISTS checkpoint (
    group_name TEXT NOT NULL, partition TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (group_name, partition)
) WITHOUT ROWID
"""


class SqliteFile:
    """A SQLite file, written by several processes and by several threads of each.

    Parameters
    ----------
    path : made when it is missing, with its folder.
    table : the statement that makes what is missing in it.
    """

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Each statement is a transaction of its own.
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            # What a loss of power takes is done again: the file stays whole, and at worst is a little behind.
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", table):
                self._wait_for(statement)
        except BrokerError:
            self.close()
            raise

    def _wait_for(self, statement: str) -> None:
        """Run a statement once others who open the file are done: on its way to WAL SQLite itself waits for nobody."""
        until_s = time.monotonic() + _BUSY_S
        while True:
            try:
                self.run(statement)
                return
            except BrokerUnavailable:
                if time.monotonic() > until_s:
                    raise
            time.sleep(_PAUSE_S)

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, and give its rows.

        Raises
        ------
        BrokerError
            When the file cannot be used; `BrokerUnavailable` when it is busy or its disk full.
        """
        with self._lock, self._telling():
            return self._connection.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file, once what runs has ended."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _PASSING:
                raise BrokerUnavailable(
                    f"checkpoints in {self._path}: {error}: see whether its disk is full"
                ) from error
            raise BrokerError(
                f"checkpoints in {self._path}: expected a SQLite file that may be written: {error}"
            ) from error
        except OSError as error:
            raise BrokerError(f"checkpoints in {self._path}: cannot make its folder: {error.strerror}") from error


class SqliteCheckpoints:
    """The last position of each partition that a group is done with. Opens the file; raises as `SqliteFile.run`."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _TABLE)

    def get(self, group: str, partition: str) -> str | None:
        """Read a position; None where there is none yet."""
        rows = self._file.run("SELECT value FROM checkpoint WHERE group_name = ? AND partition = ?", group, partition)
        return str(rows[0][0]) if rows else None

    def put(self, group: str, partition: str, value: str) -> None:
        """Keep a position instead of the one before."""
        self._file.run("INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?)", group, partition, value)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
