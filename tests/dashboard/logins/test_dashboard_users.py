"""`fairlead dashboard users`, as it is typed: who is there, who may see what, and passwords that nobody else reads."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fairlead import cli
from fairlead.dashboard.logins.users import Users
from guarded_hub import PASSWORD

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(users: Users, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give `run(verb, *arguments, typed=…)`, which tells the exit code and what was printed."""
    monkeypatch.setenv("FAIRLEAD_DASHBOARD_USERS", str(users.file.path))

    def run(*arguments: str | Path, typed: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fairlead", "dashboard", "users", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_users_come_and_go(run: Run, users: Users) -> None:
    added = run("add", "Rose", "--dashboard", "one", "--password-file", "-", typed=b"a rose is a rose\n")
    assert added == (0, "added rose (viewer: one)\n", "")
    rose = users.check("rose", "a rose is a rose")
    assert rose is not None
    assert rose.dashboards == {"one"}
    assert run("grant", "rose", "two", "three") == (0, "rose (viewer: one, three, two)\n", "")
    assert run("revoke", "rose", "one") == (0, "rose (viewer: three, two)\n", "")
    assert run("grant", "rose", "--admin") == (0, "rose (admin: all)\n", "")
    assert run("revoke", "rose", "--admin") == (0, "rose (viewer: three, two)\n", "")
    told = "ann (viewer: one)\nbob (viewer: none yet)\nroot (admin: all)\nrose (viewer: three, two)\n"
    assert run("list") == (0, told, "")
    assert run("remove", "rose") == (0, "removed rose; their sessions are over\n", "")
    assert [user["name"] for user in json.loads(run("list", "--json")[1])] == ["ann", "bob", "root"]


def test_a_password_is_read_as_it_stands_in_a_file(run: Run, users: Users, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(" Füße und Hände \r\n".encode())
    assert run("password", "ann", "--password-file", file)[:2] == (
        0, "ann has another password; former sessions are over\n",
    )  # fmt: skip
    assert users.check("ann", " Füße und Hände ") is not None
    assert users.check("ann", PASSWORD) is None


@pytest.mark.parametrize("given", [b"", b"1234567", b"secret\xff secret", b"x" * 2000])
def test_a_password_that_is_none_is_told_without_it(given: bytes, run: Run, users: Users) -> None:
    code, out, told = run("password", "ann", "--password-file", "-", typed=given)
    assert (code, out) == (2, "")
    assert "password" in told
    assert "expected" in told
    assert not any(part in told for part in ("1234567", "secret", "0xff", "xxx"))
    assert users.check("ann", PASSWORD) is not None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["password", "ann", "--password-file", "nowhere"],
            "nowhere: expected a file that holds the password, got",
        ),
        (["grant", "ann"], "expected the names of dashboards, or --admin"),
        (["revoke", "ann", "one", "--admin"], "expected the names of dashboards, or --admin"),
        (["revoke", "ann", "two"], "expected one of the granted dashboards, got 'two': there are one"),
        (["remove", "nobody"], "the user 'nobody': expected one of those there are"),
        (["list", "--users", "nowhere"], "nowhere: expected a file of users, got nothing"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: list[str], told: str, run: Run) -> None:
    code, out, errors = run(*arguments)
    assert (code, out) == (2, "")
    assert told in errors


def test_without_a_file_nothing_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRLEAD_DASHBOARD_USERS")
    code, _, told = run("list")
    assert code == 2
    assert "expected --users FILE, or the setting dashboard.users" in told
