"""What to serve when nobody names a source: what the environment says, as courses and MLflow's users set it.

Layer L1.
"""

from __future__ import annotations

from collections.abc import Mapping

_SOURCES = {
    "MODEL_LOCATION": "{}",
    "MLFLOW_REGISTERED_MODEL": "models:/{}/Production",
    "RUN_ID": "runs:/{}/model",
    "MLFLOW_EXP_NAME": "experiments:/{}",
}


def default_source(environ: Mapping[str, str]) -> str | None:
    """Give the source that the environment names, if any.

    `MODEL_LOCATION` is one itself and goes first; `MLFLOW_REGISTERED_MODEL` is a model whose Production version is
    meant, `RUN_ID` a run that logged `model`, `MLFLOW_EXP_NAME` an experiment whose newest model is meant.
    """
    given = {name: environ.get(name, "").strip() for name in _SOURCES}
    return next((form.format(given[name]) for name, form in _SOURCES.items() if given[name]), None)
