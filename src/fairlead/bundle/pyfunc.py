"""The door through which `mlflow.pyfunc.load_model` and `spark_udf` come in.

MLflow imports this module by the name in `MLmodel`, and calls `_load_pyfunc`.

Source: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.pyfunc.html#filesystem-format
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from fairlead.bundle.sources.artifacts import META
from fairlead.predict.predictor import Predictor, load


class PyfuncModel:
    """Answers MLflow as `fairlead.load(…).predict` would."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Predict a pandas frame or a list of records; `params` are MLflow's and have no use here."""
        del params
        return self.predictor.predict(model_input)


def _load_pyfunc(path: str) -> PyfuncModel:
    # MLflow notes in its copy of a registered model where it got it. The bundle knows no such file.
    with suppress(OSError):
        (Path(path) / META).unlink()
    return PyfuncModel(load(path))
