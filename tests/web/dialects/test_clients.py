"""Stock clients of other servers, against a running one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

import fairlead

ROWS: list[dict[str, Any]] = [
    {"tenure": 41, "charges": 79.85, "contract": "yearly"},
    {"tenure": 1, "charges": None, "contract": "Größe"},
]


@pytest.fixture(scope="module")
def served(start: Callable[..., Any], churn_bundle: Path) -> Iterator[Any]:
    with start(churn_bundle) as running:
        yield running.wait_until_ready()


@pytest.fixture(scope="module")
def expected(churn_bundle: Path) -> list[Any]:
    return fairlead.load(churn_bundle).run(ROWS).predictions


# gevent, which tritonclient builds on, changes the process that it is imported in: it gets one of its own.
TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

client = triton.InferenceServerClient(sys.argv[1])
told = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model": [client.is_model_ready("churn"), client.is_model_ready("churn", "1"), client.is_model_ready("other")],
    "server": client.get_server_metadata(),
    "metadata": client.get_model_metadata("churn"),
    "index": client.get_model_repository_index(),
}

def inputs(binary):
    tenure = triton.InferInput("tenure", [2], "INT64")
    tenure.set_data_from_numpy(np.array([41, 1]), binary_data=binary)
    charges = triton.InferInput("charges", [2, 1], "FP64")
    charges.set_data_from_numpy(np.array([[79.85], [np.nan]]), binary_data=binary)
    contract = triton.InferInput("contract", [2], "BYTES")
    contract.set_data_from_numpy(np.array(["yearly".encode(), "Größe".encode()], dtype=object), binary_data=binary)
    return [tenure, charges, contract]

def answers(result):
    return {name: result.as_numpy(name).tolist() for name in ("prediction", "probabilities", "churn")}

told["binary"] = answers(client.infer("churn", inputs(True), request_id="42"))
told["json"] = answers(client.infer("churn", inputs(False), model_version="1"))
told["packed"] = answers(client.infer("churn", inputs(True), request_compression_algorithm="gzip"))
told["later"] = answers(client.async_infer("churn", inputs(True)).get_result())
wanted = [triton.InferRequestedOutput("churn", binary_data=False), triton.InferRequestedOutput("prediction")]
some = client.infer("churn", inputs(True), outputs=wanted, request_id="43").get_response()
told["some"] = [some["id"], some["model_name"], some["model_version"], [o["name"] for o in some["outputs"]]]
told["errors"] = []
for wrong in (
    lambda: client.infer("churn", inputs(True)[:2]),
    lambda: client.infer("churn", inputs(True), outputs=[triton.InferRequestedOutput("nothing")]),
    lambda: client.infer("other", inputs(True)),
    lambda: client.get_model_metadata("churn", "2"),
    lambda: client.unload_model("churn"),
):
    try:
        wrong()
    except InferenceServerException as error:
        told["errors"].append([error.status(), error.message()])
print(json.dumps(told))
"""


def test_tritonclient(served: Any, expected: list[Any]) -> None:
    address = served.url.removeprefix("http://")
    done = subprocess.run([sys.executable, "-c", TRITON, address], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["live"]
    assert told["ready"]
    assert told["model"] == [True, True, False]
    assert told["server"]["extensions"] == ["binary_tensor_data", "model_repository"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in told["metadata"]["inputs"]] == [
        ("tenure", "INT64", [-1]),
        ("charges", "FP64", [-1]),
        ("contract", "BYTES", [-1]),
    ]
    assert told["index"] == [{"name": "churn", "version": "1", "state": "READY", "reason": ""}]
    for form in ("binary", "json", "packed", "later"):
        found = told[form]
        assert found["prediction"] == [one["prediction"] for one in expected]
        assert found["churn"] == [one["churn"] for one in expected]
        assert found["probabilities"] == [pytest.approx(list(one["probabilities"].values()), 1e-12) for one in expected]
    assert told["some"] == ["43", "churn", "1", ["churn", "prediction"]]
    assert [status for status, _ in told["errors"]] == ["422", "422", "404", "404", "403"]
    assert told["errors"][0][1] == "1 problem in the tensors"


@pytest.mark.parametrize("params", [None, {"temperature": 1}])
def test_mlflow_client(served: Any, churn_bundle: Path, params: Any) -> None:
    client = ScoringServerClient("127.0.0.1", served.port)
    client.wait_server_ready(timeout=10)
    assert client.get_version() == fairlead.__version__
    frame = pd.DataFrame(ROWS)
    answer = client.invoke(frame, params=params)
    local = mlflow.pyfunc.load_model(str(churn_bundle)).predict(frame)
    remote = answer.get_predictions()
    assert list(remote.columns) == list(local.columns)
    assert remote.to_dict("records") == [pytest.approx(one, 1e-12) for one in local.to_dict("records")]
    as_list = client.invoke([list(row.values()) for row in ROWS], params=params).get_predictions()
    assert as_list.to_dict("records") == remote.to_dict("records")


def test_requests(served: Any, expected: list[Any]) -> None:
    answer = requests.post(f"{served.url}/v1/models/churn:predict", json={"instances": ROWS}, timeout=10)
    assert answer.json() == {"predictions": expected}
    assert requests.get(f"{served.url}/v1/models", timeout=10).json() == {"models": ["churn"]}
    assert requests.get(f"{served.url}/v1/models/churn", timeout=10).json() == {"name": "churn", "ready": True}
    assert requests.get(f"{served.url}/ping", timeout=10).status_code == 200


def test_curl(served: Any, expected: list[Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    pd.DataFrame(ROWS).to_csv(rows, index=False)
    command = ["curl", "-sS", f"{served.url}/predict", "-H", "Content-Type: text/csv", "--data-binary", f"@{rows}"]
    assert json.loads(subprocess.check_output(command, timeout=20)) == expected
    lines = subprocess.check_output([*command, "-H", "Accept: text/csv"], timeout=20, text=True).splitlines()
    assert lines[0].startswith("prediction,probabilities.0")
    assert len(lines) == 3
