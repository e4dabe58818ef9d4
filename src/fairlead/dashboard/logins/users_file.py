"""The file of users, grants, sessions and attempts: SQLite, opened anew for each transaction.

So no connection outlives a fork, no thread waits for another's, and a file that was put in the place of another counts
at once. It keeps a rollback journal: the second file of the other mode, WAL, would be taken for a part of the new one.

Layer L3; imports the standard library only.

Source: https://www.sqlite.org/howtocorrupt.html sections 1.3, 1.4 and 2.6
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fairlead.dashboard.logins import new_file
from fairlead.errors import DashboardError

_APPLICATION = int.from_bytes(b"fldu", "big")
_VERSION = 1
# Writers hold it for milliseconds; who waits longer waits for someone who will not let go.
_BUSY_S = 2.0
_TABLES = f"""
CREATE TABLE users (
    name TEXT PRIMARY KEY, password_hash TEXT NOT NULL, role TEXT NOT NULL CHECK (role IN ('admin', 'viewer')),
    epoch TEXT NOT NULL
);
CREATE TABLE grants (
    name TEXT NOT NULL REFERENCES users ON DELETE CASCADE, dashboard TEXT NOT NULL, PRIMARY KEY (name, dashboard)
) WITHOUT ROWID;
CREATE TABLE sessions (
    digest BLOB PRIMARY KEY, name TEXT NOT NULL REFERENCES users ON DELETE CASCADE, epoch TEXT NOT NULL,
    begun_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE attempts (id INTEGER PRIMARY KEY, subject BLOB NOT NULL, at_s REAL NOT NULL);
CREATE INDEX attempts_by_subject ON attempts (subject, at_s);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""


class UsersFile:
    """A file of users; what it does raises `DashboardError` when the file is missing, broken, held or not ours.

    Parameters
    ----------
    path : of the file; read when something is asked of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> bool:
        """Make the file, with nobody in it, unless there is one; return whether it was made."""
        return new_file.make(self.path, self._fill)

    def verify(self) -> None:
        """Find out whether the whole file can be read and written, before anybody asks to log in."""
        with self.writing() as connection:
            (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if told != "ok":
                raise DashboardError(self._broken(told))
            # What stands there already: that it can be written is all that is wanted.
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for the statements of one transaction that reads."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection for the statements of one transaction that no other writer comes between."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._telling():
            new_file.check(self.path, self.path.stat(), "a file of users")
            # `rw`: a file that is missing is not made, which would be one without users.
            address = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, timeout=_BUSY_S, isolation_level=None, uri=True)) as connection:
                self._check(connection)
                # What was removed is overwritten, a hash above all.
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute(begin)
                # Without the commit, closing undoes what was done.
                yield connection
                connection.execute("COMMIT")

    def _check(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            raise DashboardError(
                f"{self.path}: expected a file of users, got one that is empty or of another program: name another"
            )
        if version != _VERSION:
            raise DashboardError(
                f"{self.path}: expected a file of users of version {_VERSION}, got {version}: "
                "install the fairlead that made it"
            )

    def _fill(self, path: Path) -> None:
        with self._telling(), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(_TABLES)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise DashboardError(
                f"{self.path}: expected a file of users, got nothing: make it with `fairlead dashboard users add NAME`"
            ) from error
        except OSError as error:
            raise DashboardError(
                f"{self.path}: expected a file of users that can be opened, got: {error.strerror}"
            ) from error
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise DashboardError(
                    f"{self.path}: expected it to be free within {_BUSY_S:g} s, but another program holds it: "
                    "find it with `fuser` and end it"
                ) from error
            raise DashboardError(self._broken(str(error))) from error

    def _broken(self, what: str) -> str:
        return (
            f"{self.path}: expected a file of users that can be read and written, got: {what}: "
            "mend its rights or its disk, or bring back a copy"
        )
