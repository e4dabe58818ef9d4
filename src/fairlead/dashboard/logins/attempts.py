"""How often someone may try to log in: counted by name and by address, over all workers.

Layer L3; imports the standard library only.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from fairlead.dashboard.logins.users import typed_form
from fairlead.dashboard.logins.users_file import UsersFile


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to log in.

    Parameters
    ----------
    wait_s : seconds until another one is looked at; 0 when this one may be.
    counted : ids of what was counted for it.
    """

    wait_s: float
    counted: tuple[int, ...] = ()


class Attempts:
    """Counts what was tried and did not succeed.

    Parameters
    ----------
    file : where they are counted.
    limit : of one name, or from one address, within the window.
    window_s : seconds for which an attempt counts.
    clock : seconds since the epoch.
    """

    def __init__(self, file: UsersFile, limit: int, window_s: float, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._limit = limit
        self._window_s = window_s
        self._clock = clock

    def begin(self, name: str, address: IPv4Address | IPv6Address | None) -> Attempt:
        """Count an attempt before its password is looked at, so that many at once are not all let through.

        Parameters
        ----------
        name : as it was given; what no user can be called counts as one name.
        address : where it comes from, None for what has no address. One of version 6 counts as its network of 64
            bits, any address of which its owner can take.
        """
        subjects = [_subject("name", typed_form(name)), _subject("address", _network(address))]
        with self._file.writing() as connection:
            now = self._clock()
            connection.execute("DELETE FROM attempts WHERE at_s <= ?", (now - self._window_s,))
            # Counted before the clock was set back.
            connection.execute("UPDATE attempts SET at_s = ? WHERE at_s > ?", (now, now))
            wait_s = max(self._wait(connection, subject, now) for subject in subjects)
            if wait_s > 0:
                return Attempt(wait_s)
            counted = [_count(connection, subject, now) for subject in subjects]
        return Attempt(0.0, tuple(counted))

    def succeed(self, attempt: Attempt) -> None:
        """Take back what was counted for an attempt; those that failed before it still count."""
        with self._file.writing() as connection:
            connection.executemany("DELETE FROM attempts WHERE id = ?", [(counted,) for counted in attempt.counted])

    def _wait(self, connection: sqlite3.Connection, subject: bytes, now: float) -> float:
        # The oldest of the last so many: when it no longer counts, there is room for one.
        statement = "SELECT at_s FROM attempts WHERE subject = ? ORDER BY at_s DESC LIMIT 1 OFFSET ?"
        row = connection.execute(statement, (subject, self._limit - 1)).fetchone()
        return 0.0 if row is None else max(0.0, float(row[0]) + self._window_s - now)


def _subject(kind: str, value: str) -> bytes:
    """Hide what was typed: people type passwords where their name belongs."""
    return hashlib.sha256(f"{kind}:{value}".encode()).digest()


def _network(address: IPv4Address | IPv6Address | None) -> str:
    if isinstance(address, IPv6Address):
        return str(int(address) >> 64)
    return "" if address is None else str(address)


def _count(connection: sqlite3.Connection, subject: bytes, now: float) -> int:
    counted = connection.execute("INSERT INTO attempts (subject, at_s) VALUES (?, ?)", (subject, now)).lastrowid
    assert counted is not None
    return counted
