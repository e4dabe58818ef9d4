"""Sessions: begun, found by other workers too, and over when they should be."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fairlead.dashboard.logins import sessions as sessions_module
from fairlead.dashboard.logins.sessions import Sessions
from fairlead.dashboard.logins.users import User, Users
from fairlead.errors import DashboardError
from guarded_hub import PASSWORD, Clock

LASTS_S = 3600.0


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "users.sqlite")


@pytest.fixture
def ann(users: Users) -> User:
    return users.add("ann", PASSWORD, dashboards=["titanic"])


@pytest.fixture
def sessions(users: Users, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """Give sessions that nothing is remembered of."""
    monkeypatch.setattr(sessions_module, "CACHED_S", 0.0)
    return Sessions(users.file, LASTS_S, clock)


def begun(sessions: Sessions, user: User) -> str:
    session = sessions.begin(user)
    assert session is not None
    return session


def test_each_login_is_a_session_of_its_own(sessions: Sessions, ann: User) -> None:
    first, second = begun(sessions, ann), begun(sessions, ann)
    assert first != second
    assert len(first) == 43  # 256 bits in base64
    assert sessions.find(first) == sessions.find(second) == ann
    sessions.end(first)
    assert sessions.find(first) is None
    assert sessions.find(second) == ann
    sessions.end("never was")


def test_the_file_holds_no_id_that_could_be_used(sessions: Sessions, ann: User, users: Users) -> None:
    session = begun(sessions, ann)
    assert session.encode() not in users.file.path.read_bytes()
    assert sessions.find(hashlib.sha256(session.encode()).hexdigest()) is None


@pytest.mark.parametrize("session", ["", "x", "x" * 43, "' OR 1=1 --", "ä", "\0"])
def test_what_nobody_began_is_none(session: str, sessions: Sessions, ann: User) -> None:
    begun(sessions, ann)
    assert sessions.find(session) is None


def test_it_ends_with_its_time(sessions: Sessions, ann: User, clock: Clock, users: Users) -> None:
    session = begun(sessions, ann)
    clock.now_s += LASTS_S - 1
    assert sessions.find(session) == ann
    clock.now_s += 1
    assert sessions.find(session) is None
    begun(sessions, ann)
    with users.file.reading() as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)


def test_it_ends_with_a_clock_that_is_set_back_far(sessions: Sessions, ann: User, clock: Clock) -> None:
    session = begun(sessions, ann)
    clock.now_s -= 30
    assert sessions.find(session) == ann
    # Otherwise it would last longer than it was to.
    clock.now_s -= 3600
    assert sessions.find(session) is None


def test_it_ends_with_another_password_or_the_user(sessions: Sessions, ann: User, users: Users) -> None:
    session = begun(sessions, ann)
    ann = users.set_password("ann", PASSWORD)  # the same one again
    assert sessions.find(session) is None
    session = begun(sessions, ann)
    users.remove("ann")
    assert sessions.find(session) is None
    users.add("ann", PASSWORD, "admin")
    assert sessions.find(session) is None


def test_it_ends_with_the_epoch_even_if_its_entry_stays(sessions: Sessions, ann: User, users: Users) -> None:
    session = begun(sessions, ann)
    with closing(sqlite3.connect(users.file.path)) as connection:  # as someone's own script may
        connection.execute("UPDATE users SET epoch = 'another'")
        connection.commit()
    assert sessions.find(session) is None


def test_none_begins_for_who_was_removed_or_changed_meanwhile(sessions: Sessions, ann: User, users: Users) -> None:
    changed = users.set_password("ann", "something else")
    assert sessions.begin(ann) is None
    assert sessions.begin(changed) is not None
    users.remove("ann")
    assert sessions.begin(changed) is None


def test_grants_and_roles_are_those_of_now(sessions: Sessions, ann: User, users: Users) -> None:
    session = begun(sessions, ann)
    users.grant("ann", ["rides"])
    users.revoke("ann", ["titanic"])
    found = sessions.find(session)
    assert found is not None
    assert found.dashboards == {"rides"}
    users.set_role("ann", "admin")
    found = sessions.find(session)
    assert found is not None
    assert found.role == "admin"


def test_it_is_not_that_of_a_user_of_the_same_name_in_another_file(
    sessions: Sessions, ann: User, users: Users, tmp_path: Path
) -> None:
    session = begun(sessions, ann)
    other = Users(tmp_path / "other.sqlite")
    other.add("ann", PASSWORD, "admin")
    other.file.path.replace(users.file.path)
    assert sessions.find(session) is None


def test_what_is_remembered_is_forgotten_soon_and_with_a_logout_at_once(users: Users, ann: User) -> None:
    here, there = Sessions(users.file, LASTS_S), Sessions(users.file, LASTS_S)
    session = begun(here, ann)
    assert here.find(session) == there.find(session) == ann
    here.end(session)
    assert here.find(session) is None
    deadline = time.monotonic() + 30
    while there.find(session) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert there.find(session) is None


def test_a_file_that_cannot_be_read_is_asked_once_a_second_and_counts_again_when_it_can(
    users: Users, ann: User
) -> None:
    sessions = Sessions(users.file, LASTS_S)
    session = begun(sessions, ann)
    content = users.file.path.read_bytes()
    users.file.path.write_bytes(b"rot" * 4096)
    with pytest.raises(DashboardError, match="not a database") as first:
        sessions.find(session)
    users.file.path.write_bytes(content)
    with pytest.raises(DashboardError) as second:
        sessions.find(session)
    assert str(second.value) == str(first.value)

    found, deadline = None, time.monotonic() + 30
    while found is None and time.monotonic() < deadline:
        with suppress(DashboardError):
            found = sessions.find(session)
        time.sleep(0.05)
    assert found == ann


def test_what_is_remembered_has_a_bound(users: Users, ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "_MAX_CACHED", 5)
    sessions = Sessions(users.file, LASTS_S)
    session = begun(sessions, ann)
    for place in range(50):
        assert sessions.find(f"{place}") is None
    assert len(sessions._cached) <= 5
    assert sessions.find(session) == ann
