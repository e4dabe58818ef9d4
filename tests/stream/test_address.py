from __future__ import annotations

import pytest

from fairlead.errors import ConfigError
from fairlead.stream.address import Address, shown


@pytest.mark.parametrize(
    ("text", "hosts", "path", "options"),
    [
        ("kinesis://rides?region=eu-west-1", ("rides",), "", {"region": "eu-west-1"}),
        ("kafka://one:9092,two:9092/rides", ("one:9092", "two:9092"), "rides", {}),
        ("redis://localhost:6379/rides?db=0&empty=", ("localhost:6379",), "rides", {"db": "0", "empty": ""}),
        ("amqp://localhost/%2F/a%20b", ("localhost",), "//a b", {}),
        ("nats://[::1]:4222/rides.new", ("[::1]:4222",), "rides.new", {}),
        ("file:///var/rides.jsonl", (), "var/rides.jsonl", {}),
        ("MEMORY://rides", ("rides",), "", {}),
    ],
)
def test_the_parts_of_an_address(text: str, hosts: tuple[str, ...], path: str, options: dict[str, str]) -> None:
    found = Address.parse(text)
    assert (found.hosts, found.path, dict(found.options)) == (hosts, path, options)
    assert (found.user, found.password) == (None, None)
    assert found.scheme == text.partition(":")[0].lower()
    assert (found.text, str(found)) == (text, text)


@pytest.mark.parametrize(
    ("login", "user", "password"),
    [
        ("me:secret@", "me", "secret"),
        ("me@", "me", None),
        (":secret@", None, "secret"),
        ("a%40b:s%2Fc%3A@", "a@b", "s/c:"),
        ("me:sec:ret@", "me", "sec:ret"),
        ("me:s@cret@", "me", "s@cret"),
        ("me:@", "me", ""),
    ],
)
def test_a_login_is_never_shown(login: str, user: str | None, password: str | None) -> None:
    found = Address.parse(f"amqp://{login}one:1,two/rides?heartbeat=5")
    assert (found.user, found.password) == (user, password)
    assert found.hosts == ("one:1", "two")
    assert str(found) == "amqp://one:1,two/rides?heartbeat=5" == shown(found.text)


@pytest.mark.parametrize("text", ["amqp://me:secret@host?password=secret", "redis://me:secret@host/x?user=a/b@c"])
def test_what_stands_behind_the_question_mark_does_not_bring_a_login_back(text: str) -> None:
    assert "me:secret" not in shown(text)


@pytest.mark.parametrize(
    "text",
    [
        "rides",
        "",
        "://me:secret@host",
        "redis://me:secret@host/rides?db=0&db=1",
        "redis://me:secret@host/rides?db",
        "redis://me:secret@host/rides?db=0&&x",
        "redis://me:secret@[host/rides",
        "redis://me:secret@[::1/rides",
        "redis://me:secret@ho[st/rides",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError, match="expected an address") as caught:
        Address.parse(text)
    assert "secret" not in str(caught.value)


def test_options_that_a_broker_does_not_have_are_refused() -> None:
    address = Address.parse("redis://me:secret@host/rides?db=0&dbb=1")
    address.check_options("db", "dbb")
    with pytest.raises(ConfigError, match=r"redis://host/rides\?db=0&dbb=1: no such option: dbb; known are db, tls"):
        address.check_options("db", "tls")
    with pytest.raises(ConfigError, match="no such option: db; known are none"):
        address.check_options()


@pytest.mark.parametrize(
    "text", ["amqp:me:s3cret@host/q", "amqp:/me:s3cret@host/q", "me:s3cret@host/q", "redis://me:s3/cret@host"]
)
def test_a_login_in_what_is_no_address_is_not_shown(text: str) -> None:
    assert "s3" not in shown(text)
