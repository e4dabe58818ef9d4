"""An MLflow registry over its REST API.

Source: https://mlflow.org/docs/latest/api_reference/rest-api.html

Layer L1; imports httpx when it is used, and never MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fairlead.bundle.sources.registry import Run, Version, access, no_such, no_version, ready
from fairlead.bundle.sources.transport import Refused, Transport, shown
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

_API = "/api/2.0/mlflow/"
_PAGE = 50
_KNOWN = 100

T = TypeVar("T")


class RestRegistry:
    """See `Registry`."""

    def __init__(self, tracking: str, registry: str, settings: CacheSettings, environ: Mapping[str, str]) -> None:
        self.where = shown(registry).rstrip("/")
        self.tracking_uri = tracking
        self._tracking = tracking.rstrip("/") + _API
        self._registry = registry.rstrip("/") + _API
        self._transport = Transport(settings, "mlflow", access(environ))

    def by_alias(self, name: str, alias: str) -> Version:
        try:
            answer = self._get("registered-models/alias", name=name, alias=alias)
        except Refused as error:
            raise self._unknown(f"models:/{name}@{alias}", name, alias) from error
        return self._read(lambda found: _version(found["model_version"]), answer)

    def by_number(self, name: str, number: str) -> Version:
        try:
            answer = self._get("model-versions/get", name=name, version=number)
        except Refused as error:
            raise self._unknown(f"models:/{name}/{number}", name, number) from error
        return self._read(lambda found: _version(found["model_version"]), answer)

    def newest(self, name: str, stage: str | None) -> Version:
        place = f"models:/{name}/{stage or 'latest'}"
        body: dict[str, Any] = {"name": name, "stages": [stage]} if stage else {"name": name}
        try:
            answer = self._post(self._registry, "registered-models/get-latest-versions", body)
        except Refused as error:
            raise self._unknown(place, name, stage or "") from error
        found = self._read(lambda found: [_version(one) for one in found.get("model_versions", [])], answer)
        if not found:
            raise self._unknown(place, name, stage or "")
        return max(found, key=lambda version: int(version.number))

    def download_uri(self, version: Version) -> str:
        try:
            answer = self._get("model-versions/get-download-uri", name=version.name, version=version.number)
        except Refused as error:
            raise self._unknown(f"models:/{version.name}/{version.number}", version.name, version.number) from error
        return self._read(lambda found: str(found["artifact_uri"]), answer)

    def run(self, run_id: str) -> Run:
        try:
            answer = self._transport.json("GET", self._tracking + "runs/get", params={"run_id": run_id})
        except Refused as error:
            raise SourceError(f"there is no run {run_id} at {shown(self.tracking_uri)}: see its id") from error
        return self._read(lambda found: _run(found["run"]), answer)

    def finished_runs(self, experiment: str) -> Iterator[Run]:
        try:
            answer = self._transport.json(
                "GET", self._tracking + "experiments/get-by-name", params={"experiment_name": experiment}
            )
        except Refused as error:
            raise self._unknown_experiment(experiment) from error
        body = {
            "experiment_ids": [self._read(lambda found: found["experiment"]["experiment_id"], answer)],
            "filter": "attributes.status = 'FINISHED'",
            "order_by": ["attributes.end_time DESC"],
            "max_results": _PAGE,
        }
        while True:
            page = self._post(self._tracking, "runs/search", body)
            yield from self._read(lambda found: [_run(run) for run in found.get("runs", [])], page)
            if not page.get("next_page_token"):
                return
            body["page_token"] = page["next_page_token"]

    def logged_model(self, run: Run, name: str) -> str | None:
        quote = '"' if "'" in name else "'"
        body: dict[str, Any] = {
            "experiment_ids": [run.experiment_id],
            "filter": f"name = {quote}{name}{quote}",
            "max_results": _PAGE,
        }
        while True:
            try:
                page = self._post(self._tracking, "logged-models/search", body)
            except Refused:
                return None  # before MLflow 3 there were no logged models
            for info in self._read(lambda found: [model["info"] for model in found.get("models", [])], page):
                if info.get("source_run_id") == run.run_id:
                    return str(info["model_id"])
            if not page.get("next_page_token"):
                return None
            body["page_token"] = page["next_page_token"]

    def logged_model_uri(self, model_id: str) -> str:
        try:
            answer = self._transport.json("GET", f"{self._tracking}logged-models/{model_id}")
        except Refused as error:
            raise SourceError(f"models:/{model_id}: no such logged model at {shown(self.tracking_uri)}") from error
        return self._read(lambda found: str(found["model"]["info"]["artifact_uri"]), answer)

    def _get(self, path: str, **params: str) -> Any:
        return self._transport.json("GET", self._registry + path, params=params)

    def _post(self, base: str, path: str, body: dict[str, Any]) -> Any:
        return self._transport.json("POST", base + path, body=body)

    def _read(self, read: Callable[[dict[str, Any]], T], data: dict[str, Any]) -> T:
        try:
            return read(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"{self.where}: expected the API of MLflow, got an answer without {error}") from error

    def _unknown(self, place: str, name: str, wanted: str) -> SourceError:
        """Say what the registry has instead."""
        try:
            model = self._get("registered-models/get", name=name)["registered_model"]
        except Refused:
            answer = self._get("registered-models/search", max_results=str(_KNOWN))
            names = [one["name"] for one in answer.get("registered_models", [])]
            return no_such("registered model", place, self.where, names, name)
        quote = '"' if "'" in name else "'"
        found = self._get(
            "model-versions/search",
            filter=f"name={quote}{name}{quote}",
            order_by="version_number DESC",
            max_results=str(_KNOWN),
        )
        aliases = {one["alias"]: str(one["version"]) for one in model.get("aliases", [])}
        versions = [str(one["version"]) for one in found.get("model_versions", [])]
        return no_version(place, self.where, aliases, versions, wanted)

    def _unknown_experiment(self, experiment: str) -> SourceError:
        answer = self._post(self._tracking, "experiments/search", {"max_results": _KNOWN})
        names = [one["name"] for one in answer.get("experiments", [])]
        return no_such("experiment", f"experiments:/{experiment}", shown(self.tracking_uri), names, experiment)


def _version(data: dict[str, Any]) -> Version:
    name, number = str(data["name"]), str(data["version"])
    ready(data.get("status", ""), name, number)
    return Version(name, number, str(data.get("source", "")), int(data["creation_timestamp"]))


def _run(data: dict[str, Any]) -> Run:
    info = data["info"]
    outputs = data.get("outputs", {}).get("model_outputs", [])
    model_ids = tuple(str(one["model_id"]) for one in reversed(outputs))
    return Run(str(info["run_id"]), str(info["experiment_id"]), str(info["artifact_uri"]), model_ids)
