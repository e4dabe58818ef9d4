from __future__ import annotations

import base64
import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.sources import parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

SOURCES = ["models:/churn@champion", "models:/churn/1", "models:/churn/Production", "runs:/0a1b/model",
           "experiments:/churn", "mlflow-artifacts:/1/model"]  # fmt: skip
VERSION = {
    "model_version": {"name": "churn", "version": "1", "creation_timestamp": 1, "source": "x", "status": "READY"}
}


def answer(status: int, body: object) -> Any:
    def send(request: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.send_header("Content-Type", "text/html" if isinstance(body, bytes) else "application/json")
        request.end_headers()
        request.wfile.write(data)

    return send


def environ(url: str, **more: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": url, "HOME": "/nowhere", **more}


@pytest.mark.parametrize("text", SOURCES)
def test_a_registry_that_is_down(text: str, settings: CacheSettings, free_port: int) -> None:
    with pytest.raises(SourceUnavailable, match=f"http://127.0.0.1:{free_port}/.*no connection"):
        resolve(parse(text), settings, environ(f"http://someone:hidden@127.0.0.1:{free_port}"))


@pytest.mark.parametrize("text", SOURCES)
@pytest.mark.parametrize(("status", "kind"), [(500, SourceUnavailable), (502, SourceUnavailable), (403, SourceDenied)])
def test_what_a_registry_may_answer(
    text: str, status: int, kind: type[SourceError], settings: CacheSettings, peer: Any
) -> None:
    registry = peer(answer(status, {"error_code": "INTERNAL_ERROR", "message": "no"}))
    with pytest.raises(kind, match=f"status {status}"):
        resolve(parse(text), settings, environ(registry.url))
    assert len(registry.requests) == 1


@pytest.mark.parametrize("text", SOURCES)
def test_a_hung_registry(text: str, hasty: CacheSettings, hung: str) -> None:
    started_at = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"silent for 0\.3 s"):
        resolve(parse(text), hasty, environ(hung))
    assert time.monotonic() - started_at < 10


def test_an_answer_that_drips(hasty: CacheSettings, peer: Any) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(100):
            try:
                request.wfile.write(b" ")
            except OSError:
                return
            time.sleep(0.1)

    started_at = time.monotonic()
    with pytest.raises(SourceUnavailable, match="came too slowly"):
        resolve(parse(SOURCES[0]), hasty, environ(peer(drip).url))
    assert time.monotonic() - started_at < 8


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "expected a JSON object, got text/html: see whether this is the address"),
        ({"model_version": {}}, "expected the API of MLflow, got an answer without 'name'"),
        ({}, "expected the API of MLflow, got an answer without 'model_version'"),
        ([], "expected a JSON object, got application/json"),
    ],
)
def test_something_else_than_a_registry(body: object, message: str, settings: CacheSettings, peer: Any) -> None:
    with pytest.raises(SourceError, match=message):
        resolve(parse(SOURCES[0]), settings, environ(peer(answer(200, body)).url))


@pytest.mark.parametrize(
    ("status", "kind"), [("PENDING_REGISTRATION", SourceUnavailable), ("FAILED_REGISTRATION", SourceError)]
)
def test_a_version_that_is_not_ready(status: str, kind: type[SourceError], settings: CacheSettings, peer: Any) -> None:
    body = {"model_version": VERSION["model_version"] | {"status": status}}
    with pytest.raises(kind, match=r"models:/churn/1: .*regist") as caught:
        resolve(parse(SOURCES[0]), settings, environ(peer(answer(200, body)).url))
    assert type(caught.value) is kind


def test_no_registry_is_named(settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match="expected the address of MLflow in MLFLOW_TRACKING_URI"):
        resolve(parse(SOURCES[0]), settings, {})


def test_the_registry_goes_before_the_tracking_server(settings: CacheSettings, peer: Any) -> None:
    registry = peer(answer(200, VERSION))
    found = resolve(
        parse(SOURCES[0]), settings, environ("http://127.0.0.1:1", MLFLOW_REGISTRY_URI=registry.url + "/prefix/")
    )
    assert found.version == "1"
    assert registry.requests == ["GET /prefix/api/2.0/mlflow/registered-models/alias?name=churn&alias=champion"]


def test_credentials_are_sent(settings: CacheSettings, peer: Any, tmp_path: Path) -> None:
    registry = peer(answer(200, VERSION))

    def sent(**more: str) -> str | None:
        resolve(parse(SOURCES[0]), settings, environ(registry.url) | more)
        value: str | None = registry.headers[-1].get("Authorization")
        return value

    basic = "Basic " + base64.b64encode(b"ann:pw").decode()
    user = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pw"}
    assert sent() is None
    assert sent(MLFLOW_TRACKING_TOKEN="t") == "Bearer t"
    assert sent(MLFLOW_TRACKING_TOKEN="t", **user) == basic
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = pw\n"
    )
    assert sent(HOME=str(tmp_path)) == basic
    sent(MLFLOW_WORKSPACE="team")
    assert registry.headers[-1]["X-MLFLOW-WORKSPACE"] == "team"


def test_where_credentials_were_looked_for_is_told_and_they_are_not(settings: CacheSettings, peer: Any) -> None:
    registry = peer(answer(401, {}))
    with pytest.raises(SourceDenied, match=r"wants credentials .*set MLFLOW_TRACKING_USERNAME and .*_TOKEN"):
        resolve(parse(SOURCES[0]), settings, environ(registry.url))
    with pytest.raises(SourceDenied, match="refuses the credentials of MLFLOW_TRACKING_TOKEN") as caught:
        resolve(parse(SOURCES[0]), settings, environ(registry.url, MLFLOW_TRACKING_TOKEN="hidden"))
    assert "hidden" not in str(caught.value)


def test_a_file_of_authorities_that_is_none(settings: CacheSettings, tmp_path: Path) -> None:
    more = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(tmp_path / "none.pem")}
    with pytest.raises(SourceError, match="MLFLOW_TRACKING_SERVER_CERT_PATH: expected a file of certificates"):
        resolve(parse(SOURCES[0]), settings, environ("https://127.0.0.1:1", **more))


def test_artifacts_on_the_servers_own_disk(settings: CacheSettings, peer: Any) -> None:
    def say(request: BaseHTTPRequestHandler) -> None:
        body = VERSION if "alias" in request.path else {"artifact_uri": "/srv/mlruns/1/model"}
        answer(200, body)(request)

    resolved = resolve(parse(SOURCES[0]), settings, environ(peer(say).url))
    with pytest.raises(SourceError, match=r"a folder, which is not on this machine: .*--serve-artifacts"):
        resolved.store.files()
