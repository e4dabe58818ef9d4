"""MLServer with its scikit-learn runtime and adaptive batching."""

import json
from collections.abc import Mapping
from typing import Any

from peer import Peer, Place, Record
from server import free_port


def prepare(place: Place) -> None:
    settings = {"host": "127.0.0.1", "debug": False, "parallel_workers": 0, "load_models_at_startup": True}
    model = {
        "name": "telco",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "max_batch_size": 64,
        "max_batch_time": 0.005,
        "parameters": {"uri": str(place.model)},
    }
    (place.folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (place.folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")


def environ(place: Place) -> Mapping[str, str]:
    ports = {"HTTP": place.port, "GRPC": free_port(), "METRICS": free_port()}
    return {f"MLSERVER_{kind}_PORT": str(port) for kind, port in ports.items()}


def body(record: Record) -> Any:
    inputs = [_input(name, value) for name, value in record.items()]
    return {"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": [{"name": "predict_proba"}]}


def _input(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        kind: dict[str, Any] = {"datatype": "BYTES", "parameters": {"content_type": "str"}}
    else:
        kind = {"datatype": "INT64" if isinstance(value, int) else "FP64"}
    return {"name": name, "shape": [1, 1], "data": [value], **kind}


PEER = Peer(
    name="mlserver",
    title="MLServer",
    settings="mlserver-sklearn, `max_batch_size 64, max_batch_time 0.005, parallel_workers 0` (with more its "
    "workers die under today's uvloop), `debug` off; the V2 protocol, one input a column",
    requirements=("mlserver>=1.7,<1.8", "mlserver-sklearn>=1.7,<1.8"),
    versions=("mlserver", "mlserver-sklearn", "fastapi"),
    prepare=prepare,
    environ=environ,
    command=lambda place: [place.script("mlserver"), "start", str(place.folder)],
    path="/v2/models/telco/infer",
    body=body,
    probability=lambda answer: answer["outputs"][0]["data"][1],
)
