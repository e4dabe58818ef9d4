"""Artifacts in a store that only the MLflow library knows, such as gs://, wasbs://, dbfs:/.

Layer L1; imports MLflow when it is used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairlead.bundle.sources.registry_library import asking
from fairlead.bundle.sources.store import CHUNK_BYTES, RemoteFile, listing
from fairlead.bundle.sources.transport import shown
from fairlead.extras import require


class LibraryStore:
    """The files of an artifact. See `Store`; how long it waits is up to the library of that store."""

    def __init__(self, uri: str, tracking_uri: str) -> None:
        self._where = shown(uri)
        with asking(self._where):
            repositories = require("mlflow.store.artifact.artifact_repository_registry", "mlflow")
            self._repository: Any = repositories.get_artifact_repository(uri, tracking_uri=tracking_uri)

    def files(self) -> list[RemoteFile]:
        found: list[RemoteFile] = []
        folders: list[str | None] = [None]
        with asking(self._where):
            while folders:
                for entry in self._repository.list_artifacts(folders.pop()):
                    if entry.is_dir:
                        folders.append(entry.path)
                    else:
                        found.append(RemoteFile(entry.path, entry.file_size))
        return listing(found, self._where)

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        # The library gives files on disk, whole.
        with tempfile.TemporaryDirectory() as folder, asking(self._where):
            path = Path(self._repository.download_artifacts(file.name, folder))
            with path.open("rb") as opened:
                opened.seek(start)
                while chunk := opened.read(CHUNK_BYTES):
                    yield chunk
