"""Who may see which dashboard: names, hashed passwords, roles and grants, kept in one file.

Layer L3; imports werkzeug when a password is hashed.

Source: RFC 8265 section 3.3 (names are compared in one case and one normal form) and section 4.2 (passwords in one
normal form); NIST SP 800-63B section 3.1.1.2 (length, throttling)
"""

from __future__ import annotations

import secrets
import sqlite3
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from fairlead.dashboard.logins.users_file import UsersFile
from fairlead.errors import DashboardError
from fairlead.extras import require

Role = Literal["admin", "viewer"]

MAX_NAME_CHARACTERS = 128
MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_BYTES = 1024
_METHOD = "scrypt:32768:8:1"
# Nobody's: a name that is not known is made to cost what a known one does.
_NOBODY = f"{_METHOD}$0000000000000000${'00' * 64}"


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    Parameters
    ----------
    name : in the form that names are compared in.
    role : an ``admin`` sees every dashboard, a ``viewer`` those that were granted.
    dashboards : what was granted.
    epoch : another one from each change of the password on; a session of a former one is over.
    """

    name: str
    role: Role
    dashboards: frozenset[str]
    epoch: str = field(repr=False)

    def may_see(self, dashboard: str) -> bool:
        """Whether the user may see a dashboard, by its name."""
        return self.role == "admin" or dashboard in self.dashboards


class Users:
    """The users in a file. Whatever it does raises `DashboardError` when the file cannot be used.

    Parameters
    ----------
    path : of the file, which `add` makes when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.file = UsersFile(path)

    def add(self, name: str, password: str, role: Role = "viewer", dashboards: Iterable[str] = ()) -> User:
        """Add a user.

        Raises
        ------
        DashboardError
            When there is one of that name, and when name, password or a dashboard is none that one can have.
        """
        name, hashed = known_form(name), _hashed(password)
        granted = [_dashboard(dashboard) for dashboard in dashboards]
        self.file.make()
        with self.file.writing() as connection:
            statement = "INSERT OR IGNORE INTO users VALUES (?, ?, ?, ?)"
            if not connection.execute(statement, (name, hashed, role, _epoch())).rowcount:
                raise DashboardError(
                    f"the user {name!r}: expected a new name, got one that is there already: set a new password with "
                    f"`fairlead dashboard users password {name}`"
                )
            _grant(connection, name, granted)
            return _user(connection, name)

    def set_password(self, name: str, password: str) -> User:
        """Give a user another password, which ends their sessions; raises for one that is not there."""
        name, hashed = known_form(name), _hashed(password)
        with self.file.writing() as connection:
            connection.execute("UPDATE users SET password_hash = ?, epoch = ? WHERE name = ?", (hashed, _epoch(), name))
            connection.execute("DELETE FROM sessions WHERE name = ?", (name,))
            return _user(connection, name)

    def set_role(self, name: str, role: Role) -> User:
        """Give a user another role; raises for one that is not there."""
        name = known_form(name)
        with self.file.writing() as connection:
            connection.execute("UPDATE users SET role = ? WHERE name = ?", (role, name))
            return _user(connection, name)

    def remove(self, name: str) -> User:
        """Remove a user with all grants, which ends their sessions; raises for one that is not there."""
        name = known_form(name)
        with self.file.writing() as connection:
            user = _user(connection, name)
            connection.execute("DELETE FROM users WHERE name = ?", (name,))
            return user

    def list(self) -> list[User]:
        """List the users by name."""
        with self.file.reading() as connection:
            names = connection.execute("SELECT name FROM users ORDER BY name").fetchall()
            return [_user(connection, name) for (name,) in names]

    def grant(self, name: str, dashboards: Iterable[str]) -> User:
        """Let a user see dashboards, also such as are yet to come; raises for a user that is not there."""
        name, granted = known_form(name), [_dashboard(dashboard) for dashboard in dashboards]
        with self.file.writing() as connection:
            _user(connection, name)
            _grant(connection, name, granted)
            return _user(connection, name)

    def revoke(self, name: str, dashboards: Iterable[str]) -> User:
        """Take grants back.

        Raises
        ------
        DashboardError
            For a user that is not there, and for a dashboard that was not granted: a slip in its name must not pass
            for a right that is gone.
        """
        name = known_form(name)
        with self.file.writing() as connection:
            user = _user(connection, name)
            for dashboard in dashboards:
                if dashboard not in user.dashboards:
                    raise DashboardError(
                        f"the user {name!r}: expected one of the granted dashboards, got {dashboard!r}: there are "
                        + (", ".join(sorted(user.dashboards)) or "none")
                    )
                connection.execute("DELETE FROM grants WHERE name = ? AND dashboard = ?", (name, dashboard))
            return _user(connection, name)

    def check(self, name: str, password: str) -> User | None:
        """Find the user of a name and a password; None when there is no such user, or the password is another.

        One hash is computed either way, so that the time does not tell which names there are.
        """
        known = typed_form(name)
        with self.file.reading() as connection:
            row = connection.execute("SELECT password_hash FROM users WHERE name = ?", (known,)).fetchone()
            user = _user(connection, known) if row else None
        if not _agrees(row[0] if row else _NOBODY, password):
            return None
        return user


def known_form(name: str) -> str:
    """Give the form in which a name is kept and compared: without case, in one normal form, no space around.

    Raises
    ------
    DashboardError
        When it is empty, too long, or has characters that are not seen.
    """
    # Before the forms are made: one character may become eighteen.
    given = name.strip() if len(name) <= MAX_NAME_CHARACTERS else ""
    known = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", given).casefold())
    unseen = any(unicodedata.category(character)[0] == "C" for character in known)
    if unseen or not 1 <= len(known) <= MAX_NAME_CHARACTERS or known != " ".join(known.split()):
        raise DashboardError(
            f"the user {name[:MAX_NAME_CHARACTERS]!r}: expected a name of 1 to {MAX_NAME_CHARACTERS} characters that "
            "can be seen, with single spaces at most: choose another"
        )
    return known


def typed_form(name: str) -> str:
    """Give the known form of what somebody typed; nothing, which nobody is called, when it can be no name."""
    try:
        return known_form(name)
    except DashboardError:
        return ""


def user_of(connection: sqlite3.Connection, name: str) -> User | None:
    """Read a user, None when there is no such; `name` is in its known form."""
    row = connection.execute("SELECT role, epoch FROM users WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    granted = connection.execute("SELECT dashboard FROM grants WHERE name = ?", (name,))
    return User(name, cast(Role, row[0]), frozenset(dashboard for (dashboard,) in granted), row[1])


def _user(connection: sqlite3.Connection, name: str) -> User:
    user = user_of(connection, name)
    if user is None:
        raise DashboardError(
            f"the user {name!r}: expected one of those there are, got another: see `fairlead dashboard users list`"
        )
    return user


def _grant(connection: sqlite3.Connection, name: str, dashboards: Iterable[str]) -> None:
    rows = [(name, dashboard) for dashboard in dashboards]
    connection.executemany("INSERT OR IGNORE INTO grants VALUES (?, ?)", rows)


def _dashboard(name: str) -> str:
    """Check the name of a dashboard, which is one part of a path."""
    if not name or not name.isprintable() or "/" in name or len(name) > MAX_NAME_CHARACTERS:
        raise DashboardError(
            f"the dashboard {name[:MAX_NAME_CHARACTERS]!r}: expected a name such as titanic, as it stands in the "
            "address /titanic/"
        )
    return name


def _epoch() -> str:
    return secrets.token_hex(16)


def _hashed(password: str) -> str:
    known = _password(password)
    if known is None:
        raise DashboardError(
            f"the password: expected at most {MAX_PASSWORD_BYTES} bytes in UTF-8, got something else: choose another"
        )
    if len(known) < MIN_PASSWORD_CHARACTERS:
        raise DashboardError(
            f"the password: expected at least {MIN_PASSWORD_CHARACTERS} characters, got {len(known)}: choose another"
        )
    hashed: str = _security().generate_password_hash(known, _METHOD)
    return hashed


def _agrees(hashed: str, password: str) -> bool:
    known = _password(password)
    # A long one is no user's, and would make the hash dear.
    if known is None:
        return False
    try:
        return bool(_security().check_password_hash(hashed, known))
    except ValueError as error:
        raise DashboardError("the file of users: expected hashed passwords, got something else") from error


def _password(password: str) -> str | None:
    """Give the form that is hashed, or None for what is no password of anybody."""
    if len(password) > MAX_PASSWORD_BYTES:
        return None
    try:
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            return None
    except UnicodeEncodeError:
        return None
    return unicodedata.normalize("NFC", password)


def _security() -> Any:
    return require("werkzeug.security", "dashboard")
