"""What a place that keeps models looks like to whoever fetches from it: files with names, read from any byte on.

Layer L1; imports errors only.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from fairlead.errors import SourceDenied, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from fairlead.config import CacheSettings

# So small that a slow transfer shows itself between two of them.
CHUNK_BYTES = 64 * 1024
_LONGEST_NAME_BYTES = 255


class NoResume(SourceUnavailable):
    """The store cannot start in the middle of this file, or no longer has the same one: read it again from byte 0."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a store.

    Parameters
    ----------
    name : relative, with forward slashes, and never outside of the directory that it will be put in.
    size_bytes : None where the store does not tell.
    etag : changes whenever the content does; None where the store has none.
    sha256 : of the content, lower-case hex, where it is known.
    alone : whether the source is this one file, rather than a directory that holds it.

    Raises
    ------
    SourceError
        For a name that could lead out of the directory, or that cannot be one.
    """

    name: str
    size_bytes: int | None = None
    etag: str | None = None
    sha256: str | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)


class Store(Protocol):
    """The files of one version of one model. No wait is longer than the timeouts of `CacheSettings`."""

    def files(self) -> list[RemoteFile]:
        """List every file, sorted by name; asks the store when it is first called.

        Raises
        ------
        SourceUnavailable, SourceDenied, SourceError
        """
        ...

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Read a file from byte `start` on.

        Raises
        ------
        NoResume
            When `start` is not 0 and the store cannot start there, or the file changed.
        SourceUnavailable, SourceDenied, SourceError
        """
        ...


@dataclass(frozen=True)
class Resolved:
    """What a source means now.

    Parameters
    ----------
    source : as it is told to people, without secrets.
    key : names the content for good: the same key never stands for other bytes.
    name : what a model from there is called if nothing else tells: the registered name, else the stem of its path.
    version : the registry's number, None where the source has none.
    store : where the files are.
    warnings : what the user should know, each a sentence.
    """

    source: str
    key: str
    name: str
    version: str | None
    store: Store = field(repr=False)
    warnings: tuple[str, ...] = ()


class Source(Protocol):
    """A place that a user named; `parse` makes one of its text."""

    @property
    def text(self) -> str:
        """As it is told to people, without secrets."""
        ...

    def resolve(self, settings: CacheSettings, environ: Mapping[str, str]) -> Resolved:
        """See `fairlead.bundle.sources.resolve`."""
        ...


def at(place: str, error: SourceError) -> SourceError:
    """Give an error of the same kind that begins with what the user asked for."""
    for kind in (NoResume, SourceUnavailable, SourceDenied):
        if isinstance(error, kind):
            return kind(f"{place}: {error}")
    return SourceError(f"{place}: {error}")


def check_name(name: str) -> None:
    """Refuse a name that a file inside a directory cannot or must not have.

    Raises
    ------
    SourceError
        For an absolute one, one with ``..``, backslashes or control characters, or one too long for a disk.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise SourceError(
            f"{name[:200]!r}: expected the relative name of a file, with forward slashes and without '..': "
            "nothing was written; whoever made this model must name the file otherwise"
        )
    if any(len(part.encode(errors="surrogatepass")) > _LONGEST_NAME_BYTES for part in parts):
        raise SourceError(f"{name[:80]!r}…: expected names of at most {_LONGEST_NAME_BYTES} bytes, got a longer one")


def listing(files: Iterable[RemoteFile], where: str) -> list[RemoteFile]:
    """Sort files by name, and refuse what no directory can hold.

    Raises
    ------
    SourceError
        When there are none, two have one name, or one name is both a file and a directory.
    """
    found = sorted(files, key=lambda file: file.name)
    if not found:
        raise SourceError(f"{where}: expected the files of a model, there are none")
    names = [file.name for file in found]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    twice = {name for name, following in itertools.pairwise(names) if name == following}
    for name in sorted(twice | (folders & set(names))):
        raise SourceError(f"{where}: {name} is there twice, as files or as a file and a directory: remove one of them")
    return found


def fingerprint(files: Iterable[RemoteFile]) -> str:
    """Give one digest for a listing: of names, sizes and etags."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.size_bytes}\0{file.etag}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()
