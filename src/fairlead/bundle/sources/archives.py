"""Archives of a directory, unpacked without trust: `.tar.gz`, `.tgz`, `.zip`.

Nothing is written but regular files, below the directory, within a bound. Layer L1.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fairlead.bundle.sources.store import CHUNK_BYTES, check_name
from fairlead.errors import SourceError

_TAR = (".tar.gz", ".tgz")
_ZIP = ".zip"
_MAX_FILES = 20_000
_ENCRYPTED = 0x1


def is_archive(name: str) -> bool:
    """Whether a file is one by its name."""
    return name.lower().endswith((*_TAR, _ZIP))


def stem(name: str) -> str:
    """Give a file's name without what tells its format."""
    for suffix in (*_TAR, _ZIP):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return PurePosixPath(name).stem


def unpack(archive: Path, directory: Path, max_bytes: int) -> None:
    """Unpack an archive into an empty directory; a single folder at its top is left away.

    Parameters
    ----------
    max_bytes : how large all of its files may be.

    Raises
    ------
    SourceError
        When it is broken or too large, or holds links, devices, or names that lead out of the directory.
    OSError
        When the disk takes no more.
    """
    room_bytes = max_bytes
    inside = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=directory))
    try:
        for count, (name, content) in enumerate(_members(archive)):
            if count == _MAX_FILES:
                raise SourceError(f"{archive.name}: expected a model, got more than {_MAX_FILES} files")
            check_name(name)
            room_bytes -= _write(inside / name, content, room_bytes, archive.name)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise SourceError(f"{archive.name}: expected an archive ({', '.join((*_TAR, _ZIP))}): {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise SourceError(f"{archive.name}: holds {Path(error.filename).name} twice: pack it again") from error
    entries = list(inside.iterdir())
    top = entries[0] if len(entries) == 1 and entries[0].is_dir() else inside
    for entry in list(top.iterdir()):
        entry.rename(directory / entry.name)
    if top != inside:
        top.rmdir()
    inside.rmdir()


def _write(path: Path, content: IO[bytes], room_bytes: int, archive: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while chunk := content.read(CHUNK_BYTES):
            written += len(chunk)
            if written > room_bytes:
                raise SourceError(f"{archive}: holds more than there is room for in the cache: raise cache.max_bytes")
            file.write(chunk)
    return written


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the regular files one after another; folders are made as they are needed."""
    if archive.name.lower().endswith(_ZIP):
        yield from _zip_members(archive)
        return
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise _no_file(archive, member.name)
            with content:
                yield _name(member.name), content


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _no_file(archive, info.filename)
            if info.flag_bits & _ENCRYPTED:
                raise SourceError(f"{archive.name}: {info.filename} is encrypted: pack it without a password")
            with opened.open(info) as content:
                yield _name(info.filename), content


def _name(name: str) -> str:
    return name.removeprefix("./")


def _no_file(archive: Path, name: str) -> SourceError:
    return SourceError(f"{archive.name}: expected files and folders alone, {name} is a link or a device: pack it again")
