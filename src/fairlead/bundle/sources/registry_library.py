"""An MLflow registry through the MLflow library: a database, a folder, Databricks, a plugin's own kind.

Layer L1; imports MLflow when it is used.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fairlead.bundle.sources.registry import Run, Version, no_such, no_version, ready
from fairlead.bundle.sources.transport import shown
from fairlead.errors import SourceDenied, SourceError, SourceUnavailable
from fairlead.extras import require

_DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND", "ENDPOINT_NOT_FOUND", "BAD_REQUEST")
# By themselves a request may take two minutes, and is made eight times.
_BOUNDS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_PAGE = 50
_KNOWN = 100


class LibraryRegistry:
    """See `Registry`."""

    def __init__(self, tracking: str, registry: str) -> None:
        self.where = shown(registry) if "://" in registry else registry
        self.tracking_uri = tracking
        for name, value in _BOUNDS.items():
            os.environ.setdefault(name, value)
        with quiet():
            require("mlflow", "mlflow")
            with asking(self.where):
                self._client: Any = require("mlflow.tracking", "mlflow").MlflowClient(tracking, registry)

    def by_alias(self, name: str, alias: str) -> Version:
        with self._asking_for(f"models:/{name}@{alias}", name, alias):
            return _version(self._client.get_model_version_by_alias(name, alias))

    def by_number(self, name: str, number: str) -> Version:
        with self._asking_for(f"models:/{name}/{number}", name, number):
            return _version(self._client.get_model_version(name, number))

    def newest(self, name: str, stage: str | None) -> Version:
        place = f"models:/{name}/{stage or 'latest'}"
        with self._asking_for(place, name, stage or ""):
            found = self._client.get_latest_versions(name, [stage] if stage else None)
        if not found:
            raise self._unknown(place, name, stage or "")
        return _version(max(found, key=lambda version: int(version.version)))

    def download_uri(self, version: Version) -> str:
        with self._asking_for(f"models:/{version.name}/{version.number}", version.name, version.number):
            return str(self._client.get_model_version_download_uri(version.name, version.number))

    def run(self, run_id: str) -> Run:
        with asking(f"runs:/{run_id}"):
            return _run(self._client.get_run(run_id))

    def finished_runs(self, experiment: str) -> Iterator[Run]:
        with asking(f"experiments:/{experiment}"):
            found = self._client.get_experiment_by_name(experiment)
            if found is None:
                names = [one.name for one in self._client.search_experiments(max_results=_KNOWN)]
                raise no_such("experiment", f"experiments:/{experiment}", self.where, names, experiment)
            token = None
            while True:
                page = self._client.search_runs(
                    [found.experiment_id],
                    filter_string="attributes.status = 'FINISHED'",
                    order_by=["attributes.end_time DESC"],
                    max_results=_PAGE,
                    page_token=token,
                )
                yield from map(_run, page)
                token = page.token
                if not token:
                    return

    def logged_model(self, run: Run, name: str) -> str | None:
        quote = '"' if "'" in name else "'"
        token = None
        with asking(f"runs:/{run.run_id}/{name}"):
            while True:
                page = self._client.search_logged_models(
                    [run.experiment_id], filter_string=f"name = {quote}{name}{quote}", page_token=token
                )
                for model in page:
                    if model.source_run_id == run.run_id:
                        return str(model.model_id)
                token = page.token
                if not token:
                    return None

    def logged_model_uri(self, model_id: str) -> str:
        with asking(f"models:/{model_id}"):
            return str(self._client.get_logged_model(model_id).artifact_location)

    @contextmanager
    def _asking_for(self, place: str, name: str, wanted: str) -> Iterator[None]:
        mlflow = require("mlflow.exceptions", "mlflow")
        try:
            with quiet():
                yield
        except mlflow.MlflowException as error:
            if error.error_code in _UNKNOWN:
                raise self._unknown(place, name, wanted) from error
            raise told(place, error) from error
        except OSError as error:
            raise SourceUnavailable(f"{place}: {self.where} does not answer: {error}") from error

    def _unknown(self, place: str, name: str, wanted: str) -> SourceError:
        mlflow = require("mlflow.exceptions", "mlflow")
        with asking(place):
            try:
                model = self._client.get_registered_model(name)
            except mlflow.MlflowException:
                names = [one.name for one in self._client.search_registered_models(max_results=_KNOWN)]
                return no_such("registered model", place, self.where, names, name)
            quote = '"' if "'" in name else "'"
            found = self._client.search_model_versions(
                f"name={quote}{name}{quote}", max_results=_KNOWN, order_by=["version_number DESC"]
            )
        aliases = {alias: str(version) for alias, version in model.aliases.items()}
        return no_version(place, self.where, aliases, [str(one.version) for one in found], wanted)


@contextmanager
def asking(place: str) -> Iterator[None]:
    """Make fairlead's errors of MLflow's.

    Parameters
    ----------
    place : what is asked for, as the user writes it.
    """
    mlflow = require("mlflow.exceptions", "mlflow")
    try:
        with quiet():
            yield
    except mlflow.MlflowException as error:
        raise told(place, error) from error
    except OSError as error:
        raise SourceUnavailable(f"{place}: MLflow's store does not answer: {error}") from error


def told(place: str, error: Any) -> SourceError:
    """Give the error of fairlead for one of MLflow."""
    said = f"{place}: MLflow says: {error}"
    if error.error_code in _DENIED:
        return SourceDenied(f"{said}: see the credentials for it in the environment")
    return SourceError(said) if error.error_code in _UNKNOWN else SourceUnavailable(said)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what MLflow warns of itself, and of stages, and what it prints, from the user, who did not call it."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    # Read by MLflow when a run ends: it prints the run's address then.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _version(found: Any) -> Version:
    ready(found.status, found.name, str(found.version))
    return Version(found.name, str(found.version), found.source or "", int(found.creation_timestamp))


def _run(found: Any) -> Run:
    outputs = found.outputs.model_outputs if getattr(found, "outputs", None) else []
    model_ids = tuple(one.model_id for one in reversed(outputs))
    return Run(found.info.run_id, found.info.experiment_id, found.info.artifact_uri, model_ids)
