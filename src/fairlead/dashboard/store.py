"""A dashboard store: a directory of plain files, made by a build, read by whoever shows it, replaced whole.

    titanic.dash/
      manifest.json     what it says about itself, with the digest of every other file and one of its own
      dashboard.yaml    options of ExplainerDashboard, in its own form
      explainer.pickle  the explainer, which workers map into memory
      bundle/           what predicts
      rows/             rows from outside, when they were in a file

Layer L3; what it needs to read a manifest is light, the rest is imported where a board is loaded.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.bundle.read import files_of
from fairlead.errors import DashboardError
from fairlead.schema import Kind

SUFFIX = ".dash"
MANIFEST = "manifest.json"
OPTIONS = "dashboard.yaml"
EXPLAINER = "explainer.pickle"
BUNDLE = "bundle"
ROWS = "rows"
FORMAT_VERSION = 1


class StoredFile(Struct, frozen=True):
    """A file of a store.

    Parameters
    ----------
    sha256 : of its content.
    size_bytes : of it.
    """

    sha256: str
    size_bytes: int


class Recipe(Struct, frozen=True):
    """What a store was built from, to build it again.

    Parameters
    ----------
    source : a bundle, a model or an explainer.yaml.
    directory : where the build ran, which a function that gives rows is looked for in.
    options : of the build, see `plan.DashboardOptions`; paths are absolute.
    """

    source: str
    directory: str
    options: dict[str, Any] = {}


class StoreManifest(Struct, frozen=True, kw_only=True):
    """What a store says about itself.

    Parameters
    ----------
    title, description : of the dashboard.
    kind : what its model does.
    target, index_name : what is predicted, and what a row is called by.
    n_rows, n_read : rows in the explainer, and in the file that they are a sample of.
    bundle_name, bundle_version, bundle_digest : of the bundle in it.
    built_at : RFC 3339, UTC.
    fairlead_version, versions : what built it, and the libraries that wrote the explainer.
    files : of the store, without the manifest and the bundle, by path with forward slashes.
    parts : bytes of the explainer's file, by what they are.
    settings : what it was built with that they depend on, for people.
    rows : what `rows.open_rows` needs; None when there are none from outside.
    inputs : files and directories that it was made of.
    recipe : how to build it again.
    source_key : what the recipe's source stood for, where it is an address: it may stand for something else later.
    """

    format_version: int = FORMAT_VERSION
    title: str
    description: str
    kind: Kind
    target: str
    index_name: str
    n_rows: int
    n_read: int
    bundle_name: str
    bundle_version: str
    bundle_digest: str
    built_at: str
    fairlead_version: str
    versions: dict[str, str]
    files: dict[str, StoredFile]
    parts: dict[str, int]
    settings: dict[str, str]
    rows: dict[str, Any] | None
    inputs: tuple[str, ...]
    recipe: Recipe
    source_key: str | None = None


class _Sealed(Struct):
    """A manifest's file: the manifest as it was written, and the digest of its bytes."""

    sha256: str
    store: msgspec.Raw


@dataclass(frozen=True)
class Store:
    """A store that was found, not yet verified.

    Parameters
    ----------
    path : the directory, absolute.
    manifest : what it says about itself.
    """

    path: Path
    manifest: StoreManifest

    @property
    def name(self) -> str:
        """What its dashboard is called: ``titanic`` of ``/srv/titanic.dash``."""
        return self.path.name.removesuffix(SUFFIX)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Read the manifest of a store.

        Raises
        ------
        DashboardError
            When there is no store, or its manifest changed.
        """
        path = path.absolute()
        try:
            data = (path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DashboardError(
                f"{path}: not a dashboard (no {MANIFEST}): make one with `fairlead dashboard build BUNDLE -o {path}`"
            ) from error
        except OSError as error:
            raise DashboardError(f"{path / MANIFEST}: cannot be read: {error.strerror}") from error
        return cls(path, decode_manifest(data, str(path / MANIFEST)))

    def verify(self) -> None:
        """Read every file, and compare it with what was built.

        Raises
        ------
        DashboardError, BundleError
            Naming the file that is missing, added or changed.
        """
        from fairlead.bundle.read import open_bundle

        there = files_of(self.path) - {MANIFEST}
        own = {name for name in there if not name.startswith(f"{BUNDLE}/")}
        for name in sorted(own - self.manifest.files.keys()):
            raise DashboardError(f"{self.path / name}: not part of the dashboard: remove it")
        for name, told in self.manifest.files.items():
            if name not in own:
                raise DashboardError(f"{self.path / name}: missing from the dashboard: build it again")
            if stored_file(self.path / name) != told:
                raise DashboardError(f"{self.path / name}: changed since the dashboard was built: build it again")
        if open_bundle(self.path / BUNDLE).digest != self.manifest.bundle_digest:
            raise DashboardError(f"{self.path / BUNDLE}: not the bundle that the dashboard was built with")


def identity(path: Path) -> str | None:
    """Tell a store from the one that was in its place before, or from itself while it is copied there.

    Returns
    -------
    The same text in every process, made of what the disk tells of its files without reading them; None when there is
    no store.
    """
    digest = hashlib.sha256()
    try:
        for name in sorted({MANIFEST} | files_of(path)):
            found = (path / name).stat()
            told = f"{found.st_ino} {found.st_mtime_ns} {found.st_size}\n"
            digest.update(os.fsencode(name) + b"\0" + told.encode())
    except OSError:
        return None
    return digest.hexdigest()[:16]


def stored_file(path: Path) -> StoredFile:
    """Digest a file of a store.

    Raises
    ------
    DashboardError
        When it cannot be read, or is a link.
    """
    if path.is_symlink():
        raise DashboardError(f"{path}: expected a file, got a link: build the dashboard again")
    try:
        with path.open("rb") as file:
            return StoredFile(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
    except OSError as error:
        raise DashboardError(f"{path}: cannot be read: {error.strerror}") from error


def encode_manifest(manifest: StoreManifest) -> bytes:
    """Write a manifest as the bytes of its file."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    digest = hashlib.sha256(body).hexdigest()
    return b'{"sha256": "%s",\n"store": %s}\n' % (digest.encode(), body)


def decode_manifest(data: bytes, where: str) -> StoreManifest:
    """Read a manifest from the bytes of its file, refusing any that changed.

    Parameters
    ----------
    where : what to call the file in an error.

    Raises
    ------
    DashboardError
        When its own digest does not fit, it is of another kind, or a newer fairlead wrote it.
    """
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
    except msgspec.MsgspecError as error:
        raise DashboardError(f"{where}: expected the manifest of a dashboard, got {error}: build it again") from error
    if hashlib.sha256(bytes(sealed.store)).hexdigest() != sealed.sha256:
        raise DashboardError(f"{where}: changed since the dashboard was built: build it again")
    try:
        told = msgspec.json.decode(sealed.store)
        written = told.get("format_version")
        if written != FORMAT_VERSION:
            raise DashboardError(
                f"{where}: expected dashboard format {FORMAT_VERSION}, got {written}: "
                f"use the fairlead that built it ({told.get('fairlead_version')}) or build it again"
            )
        return msgspec.convert(told, StoreManifest)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise DashboardError(f"{where}: expected the manifest of a dashboard, got {error}: build it again") from error
