"""The WSGI app, called as a server calls it; `wsgiref.validate` looks on. Real servers are in `test_servers`."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import fairlead
import fairlead.web
from fairlead.errors import BundleError, ServeError
from fairlead.web.wsgi_app import WsgiApp

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
JSON = {"CONTENT_TYPE": "application/json"}


class Answer:
    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = dict(headers)
        self.body = body

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["type"].rpartition(":")[2]
        return code


def call(app: Any, method: str, path: str, body: bytes | None = None, **more: Any) -> Answer:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "SCRIPT_NAME": ""}
    if body is not None:
        environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **JSON}
    environ |= more
    setup_testing_defaults(environ)
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.extend([int(status[:3]), headers])
        return lambda _: None

    parts = validator(app)(environ, start_response)
    content = b"".join(parts)
    parts.close()
    return Answer(started[0], started[1], content)


@pytest.fixture(scope="module")
def app(churn_bundle: Path, app_of: Callable[..., Any]) -> WsgiApp:
    return WsgiApp(app_of(churn_bundle, max_body_bytes=1000))


def chunked(body: bytes, **more: Any) -> dict[str, Any]:
    return {**JSON, "HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(body), **more}


def test_it_predicts_as_the_predictor(app: WsgiApp, churn_bundle: Path) -> None:
    expected = fairlead.load(churn_bundle).run([GOOD]).predictions[0]
    one = call(app, "POST", "/predict", json.dumps(GOOD).encode())
    assert (one.status, json.loads(one.body)) == (200, expected)
    assert one.headers["content-type"] == "application/json"
    assert one.headers["x-model-version"] == "1"
    assert int(one.headers["content-length"]) == len(one.body)
    many = call(app, "POST", "/models/churn/predict", json.dumps([GOOD]).encode())
    assert json.loads(many.body) == [expected]
    query = call(app, "GET", "/predict", QUERY_STRING="tenure=41&charges=79.85&contract=yearly")
    assert json.loads(query.body) == expected
    head = call(app, "HEAD", "/predict", QUERY_STRING="tenure=41&charges=79.85&contract=yearly")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(query.body)))


def test_what_is_no_prediction_is_answered_too(app: WsgiApp) -> None:
    assert json.loads(call(app, "GET", "/readyz").body) == {"status": "ready"}
    page = call(app, "GET", "/docs/swagger-ui-bundle.js")
    assert int(page.headers["content-length"]) == len(page.body) > 1_000_000
    assert call(app, "HEAD", "/docs").body == b""
    nowhere = call(app, "GET", "/nówhere".encode().decode("latin-1"))
    assert (nowhere.status, nowhere.code) == (404, "not_found")
    assert call(app, "GET", "/\xff").status == 404
    assert call(app, "PUT", "/predict").headers["allow"] == "GET, HEAD, POST"


def test_headers_pass_both_ways(app: WsgiApp) -> None:
    answer = call(app, "POST", "/predict", b"{}", HTTP_X_REQUEST_ID="abc-1")
    assert (answer.status, answer.headers["x-request-id"]) == (422, "abc-1")
    refused = call(app, "POST", "/predict", b"{}", HTTP_X_REQUEST_TIMEOUT="soon")
    assert (refused.status, refused.code) == (400, "bad_header")


def test_a_prefix_that_the_server_took_off(app: WsgiApp) -> None:
    body = json.dumps(GOOD).encode()
    assert call(app, "POST", "/predict", body, SCRIPT_NAME="/scoring").status == 200
    assert call(app, "GET", "/docs", SCRIPT_NAME="/scoring").status == 200


def test_a_body_without_a_length(app: WsgiApp) -> None:
    body = json.dumps(GOOD).encode()
    assert call(app, "POST", "/predict", **chunked(body, **{"wsgi.input_terminated": True})).status == 200
    # A server that does not end the input would be waited for without end.
    assert call(app, "POST", "/predict", **chunked(body)).code == "not_json"
    assert call(app, "POST", "/predict", **JSON, **{"wsgi.input": io.BytesIO(body)}).code == "not_json"


def test_too_large_a_body_is_refused_and_read_to_its_end(app: WsgiApp) -> None:
    large = io.BytesIO(b" " * 100_000)
    declared = call(app, "POST", "/predict", b" ", **{"CONTENT_LENGTH": "100000", "wsgi.input": large})
    assert (declared.status, declared.code) == (413, "too_large")
    assert declared.headers["x-request-id"]
    assert large.read() == b""
    large = io.BytesIO(b" " * 100_000)
    more = chunked(b"", **{"wsgi.input": large, "wsgi.input_terminated": True})
    assert call(app, "POST", "/predict", **more).status == 413
    assert large.read() == b""
    assert call(app, "POST", "/predict", b" " * 1000).status == 400
    assert call(app, "POST", "/predict", b" " * 1001).status == 413


def test_a_body_that_ends_early_is_not_taken_for_a_whole_one(app: WsgiApp) -> None:
    cut = call(app, "POST", "/predict", json.dumps(GOOD).encode(), CONTENT_LENGTH="500")
    assert (cut.status, cut.code) == (400, "bad_request")


def test_many_threads_share_one_loop(app: WsgiApp) -> None:
    bodies = [json.dumps(GOOD | {"tenure": tenure}).encode() for tenure in range(60)]
    alone = [json.loads(call(app, "POST", "/predict", body).body) for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: call(app, "POST", "/predict", body), bodies))
    for answer, expected in zip(answers, alone, strict=True):
        assert json.loads(answer.body)["churn_probability"] == pytest.approx(expected["churn_probability"], rel=1e-12)
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_a_deadline_holds(sleeper_bundle: Path, app_of: Callable[..., Any]) -> None:
    slow = WsgiApp(app_of(sleeper_bundle, timeout_s=0.2))
    late = call(slow, "POST", "/predict", b'{"seconds": 1}')
    assert (late.status, late.code) == (504, "deadline")
    failed = call(slow, "POST", "/predict", b'{"seconds": -1}')
    assert failed.status in (500, 503)


def test_the_connection_is_left_to_the_server(churn_bundle: Path, app_of: Callable[..., Any]) -> None:
    inner = app_of(churn_bundle)
    inner.drain()
    # PEP 3333 forbids the header, and the validator would say so.
    answer = call(WsgiApp(inner), "GET", "/readyz")
    assert (answer.status, "connection" in answer.headers) == (503, False)


def test_an_app_that_breaks_is_not_waited_for(churn_bundle: Path, app_of: Callable[..., Any]) -> None:
    class Broken:
        gate = app_of(churn_bundle).gate

        def start(self) -> None: ...

        async def __call__(self, *_: Any) -> None:
            raise ZeroDivisionError

    class Silent(Broken):
        async def __call__(self, *_: Any) -> None: ...

    with pytest.raises(ZeroDivisionError):
        call(WsgiApp(Broken()), "GET", "/")
    with pytest.raises(RuntimeError, match="no answer"):
        call(WsgiApp(Silent()), "GET", "/")


def test_settings_come_from_the_environment_and_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, churn_bundle: Path
) -> None:
    config = tmp_path / "fairlead.yaml"
    config.write_text(json.dumps({"models": {"churn": {"source": str(churn_bundle)}}, "web": {"max_body_bytes": 7}}))
    with pytest.raises(ServeError, match="no model to serve"):
        fairlead.web.wsgi()
    monkeypatch.setenv("FAIRLEAD_CONFIG", str(config))
    assert call(fairlead.web.wsgi(), "POST", "/models/churn/predict", b" " * 8).status == 413
    monkeypatch.setenv("FAIRLEAD_WEB_MAX_BODY_BYTES", "8")
    assert call(fairlead.web.wsgi(), "POST", "/predict", b" " * 8).status == 400
    with pytest.raises(ServeError, match="churn: two bundles have this name"):
        fairlead.web.wsgi(churn_bundle)


def test_what_cannot_be_had_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, churn_bundle: Path
) -> None:
    with pytest.raises(BundleError):
        fairlead.web.wsgi(tmp_path)
    config = tmp_path / "fairlead.yaml"
    model = {"source": str(churn_bundle), "isolation": "process"}
    config.write_text(json.dumps({"models": {"churn": model}}))
    monkeypatch.setenv("FAIRLEAD_CONFIG", str(config))
    with pytest.raises(ServeError, match="churn: only `fairlead serve`, which keeps processes for it, has isolation"):
        fairlead.web.asgi()


def test_a_model_that_is_no_bundle_is_built_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LinearRegression

    monkeypatch.setenv("FAIRLEAD_CACHE_DIRECTORY", str(tmp_path / "cache"))
    model = tmp_path / "slope.pkl"
    model.write_bytes(pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])))
    for _ in range(2):  # the second from the cache
        answer = call(fairlead.web.wsgi(model), "POST", "/models/slope/predict", b'{"x0": 2.0}')
        assert answer.status == 200, answer
        assert json.loads(answer.body)["prediction"] == pytest.approx(5.0)


@pytest.mark.parametrize("asked", ["refresh_s: 5", "canary: {source: ../other}", "shadow: {source: ../other}"])
def test_what_needs_a_parent_is_refused(
    churn_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    config = tmp_path / "fairlead.yaml"
    config.write_text(f"models: {{churn: {{source: {churn_bundle}, {asked}}}}}\n")
    monkeypatch.setenv("FAIRLEAD_CONFIG", str(config))
    with pytest.raises(ServeError, match=f"churn: only `fairlead serve`.* has {asked.partition(':')[0]}"):
        fairlead.web.wsgi()
