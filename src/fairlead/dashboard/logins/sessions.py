"""Who is logged in: a random id for the visitor, its hash in the users' file, so that a logout is one for good.

Layer L3; imports the standard library only.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable

from fairlead.dashboard.logins.users import User, user_of
from fairlead.dashboard.logins.users_file import UsersFile
from fairlead.errors import DashboardError

logger = logging.getLogger("fairlead.dashboard")

# For so long a worker goes by what it has read: a page makes a hundred requests at once.
CACHED_S = 1.0
_MAX_CACHED = 10_000
# What the clock of the machine may be set back by without everybody's having to log in again.
_SET_BACK_S = 60.0


class Sessions:
    """The sessions of users.

    Parameters
    ----------
    file : where they are kept.
    lasts_s : seconds from the login on.
    clock : seconds since the epoch.
    """

    def __init__(self, file: UsersFile, lasts_s: float, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._lasts_s = lasts_s
        self._clock = clock
        self._cached: dict[str, tuple[float, User | None]] = {}
        self._failed: tuple[float, str] | None = None

    def begin(self, user: User) -> str | None:
        """Begin a session; return its id, or None when the user was removed or given another password meanwhile."""
        session = secrets.token_urlsafe(32)
        with self._file.writing() as connection:
            now = self._clock()
            connection.execute("DELETE FROM sessions WHERE begun_s <= ?", (now - self._lasts_s,))
            added = connection.execute(
                "INSERT INTO sessions SELECT ?, name, epoch, ? FROM users WHERE name = ? AND epoch = ?",
                (_digest(session), now, user.name, user.epoch),
            )
            return session if added.rowcount else None

    def find(self, session: str) -> User | None:
        """Find the user of a session, as it was at most `CACHED_S` ago; None when it is over or never was.

        Raises
        ------
        DashboardError
            When the file cannot be read; whoever asks again within `CACHED_S` is told the same at once, so that a
            file that another program holds keeps one request waiting and not all.
        """
        now = time.monotonic()
        # In one step: another thread may end the session, or clear all.
        until, user = self._cached.get(session, (now, None))
        if now < until:
            return user
        if self._failed is not None and now < self._failed[0]:
            raise DashboardError(self._failed[1])
        try:
            user = self._read(session)
        except DashboardError as error:
            self._failed = time.monotonic() + CACHED_S, str(error)
            logger.error("nobody comes in: %s", error)
            raise
        if len(self._cached) >= _MAX_CACHED:
            self._cached.clear()
        self._cached[session] = now + CACHED_S, user
        return user

    def end(self, session: str) -> None:
        """End a session, if it is one."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM sessions WHERE digest = ?", (_digest(session),))
        self._cached.pop(session, None)

    def _read(self, session: str) -> User | None:
        with self._file.reading() as connection:
            statement = "SELECT name, epoch, begun_s FROM sessions WHERE digest = ?"
            row = connection.execute(statement, (_digest(session),)).fetchone()
            if row is None:
                return None
            name, epoch, begun_s = row
            if not -_SET_BACK_S <= self._clock() - begun_s < self._lasts_s:
                return None
            user = user_of(connection, name)
        return user if user is not None and user.epoch == epoch else None


def _digest(session: str) -> bytes:
    """Hash an id of 256 random bits, which nobody guesses: whoever reads the file cannot take a session over."""
    return hashlib.sha256(session.encode()).digest()
