"""Users in a real SQLite file: names, passwords, grants, and a file that is not as it should be."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import werkzeug.security
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dashboard.logins import users as users_module
from fairlead.dashboard.logins import users_file
from fairlead.dashboard.logins.users import Users, known_form
from fairlead.errors import DashboardError
from guarded_hub import PASSWORD


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "users.sqlite")


@pytest.fixture(scope="module")
def ann_s_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ann") / "users.sqlite"
    Users(path).add("ann", PASSWORD, dashboards=["titanic"])
    return path


@pytest.fixture
def ann(ann_s_file: Path, users: Users) -> Users:
    """Give users, of whom there is one: ann, who may see titanic."""
    shutil.copy(ann_s_file, users.file.path)
    return users


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes of each password that is compared with a hash."""
    counted: list[int] = []
    real = werkzeug.security.check_password_hash

    def counting(hashed: str, password: str) -> bool:
        counted.append(len(password))
        return real(hashed, password)

    monkeypatch.setattr(werkzeug.security, "check_password_hash", counting)
    return counted


def refusal(what: Callable[[], Any]) -> str:
    with pytest.raises(DashboardError) as caught:
        what()
    return str(caught.value)


def test_a_user_is_known_by_name_and_password(ann: Users) -> None:
    user = ann.check("ann", PASSWORD)
    assert user is not None
    assert (user.name, user.role, user.dashboards) == ("ann", "viewer", {"titanic"})
    assert ann.check("ann", PASSWORD + " ") is None
    assert ann.check("ann", "") is None
    assert ann.check("bob", PASSWORD) is None


def test_the_file_is_its_owner_s_and_holds_no_password(ann: Users) -> None:
    path = ann.file.path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSWORD.encode() not in path.read_bytes()
    assert b"scrypt:32768:8:1$" in path.read_bytes()
    assert list(path.parent.iterdir()) == [path]
    assert "scrypt" not in repr(ann.list())


def test_what_is_removed_is_not_left_in_the_file(ann: Users) -> None:
    with closing(sqlite3.connect(ann.file.path)) as connection:
        (hashed,) = connection.execute("SELECT password_hash FROM users").fetchone()
    assert hashed.encode() in ann.file.path.read_bytes()
    ann.remove("ann")
    assert hashed.encode() not in ann.file.path.read_bytes()


def test_a_name_is_added_once(ann: Users) -> None:
    told = refusal(lambda: ann.add("ANN", "another password", "admin"))
    assert "the user 'ann': expected a new name" in told
    assert "fairlead dashboard users password ann" in told
    assert ann.check("ann", PASSWORD) is not None
    assert [user.role for user in ann.list()] == ["viewer"]


def test_grants_come_and_go(ann: Users) -> None:
    assert ann.grant("Ann", ["rides", "titanic"]).dashboards == {"rides", "titanic"}
    assert ann.revoke("ann", ["titanic"]).dashboards == {"rides"}
    assert "expected one of the granted dashboards, got 'titanik': there are rides" in refusal(
        lambda: ann.revoke("ann", ["rides", "titanik"])
    )
    (user,) = ann.list()
    assert user.dashboards == {"rides"}  # neither of the two
    assert (user.may_see("rides"), user.may_see("titanic"), user.may_see("")) == (True, False, False)


def test_an_admin_sees_all_and_is_made_and_unmade(ann: Users) -> None:
    assert ann.set_role("ann", "admin").may_see("anything")
    assert not ann.set_role("ann", "viewer").may_see("anything")


def test_with_a_user_go_the_grants(ann: Users) -> None:
    assert ann.remove("ann").dashboards == {"titanic"}
    assert ann.list() == []
    assert ann.check("ann", PASSWORD) is None
    assert ann.add("ann", PASSWORD).dashboards == set()


def test_another_password_is_another_epoch(ann: Users) -> None:
    (before,) = ann.list()
    after = ann.set_password("ann", "something else")
    assert after.epoch != before.epoch
    assert after.dashboards == before.dashboards
    assert ann.check("ann", PASSWORD) is None
    assert ann.check("ann", "something else") == after
    ann.remove("ann")
    assert ann.add("ann", PASSWORD).epoch not in {before.epoch, after.epoch}


@pytest.mark.parametrize(
    "ask",
    [
        lambda users: users.remove("bob"),
        lambda users: users.grant("bob", ["titanic"]),
        lambda users: users.revoke("bob", ["titanic"]),
        lambda users: users.set_role("bob", "admin"),
        lambda users: users.set_password("bob", PASSWORD),
    ],
    ids=["remove", "grant", "revoke", "role", "password"],
)
def test_who_is_not_there_is_told(ask: Callable[[Users], Any], ann: Users) -> None:
    assert "the user 'bob': expected one of those there are" in refusal(lambda: ask(ann))
    assert [user.name for user in ann.list()] == ["ann"]


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("Ann", "ann"), (" ann\t", "ann"), ("ANN@Example.org", "ann@example.org"), ("Jörg", "jörg"),
        (unicodedata.normalize("NFD", "Jörg"), "jörg"), ("ａｎｎ", "ann"), ("Straße", "strasse"), ("李雷", "李雷"),
        ("anne marie", "anne marie"), ("𝒜nn", "ann"), ("Ω", "ω"), ("İ", "i̇"),
    ],
)  # fmt: skip
def test_one_name_is_written_in_many_ways(typed: str, known: str) -> None:
    assert known_form(typed) == known


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "\n", "a\nb", "a\0b", "a  b", "a\u200bb", "a\u202eb", "\ufeffann", "ann\ud800", "a" * 129,
        "\ufdfa" * 20, "\x7f", "a\u2028b", "\ue000",
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_told_from_others_is_none(name: str, users: Users) -> None:
    assert "expected a name of 1 to 128 characters" in refusal(lambda: users.add(name, PASSWORD))
    assert not users.file.path.exists()


@given(st.text(max_size=200))
def test_a_known_form_is_its_own_and_that_of_every_other_case(name: str) -> None:
    try:
        known = known_form(name)
    except DashboardError:
        return
    assert known_form(known) == known
    assert known_form(f" {known}  ") == known
    assert known.isprintable()


@pytest.mark.parametrize("dashboard", ["", "a/b", "a\n", "\0", "x" * 129])
def test_a_dashboard_is_a_part_of_a_path(dashboard: str, ann: Users) -> None:
    assert "expected a name such as titanic" in refusal(lambda: ann.grant("ann", ["rides", dashboard]))
    assert [user.dashboards for user in ann.list()] == [{"titanic"}]


def test_a_password_is_the_same_in_both_normal_forms(ann: Users) -> None:
    ann.set_password("ann", unicodedata.normalize("NFD", "Füchse öfter"))
    assert ann.check("ann", unicodedata.normalize("NFC", "Füchse öfter")) is not None
    assert ann.check("ann", "Fuchse ofter") is None


def test_a_short_or_endless_password_is_refused(ann: Users) -> None:
    assert "expected at least 8 characters, got 7" in refusal(lambda: ann.set_password("ann", "1234567"))
    assert "expected at most 1024 bytes in UTF-8" in refusal(lambda: ann.set_password("ann", "ä" * 513))
    assert "expected at most 1024 bytes in UTF-8" in refusal(lambda: ann.set_password("ann", "secret\ud800pass"))
    assert ann.check("ann", PASSWORD) is not None
    longest = "ä" * 512
    ann.set_password("ann", longest)
    assert ann.check("ann", longest) is not None
    assert ann.check("ann", longest[:-1]) is None


def test_a_huge_password_is_never_hashed(ann: Users, hashes: list[int]) -> None:
    assert ann.check("ann", "x" * 10_000_000) is None
    assert ann.check("ann", "ä" * 1000) is None
    assert ann.check("ann", "\ud800" * 8) is None
    assert hashes == []


def test_an_unknown_name_costs_what_a_known_one_does(ann: Users, hashes: list[int]) -> None:
    for name in ("ann", "bob", "", "a\nb", "x" * 5000, "'; DROP TABLE users; --"):
        assert ann.check(name, "wrong password") is None
    assert hashes == [len("wrong password")] * 6
    # Nobody's hash is made as a user's is.
    with closing(sqlite3.connect(ann.file.path)) as connection:
        (hashed,) = connection.execute("SELECT password_hash FROM users").fetchone()
    assert [len(part) for part in hashed.split("$")] == [len(part) for part in users_module._NOBODY.split("$")]
    assert hashed.split("$")[0] == users_module._NOBODY.split("$")[0]


@pytest.mark.parametrize(
    ("hashed", "is_told"),
    [
        ("", False), ("plain", False), ("scrypt:1$salt$00", True), ("md5$salt$00", True), ("$$", True),
        ("scrypt:99999999:8:1$salt$00", True),
    ],
)  # fmt: skip
def test_what_is_no_hash_lets_nobody_in(hashed: str, is_told: bool, ann: Users) -> None:
    with closing(sqlite3.connect(ann.file.path)) as connection:
        connection.execute("UPDATE users SET password_hash = ?", (hashed,))
        connection.commit()
    for password in ("", "plain", PASSWORD):
        if is_told:
            assert "expected hashed passwords, got something else" in refusal(partial(ann.check, "ann", password))
        else:
            assert ann.check("ann", password) is None


def test_who_adds_the_first_at_the_same_time_loses_nobody(users: Users) -> None:
    names = [f"user {place}" for place in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: users.add(name, PASSWORD), names))
    assert [user.name for user in users.list()] == names
    assert list(users.file.path.parent.iterdir()) == [users.file.path]


def test_a_file_that_is_missing_is_not_made_by_asking(users: Users) -> None:
    told = refusal(lambda: users.check("ann", PASSWORD))
    assert "expected a file of users, got nothing: make it with `fairlead dashboard users add NAME`" in told
    assert "got nothing" in refusal(lambda: users.remove("ann"))
    assert "got nothing" in refusal(users.file.verify)
    assert not users.file.path.exists()


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    users = Users(tmp_path / "no" / "users.sqlite")
    assert "expected a folder in which it can be made, got: No such file" in refusal(lambda: users.add("ann", PASSWORD))


def other_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name, password_hash, role, epoch)")
    path.chmod(0o600)


def newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "empty or of another program"),
    "text": (lambda path: path.write_bytes(b"name,password\n" * 500), "not a database"),
    "other program": (other_program, "empty or of another program"),
    "newer version": (newer_version, "expected a file of users of version 1, got 2"),
    "cut in half": (lambda path: os.truncate(path, path.stat().st_size // 2), "malformed"),
    "directory": (directory, "got no plain file"),
    "readable by all": (lambda path: path.chmod(0o644), "(mode 644): run `chmod o="),
    "writable by all": (lambda path: path.chmod(0o602), "(mode 602): run `chmod o="),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_not_as_it_should_be_lets_nobody_in(kind: str, ann: Users) -> None:
    spoil, expected = BROKEN[kind]
    spoil(ann.file.path)
    for ask in (ann.file.verify, lambda: ann.check("ann", PASSWORD), lambda: ann.add("bob", PASSWORD)):
        told = refusal(ask)
        assert told.startswith(f"{ann.file.path}: expected ")
        assert expected in told


def test_rot_inside_the_file_is_found_before_anybody_asks(ann: Users) -> None:
    content = bytearray(ann.file.path.read_bytes())
    place = content.index(b"scrypt:") // 4096 * 4096
    content[place : place + 8] = b"\xff" * 8
    ann.file.path.write_bytes(content)
    assert "mend its rights or its disk, or bring back a copy" in refusal(ann.file.verify)
    assert "malformed" in refusal(lambda: ann.check("ann", PASSWORD))


def test_a_file_in_the_place_of_another_counts_at_once(ann: Users, tmp_path: Path) -> None:
    other = Users(tmp_path / "other.sqlite")
    other.add("bob", PASSWORD)
    other.file.path.replace(ann.file.path)
    assert ann.check("ann", PASSWORD) is None
    assert ann.check("bob", PASSWORD) is not None


def test_who_holds_the_file_is_not_waited_for_long(ann: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_file, "_BUSY_S", 0.05)
    with closing(sqlite3.connect(ann.file.path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        told = refusal(lambda: ann.check("ann", PASSWORD))
        assert "expected it to be free within 0.05 s, but another program holds it" in told
        assert "holds it" in refusal(lambda: ann.add("bob", PASSWORD))
    assert ann.check("ann", PASSWORD) is not None
    assert [user.name for user in ann.list()] == ["ann"]


# With so small a cache, it is written before it is committed.
KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE users SET role = 'admin'")
connection.executemany("INSERT INTO grants VALUES ('ann', ?)", [(f"{n:0500}",) for n in range(200)])
os._exit(0)
"""


def test_what_a_killed_writer_left_undone_is_undone(ann: Users) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(ann.file.path)], check=True)
    assert ann.file.path.with_name("users.sqlite-journal").exists()
    user = ann.check("ann", PASSWORD)
    assert user is not None
    assert (user.role, user.dashboards) == ("viewer", {"titanic"})


@contextmanager
def as_nobody() -> Iterator[None]:
    """Do something without the rights of root, which may read and write all."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def nobody_s(ann: Users) -> Iterator[Users]:
    """Give the same users in a folder that belongs to whom `as_nobody` is."""
    folder = Path(tempfile.mkdtemp())  # above that of pytest, only root may go
    moved = Users(Path(shutil.copy(ann.file.path, folder)))
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        os.chown(moved.file.path, 65534, 65534)
    yield moved
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_file_is_told_at_the_start(what: str, nobody_s: Users) -> None:
    path = nobody_s.file.path
    if what == "file":
        path.chmod(0o400)
    else:
        path.parent.chmod(0o500)
    with as_nobody():
        assert "expected a file of users that can be read and written" in refusal(nobody_s.file.verify)
        assert "read and written" in refusal(lambda: nobody_s.set_role("ann", "admin"))
        assert [user.role for user in nobody_s.list()] == ["viewer"]


def test_an_unreadable_file_is_told(nobody_s: Users) -> None:
    nobody_s.file.path.chmod(0o000)
    with as_nobody():
        assert "unable to open database file" in refusal(lambda: nobody_s.check("ann", PASSWORD))
