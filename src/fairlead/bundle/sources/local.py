"""A path on this machine: as a source of its own, and where an MLflow without a server keeps its artifacts.

Layer L1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.bundle.sources.store import CHUNK_BYTES, RemoteFile, Resolved, fingerprint, listing
from fairlead.errors import SourceError

if TYPE_CHECKING:
    from fairlead.config import CacheSettings


@dataclass(frozen=True)
class LocalSource:
    """A file or a directory.

    Parameters
    ----------
    path : as it was given.
    """

    path: Path

    @property
    def text(self) -> str:
        return str(self.path)

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        del settings, environ
        store = DiskStore(self.path)
        # Whoever replaces a file gives it another time or inode.
        key = f"{self.path.absolute()} {fingerprint(store.files())}"
        return Resolved(self.text, key, self.path.absolute().stem, None, store)


class DiskStore:
    """The files of a path. See `Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def files(self) -> list[RemoteFile]:
        try:
            if self._path.is_file():
                return [self._file(self._path, self._path.name, alone=True)]
            if not self._path.is_dir():
                raise SourceError(f"{self._path}: expected a model, there is no file or directory: see the path")
            found = [path for path in self._path.rglob("*") if path.is_symlink() or not path.is_dir()]
            files = [self._file(path, path.relative_to(self._path).as_posix()) for path in found]
        except OSError as error:
            raise SourceError(f"{error.filename or self._path}: cannot be read: {error.strerror}") from error
        return listing(files, str(self._path))

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        path = self._path if file.alone else self._path / file.name
        try:
            with path.open("rb") as opened:
                opened.seek(start)
                while chunk := opened.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error

    def _file(self, path: Path, name: str, *, alone: bool = False) -> RemoteFile:
        if not path.is_file():
            raise SourceError(f"{path}: expected a file, got a broken link, a linked directory or a device: remove it")
        stat = path.stat()
        return RemoteFile(name, stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", alone=alone)
