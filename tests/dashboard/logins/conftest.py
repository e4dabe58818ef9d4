"""Three users in a file, the gate that knows them before a hub, and a clock to set."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import guarded_hub
from fairlead.dashboard.logins import sessions
from fairlead.dashboard.logins.gate import Gate
from fairlead.dashboard.logins.users import Users
from guarded_hub import KEY, PASSWORD, SETTINGS, Clock, GuardedHub


@pytest.fixture(scope="session")
def users_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file of three: ann, who may see one, bob, who may see none, and root, who is an admin."""
    path = tmp_path_factory.mktemp("users") / "users.sqlite"
    users = Users(path)
    users.add("ann", PASSWORD, dashboards=["one"])
    users.add("bob", PASSWORD)
    users.add("root", PASSWORD, "admin")
    return path


@pytest.fixture
def users(users_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Users:
    """Give the three, of whom nothing is remembered."""
    monkeypatch.setattr(sessions, "CACHED_S", 0.0)
    return Users(Path(shutil.copy(users_template, tmp_path)))


@pytest.fixture
def hub(users: Users) -> GuardedHub:
    return guarded_hub.make(Gate(users, KEY, SETTINGS))


@pytest.fixture
def clock() -> Clock:
    return Clock()
