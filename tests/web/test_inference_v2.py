"""The Open Inference Protocol besides inference: metadata, health, and models that come and go."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import fairlead
from fairlead.errors import BundleError

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
ADMIN = {"authorization": "Bearer admin-key"}


@pytest.fixture(scope="module")
def client(in_process: Callable[..., Any], churn_bundle: Path, price_bundle: Path) -> Any:
    return in_process(churn_bundle, price_bundle)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    digests = {name: hashlib.sha256(f"{name}-key".encode()).hexdigest() for name in ("admin", "user")}
    path.write_text(f"admin sha256:{digests['admin']} admin\nuser sha256:{digests['user']}\n")
    return path


def test_server(client: Any) -> None:
    assert client.get("/v2").json() == {
        "name": "fairlead",
        "version": fairlead.__version__,
        "extensions": ["binary_tensor_data", "model_repository"],
    }
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_metadata(client: Any) -> None:
    churn = client.get("/v2/models/churn").json()
    assert churn == {
        "name": "churn",
        "versions": ["1"],
        "platform": "fairlead_onnx",
        "inputs": [
            {"name": "tenure", "datatype": "INT64", "shape": [-1]},
            {"name": "charges", "datatype": "FP64", "shape": [-1]},
            {"name": "contract", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "prediction", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2], "parameters": {"labels": ["0", "1"]}},
            {"name": "churn_probability", "datatype": "FP64", "shape": [-1]},
            {"name": "churn", "datatype": "BOOL", "shape": [-1]},
        ],
    }
    assert client.get("/v2/models/churn/versions/1").json() == churn
    assert client.get("/v2/models/churn/ready").json() == {"name": "churn", "ready": True}
    assert client.get("/v2/models/churn/versions/1/ready").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/churn/versions/2",
        "/v2/models/churn/versions/2/infer",
        "/v2/nowhere",
        "/v1/models/other",
    ],
)
def test_what_is_not_there(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == answer.json()["detail"]


def test_answers_have_the_form_that_metadata_tells(client: Any) -> None:
    for name, record in (("churn", GOOD), ("price", {"size": 2.5, "town": "Gouda"})):
        told = client.get(f"/v2/models/{name}").json()
        inputs = [
            {"name": i["name"], "shape": [1], "datatype": i["datatype"], "data": [record[i["name"]]]}
            for i in told["inputs"]
        ]
        answer = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()
        assert [(o["name"], o["datatype"], len(o["shape"])) for o in answer["outputs"]] == [
            (o["name"], o["datatype"], len(o["shape"])) for o in told["outputs"]
        ]
        assert "id" not in answer


def test_the_index(client: Any) -> None:
    index = client.post("/v2/repository/index").json()
    assert [(one["name"], one["state"], one["reason"]) for one in index] == [
        ("churn", "READY", ""),
        ("price", "READY", ""),
    ]
    assert client.post("/v2/repository/index", json={"ready": True}).json() == index
    assert client.post("/v2/repository/index", content=b"{").status_code == 400
    assert client.post("/v2/repository/index", json={"ready": 3}).status_code == 422
    assert client.get("/v2/repository/index").status_code == 405


def test_changes_need_an_admin_key(in_process: Callable[..., Any], churn_bundle: Path, keys_file: Path) -> None:
    without = in_process(churn_bundle)
    assert without.post("/v2/repository/models/churn/unload").status_code == 403
    client = in_process(churn_bundle, api_keys_file=str(keys_file))
    assert client.post("/v2/repository/models/churn/unload").status_code == 401
    user = {"x-api-key": "user-key"}
    answer = client.post("/v2/repository/models/churn/unload", headers=user)
    assert answer.status_code == 403
    assert "error" in answer.json()
    assert client.post("/predict", json=GOOD, headers=user).status_code == 200


def test_models_come_and_go(
    in_process: Callable[..., Any], churn_bundle: Path, price_bundle: Path, keys_file: Path
) -> None:
    client = in_process(churn_bundle, price_bundle, api_keys_file=str(keys_file))
    before = client.post("/models/churn/predict", json=GOOD, headers=ADMIN).json()
    assert client.post("/v2/repository/models/churn/unload", json={}, headers=ADMIN).json() == {}
    for method, path in (
        ("POST", "/models/churn/predict"),
        ("POST", "/v1/models/churn:predict"),
        ("POST", "/v2/models/churn/infer"),
        ("GET", "/v2/models/churn"),
        ("GET", "/v2/models/churn/ready"),
        ("POST", "/v2/repository/models/churn/unload"),
    ):
        answer = client.request(method, path, headers=ADMIN)
        assert answer.status_code == 404
        assert answer.json()["detail"] == "churn is not loaded: it was unloaded"
    index = client.post("/v2/repository/index", headers=ADMIN).json()
    assert [(one["name"], one["state"], one["reason"]) for one in index] == [
        ("churn", "UNAVAILABLE", "it was unloaded"),
        ("price", "READY", ""),
    ]
    assert [one["name"] for one in client.post("/v2/repository/index", json={"ready": True}, headers=ADMIN).json()] == [
        "price"
    ]
    assert client.get("/readyz").status_code == 200
    # The one that is left is not what /predict means: two models are served.
    assert client.post("/predict", json=GOOD, headers=ADMIN).status_code == 404
    assert "/models/churn/predict" not in client.get("/openapi.json", headers=ADMIN).json()["paths"]
    assert client.post("/v2/repository/models/churn/load", headers=ADMIN).json() == {}
    assert client.post("/models/churn/predict", json=GOOD, headers=ADMIN).json() == before
    assert client.post("/v2/repository/models/other/load", headers=ADMIN).status_code == 404
    config = {"parameters": {"config": "{}"}}
    assert client.post("/v2/repository/models/churn/load", json=config, headers=ADMIN).status_code == 400


def test_without_models_it_is_not_ready(in_process: Callable[..., Any], churn_bundle: Path, keys_file: Path) -> None:
    client = in_process(churn_bundle, api_keys_file=str(keys_file))
    client.post("/v2/repository/models/churn/unload", headers=ADMIN)
    for path in ("/readyz", "/v2/health/ready", "/ping"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
    assert client.get("/v2/health/ready").json()["error"] == "no model is loaded"
    assert client.get("/openapi.json", headers=ADMIN).status_code == 200
    assert client.get("/livez").status_code == 200


def test_a_broken_bundle_leaves_the_old_model(app_of: Callable[..., Any], churn_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "churn"
    shutil.copytree(churn_bundle, copy)
    app = app_of(copy)
    with (copy / "model.onnx").open("ab") as model:
        model.write(b"x")

    async def go() -> httpx.Response:
        with pytest.raises(BundleError):
            await app.control.reload("churn")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post("/predict", json=GOOD)

    assert asyncio.run(go()).status_code == 200
    assert app.served.find("churn").is_ready


def test_requests_under_way_are_answered(app_of: Callable[..., Any], sleeper_bundle: Path) -> None:
    app = app_of(sleeper_bundle)

    async def go() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            first = asyncio.create_task(client.post("/predict", json={"seconds": 0.3}))
            await asyncio.sleep(0.1)
            unloading = asyncio.create_task(app.control.unload("sleeper"))
            await asyncio.sleep(0.05)
            late = await client.post("/predict", json={"seconds": 0.0})
            assert not unloading.done()
            await unloading
            under_way = await first
            second = asyncio.create_task(app.control.reload("sleeper"))
            await second
            # Loaded once more while it answers: the old one goes on until its last answer.
            again = asyncio.create_task(client.post("/predict", json={"seconds": 0.3}))
            await asyncio.sleep(0.1)
            await app.control.reload("sleeper")
            fresh = await client.post("/predict", json={"seconds": 0.0})
            return [under_way.status_code, late.status_code, (await again).status_code, fresh.status_code]

    assert asyncio.run(go()) == [200, 404, 200, 200]
