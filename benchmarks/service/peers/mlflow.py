"""MLflow's own scoring server."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from peer import APPS, Peer, Place


def environ(place: Place) -> Mapping[str, str]:
    # It looks for uvicorn on PATH.
    path = f"{place.python.parent}{os.pathsep}{os.environ['PATH']}"
    tracking = f"sqlite:///{place.folder / 'mlflow.db'}"
    return {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_TRACKING_URI": tracking}


def prepare(place: Place) -> None:
    shutil.rmtree(place.folder / "model", ignore_errors=True)
    command = [str(place.python), str(APPS / "mlflow_save.py"), str(place.model), str(place.folder / "model")]
    subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environ(place)})


def command(place: Place) -> list[str]:
    called = [place.script("mlflow"), "models", "serve", "-m", str(place.folder / "model"), "-p", str(place.port)]
    return [*called, "--env-manager", "local", "-w", "2"]


PEER = Peer(
    name="mlflow",
    title="MLflow",
    settings="`mlflow models serve --env-manager local -w 2`, the sklearn flavour with `predict_proba`; "
    "`dataframe_records` without a signature, which spares it the schema's checks",
    requirements=("mlflow",),
    versions=("mlflow", "uvicorn"),
    prepare=prepare,
    environ=environ,
    command=command,
    path="/invocations",
    body=lambda record: {"dataframe_records": [record]},
    probability=lambda answer: answer["predictions"][0][1],
)
