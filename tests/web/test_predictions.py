"""What the predict routes answer, called in this process."""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import fairlead
from fairlead.errors import ServeError
from fairlead.predict.intake import Intake
from fairlead.schema import Schema
from fairlead.web.app import App
from fairlead.web.runners import Done

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
SECRET = "s3cr3t-98765"


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], churn_bundle: Path) -> Any:
    return in_process(churn_bundle)


@pytest.fixture(scope="module")
def expected(churn_bundle: Path) -> Any:
    return fairlead.load(churn_bundle).run([GOOD]).predictions[0]


def check_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["type"] == f"urn:problem-type:fairlead:{code}"
    assert document["title"]
    assert document["detail"]
    return document


@pytest.mark.parametrize("path", ["/predict", "/models/churn/predict"])
def test_an_object_gives_an_object(client: Any, expected: Any, path: str) -> None:
    response = client.post(path, json=GOOD)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == expected
    assert set(expected) == {"prediction", "probabilities", "churn_probability", "churn"}


def test_an_array_gives_an_array_in_order(client: Any, churn_bundle: Path) -> None:
    rows = [{**GOOD, "tenure": tenure} for tenure in range(50)]
    assert client.post("/predict", json=rows).json() == fairlead.load(churn_bundle).run(rows).predictions
    assert client.post("/predict", json=[GOOD]).json() == [client.post("/predict", json=GOOD).json()]
    assert client.post("/predict", json=[]).json() == []


@pytest.mark.parametrize("path", ["/predict", "/models/churn/predict"])
def test_a_query_gives_the_same(client: Any, expected: Any, path: str) -> None:
    assert client.get(path, params=GOOD).json() == expected


def test_a_blank_field_of_a_query_is_null(client: Any) -> None:
    asked = client.get("/predict?tenure=41&charges=&contract=yearly")
    assert asked.json() == client.post("/predict", json={**GOOD, "charges": None}).json()


def test_head_tells_what_get_would_without_the_body(client: Any) -> None:
    same = {"x-request-id": "one"}
    for query in ("/predict?tenure=41&contract=yearly", "/predict?tenure=x"):
        got, head = client.get(query, headers=same), client.request("HEAD", query, headers=same)
        assert (head.status_code, dict(head.headers), head.content) == (got.status_code, dict(got.headers), b"")


def test_other_methods_are_refused_with_those_allowed(client: Any) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        response = client.request(method, "/predict", json=GOOD)
        check_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD, POST"
    response = client.post("/livez")
    check_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"{",
        b"{} {}",
        b"tenure=41",
        b"NaN",
        b'{"tenure": NaN}',
        b'{"tenure": Infinity}',
        b'{"tenure": 1e999}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_json_is_400(client: Any, body: bytes) -> None:
    document = check_problem(client.post("/predict", content=body), 400, "not_json")
    assert document["errors"] == []


@pytest.mark.parametrize("query", ["tenure=%ff", "%C3%28=1"])
def test_a_query_that_is_not_utf8_is_400(client: Any, query: str) -> None:
    check_problem(client.get(f"/predict?{query}"), 400, "bad_query")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": ""}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/vnd.churn+json"}, 200),
        ({"content-type": "application/json", "content-encoding": "identity"}, 200),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json", "content-encoding": "br"}, 415),
    ],
)
def test_only_json_is_taken(client: Any, headers: dict[str, str], status: int) -> None:
    response = client.post("/predict", content=json.dumps(GOOD), headers=headers)
    assert response.status_code == status
    if status == 415:
        check_problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(("encoding", "window_bits"), [("gzip", 31), ("x-gzip", 31), ("deflate", 15)])
def test_a_compressed_body(client: Any, expected: Any, encoding: str, window_bits: int) -> None:
    packer = zlib.compressobj(wbits=window_bits)
    body = packer.compress(json.dumps(GOOD).encode()) + packer.flush()
    headers = {"content-encoding": encoding}
    assert client.post("/predict", content=body, headers=headers).json() == expected
    check_problem(client.post("/predict", content=body[:-1], headers=headers), 400, "bad_request")
    check_problem(client.post("/predict", content=b"no" + body, headers=headers), 400, "bad_request")
    bomb = zlib.compressobj(9, wbits=window_bits)
    packed = bomb.compress(bytes(11 * 1024 * 1024)) + bomb.flush()
    check_problem(client.post("/predict", content=packed, headers=headers), 413, "too_large")


def test_every_problem_of_every_row_is_told_by_path(client: Any) -> None:
    rows: list[Any] = [GOOD, {"tenure": "41", "charges": True, "contract": 1}, 3, {"contract": "x"}]
    document = check_problem(client.post("/predict", json=rows), 422, "invalid_records")
    assert [problem["path"] for problem in document["errors"]] == [
        "$[1].tenure",
        "$[1].charges",
        "$[1].contract",
        "$[2]",
        "$[3].tenure",
    ]
    assert document["errors"][0] == {"path": "$[1].tenure", "expected": "an integer", "got": "a string"}


def test_the_path_of_a_lone_record_has_no_index(client: Any) -> None:
    document = check_problem(client.post("/predict", json={"tenure": "41"}), 422, "invalid_records")
    assert [problem["path"] for problem in document["errors"]] == ["$.tenure", "$.contract"]


@pytest.mark.parametrize("body", ["3", '"text"', "null", "true"])
def test_what_is_neither_object_nor_array_is_422(client: Any, body: str) -> None:
    document = check_problem(client.post("/predict", content=body), 422, "invalid_records")
    assert [problem["path"] for problem in document["errors"]] == ["$"]


def test_a_query_gets_every_problem_once(client: Any) -> None:
    document = check_problem(client.get("/predict?tenure=x&charges=1&charges=2"), 422, "invalid_records")
    assert sorted(problem["path"] for problem in document["errors"]) == ["$.charges", "$.contract", "$.tenure"]


def test_a_repeated_key_that_is_no_feature_is_ignored_as_any_other(client: Any) -> None:
    assert client.get("/predict?tenure=41&contract=yearly&utm=1&utm=2").status_code == 200


def test_no_answer_holds_a_value_of_the_request(
    client: Any, in_process: Callable[..., Any], price_bundle: Path
) -> None:
    answers = [
        client.post("/predict", json={"tenure": SECRET, "charges": SECRET, "contract": [SECRET]}),
        client.post("/predict", json=[{"tenure": {SECRET: 1}}, SECRET]),
        client.post("/predict", content=f'{{"tenure": {SECRET}}}'),
        client.post("/predict", content=f'"{SECRET}"'),
        client.get(f"/predict?tenure={SECRET}&charges={SECRET}&charges={SECRET}"),
        client.post("/predict", content=SECRET, headers={"content-type": SECRET}),
        client.get(f"/{SECRET}"),
        in_process(price_bundle).post("/predict", json={"size": SECRET, "town": SECRET, "other": SECRET}),
        in_process(price_bundle).get(f"/predict?size={SECRET}&town={SECRET}&other={SECRET}"),
    ]
    assert all(400 <= answer.status_code < 500 for answer in answers)
    assert [answer.text for answer in answers if SECRET in answer.text] == []


def test_a_larger_body_is_413(churn_bundle: Path, app_of: Callable[..., App]) -> None:
    app = app_of(churn_bundle, max_body_bytes=100)
    for size, status in ((100, 200), (101, 413)):
        body = json.dumps(GOOD).encode().ljust(size)
        assert ask(app, [body])[0]["status"] == status
        assert ask(app, [body], {b"content-length": str(size).encode()})[0]["status"] == status
        assert ask(app, [body[:60], body[60:]])[0]["status"] == status


def test_a_body_that_is_too_large_is_not_read_to_its_end(churn_bundle: Path, app_of: Callable[..., App]) -> None:
    app = app_of(churn_bundle, max_body_bytes=100)
    unread = [b"x" * 60] * 1000
    assert ask(app, unread)[0]["status"] == 413
    assert len(unread) == 998


def test_a_client_that_goes_away_gets_no_answer(churn_bundle: Path, app_of: Callable[..., App]) -> None:
    app = app_of(churn_bundle)
    assert ask(app, [b'{"tenure"', None]) == []
    assert ask(app, [None]) == []


def ask(
    app: App, chunks: list[bytes | None], headers: dict[bytes, bytes] | None = None, query: bytes | None = None
) -> list[Any]:
    """Call the app as an ASGI server does; None is the client going away."""
    sent: list[Any] = []

    async def receive() -> Any:
        chunk = chunks.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST" if query is None else "GET", "path": "/predict"}
    asyncio.run(app({**scope, "headers": list((headers or {}).items()), "query_string": query or b""}, receive, send))
    return sent


def test_a_field_with_an_odd_name_is_told_once_and_by_its_json_path(
    churn_bundle: Path, app_of: Callable[..., App]
) -> None:
    app = app_of(churn_bundle)
    (model,) = app.served.stable().values()
    features = tuple(replace(f, name=f"{f.name} (x)") for f in model.intake.schema.features)
    model.intake = Intake(replace(model.intake.manifest, schema=Schema(features=features)), model.intake.digest)
    query = b"tenure%20(x)=y&contract%20(x)=a&contract%20(x)=b"
    assert paths(ask(app, [b""], query=query)) == {'$["tenure (x)"]', '$["contract (x)"]'}


def paths(sent: list[Any]) -> set[str]:
    found = [problem["path"] for problem in json.loads(sent[1]["body"])["errors"]]
    assert len(found) == len(set(found))
    return set(found)


class Fails:
    """A runner that stands for a fault of ours."""

    place = "loop"
    slots = 1

    def run(self, rows: object, done: Done) -> None:
        done(ZeroDivisionError(SECRET), 1)

    def start(self) -> None:
        pass

    def give_up(self, done: Done) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_failure_is_500_with_a_request_id_and_the_traceback_in_the_log(
    churn_bundle: Path, in_process: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    client = in_process(churn_bundle)
    client.app.served.stable()["churn"].batcher.runner = Fails()
    with caplog.at_level(logging.ERROR, "fairlead.web"):
        response = client.post("/predict", json=GOOD)
    document = check_problem(response, 500, "internal")
    assert document["request_id"] in document["detail"]
    assert SECRET not in response.text
    assert "Traceback" not in response.text
    assert document["request_id"] in caplog.text
    assert f"ZeroDivisionError: {SECRET}" in caplog.text


def test_several_models_answer_by_name_only(
    in_process: Callable[..., Any], churn_bundle: Path, price_bundle: Path
) -> None:
    client = in_process(churn_bundle, price_bundle)
    assert set(client.post("/models/churn/predict", json=GOOD).json()) >= {"churn"}
    assert set(client.get("/models/price/predict?size=3&town=Delft").json()) == {"price", "is_dear"}
    document = check_problem(client.post("/predict", json=GOOD), 404, "not_found")
    assert "/models/churn/predict" in document["detail"]
    assert "/models/price/predict" in document["detail"]
    check_problem(client.post("/models/other/predict", json=GOOD), 404, "not_found")


def test_two_models_of_one_name_are_refused(churn_bundle: Path, app_of: Callable[..., App]) -> None:
    with pytest.raises(ServeError, match="churn: two bundles have this name"):
        app_of(churn_bundle, churn_bundle)
    with pytest.raises(ServeError, match="name at least one"):
        app_of()


@pytest.mark.parametrize(
    ("root_path", "settings", "path"),
    [
        ("/a", {}, "/a/predict"),
        ("", {"root_path": "/a"}, "/a/predict"),
        ("", {"root_path": "/a"}, "/predict"),
        ("", {"root_path": "/a"}, "/a/livez"),
        ("", {"root_path": "/a"}, "/livez"),
        ("", {"root_path": "/a"}, "/a/docs"),
    ],
)
def test_the_app_works_below_a_prefix(
    churn_bundle: Path, app_of: Callable[..., App], root_path: str, settings: dict[str, Any], path: str
) -> None:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root_path, "headers": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = app_of(churn_bundle, **settings)
    asyncio.run(app({**scope, "query_string": b"tenure=1&contract=yearly"}, receive, send))
    assert sent[0]["status"] == 200
