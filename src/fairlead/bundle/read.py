"""Open a bundle: every file there, none added, each with the digest it was built with.

Layer L1; serving imports it, so it needs nothing beyond `manifest`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fairlead.bundle.manifest import DESCRIPTOR, Manifest, decode_descriptor
from fairlead.errors import BundleError

MODEL = "model.onnx"
EXAMPLE = "input_example.json"


@dataclass(frozen=True)
class Bundle:
    """An open bundle, every file of it verified.

    Parameters
    ----------
    path : the directory.
    manifest : what it says about itself.
    digest : SHA-256 of its descriptor, which holds the digests of all else.
    """

    path: Path
    manifest: Manifest
    digest: str

    def example(self) -> dict[str, Any]:
        """Give the record that the bundle was tried with."""
        split = msgspec.json.decode(self.read(EXAMPLE))
        return dict(zip(split["columns"], split["data"][0], strict=True))

    def read(self, name: str) -> bytes:
        """Read one file, and verify the very bytes that are handed out.

        Raises
        ------
        BundleError
            When it changed, or went away, since the bundle was opened.
        """
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise BundleError(f"{self.path / name}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise BundleError(_changed(self.path / name))
        return data


def open_bundle(path: Path) -> Bundle:
    """Verify a bundle.

    Raises
    ------
    BundleError
        Naming the file that is missing, added or changed.
    """
    descriptor = path / DESCRIPTOR
    try:
        data = descriptor.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path}: not a bundle (no {DESCRIPTOR}): make one with `fairlead build SOURCE -o {path}`"
        ) from error
    except OSError as error:
        raise BundleError(f"{descriptor}: cannot be read: {error.strerror}") from error
    manifest = decode_descriptor(data, str(descriptor))
    there = files_of(path)
    for name in sorted(there - manifest.files.keys()):
        raise BundleError(f"{path / name}: not part of the bundle: remove it")
    for name in sorted(manifest.files.keys() - there):
        raise BundleError(f"{path / name}: missing from the bundle: build it again")
    for name, digest in manifest.files.items():
        if _sha256(path / name) != digest:
            raise BundleError(_changed(path / name))
    return Bundle(path, manifest, hashlib.sha256(data).hexdigest())


def is_called_bundle(path: Path) -> bool:
    """Whether a directory says that it is a bundle; `open_bundle` tells whether it is an intact one."""
    try:
        return b'"fairlead": {' in (path / DESCRIPTOR).read_bytes()
    except OSError:
        return False


def files_of(path: Path) -> set[str]:
    """List the files below a bundle's directory but its descriptor, by path with forward slashes."""
    # A link is a file of the bundle only by what it points to, which may change: it is never expected.
    found = (entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir())
    return {entry.relative_to(path).as_posix() for entry in found} - {DESCRIPTOR}


def _sha256(path: Path) -> str:
    if path.is_symlink():
        raise BundleError(f"{path}: expected a file, got a link: build the bundle again")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def _changed(path: Path) -> str:
    return f"{path}: changed since the bundle was built: restore it or build again"
