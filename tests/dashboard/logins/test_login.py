"""Logging in and out, as an attacker does it: forged forms, foreign addresses to go to, guesses, old cookies."""

from __future__ import annotations

import html
import io
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
import werkzeug.security
from flask.testing import FlaskClient

from fairlead.dashboard.logins.users import Users
from guarded_hub import LIMIT, PASSWORD, TOKEN, GuardedHub


@pytest.fixture
def client(hub: GuardedHub) -> FlaskClient:
    return hub.app.test_client()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the passwords that were compared, which is quick here."""
    listed: list[str] = []

    def compare(hashed: str, password: str) -> bool:
        listed.append(password)
        return password == PASSWORD

    monkeypatch.setattr(werkzeug.security, "check_password_hash", compare)
    return listed


def token_of(client: FlaskClient, **options: Any) -> str:
    found = TOKEN.search(client.get("/login", **options).text)
    assert found is not None
    return found[1]


def log_in(
    client: FlaskClient, name: str = "ann", password: str = PASSWORD, address: str = "192.0.2.1", **options: Any
) -> Any:
    where = {"REMOTE_ADDR": address}
    form = {"token": token_of(client, environ_overrides=where), "name": name, "password": password}
    path = options.pop("path", "/login")
    return client.post(path, data=form, environ_overrides=where, **options)


def cookie(client: FlaskClient, kind: str = "session") -> tuple[str, str] | None:
    found = [one for one in client._cookies.values() if one.key.endswith(f"-{kind}")]
    return (found[0].key, found[0].value) if found else None


def test_the_page_is_a_form_that_needs_nothing_else(client: FlaskClient) -> None:
    page = client.get("/login?next=/one/")
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; form-action 'self'")
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r'(?:src|href|action)="([^"]+)"', page.text) == ["/login/login.css", "/login?next=/one/"]
    assert "<script" not in page.text
    assert "style=" not in page.text
    assert 'autocomplete="username"' in page.text
    assert 'autocomplete="current-password"' in page.text


def test_who_logs_in_goes_where_they_were_going(client: FlaskClient) -> None:
    sent = client.get("/one/some page?a=1&b=%2F", headers={"Accept": "text/html"})
    assert sent.status_code == 303
    answer = log_in(client, path=sent.headers["Location"])
    assert (answer.status_code, answer.headers["Location"]) == (303, "/one/some%20page?a=1&b=%2F")
    assert client.get(answer.headers["Location"]).text == "one says some page"
    again = client.get("/login?next=/two/")
    assert (again.status_code, again.headers["Location"]) == (303, "/two/")


def test_below_a_prefix_everything_stays_below_it(hub: GuardedHub) -> None:
    client = hub.app.test_client(use_cookies=False)
    below = {"SCRIPT_NAME": "/tools"}
    sent = client.get("/one/", headers={"Accept": "text/html"}, environ_overrides=below)
    assert sent.headers["Location"] == "/tools/login?next=/tools/one/"
    page = client.get("/login?next=/tools/one/", environ_overrides=below)
    assert re.findall(r'(?:href|action)="([^"]+)"', page.text) == [
        "/tools/login/login.css", "/tools/login?next=/tools/one/",
    ]  # fmt: skip
    token = TOKEN.search(page.text)
    assert token is not None
    form = {"token": token[1], "name": "ann", "password": PASSWORD}
    headers = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}
    for asked, going in (("/tools/one/", "/tools/one/"), ("/one/", "/tools/"), ("/toolsother/", "/tools/")):
        answer = client.post(f"/login?next={asked}", data=form, headers=headers, environ_overrides=below)
        assert answer.headers["Location"] == going


ELSEWHERE = [
    "//evil.example", "///evil.example", "////evil.example/one/", "https://evil.example", "http:evil.example",
    "javascript:alert(1)", "data:text/html,x", "\\\\evil.example", "/\\evil.example", "/\\/evil.example",
    "\\/evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example", " //evil.example", "/ /evil.example",
    "/%09/evil.example", "/%5cevil.example", "/%2f/evil.example", "/one/..//evil.example", "/.//evil.example",
    "/%2e/%2fevil.example", "/one/%2e%2e/%2e%2e//evil.example", "evil.example", "one/", "@evil.example",
    "/one/\r\nSet-Cookie: a=b", "/\x00one/", "/ä", "／／evil.example", "/／evil.example", "", "/" + "a" * 3000,
    "/login?next=/one/", "/logout", "/login", "/../one/", "?next=//evil.example", "#//evil.example",
    ":80//evil.example", "/one//two",
]  # fmt: skip


@pytest.mark.parametrize("asked", ELSEWHERE, ids=lambda asked: ascii(asked)[1:30])
def test_nobody_is_sent_elsewhere(asked: str, hub: GuardedHub, looked_at: list[str]) -> None:
    client = hub.app.test_client()
    page = client.get(f"/login?next={quote(asked)}")
    (action,) = re.findall(r'action="([^"]+)"', page.text)
    assert html.unescape(action) == "/login?next=/"
    answer = log_in(client, path=f"/login?next={quote(asked)}", headers={"X-Forwarded-Host": "evil.example"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert client.get(f"/login?next={quote(asked)}").headers["Location"] == "/"
    assert looked_at == [PASSWORD]


@pytest.mark.parametrize(
    "asked", ["/", "/one/", "/one/?url=https://else.example//", "/one/a%20b", "/loginpage/", "/%C3%A4/"]
)
def test_one_is_sent_to_any_page_of_the_hub(asked: str, client: FlaskClient, looked_at: list[str]) -> None:
    answer = log_in(client, path=f"/login?next={quote(asked)}")
    assert answer.headers["Location"] == asked
    assert urlsplit(urljoin("https://own.example/login", asked)).netloc == "own.example"
    assert looked_at == [PASSWORD]


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong password"), ("nobody", PASSWORD), ("", ""), ("ann", ""), ("ann\0", PASSWORD),
        ("ann", "x" * 2000), ("a" * 1000, PASSWORD), ("' OR ''='", "' OR ''='"), ("ann", PASSWORD + "\n"),
    ],
)  # fmt: skip
def test_wrong_is_wrong_and_does_not_tell_what(name: str, password: str, client: FlaskClient) -> None:
    answer = log_in(client, name, password)
    assert answer.status_code == 401
    assert '<p id="trouble" class="trouble" role="alert">The name or the password is wrong.</p>' in answer.text
    assert cookie(client) is None
    assert not password or html.escape(password) not in answer.text.replace(html.escape(name), "")


def test_what_was_typed_comes_back_escaped_and_is_not_logged(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = '"><script>alert(1)</script>'
    answer = log_in(client, name, "my secret password")
    assert "<script" not in answer.text
    assert 'value="&#34;&gt;&lt;script&gt;' in answer.text
    assert "script" not in caplog.text
    assert "my secret" not in caplog.text
    assert "login: a wrong name or password from 192.0.2.1" in caplog.text
    log_in(client)
    assert "login: ann from 192.0.2.1" in caplog.text


def test_a_session_s_cookie_is_not_for_scripts_nor_other_sites(client: FlaskClient) -> None:
    given = log_in(client).headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in given.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/", "max-age=3600"} <= attributes
    assert "secure" not in attributes
    assert not any(attribute.startswith("domain") for attribute in attributes)
    form = client.get("/login", headers={"Cookie": ""})
    assert form.status_code == 303


@pytest.mark.parametrize("how", ["tls", "X-Forwarded-Proto"])
def test_over_tls_cookies_are_for_tls_and_this_host_only(how: str, hub: GuardedHub) -> None:
    client = hub.app.test_client(use_cookies=False)
    options: dict[str, Any] = (
        {"base_url": "https://own.example"} if how == "tls" else {"headers": {"X-Forwarded-Proto": "https"}}
    )
    options["environ_overrides"] = {"REMOTE_ADDR": "10.1.2.3"}
    page = client.get("/login", **options)
    carried = page.headers["Set-Cookie"]
    assert re.match(r"__Host-fairlead-[0-9a-f]{8}-form=", carried)
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in carried.split(";")}
    token = TOKEN.search(page.text)
    assert token is not None
    form = {"token": token[1], "name": "ann", "password": PASSWORD}

    def post(cookies: str) -> Any:
        headers = {**options.get("headers", {}), "Cookie": cookies}
        return client.post("/login", data=form, **{**options, "headers": headers})

    pair = carried.partition(";")[0]
    # One that any page without TLS can set.
    assert post(pair.removeprefix("__Host-")).status_code == 400
    given = post(pair).headers["Set-Cookie"]
    assert re.match(r"__Host-fairlead-[0-9a-f]{8}-session=", given)
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in given.split(";")}


def forged(client: FlaskClient) -> Iterator[tuple[str, dict[str, Any]]]:
    own, other = token_of(client), token_of(client.application.test_client())
    entries = {"name": "ann", "password": PASSWORD}
    yield "no token", {"data": entries}
    yield "an empty token", {"data": {**entries, "token": ""}}
    yield "another browser's token", {"data": {**entries, "token": other}}
    yield "half a token", {"data": {**entries, "token": own[:32]}}
    yield "a token in other letters", {"data": {**entries, "token": "ä" * 64}}
    yield "not a form", {"json": {**entries, "token": own}}
    yield "in the query", {"query_string": {**entries, "token": own}}
    for site in ("cross-site", "same-site"):
        yield site, {"data": {**entries, "token": own}, "headers": {"Sec-Fetch-Site": site}}
    yield "no cookie", {"data": {**entries, "token": own}, "headers": {"Cookie": "a=b"}}


def test_a_form_that_is_not_ours_logs_nobody_in(client: FlaskClient, looked_at: list[str]) -> None:
    tried = 0
    for what, request in forged(client):
        sender = client.application.test_client(use_cookies=False)
        name, value = cookie(client, "form") or ("", "")
        headers = {"Cookie": f"{name}={value}", **request.pop("headers", {})}
        answer = sender.post("/login", headers=headers, **request)
        assert answer.status_code == 400, what
        assert "Please try again." in answer.text
        assert "-session=" not in str(answer.headers)
        tried += 1
    assert tried == 10
    assert looked_at == []
    assert log_in(client, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_a_huge_form_is_not_read(client: FlaskClient, looked_at: list[str]) -> None:
    token = token_of(client)
    form = {"token": token, "name": "ann", "password": "x" * 20_000}
    assert client.post("/login", data=form).status_code == 413
    assert client.post("/login", data={**form, "file": (io.BytesIO(b"x" * 20_000), "f")}).status_code == 413
    assert client.post("/logout", data=form).status_code in (303, 413)
    assert looked_at == []


def test_each_login_is_another_session_and_ends_the_one_before(hub: GuardedHub) -> None:
    client, attacker = hub.app.test_client(), hub.app.test_client()
    log_in(attacker, "bob")
    name, planted = cookie(attacker) or ("", "")
    form = {"token": token_of(client), "name": "ann", "password": PASSWORD}
    # A session that was planted is not the one that is logged in.
    client.set_cookie(name, planted)
    assert client.post("/login", data=form).status_code == 303
    _, own = cookie(client) or ("", "")
    assert own != planted
    assert client.get("/").text == "for ann"
    assert attacker.get("/").status_code == 401


def test_after_a_logout_the_cookie_is_worth_nothing(client: FlaskClient) -> None:
    log_in(client)
    name, value = cookie(client) or ("", "")
    page = client.get("/logout")
    assert "You are logged in as <strong>ann</strong>." in page.text
    token = TOKEN.search(page.text)
    assert token is not None

    # A foreign page cannot log anybody out either.
    assert client.post("/logout").status_code == 200
    assert client.post("/logout", data={"token": token_of(client.application.test_client())}).status_code == 200
    assert client.post("/logout", data={"token": token[1]}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    assert client.get("/one/").status_code == 200

    out = client.post("/logout", data={"token": token[1]})
    assert (out.status_code, out.headers["Location"]) == (303, "/login")
    assert cookie(client) is None
    client.set_cookie(name, value)
    assert client.get("/one/").status_code == 401
    assert client.get("/logout").headers["Location"] == "/login"
    assert client.post("/logout", data={"token": token[1]}).headers["Location"] == "/login"


def test_a_hundred_wrong_passwords_from_one_address(hub: GuardedHub, looked_at: list[str]) -> None:
    client = hub.app.test_client()
    statuses = [log_in(client, f"user{place % 7}", f"guess {place}").status_code for place in range(100)]
    assert statuses == [401] * LIMIT + [429] * (100 - LIMIT)
    assert len(looked_at) == LIMIT
    # The right one is not looked at either; from elsewhere it is.
    assert log_in(client, "ann").status_code == 429
    assert log_in(client, "ann", address="192.0.2.2").status_code == 303


def test_a_hundred_wrong_passwords_for_one_name_from_many_addresses(hub: GuardedHub, looked_at: list[str]) -> None:
    client = hub.app.test_client()
    answers = [log_in(client, "Ann", f"guess {place}", f"192.0.2.{place}") for place in range(100)]
    assert [answer.status_code for answer in answers] == [401] * LIMIT + [429] * (100 - LIMIT)
    assert len(looked_at) == LIMIT
    last = answers[-1]
    assert 1 <= int(last.headers["Retry-After"]) <= 60
    assert "Too many wrong passwords. Please try again in 1 minute." in last.text
    assert log_in(client, "bob", address="192.0.2.200").status_code == 303


def test_for_a_name_that_is_not_there_it_is_the_same(hub: GuardedHub, looked_at: list[str]) -> None:
    client = hub.app.test_client()
    statuses = [log_in(client, "nobody", "guess", f"192.0.2.{place}").status_code for place in range(6)]
    assert statuses == [401] * LIMIT + [429] * (6 - LIMIT)
    assert len(looked_at) == LIMIT


def test_guesses_at_once_are_counted_before_they_are_looked_at(hub: GuardedHub, looked_at: list[str]) -> None:
    client = hub.app.test_client()
    token = token_of(client)
    name, value = cookie(client, "form") or ("", "")

    def guess(place: int) -> int:
        form = {"token": token, "name": "ann", "password": f"guess {place}"}
        sender = hub.app.test_client(use_cookies=False)
        return sender.post("/login", data=form, headers={"Cookie": f"{name}={value}"}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(guess, range(40)))
    assert (statuses.count(401), statuses.count(429)) == (LIMIT, 40 - LIMIT)
    assert len(looked_at) == LIMIT


def test_who_is_logged_in_stays_so_while_others_guess(hub: GuardedHub, looked_at: list[str]) -> None:
    ann, guesser = hub.app.test_client(), hub.app.test_client()
    log_in(ann)
    for place in range(10):
        log_in(guesser, "ann", "guess", f"198.51.100.{place}")
    assert ann.get("/one/").status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "is_new_each_time"),
    [
        ("192.0.2.1", lambda place: f"198.51.100.{place}", False),  # anybody can write this
        ("10.1.2.3", lambda place: f"198.51.100.{place}", True),
        ("10.1.2.3", lambda place: f"198.51.100.{place}, 192.0.2.1", False),  # what the proxy added is last
        ("10.1.2.3", lambda place: f"198.51.100.{place}, 10.9.9.9", True),  # through two proxies
        ("2001:db8::1", lambda place: f"2001:db8:{place}::1", True),
        ("10.1.2.3", lambda place: f"unknown{place}", False),
        ("10.1.2.3", lambda place: "," * place, False),
    ],
)
def test_where_a_guess_comes_from_is_told_by_known_proxies_only(
    peer: str, forwarded: Callable[[int], str], is_new_each_time: bool, hub: GuardedHub, looked_at: list[str]
) -> None:
    client = hub.app.test_client()
    statuses = [
        log_in(client, f"user{place}", "guess", peer, headers={"X-Forwarded-For": forwarded(place)}).status_code
        for place in range(6)
    ]
    assert statuses == ([401] * 6 if is_new_each_time else [401] * LIMIT + [429] * (6 - LIMIT))
    assert len(looked_at) == statuses.count(401)


def test_names_in_any_script_log_in(hub: GuardedHub, users: Users) -> None:
    users.add("Jörg 李雷", "пароль пароль")
    client = hub.app.test_client()
    assert log_in(client, "  JÖRG 李雷 ", "пароль пароль").status_code == 303
    assert client.get("/").text == "for jörg 李雷"
    assert "<strong>jörg 李雷</strong>" in client.get("/logout").text


def test_a_password_that_is_changed_while_one_logs_in_is_the_one_that_counts(
    hub: GuardedHub, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(hashed: str, password: str) -> bool:
        users.set_password("ann", "something else")
        return True

    monkeypatch.setattr(werkzeug.security, "check_password_hash", compare)
    client = hub.app.test_client()
    assert log_in(client).status_code == 401
    assert cookie(client) is None
