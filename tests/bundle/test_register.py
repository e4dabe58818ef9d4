from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildReport
from fairlead.bundle.read import open_bundle
from fairlead.bundle.register import DIGEST_TAG, register
from fairlead.bundle.sources import parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import BundleError, SourceError, SourceUnavailable
from registry import hand_on

SETTINGS = CacheSettings()


@pytest.fixture(params=["onnx", "native"])
def bundle(
    request: pytest.FixtureRequest, build_here: Callable[..., BuildReport], small_tree: Any, numbers_only: pd.DataFrame
) -> Path:
    return build_here(small_tree, engine=request.param, data=numbers_only).path


@pytest.fixture
def environ(mlflow_server: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Have the library find the servers, as it does in a user's environment."""
    for name, value in mlflow_server.environ.items():
        monkeypatch.setenv(name, value)
    found: dict[str, str] = mlflow_server.environ
    return found


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def versions(server: Any, name: str) -> list[Any]:
    found = server.call("GET", "model-versions/search", filter=f"name='{name}'")
    return list(found.get("model_versions", []))


@pytest.mark.parametrize("direct", [False, True])
def test_a_bundle_comes_back_byte_for_byte_and_mlflow_loads_it(
    direct: bool, bundle: Path, mlflow_server: Any, environ: dict[str, str], numbers_only: pd.DataFrame, request: Any
) -> None:
    name = f"bundle-{request.node.callspec.id}"
    mlflow_server.experiment(name, direct=direct)

    registered = register(bundle, f"models:/{name}", "champion", SETTINGS, environ | {"MLFLOW_EXPERIMENT_NAME": name})

    assert (registered.name, registered.version, registered.is_new) == (name, "1", True)
    assert registered.source == f"models:/{name}@champion"
    assert registered.digest == open_bundle(bundle).digest
    store = resolve(parse(registered.source), SETTINGS, environ).store
    assert {file.name: b"".join(store.read(file, 0)) for file in store.files()} == files_of(bundle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        mlflow.set_tracking_uri(mlflow_server.url)
        found = mlflow.pyfunc.load_model(registered.source).predict(numbers_only)
    pd.testing.assert_frame_equal(found, fairlead.load(bundle).predict(numbers_only))
    (run,) = mlflow_server.call("POST", "runs/search", experiment_ids=[_experiment(mlflow_server, name)])["runs"]
    assert run["info"]["status"] == "FINISHED"


def _experiment(server: Any, name: str) -> str:
    return str(server.call("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"])


@pytest.fixture
def tree(build_here: Callable[..., BuildReport], small_tree: Any) -> Path:
    return build_here(small_tree).path


def test_the_same_bundle_is_registered_once(tree: Path, mlflow_server: Any, environ: dict[str, str]) -> None:
    first = register(tree, "models:/once", None, SETTINGS, environ)
    assert first.source == "models:/once/1"
    again = register(tree, "models:/once", "champion", SETTINGS, environ)

    assert (again.version, again.is_new, again.source) == ("1", False, "models:/once@champion")
    (version,) = versions(mlflow_server, "once")
    assert version["tags"] == [{"key": DIGEST_TAG, "value": again.digest}]
    led = mlflow_server.call("GET", "registered-models/alias", name="once", alias="champion")["model_version"]
    assert led["version"] == "1"


def test_a_version_whose_files_are_lost_is_not_taken_for_the_bundle(
    tree: Path, mlflow_server: Any, environ: dict[str, str]
) -> None:
    register(tree, "models:/lost", "champion", SETTINGS, environ)
    (version,) = versions(mlflow_server, "lost")
    prefix = version["source"].replace("mlflow-artifacts:/", "proxied/")
    mlflow_server.s3.client.put_object(Bucket="models", Key=f"{prefix}/input_example.json", Body=b"{}")

    again = register(tree, "models:/lost", "champion", SETTINGS, environ)

    assert (again.version, again.is_new) == ("2", True)


def test_a_changed_bundle_is_refused(tree: Path, tmp_path: Path, mlflow_server: Any, environ: dict[str, str]) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(tree, changed)
    (changed / "input_example.json").write_text("{}")

    with pytest.raises(BundleError, match=r"input_example\.json: changed since the bundle was built"):
        register(changed, "models:/changed", "champion", SETTINGS, environ)
    assert versions(mlflow_server, "changed") == []


@pytest.mark.parametrize(
    ("target", "alias", "message"),
    [
        ("churn", None, "expected models:/NAME, a model's name"),
        ("models:/churn@champion", None, "expected models:/NAME, a model's name"),
        ("models:/churn/1", None, "expected models:/NAME, a model's name"),
        ("models:/churn", "v1", "expected an alias"),
        ("models:/churn", "Latest", "expected an alias"),
        ("models:/churn", "a b", "expected an alias"),
    ],
)
def test_wrong_forms(target: str, alias: str | None, message: str, tree: Path) -> None:
    with pytest.raises(SourceError, match=message):
        register(tree, target, alias, SETTINGS, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"})


def test_a_registry_that_is_down(tree: Path, free_port: int) -> None:
    with pytest.raises(SourceUnavailable, match="no connection"):
        register(tree, "models:/churn", None, SETTINGS, {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port}"})


def test_files_that_cannot_be_put_there(tree: Path, mlflow_server: Any, environ: dict[str, str]) -> None:
    register(tree, "models:/steady", "champion", SETTINGS, environ)
    experiment = mlflow_server.call(
        "POST", "experiments/create", name="nowhere", artifact_location="s3://no-such-bucket/x"
    )["experiment_id"]

    with pytest.raises(SourceError, match="could not be put there"):
        register(tree, "models:/unsteady", "champion", SETTINGS, environ | {"MLFLOW_EXPERIMENT_NAME": "nowhere"})

    assert versions(mlflow_server, "unsteady") == []
    (run,) = mlflow_server.call("POST", "runs/search", experiment_ids=[experiment])["runs"]
    assert run["info"]["status"] == "FAILED"


def test_an_alias_that_is_not_moved_is_told(
    tree: Path, mlflow_server: Any, environ: dict[str, str], peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def without_aliases(request: BaseHTTPRequestHandler) -> None:
        if request.command == "POST" and request.path.endswith("registered-models/alias"):
            request.send_error(500)
        else:
            hand_on(request, mlflow_server.url)

    url = peer(without_aliases).url
    with pytest.raises(SourceUnavailable, match="version 1 is registered, but the alias was not moved"):
        register(tree, "models:/no-alias", "champion", SETTINGS, environ | {"MLFLOW_TRACKING_URI": url})
    (version,) = versions(mlflow_server, "no-alias")
    assert version["version"] == "1"
    assert "aliases" not in mlflow_server.call("GET", "registered-models/get", name="no-alias")["registered_model"]
    assert register(tree, "models:/no-alias", "champion", SETTINGS, environ).version == "1"
