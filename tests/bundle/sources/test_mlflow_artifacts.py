from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.sources import NoResume, Resolved, parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceDenied, SourceError

Fetch = Callable[[Resolved], dict[str, bytes]]


@pytest.fixture(scope="module")
def path(mlflow_server: Any, files: Path) -> str:
    run_id = mlflow_server.run(files, path="churn")
    uri: str = mlflow_server.call("GET", "runs/get", run_id=run_id)["run"]["info"]["artifact_uri"]
    return uri.removeprefix("mlflow-artifacts:/") + "/churn"


def test_files_through_the_server(
    path: str, mlflow_server: Any, settings: CacheSettings, content: dict[str, bytes], fetch: Fetch
) -> None:
    host = mlflow_server.url.removeprefix("http://")
    for text in (f"mlflow-artifacts:/{path}", f"mlflow-artifacts://{host}/{path}"):
        resolved = resolve(parse(text), settings, mlflow_server.environ)
        assert fetch(resolved) == content
        assert resolved.name == "churn"
        with pytest.raises(NoResume):
            list(resolved.store.read(resolved.store.files()[0], 1))


def test_one_file(path: str, mlflow_server: Any, settings: CacheSettings, content: dict[str, bytes]) -> None:
    resolved = resolve(parse(f"mlflow-artifacts:/{path}/model.pkl"), settings, mlflow_server.environ)
    (file,) = resolved.store.files()
    assert (file.name, file.alone) == ("model.pkl", True)
    assert b"".join(resolved.store.read(file, 0)) == content["model.pkl"]


def test_what_is_not_there(mlflow_server: Any, settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match="mlflow-artifacts/artifacts/no/where: nothing is there"):
        resolve(parse("mlflow-artifacts:/no/where"), settings, mlflow_server.environ)


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db"])
def test_a_server_is_needed(uri: str, settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match=r"expected the address of an MLflow server in MLFLOW_TRACKING_URI"):
        resolve(parse("mlflow-artifacts:/1/model"), settings, {"MLFLOW_TRACKING_URI": uri})


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "/etc/passwd", "a\\b", ""])
@pytest.mark.parametrize("is_dir", [True, False])
def test_unsafe_names_are_refused(name: str, is_dir: bool, settings: CacheSettings, peer: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        data = json.dumps({"files": [{"path": name, "is_dir": is_dir, "file_size": 1}]}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    with pytest.raises(SourceError, match="expected the relative name of a file"):
        resolve(parse("mlflow-artifacts:/1/model"), settings, {"MLFLOW_TRACKING_URI": peer(answer).url})


def test_folders_without_end_are_refused(settings: CacheSettings, peer: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        entries = [{"path": f"d{number}", "is_dir": True} for number in range(30_000)]
        data = json.dumps({"files": entries}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    with pytest.raises(SourceError, match="got more than 20000 files"):
        resolve(parse("mlflow-artifacts:/1/model"), settings, {"MLFLOW_TRACKING_URI": peer(answer).url})


def test_credentials_go_to_the_tracking_server_alone(settings: CacheSettings, peer: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(401)
        request.send_header("Content-Length", "0")
        request.end_headers()

    tracking, other = peer(answer), peer(answer)
    environ = {"MLFLOW_TRACKING_URI": tracking.url, "MLFLOW_TRACKING_TOKEN": "hidden"}
    with pytest.raises(SourceDenied, match="refuses the credentials of MLFLOW_TRACKING_TOKEN"):
        resolve(parse("mlflow-artifacts:/1/model"), settings, environ)
    with pytest.raises(SourceDenied, match="credentials for one server are not sent to another"):
        resolve(parse(f"mlflow-artifacts://{other.url.removeprefix('http://')}/1/model"), settings, environ)
    assert tracking.headers[0]["Authorization"] == "Bearer hidden"
    assert "Authorization" not in other.headers[0]
