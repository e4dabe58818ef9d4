"""Servers as `fairlead dashboard serve` starts them, asked as a proxy asks, which is trusted or not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import little_boards
from fairlead.dashboard.logins.users import Users
from guarded_hub import TOKEN

COOKIE = re.compile(r"(__Host-)?fairlead-[0-9a-f]{8}-form=")


def guess(url: str, address: str) -> int:
    """Log in with a wrong password, as somebody else each time."""
    headers = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
    page = httpx.get(f"{url}/login", headers=headers)
    token = TOKEN.search(page.text)
    assert token is not None
    form = {"token": token[1], "name": f"user of {address}", "password": "wrong password"}
    headers["Cookie"] = page.headers["Set-Cookie"].partition(";")[0]
    return httpx.post(f"{url}/login", data=form, headers=headers).status_code


@pytest.mark.parametrize(("server", "trusted"), [("gunicorn", True), ("waitress", True), ("gunicorn", False)])
def test_what_a_proxy_says_counts_when_it_is_trusted(server: str, trusted: bool, users: Users, tmp_path: Path) -> None:
    store = little_boards.write_store(tmp_path / "one.dash", "One")
    settings = {
        "port": 0, "server": server, "users": str(users.file.path), "max_attempts": 1,
        "trusted_proxies": ["127.0.0.1"] if trusted else [],
    }  # fmt: skip
    command = [sys.executable, little_boards.__file__, json.dumps(settings), store]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" at ")[2].strip().removesuffix("/one/")
            # A path that a client makes up is none, whoever is trusted.
            page = httpx.get(f"{url}/login", headers={"X-Forwarded-Proto": "https", "SCRIPT_NAME": "/elsewhere"})
            assert page.status_code == 200
            assert 'action="/login?' in page.text
            carried = page.headers["Set-Cookie"]
            cookie = COOKIE.match(carried)
            assert cookie is not None
            assert bool(cookie[1]) == ("Secure" in carried) == trusted
            statuses = [guess(url, f"198.51.100.{place}") for place in (1, 2, 1)]
        finally:
            process.terminate()
            process.wait(30)
    assert statuses == ([401, 401, 429] if trusted else [401, 429, 429])
    told = (tmp_path / "log").read_text()
    assert ("login: a wrong name or password from 198.51.100.2" in told) == trusted
    assert ("127.0.0.1 says that it asks for others" in told) == (not trusted)
