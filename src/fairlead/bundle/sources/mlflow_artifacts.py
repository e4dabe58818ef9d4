"""What an MLflow server hands out of the store behind it: `mlflow-artifacts:/PATH`, `mlflow-artifacts://HOST/PATH`.

The server names no etags, and gives files from their start only. Layer L1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from fairlead.bundle.sources import registry
from fairlead.bundle.sources.store import NoResume, RemoteFile, Resolved, check_name, fingerprint, listing
from fairlead.bundle.sources.transport import Access, Refused, Transport, shown
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

FORM = "mlflow-artifacts:/PATH"
_API = "/api/2.0/mlflow-artifacts/artifacts"
_MAX_FILES = 20_000


@dataclass(frozen=True)
class ArtifactSource:
    """A path below an MLflow server's artifacts.

    Parameters
    ----------
    text : as it was given.
    """

    text: str

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        tracking = environ.get("MLFLOW_TRACKING_URI", "").strip()
        if not registry.is_http(tracking):
            raise SourceError(
                f"{self.text}: expected the address of an MLflow server in MLFLOW_TRACKING_URI, "
                f"as in http://localhost:5000, got {tracking or 'nothing'}: set it"
            )
        store = open_store(self.text, tracking, settings, environ)
        key = f"{store.url} {fingerprint(store.files())}"
        return Resolved(self.text, key, PurePosixPath(urlsplit(self.text).path).stem, None, store)


def parse(text: str) -> ArtifactSource:
    """Read ``mlflow-artifacts:/PATH``.

    Raises
    ------
    SourceError
        For a wrong form.
    """
    parts = urlsplit(text)
    if not parts.path.strip("/") or "@" in parts.netloc or parts.query or parts.fragment:
        raise SourceError(f"{shown(text)}: expected {FORM} or mlflow-artifacts://HOST:PORT/PATH")
    return ArtifactSource(text)


def open_store(uri: str, tracking_uri: str, settings: CacheSettings, environ: Mapping[str, str]) -> ProxiedStore:
    """Give the files of an artifact that an MLflow server hands through.

    Parameters
    ----------
    uri : ``mlflow-artifacts:…``, or the address in the server's API that it stands for.
    tracking_uri : the server, if `uri` names none.
    """
    parts, server = urlsplit(uri), urlsplit(tracking_uri)
    access = registry.access(environ)
    if parts.netloc and parts.netloc != server.netloc.rpartition("@")[2]:
        # Whoever may register a version could have them sent anywhere.
        looked = "MLFLOW_TRACKING_URI to that server; credentials for one server are not sent to another"
        access = Access(verify=access.verify, looked=looked)
    if parts.scheme == "mlflow-artifacts":
        base = f"{server.scheme}://{parts.netloc or server.netloc}{server.path.rstrip('/')}{_API}"
        path = parts.path
    else:
        before, _, path = parts.path.partition(_API)
        base = f"{parts.scheme}://{parts.netloc}{before}{_API}"
    return ProxiedStore(base, path.strip("/"), Transport(settings, "mlflow", access))


class ProxiedStore:
    """The files below a path of the server's API. See `Store`."""

    def __init__(self, base: str, path: str, transport: Transport) -> None:
        self.url = f"{shown(base)}/{path}"
        self._base = base
        self._path = path
        self._transport = transport

    def files(self) -> list[RemoteFile]:
        found = self._below("")
        # A file lists itself, as a directory would that holds one file of its own name.
        if not found or [file.name for file in found] == [PurePosixPath(self._path).name]:
            found = self._itself() or found
        if not found:
            raise SourceError(f"{self.url}: nothing is there: see the path")
        return listing(found, self.url)

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        if start:
            raise NoResume(f"{self.url}/{file.name}: an MLflow server gives whole files: read it from its start")
        path = self._path if file.alone else f"{self._path}/{file.name}"
        try:
            yield from self._transport.read(f"{self._base}/{quote(path)}", 0)
        except Refused as error:
            raise SourceError(f"{error}: it was there a moment ago: try again") from error

    def _itself(self) -> list[RemoteFile]:
        parent, _, name = self._path.rpartition("/")
        return [
            RemoteFile(name, _size(entry), alone=True)
            for entry in self._list(parent)
            if entry["path"] == name and not entry.get("is_dir")
        ]

    def _below(self, root: str) -> list[RemoteFile]:
        found: list[RemoteFile] = []
        folders = [root]
        while folders:
            folder = folders.pop()
            for entry in self._list(f"{self._path}/{folder}"):
                name = f"{folder}/{entry['path']}" if folder else str(entry["path"])
                if entry.get("is_dir"):
                    check_name(name)
                    folders.append(name)
                else:
                    found.append(RemoteFile(name, _size(entry)))
                if len(found) + len(folders) > _MAX_FILES:
                    raise SourceError(f"{self.url}: expected a model, got more than {_MAX_FILES} files: see the path")
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            answer = self._transport.json("GET", self._base, params={"path": path.strip("/")})
        except Refused as error:
            raise SourceError(
                f"{error}: see the path, and whether the server was run with --serve-artifacts"
            ) from error
        return list(answer.get("files", []))


def _size(entry: Mapping[str, Any]) -> int | None:
    size = entry.get("file_size")
    return None if size is None else int(size)
