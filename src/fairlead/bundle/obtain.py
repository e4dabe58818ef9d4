"""From what a user names to a bundle on this machine: `serve`, `fetch`, `inspect` and `predict` begin here.

A bundle's directory is itself; anything else comes through the cache, a plain model by way of a build. When a registry
or a store is away, what was last had from it is given, and said to be so. Layer L1; imports `sources`, `cache` and
what is below them, and builds only in another process.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import fairlead
from fairlead.bundle import sources
from fairlead.bundle.build_process import BuildRequest, build_apart
from fairlead.bundle.cache import Cache, Entry, Record, Sighting, age_text, folder_name
from fairlead.bundle.disk import sync, told
from fairlead.bundle.locks import Lock
from fairlead.bundle.manifest import DESCRIPTOR
from fairlead.bundle.read import Bundle, is_called_bundle, open_bundle
from fairlead.bundle.sources import LocalSource, Resolved, Source
from fairlead.bundle.transfer import LISTING, Arrived, retried, transfer
from fairlead.config import CacheSettings, is_class
from fairlead.errors import BundleError, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from fairlead.bundle.build import BuildOptions

_LOOK_UPS = 2
_CAME = ".came"


class Progress(Protocol):
    """Is told what goes on. `bytes` may be called from other threads, never twice at once."""

    def step(self, text: str) -> None:
        """Tell what begins."""
        ...

    def bytes(self, done: int, total: int | None) -> None:
        """Tell how far a transfer is; the total is None where the store does not say."""
        ...


class Silent:
    """A `Progress` that tells nobody."""

    def step(self, text: str) -> None: ...

    def bytes(self, done: int, total: int | None) -> None: ...


@dataclass(frozen=True)
class Obtained:
    """A bundle on this machine, every byte of it verified.

    Parameters
    ----------
    path : its directory.
    name, version, digest : of the bundle.
    key : what its source meant: as long as `look_up` gives the same, there is nothing newer.
    registry_version : the version's number in its registry, None where there is none.
    warnings : what the user should know.
    is_bundle : whether the source was one, rather than a model that was built.
    stale : why this is only what was last had, None where its source was asked.
    hold : keeps it in the cache until it is released or this process ends; None outside of the cache.
    """

    path: Path
    name: str
    version: str
    digest: str
    key: str
    registry_version: str | None = None
    warnings: tuple[str, ...] = ()
    is_bundle: bool = True
    stale: str | None = None
    hold: Lock | None = None

    def release(self) -> None:
        """Let the cache evict it."""
        if self.hold is not None:
            self.hold.release()


@dataclass(frozen=True)
class ObtainedModel:
    """A model's files on this machine, as they came.

    Parameters
    ----------
    source : a path, or ``module:Class``.
    version : the version's number in its registry, None where there is none.
    warnings : what the user should know.
    """

    source: str
    version: str | None = None
    warnings: tuple[str, ...] = ()


def obtain(
    source: str,
    settings: CacheSettings,
    environ: Mapping[str, str],
    progress: Progress,
    build: BuildOptions | None = None,
    pin: bool = False,
) -> Obtained:
    """Have a bundle of a source on this machine.

    Parameters
    ----------
    source : a path, ``module:Class`` or an address such as ``models:/churn@champion``.
    settings : of the cache, and the bounds of every wait.
    environ : where credentials and addresses come from.
    build : how to build a plain model; None for the defaults.
    pin : copy a local bundle into the cache, so that a change of the directory changes nothing that is served.

    Raises
    ------
    SourceError
        And its kinds: it is not there, does not answer, is refused, or cannot be built.
    BundleError
        When it is a bundle that was changed.
    CacheError
        When the disk does not take it.
    """
    parsed = sources.parse(source)
    obtaining = _Obtaining(parsed, settings, environ, progress, build)
    return obtaining.from_here(parsed.path, pin) if isinstance(parsed, LocalSource) else obtaining.from_elsewhere()


def obtain_model(source: str, settings: CacheSettings, environ: Mapping[str, str], progress: Progress) -> ObtainedModel:
    """Have a source's files on this machine, without building anything of them.

    Raises
    ------
    SourceError, CacheError
        As `obtain`.
    """
    parsed = sources.parse(source)
    if isinstance(parsed, LocalSource):
        return ObtainedModel(parsed.text)
    return _Obtaining(parsed, settings, environ, progress, None).files_from_elsewhere()


def look_up(source: str, settings: CacheSettings, environ: Mapping[str, str]) -> str:
    """Give the key of what a source means now, with one question to its registry or store, and no transfer.

    Raises
    ------
    SourceError
        And its kinds.
    """
    parsed = sources.parse(source)
    if isinstance(parsed, LocalSource):
        return _local_key(parsed.path)
    return sources.resolve(parsed, settings, environ).key


class _Obtaining:
    def __init__(
        self,
        source: Source,
        settings: CacheSettings,
        environ: Mapping[str, str],
        progress: Progress,
        options: BuildOptions | None,
    ) -> None:
        self._source = source
        self._text = source.text
        self._settings = settings
        self._environ = environ
        self._progress = progress
        self._options = options
        self._cache = Cache(settings, environ)

    def from_here(self, path: Path, pin: bool) -> Obtained:
        key = _local_key(path)
        names_class = not path.exists() and is_class(self._text)
        if names_class or path.is_file() or ((path / DESCRIPTOR).is_file() and not is_called_bundle(path)):
            return self._built_here(path, key, names_class)
        bundle = open_bundle(path)
        if not pin:
            return _obtained(bundle, key)
        folder = folder_name(bundle.manifest.name)
        content = f"bundle {bundle.digest}"
        entry = self._cache.fill(
            content, lambda partial: _copied(bundle, content, partial, folder), _verify, self._wait
        )
        return _obtained(open_bundle(entry.path), key, hold=entry.hold)

    def from_elsewhere(self) -> Obtained:
        """Ask what it means and have that; where it fails for want of an answer, have what it last meant."""
        try:
            resolved = self._resolve()
            obtained = self._had(resolved.key, resolved.name, resolved.version) or self._got(resolved)
        except SourceUnavailable as error:
            return self._last_had(error)
        self._cache.remember(self._text, Sighting(resolved.key, resolved.name, resolved.version, time.time()))
        return replace(obtained, warnings=(*resolved.warnings, *obtained.warnings))

    def files_from_elsewhere(self) -> ObtainedModel:
        resolved = self._resolve()
        entry = self._fetched(resolved)
        return ObtainedModel(str(_model_in(entry.path)), resolved.version, resolved.warnings)

    def _resolve(self) -> Resolved:
        self._progress.step(f"ask for {self._text}")
        # Where there is something to fall back on, nobody waits for a registry to come back.
        tries = 1 if self._cache.recall(self._text) else _LOOK_UPS
        deadline = time.monotonic() + self._settings.timeout_s
        return retried(lambda: sources.resolve(self._source, self._settings, self._environ), deadline, tries)

    def _had(self, key: str, name: str, version: str | None) -> Obtained | None:
        """Give what the cache has of it, if that is whole and unchanged."""
        entry = self._cache.find(key)
        is_bundle = entry is not None and is_called_bundle(entry.path)
        if entry is not None and not is_bundle:
            entry.release()
        found = entry if is_bundle else self._cache.find(self._build_key(key, name, version))
        if found is None:
            return None
        try:
            return _obtained(open_bundle(found.path), key, version, is_bundle, found.hold)
        except BundleError:
            found.release()
            return None

    def _got(self, resolved: Resolved) -> Obtained:
        """Fetch it, and build it if it is no bundle."""
        entry = self._fetched(resolved)
        if is_called_bundle(entry.path):
            return _obtained(open_bundle(entry.path), resolved.key, resolved.version, hold=entry.hold)
        model = _model_in(entry.path)
        name = folder_name(resolved.name)
        request = BuildRequest(str(model), resolved.source, name, resolved.version, self._options)
        key = self._build_key(resolved.key, resolved.name, resolved.version)
        try:
            built, warnings = self._built(request, key, lambda: True)
        finally:
            entry.release()
        bundle = open_bundle(built.path)
        return replace(
            _obtained(bundle, resolved.key, resolved.version, is_bundle=False, hold=built.hold), warnings=warnings
        )

    def _last_had(self, error: SourceUnavailable) -> Obtained:
        sighting = self._cache.recall(self._text)
        if sighting is None:
            raise error
        obtained = self._had(sighting.key, sighting.name, sighting.version)
        if obtained is None:
            raise error
        which = f"version {sighting.version}" if sighting.version else f"{obtained.name} {obtained.version}"
        warning = (
            f"{self._text}: {which} from the cache, last confirmed {age_text(sighting.seen_at)}, because of: {error}"
        )
        return replace(obtained, warnings=(warning,), stale=str(error))

    def _fetched(self, resolved: Resolved) -> Entry:
        """Have the files as they are in their store."""

        def make(partial: Path) -> Record:
            self._progress.step(f"fetch {resolved.source}")
            came, target = partial / _CAME, partial / folder_name(resolved.name)
            brought = transfer(resolved.store, partial, _CAME, resolved.source, self._settings, self._progress.bytes)
            with told(target):
                shutil.rmtree(target, ignore_errors=True)
                if brought.alone and sources.is_archive(brought.files[0].name):
                    record = self._unpacked(came / brought.files[0].name, target, resolved)
                    shutil.rmtree(came)
                else:
                    record = Record(resolved.key, target.name, brought.files, brought.alone)
                    came.rename(target)
                (partial / LISTING).unlink()
            if is_called_bundle(target):
                with _called(resolved.source, target):
                    open_bundle(target)
            return record

        return self._cache.fill(resolved.key, make, _verify, self._wait)

    def _unpacked(self, archive: Path, target: Path, resolved: Resolved) -> Record:
        self._progress.step(f"unpack {archive.name}")
        target.mkdir()
        sources.unpack(archive, target, self._settings.max_bytes)
        found = sorted(path for path in target.rglob("*") if path.is_file())
        files = [Arrived(path.relative_to(target).as_posix(), path.stat().st_size, _sha256(path)) for path in found]
        for path in [target, *target.rglob("*")]:
            sync(path)
        return Record(resolved.key, target.name, tuple(files))

    def _built_here(self, path: Path, key: str, names_class: bool) -> Obtained:
        file = _module_file(self._text) if names_class else path
        content = _content_of(file)
        name = self._text.rpartition(":")[2] if names_class else path.absolute().name if path.is_dir() else path.stem
        request = BuildRequest(self._text, self._text, folder_name(name), None, self._options)
        build_key = self._build_key(f"{self._text} {content}", name, None)
        entry, warnings = self._built(request, build_key, lambda: _content_of(file) == content)
        return replace(_obtained(open_bundle(entry.path), key, is_bundle=False, hold=entry.hold), warnings=warnings)

    def _built(
        self, request: BuildRequest, key: str, is_unchanged: Callable[[], bool]
    ) -> tuple[Entry, tuple[str, ...]]:
        """Have what a build makes of a model, and its warnings if it is made now."""
        warnings: list[str] = []

        def make(partial: Path) -> Record:
            target = partial / request.name
            try:
                # Of a build that was killed nothing is of use.
                shutil.rmtree(partial)
                partial.mkdir()
                warnings.extend(build_apart(request, target, self._settings.timeout_s, self._step))
                if not is_unchanged():
                    raise SourceError(f"{request.told_as}: changed while it was built: try again when it is written")
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            return _record_of(open_bundle(target), key, request.name)

        return self._cache.fill(key, make, _verify, self._wait), tuple(warnings)

    def _build_key(self, content: str, name: str, version: str | None) -> str:
        return "\n".join(["build", fairlead.__version__, content, name, str(version), _fingerprint(self._options)])

    def _step(self, step: str) -> None:
        self._progress.step(f"build: {step}")

    def _wait(self) -> None:
        self._progress.step("wait for another process that brings the same model")


def _obtained(
    bundle: Bundle, key: str, version: str | None = None, is_bundle: bool = True, hold: Lock | None = None
) -> Obtained:
    manifest = bundle.manifest
    return Obtained(
        bundle.path, manifest.name, manifest.version, bundle.digest, key, version, is_bundle=is_bundle, hold=hold
    )


def _model_in(path: Path) -> Path:
    """Give what a format is to look at: the one file of a directory that holds nothing else."""
    if path.is_file() or (path / DESCRIPTOR).exists():
        return path
    files = [file for file in path.rglob("*") if file.is_file()]
    return files[0] if len(files) == 1 else path


def _verify(entry: Entry) -> None:
    """Find what changed in an entry since it was made.

    Raises
    ------
    BundleError
    """
    if is_called_bundle(entry.path):
        open_bundle(entry.path)
        return
    folder = entry.path.parent if entry.record.alone else entry.path
    for file in entry.record.files:
        if _sha256(folder / file.name) != file.sha256:
            raise BundleError(f"{folder / file.name}: changed since it was fetched")


def _copied(bundle: Bundle, key: str, partial: Path, folder: str) -> Record:
    """Copy a bundle, and see that the copy is the bundle."""
    target = partial / folder
    with told(target):
        shutil.rmtree(target, ignore_errors=True)
        for name in [DESCRIPTOR, *bundle.manifest.files]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, target / name)
            sync(target / name)
    copy = open_bundle(target)
    if copy.digest != bundle.digest:
        raise BundleError(f"{bundle.path}: changed while it was copied: try again when it is written")
    return _record_of(copy, key, folder)


def _record_of(bundle: Bundle, key: str, folder: str) -> Record:
    digests = {DESCRIPTOR: bundle.digest, **bundle.manifest.files}
    files = (Arrived(name, (bundle.path / name).stat().st_size, sha256) for name, sha256 in sorted(digests.items()))
    return Record(key, folder, tuple(files))


def _local_key(path: Path) -> str:
    """Tell apart what was at a path at different times, without reading it."""
    digest = hashlib.sha256(os.fsencode(path))
    for file in sorted([path, *path.rglob("*")]):
        with suppress(FileNotFoundError, NotADirectoryError):
            facts = file.stat()
            digest.update(f"{file}\0{facts.st_ino}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="replace"))
    return f"local {digest.hexdigest()}"


def _content_of(path: Path | None) -> str:
    """Give one digest for a file, or for all files of a directory; of nothing for what is not there."""
    if path is None:
        return ""
    digest = hashlib.sha256()
    for file in sorted([path, *path.rglob("*")]):
        if file.is_file():
            digest.update(os.fsencode(file.relative_to(path)) + b"\0" + _sha256(file).encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


def _module_file(source: str) -> Path | None:
    """Find the file of ``module:Class`` where its format will."""
    places: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    for part in source.partition(":")[0].split("."):
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _fingerprint(options: BuildOptions | None) -> str:
    """Give one digest for what a build is told, files by what is in them."""
    if options is None:
        return ""
    given: list[object] = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "trust":
            value = sorted(value)
        given.append(_sha256(value) if isinstance(value, Path) else value)
    return hashlib.sha256(pickle.dumps(given)).hexdigest()


@contextmanager
def _called(source: str, path: Path) -> Iterator[None]:
    """Tell of a bundle by where it came from: where it lies now will soon be gone."""
    try:
        yield
    except BundleError as error:
        raise BundleError(str(error).replace(str(path), source)) from error
