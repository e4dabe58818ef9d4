"""How clients are made, and what they ask for with it."""

from __future__ import annotations

import math
import sys
from typing import Any

import httpx
import pytest

from client.replies import URL, Script, busy, ok, problem
from fairlead.client import Client, RequestFailed
from fairlead.errors import MissingExtra


@pytest.mark.parametrize(
    ("url", "model", "asked"),
    [
        ("http://test", None, "http://test/predict"),
        ("http://test/", "churn", "http://test/models/churn/predict"),
        ("https://test:8443/eu/v1/", "a b/c", "https://test:8443/eu/v1/models/a%20b%2Fc/predict"),
    ],
)
def test_a_prefix_stays_in_front(url: str, model: str | None, asked: str) -> None:
    script = Script(ok)
    with Client(url, model=model, transport=httpx.MockTransport(script)) as client:
        client.predict({"x": 1})
    assert [str(request.url) for request in script.requests] == [asked]


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_API_KEY", "from-the-environment\n")
    script = Script(problem(401, "unauthorized", detail=""))
    for how in ({}, {"api_key": "given"}):
        with script.client(**how) as client, pytest.raises(RequestFailed) as caught:
            client.predict({"x": 1})
        shown = repr(client) + str(client) + str(caught.value) + repr(caught.value)
        assert "given" not in shown
        assert "from-the-environment" not in shown
        assert "expected 200, got 401 unauthorized: give `api_key`, or set FAIRLEAD_API_KEY" in shown
    assert script.header("authorization") == ["Bearer from-the-environment", "Bearer given"]
    with pytest.raises(ValueError, match="api_key: expected visible ASCII") as refused:
        Client(URL, api_key="sec\nret")
    assert "ret" not in str(refused.value)


def test_no_key_is_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRLEAD_API_KEY", raising=False)
    script = Script(ok)
    with script.client() as client:
        client.predict({"x": 1})
    assert "authorization" not in script.requests[0].headers


def test_models_of_something_else_are_told() -> None:
    with Script(httpx.Response(200, json=[])).client() as client, pytest.raises(RequestFailed, match="list of models"):
        client.models()


def test_ready_tells_a_wrong_address_from_a_server_that_is_not() -> None:
    script = Script(busy(), httpx.ReadTimeout("late"), httpx.ConnectError("refused"), httpx.Response(404))
    with script.client() as client:
        assert [client.ready(), client.live(), client.ready()] == [False, False, False]
        with pytest.raises(RequestFailed, match="got 404"):
            client.ready()
    assert len(script.requests) == 4


@pytest.mark.parametrize(
    "url", ["localhost:9696", "ftp://test", "http://", "", "http://u:secret@test", "http://t/?a=1", "http://[::1"]
)
def test_a_wrong_address_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="url: expected one such as http://localhost:9696") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "how", [{"retries": -1}, {"max_rows_per_request": 0}, {"timeout_s": 0}, {"timeout_s": math.nan}]
)
def test_settings_out_of_range_are_told(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"), Script(ok).client(**how) as client:
        client.predict({"x": 1})


def test_without_httpx_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fairlead\[client\]'"):
        Client(URL)


def test_repr_tells_where() -> None:
    with Script(ok).client(model="churn") as client:
        assert repr(client) == "Client('http://test', model='churn')"
