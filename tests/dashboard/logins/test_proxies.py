"""Where a request comes from, and whether over TLS: anybody may write the headers that say so."""

from __future__ import annotations

import logging

import pytest
from flask import Flask

from fairlead.dashboard.logins.proxies import Proxies
from fairlead.errors import DashboardError

TRUSTED = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")
PEOPLE = "198.51.100.1"


def address(peer: str, *forwarded: str, trusted: tuple[str, ...] = TRUSTED) -> str:
    headers = [("X-Forwarded-For", told) for told in forwarded]
    with Flask("hub").test_request_context(headers=headers, environ_overrides={"REMOTE_ADDR": peer}):
        return str(Proxies(trusted).address())


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        (PEOPLE, [], PEOPLE),
        (PEOPLE, ["203.0.113.9"], PEOPLE),  # written by the visitor
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", [PEOPLE], PEOPLE),
        ("192.0.2.7", [PEOPLE], PEOPLE),
        ("192.0.2.8", [PEOPLE], "192.0.2.8"),
        ("10.1.2.3", [f"203.0.113.9, {PEOPLE}"], PEOPLE),  # what the proxy added is last
        ("10.1.2.3", ["203.0.113.9", PEOPLE], PEOPLE),
        ("10.1.2.3", [f"203.0.113.9, {PEOPLE}, 10.9.9.9"], PEOPLE),  # through two
        ("10.1.2.3", ["10.4.4.4, 10.9.9.9"], "10.4.4.4"),
        ("10.1.2.3", ["2001:db8::1"], "2001:db8::1"),
        ("2001:db8:1::9", ["2001:db9::1"], "2001:db9::1"),
        ("::ffff:10.1.2.3", [f"::ffff:{PEOPLE}"], PEOPLE),  # at a socket of both versions
        ("10.1.2.3", [f"{PEOPLE}:51234"], PEOPLE),
        ("10.1.2.3", ["[2001:db9::1]:443"], "2001:db9::1"),
        ("10.1.2.3", ["[2001:db9::1]"], "2001:db9::1"),
        ("10.1.2.3", [f"{PEOPLE}, unknown"], "10.1.2.3"),
        ("10.1.2.3", [f"{PEOPLE}, _hidden, 10.9.9.9"], "10.9.9.9"),
        ("10.1.2.3", ["x\x1b[31m"], "10.1.2.3"),
        ("10.1.2.3", [" , ,"], "10.1.2.3"),
        ("", [PEOPLE], "None"),
        ("localhost", [PEOPLE], "None"),
    ],
)
def test_only_what_trusted_proxies_say_counts(peer: str, forwarded: list[str], found: str) -> None:
    assert address(peer, *forwarded) == found


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.1.2.3", ""])
def test_by_default_none_is_trusted(peer: str) -> None:
    assert address(peer, PEOPLE, trusted=()) == (peer or "None")


@pytest.mark.parametrize("peer", ["", "localhost"])
def test_a_proxy_at_a_unix_socket_can_be_trusted(peer: str) -> None:
    assert address(peer, PEOPLE, trusted=("unix",)) == PEOPLE
    assert address("127.0.0.1", PEOPLE, trusted=("unix",)) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "url", "told", "is_secure"),
    [
        ("10.1.2.3", "http://a/", "https", True),
        ("10.1.2.3", "http://a/", "HTTPS, http", True),
        ("10.1.2.3", "http://a/", "http", False),
        ("10.1.2.3", "http://a/", "", False),
        (PEOPLE, "http://a/", "https", False),
        (PEOPLE, "https://a/", "", True),
        ("10.1.2.3", "https://a/", "", True),
    ],
)
def test_who_ends_tls_is_a_trusted_proxy_or_the_server(peer: str, url: str, told: str, is_secure: bool) -> None:
    headers = {"X-Forwarded-Proto": told}
    with Flask("hub").test_request_context(base_url=url, headers=headers, environ_overrides={"REMOTE_ADDR": peer}):
        assert Proxies(TRUSTED).is_secure() == is_secure


def test_who_asks_for_others_and_is_not_trusted_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    proxies = Proxies(["10.1.0.0/16"])

    def ask(peer: str, *forwarded: str) -> None:
        headers = [("X-Forwarded-For", told) for told in forwarded]
        with Flask("hub").test_request_context(headers=headers, environ_overrides={"REMOTE_ADDR": peer}):
            proxies.address()

    ask("10.1.2.3", f"203.0.113.9, {PEOPLE}")
    ask(PEOPLE)
    assert caplog.text == ""
    ask("10.2.2.2", PEOPLE)
    ask("10.2.2.3", PEOPLE)
    (record,) = caplog.records
    assert record.getMessage().startswith("10.2.2.2 says that it asks for others: if it is a proxy of yours, name it")
    assert "--trusted-proxies" in caplog.text


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "10.0.0.0/40", "1.2.3", "300.1.1.1", "proxy.example"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(DashboardError, match=r"dashboard.trusted_proxies: expected addresses or networks .*") as caught:
        Proxies(["10.1.2.3", wrong])
    assert wrong in str(caught.value)
