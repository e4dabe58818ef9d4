"""Put a bundle into an MLflow registry: its files as they are, as what a run logged, and a version made of them.

An alias is moved only after every byte was read back, so none ever leads to half a bundle. Layer L1; imports MLflow
when it is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.bundle.manifest import DESCRIPTOR
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.bundle.sources import artifacts, models, registry
from fairlead.bundle.sources.registry import Registry
from fairlead.bundle.sources.registry_library import asking, quiet
from fairlead.bundle.sources.store import Store, at
from fairlead.errors import FairleadError, SourceDenied, SourceError, SourceUnavailable
from fairlead.extras import require

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

DIGEST_TAG = "fairlead.digest"
_PATH = "model"
_ALIAS = re.compile(r"(?!(?:latest|v\d+)\Z)[\w-]{1,255}", re.IGNORECASE)


@dataclass(frozen=True)
class Registered:
    """A version of a registered model that is a bundle.

    Parameters
    ----------
    version : the registry's number.
    alias : that leads to it now; None if none was asked for.
    digest : of the bundle.
    is_new : whether the version was made now; else the same bundle was there already.
    """

    name: str
    version: str
    alias: str | None
    digest: str
    is_new: bool

    @property
    def source(self) -> str:
        """How to get it back."""
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"


def register(
    directory: Path, target: str, alias: str | None, settings: CacheSettings, environ: Mapping[str, str]
) -> Registered:
    """Make a bundle a version of a registered model, and lead an alias to it.

    A bundle that is there already is not put there again.

    Parameters
    ----------
    directory : the bundle.
    target : ``models:/NAME``; the model is made if it is not there.
    alias : moved from the version that has it; None moves none.
    environ : names the registry, and with `MLFLOW_EXPERIMENT_NAME` the experiment of the run, else Default.

    Raises
    ------
    BundleError
        When the directory is no bundle, or was changed.
    SourceUnavailable, SourceDenied, SourceError
        When the registry or its store does not take it; then no alias has moved.
    """
    name = models.name_of(target)
    if alias is not None and not _ALIAS.fullmatch(alias):
        raise SourceError(
            f"{alias!r}: expected an alias of letters, digits, '_' and '-', other than latest and v1, v2, …"
        )
    bundle = open_bundle(directory)
    asked = registry.connect(settings, environ)
    _see_whether_it_answers(asked, name)
    with quiet(), asking(target):
        client = _client(asked, environ)
        desk = _Desk(client, asked, settings, environ)
        version = desk.version_of(bundle, name)
        is_new = version is None
        if version is None:
            version = desk.make_version(bundle, name)
    if alias is not None:
        _lead(client, name, alias, version)
    return Registered(name, version, alias, bundle.digest, is_new)


class _Desk:
    """What is asked of one registry for one bundle."""

    def __init__(self, client: Any, asked: Registry, settings: CacheSettings, environ: Mapping[str, str]) -> None:
        self._client = client
        self._asked = asked
        self._settings = settings
        self._environ = environ

    def version_of(self, bundle: Bundle, name: str) -> str | None:
        """Find the version that is this very bundle, if there is one."""
        quote = '"' if "'" in name else "'"
        for found in self._client.search_model_versions(f"name={quote}{name}{quote}"):
            if found.tags.get(DIGEST_TAG) == bundle.digest:
                version = registry.Version(name, str(found.version), found.source, found.creation_timestamp)
                store = artifacts.of_version(version, self._asked, self._settings, self._environ)
                if _difference(bundle, store) is None:
                    return version.number
        return None

    def make_version(self, bundle: Bundle, name: str) -> str:
        """Put the files into a run, read them back, and make a version of them."""
        tags = {DIGEST_TAG: bundle.digest}
        run = self._client.create_run(self._experiment(), run_name=f"register {name}", tags=tags).info
        with self._failing(run.run_id):
            self._client.log_artifacts(run.run_id, str(bundle.path), _PATH)
            source = f"{run.artifact_uri}/{_PATH}"
            difference = _difference(bundle, artifacts.store_at(source, self._asked, self._settings, self._environ))
            if difference is not None:
                raise SourceUnavailable(f"{source}: {difference} came back otherwise than it was put there: try again")
            self._client.set_terminated(run.run_id)
            self._make_model(name)
            made = self._client.create_model_version(name, source, run.run_id, tags=tags)
        registry.ready(made.status, name, str(made.version))
        return str(made.version)

    def _experiment(self) -> str:
        name = self._environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or "Default"
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _make_model(self, name: str) -> None:
        mlflow = require("mlflow.exceptions", "mlflow")
        try:
            self._client.create_registered_model(name)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextmanager
    def _failing(self, run_id: str) -> Iterator[None]:
        """Mark the run as failed, and tell what its store raised, which may be an error of any library."""
        mlflow = require("mlflow.exceptions", "mlflow")
        try:
            yield
        except BaseException as error:
            _end_as_failed(self._client, run_id)
            if isinstance(error, (FairleadError, mlflow.MlflowException)) or not isinstance(error, Exception):
                raise
            raise SourceError(f"runs:/{run_id}/{_PATH}: the files could not be put there: {error}") from error


def _see_whether_it_answers(asked: Registry, name: str) -> None:
    """Ask within the bounds of the settings, before the library asks within its own."""
    try:
        asked.newest(name, None)
    except SourceError as error:
        if isinstance(error, (SourceUnavailable, SourceDenied)):
            raise
        # It has no such model, or no version of it, yet.


def _client(asked: Registry, environ: Mapping[str, str]) -> Any:
    tracking = asked.tracking_uri
    return require("mlflow.tracking", "mlflow").MlflowClient(
        tracking, environ.get("MLFLOW_REGISTRY_URI", "").strip() or tracking
    )


def _difference(bundle: Bundle, store: Store) -> str | None:
    """Name a file that the store has otherwise than the bundle, None if there is none."""
    expected = {**bundle.manifest.files, DESCRIPTOR: bundle.digest}
    found = {file.name: file for file in store.files()}
    for name in sorted(expected.keys() ^ found.keys()):
        return name
    for name, file in found.items():
        digest = hashlib.sha256()
        for chunk in store.read(file, 0):
            digest.update(chunk)
        if digest.hexdigest() != expected[name]:
            return name
    return None


def _lead(client: Any, name: str, alias: str, version: str) -> None:
    try:
        with asking(f"models:/{name}@{alias}"):
            client.set_registered_model_alias(name, alias, version)
    except SourceError as error:
        raise at(f"version {version} is registered, but the alias was not moved (try again)", error) from error


def _end_as_failed(client: Any, run_id: str) -> None:
    with suppress(Exception):  # the first error is the one to tell
        client.set_terminated(run_id, "FAILED")
