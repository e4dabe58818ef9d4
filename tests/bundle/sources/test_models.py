from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.sources import Resolved, parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceError
from registry import hand_on

Fetch = Callable[[Resolved], dict[str, bytes]]


@pytest.fixture(scope="module", params=["proxied", "direct"])
def churn(request: pytest.FixtureRequest, mlflow_server: Any, files: Path, tmp_path_factory: Any) -> str:
    """Register a model with two versions; give its name."""
    name, direct = f"churn-{request.param}", request.param == "direct"
    older = tmp_path_factory.mktemp("older")
    (older / "old.txt").write_bytes(b"old")
    mlflow_server.register(older, name, stage="Staging", direct=direct)
    mlflow_server.register(files, name, alias="champion", stage="Production", direct=direct)
    return name


@pytest.mark.parametrize("suffix", ["@champion", "/2", "/Production", "/latest"])
def test_every_form_comes_to_the_version(
    suffix: str, churn: str, mlflow_server: Any, settings: CacheSettings, content: dict[str, bytes], fetch: Fetch
) -> None:
    resolved = resolve(parse(f"models:/{churn}{suffix}"), settings, mlflow_server.environ)

    assert (resolved.name, resolved.version, resolved.source) == (churn, "2", f"models:/{churn}{suffix}")
    assert resolved.key == resolve(parse(f"models:/{churn}/2"), settings, mlflow_server.environ).key
    assert fetch(resolved) == content
    if suffix == "/Production":
        (warning,) = resolved.warnings
        assert f"use models:/{churn}@champion" in warning
    else:
        assert resolved.warnings == ()


def test_another_version_is_another_key(churn: str, mlflow_server: Any, settings: CacheSettings, fetch: Fetch) -> None:
    older = resolve(parse(f"models:/{churn}/Staging"), settings, mlflow_server.environ)

    assert older.version == "1"
    assert older.key != resolve(parse(f"models:/{churn}/2"), settings, mlflow_server.environ).key
    assert fetch(older) == {"old.txt": b"old"}


def test_resolving_is_one_request(churn: str, mlflow_server: Any, settings: CacheSettings, peer: Any) -> None:
    between = peer(lambda request: hand_on(request, mlflow_server.url))
    environ = mlflow_server.environ | {"MLFLOW_TRACKING_URI": between.url + "/"}
    for suffix in ("@champion", "/2", "/Production", "/latest"):
        between.requests.clear()
        resolve(parse(f"models:/{churn}{suffix}"), settings, environ)
        assert len(between.requests) == 1


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("@champoin", r"aliases: champion \(version 2\); versions: 2, 1\): did you mean champion\?"),
        ("/9", r"aliases: champion \(version 2\); versions: 2, 1\)"),
        ("/Archived", r"models:/churn-.*/Archived: .*versions: 2, 1"),
    ],
)
def test_what_there_is_instead_is_told(
    suffix: str, expected: str, churn: str, mlflow_server: Any, settings: CacheSettings
) -> None:
    with pytest.raises(SourceError, match=expected) as caught:
        resolve(parse(f"models:/{churn}{suffix}"), settings, mlflow_server.environ)
    assert type(caught.value) is SourceError
    assert mlflow_server.url in str(caught.value)


@pytest.mark.parametrize("suffix", ["@champion", "/1", "/Production", "/latest"])
def test_an_unknown_name_is_told_with_the_nearest(
    suffix: str, churn: str, mlflow_server: Any, settings: CacheSettings
) -> None:
    wrong = churn.replace("churn", "chrun")
    with pytest.raises(SourceError, match=rf"no such registered model .*: did you mean {churn}\?"):
        resolve(parse(f"models:/{wrong}{suffix}"), settings, mlflow_server.environ)


def test_a_name_registered_anew_is_another_key(mlflow_server: Any, settings: CacheSettings, files: Path) -> None:
    mlflow_server.register(files, "anew")
    first = resolve(parse("models:/anew/1"), settings, mlflow_server.environ)
    mlflow_server.call("DELETE", "registered-models/delete", name="anew")
    mlflow_server.register(files, "anew")

    assert resolve(parse("models:/anew/1"), settings, mlflow_server.environ).key != first.key


@pytest.mark.parametrize("direct", [False, True])
def test_a_model_that_mlflow_logged(
    direct: bool, mlflow_server: Any, settings: CacheSettings, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.linear_model import LogisticRegression

    name = f"logged-{direct}"
    for variable, value in mlflow_server.environ.items():
        monkeypatch.setenv(variable, value)
    experiment = mlflow_server.experiment(name, direct=direct)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        mlflow.set_tracking_uri(mlflow_server.url)
        with mlflow.start_run(experiment_id=experiment) as run:
            model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
            mlflow.sklearn.log_model(
                model,
                name="model",
                registered_model_name=name,
                await_registration_for=0,
                serialization_format="pickle",
                pip_requirements=["scikit-learn"],
            )
    places = [f"models:/{name}/1", f"runs:/{run.info.run_id}/model", f"experiments:/{name}"]
    found = [fetch(resolve(parse(place), settings, mlflow_server.environ)) for place in places]

    assert {"MLmodel", "model.pkl"} <= found[0].keys()
    assert found[0] == found[1] == found[2]
    one = resolve(parse(f"runs:/{run.info.run_id}/model/model.pkl"), settings, mlflow_server.environ)
    assert fetch(one) == {"model.pkl": found[0]["model.pkl"]}
    assert one.store.files()[0].alone


def test_a_version_made_of_another(
    mlflow_server: Any, settings: CacheSettings, files: Path, content: dict[str, bytes], fetch: Fetch
) -> None:
    mlflow_server.register(files, "original")
    mlflow_server.call("POST", "registered-models/create", name="promoted")
    mlflow_server.call("POST", "model-versions/create", name="promoted", source="models:/original/1")

    assert fetch(resolve(parse("models:/promoted/1"), settings, mlflow_server.environ)) == content
