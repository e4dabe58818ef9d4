from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.bundle.sources import Resolved, parse, resolve
from fairlead.config import CacheSettings
from fairlead.errors import SourceError

Fetch = Callable[[Resolved], dict[str, bytes]]


@pytest.fixture(scope="module", params=["proxied", "direct"])
def run_id(request: pytest.FixtureRequest, mlflow_server: Any, files: Path) -> str:
    run: str = mlflow_server.run(files, direct=request.param == "direct")
    return run


def test_what_a_run_logged(
    run_id: str, mlflow_server: Any, settings: CacheSettings, content: dict[str, bytes], fetch: Fetch
) -> None:
    whole = resolve(parse(f"runs:/{run_id}/model"), settings, mlflow_server.environ)
    assert fetch(whole) == content
    assert not any(file.alone for file in whole.store.files())
    assert (whole.name, whole.version) == ("model", None)

    one = resolve(parse(f"runs:/{run_id}/model/model.pkl"), settings, mlflow_server.environ)
    assert fetch(one) == {"model.pkl": content["model.pkl"]}
    assert [file.alone for file in one.store.files()] == [True]

    part = resolve(parse(f"runs:/{run_id}/model/data"), settings, mlflow_server.environ)
    assert fetch(part) == {"sub folder/ü.txt": content["data/sub folder/ü.txt"]}
    assert len({whole.key, one.key, part.key}) == 3


def test_the_key_follows_the_files(run_id: str, mlflow_server: Any, settings: CacheSettings) -> None:
    source = parse(f"runs:/{run_id}/model")
    key = resolve(source, settings, mlflow_server.environ).key
    assert key == resolve(source, settings, mlflow_server.environ).key

    where = mlflow_server.call("GET", "runs/get", run_id=run_id)["run"]["info"]["artifact_uri"]
    prefix = where.replace("mlflow-artifacts:/", "s3://models/proxied/").removeprefix("s3://models/")
    mlflow_server.s3.client.put_object(Bucket="models", Key=f"{prefix}/model/more.txt", Body=b"more")
    assert key != resolve(source, settings, mlflow_server.environ).key
    mlflow_server.s3.client.delete_object(Bucket="models", Key=f"{prefix}/model/more.txt")


def test_a_folder_with_a_file_of_its_own_name(
    mlflow_server: Any, settings: CacheSettings, tmp_path: Path, fetch: Fetch
) -> None:
    (tmp_path / "model").write_bytes(b"inside")
    run_id = mlflow_server.run(tmp_path, path="model")

    found = resolve(parse(f"runs:/{run_id}/model"), settings, mlflow_server.environ)

    assert [(file.name, file.alone) for file in found.store.files()] == [("model", False)]
    assert fetch(found) == {"model": b"inside"}


def test_what_is_not_there(run_id: str, mlflow_server: Any, settings: CacheSettings) -> None:
    with pytest.raises(SourceError, match=r"runs:/0a1b/model: there is no run 0a1b at http://"):
        resolve(parse("runs:/0a1b/model"), settings, mlflow_server.environ)
    with pytest.raises(SourceError, match=rf"runs:/{run_id}/mode: .*nothing is there"):
        resolve(parse(f"runs:/{run_id}/mode"), settings, mlflow_server.environ)


@pytest.mark.parametrize("direct", [False, True])
def test_the_newest_model_of_an_experiment(
    direct: bool, mlflow_server: Any, settings: CacheSettings, files: Path, tmp_path: Path, fetch: Fetch
) -> None:
    name = f"taxi/{direct}"
    experiment = mlflow_server.experiment(name, direct=direct)
    with pytest.raises(SourceError, match=f"experiments:/{name}: none of .* finished runs has a model"):
        resolve(parse(f"experiments:/{name}"), settings, mlflow_server.environ)

    (tmp_path / "newer.txt").write_bytes(b"newer")
    mlflow_server.run(files, experiment=experiment)
    mlflow_server.run(tmp_path, experiment=experiment)
    mlflow_server.run(files, experiment=experiment, path="plots")
    unfinished = mlflow_server.run(files, experiment=experiment)
    mlflow_server.call("POST", "runs/update", run_id=unfinished, status="FAILED")

    found = resolve(parse(f"experiments:/{name}"), settings, mlflow_server.environ)
    assert fetch(found) == {"newer.txt": b"newer"}
    assert (found.name, found.version) == (str(direct), None)


def test_an_unknown_experiment(mlflow_server: Any, settings: CacheSettings) -> None:
    mlflow_server.experiment("ride-duration")
    with pytest.raises(SourceError, match=r"no such experiment .*ride-duration.*: did you mean ride-duration\?"):
        resolve(parse("experiments:/ride_duration"), settings, mlflow_server.environ)
