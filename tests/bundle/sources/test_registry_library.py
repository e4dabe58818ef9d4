from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.sources import Resolved, parse, resolve
from fairlead.bundle.sources.library_store import LibraryStore
from fairlead.config import CacheSettings
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

Fetch = Callable[[Resolved], dict[str, bytes]]


@pytest.fixture(scope="module")
def environ(files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make a registry that is a database, with artifacts in a folder; one model with two versions."""
    pytest.importorskip("sqlalchemy")
    home = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{home}/mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.create_experiment("churn", artifact_location=(home / "artifacts").as_uri())
        run = client.create_run(experiment).info
        client.log_artifacts(run.run_id, str(files), "model")
        client.set_terminated(run.run_id)
        client.create_registered_model("churn")
        for _ in range(2):
            client.create_model_version("churn", f"{run.artifact_uri}/model", run.run_id)
        client.set_registered_model_alias("churn", "champion", "1")
        client.transition_model_version_stage("churn", "1", "Production")
    return {"MLFLOW_TRACKING_URI": uri, "RUN": run.run_id}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("models:/churn@champion", "1"),
        ("models:/churn/2", "2"),
        ("models:/churn/Production", "1"),
        ("models:/churn/latest", "2"),
        ("runs:/RUN/model", None),
        ("experiments:/churn", None),
    ],
)
def test_every_form(
    text: str, version: str | None, environ: dict[str, str], settings: CacheSettings, content: Any, fetch: Fetch
) -> None:
    resolved = resolve(parse(text.replace("RUN", environ["RUN"])), settings, environ)
    assert resolved.version == version
    assert fetch(resolved) == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models:/churn@champoin", r"aliases: champion \(version 1\); versions: 2, 1\): did you mean champion\?"),
        ("models:/churn/9", r"versions: 2, 1\)"),
        ("models:/churn/Staging", r"versions: 2, 1\)"),
        ("models:/chrun/latest", r"no such registered model .*: did you mean churn\?"),
        ("runs:/0a1b/model", "0a1b"),
        ("runs:/RUN/modle", "not on this machine"),
        ("experiments:/chrun", r"no such experiment .*: did you mean churn\?"),
    ],
)
def test_what_is_not_there(text: str, message: str, environ: dict[str, str], settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        resolve(parse(text.replace("RUN", environ["RUN"])), settings, environ)
    assert type(caught.value) is SourceError


def test_what_mlflow_left_in_the_folder_is_no_file_of_the_model(
    environ: dict[str, str], settings: CacheSettings, content: Any, fetch: Fetch
) -> None:
    resolved = resolve(parse("models:/churn@champion"), settings, environ)
    path = Path(environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).parent / "artifacts"
    meta = path / environ["RUN"] / "artifacts" / "model" / "registered_model_meta"
    meta.write_text("model_name: churn\n")
    try:
        assert fetch(resolved) == content
    finally:
        meta.unlink()


def test_a_store_that_only_the_library_knows(environ: dict[str, str], files: Path, content: dict[str, bytes]) -> None:
    store = LibraryStore(files.as_uri(), environ["MLFLOW_TRACKING_URI"])
    found = store.files()
    assert {file.name: b"".join(store.read(file, 0)) for file in found} == content
    assert b"".join(store.read(found[1], 500_000)) == content[found[1].name][500_000:]


@pytest.mark.parametrize(("status", "kind"), [(403, SourceDenied), (500, SourceUnavailable)])
def test_what_a_server_may_answer_the_library(
    status: int, kind: type[SourceError], settings: CacheSettings, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: Any) -> None:
        request.send_response(status)
        data = b'{"error_code": "%s", "message": "no"}' % (b"PERMISSION_DENIED" if status == 403 else b"INTERNAL_ERROR")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # A way to come in that only the library knows.
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", "")
    environ = {"MLFLOW_TRACKING_URI": peer(refuse).url, "MLFLOW_TRACKING_CLIENT_CERT_PATH": "client.pem"}
    with pytest.raises(kind):
        resolve(parse("models:/churn@champion"), settings, environ)
