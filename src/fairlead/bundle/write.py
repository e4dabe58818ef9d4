"""Put a bundle on disk whole or not at all.

Everything is written into a sibling of the target, synced, read back and tried there, and then put in
its place by one rename. Layer L1, build time only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fairlead.bundle.disk import sync
from fairlead.bundle.manifest import DESCRIPTOR, decode_descriptor
from fairlead.bundle.read import files_of
from fairlead.errors import BundleError

# How the directories end in which something is written that is not whole yet.
PARTIAL = ".partial"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_target(target: Path) -> None:
    """Refuse a target that holds anything but a bundle, before any work is done.

    Raises
    ------
    BundleError
        When something else is there, or it cannot be written to.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BundleError(f"{target}: expected a directory for the bundle, there is something else: name another")
    if target.is_dir() and any(target.iterdir()) and not _is_bundle(target):
        raise BundleError(
            f"{target}: not empty and no intact bundle, so it is left alone: name another directory or remove it"
        )
    parent = target.absolute().parent
    if not parent.is_dir():
        raise BundleError(f"{target}: its parent {parent} does not exist: make it first")
    if not os.access(parent, os.W_OK):
        raise BundleError(f"{target}: its parent {parent} cannot be written to")


def _is_bundle(directory: Path) -> bool:
    """Whether a bundle is there and nothing else, since all of it goes when it is replaced."""
    descriptor = directory / DESCRIPTOR
    try:
        manifest = decode_descriptor(descriptor.read_bytes(), str(descriptor))
    except (OSError, BundleError):
        return False
    return files_of(directory) <= manifest.files.keys()


@contextmanager
def staged(target: Path, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Write `files` beside `target`; on leaving without an error they take its place, else nothing stays.

    Parameters
    ----------
    files : content by path inside the bundle, with forward slashes.
    """
    with staged_directory(target) as directory:
        for name, data in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield directory


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Give an empty directory beside `target`; on leaving without an error it takes its place, else nothing stays.

    All that was written into it by then is on the disk before that.
    """
    target = target.absolute()
    directory = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=PARTIAL, dir=target.parent))
    try:
        directory.chmod(0o755)
        yield directory
        for path in [*directory.rglob("*"), directory]:
            sync(path)
        _replace(directory, target)
        sync(target.parent)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _replace(directory: Path, target: Path) -> None:
    """Rename over what is there. A full directory cannot be renamed over, but two can change places in one step."""
    try:
        directory.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _exchange(directory, target)


def _exchange(one: Path, other: Path) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise BundleError(f"{other}: cannot be replaced ({os.strerror(number)}): remove it first")
