"""Where MLflow keeps files: opens the store of an artifact's address, whatever its scheme.

Layer L1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fairlead.bundle.sources.local import DiskStore
from fairlead.bundle.sources.registry import Registry, Version, is_http
from fairlead.bundle.sources.store import RemoteFile, Store
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

# MLflow's client leaves it in a model that it loaded from a folder; it is no part of what was logged.
META = "registered_model_meta"
_LOGGED_MODEL = "models:/m-"
_DEPTH = 5


class ArtifactStore:
    """The files of one artifact, but for what MLflow's client left there. See `Store`.

    Parameters
    ----------
    open_store : finds where they are; called once, when files are first asked for.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._store: Store | None = None
        self._lock = threading.Lock()

    def files(self) -> list[RemoteFile]:
        return [file for file in self._opened().files() if file.name != META]

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        return self._opened().read(file, start)

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store


def of_version(version: Version, registry: Registry, settings: CacheSettings, environ: Mapping[str, str]) -> Store:
    """Give the files of a model's version; nobody is asked before they are."""
    return ArtifactStore(lambda: store_at(registry.download_uri(version), registry, settings, environ))


def store_at(uri: str, registry: Registry, settings: CacheSettings, environ: Mapping[str, str]) -> Store:
    """Open the store of an artifact's address.

    Raises
    ------
    SourceError
        When it has no form that MLflow gives.
    """
    for _ in range(_DEPTH):
        if not uri.startswith("models:/"):
            break
        uri = _behind(uri, registry)
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        from fairlead.bundle.sources import s3

        source = s3.parse(uri)
        return s3.S3Store(source.bucket, source.prefix, settings, environ)
    if parts.scheme == "mlflow-artifacts" or (is_http(uri) and "/mlflow-artifacts/artifacts" in parts.path):
        from fairlead.bundle.sources import mlflow_artifacts

        return mlflow_artifacts.open_store(uri, registry.tracking_uri, settings, environ)
    if parts.scheme in ("", "file"):
        return _on_this_machine(uri)
    from fairlead.bundle.sources.library_store import LibraryStore

    return LibraryStore(uri, registry.tracking_uri)


def _behind(uri: str, registry: Registry) -> str:
    """Follow a version that was made of another one, or of a logged model."""
    if uri.startswith(_LOGGED_MODEL) and "/" not in uri.removeprefix(_LOGGED_MODEL):
        return registry.logged_model_uri(uri.removeprefix("models:/"))
    name, _, number = uri.removeprefix("models:/").rpartition("/")
    if not name or not number.isdigit():
        raise SourceError(f"{uri}: expected where a version's files are: register it again")
    return registry.download_uri(registry.by_number(name, number))


def _on_this_machine(uri: str) -> Store:
    parts = urlsplit(uri)
    path = Path(unquote(parts.path)) if parts.scheme else Path(uri)
    if not path.exists():
        raise SourceError(
            f"{uri}: MLflow keeps this artifact in a folder, which is not on this machine: "
            "run the server with --serve-artifacts, or keep artifacts on S3"
        )
    return DiskStore(path)
