"""What was fetched or built, kept on this machine: each entry whole or not there, whoever is killed when.

    entries/ID/            whole; ID is made of the key, which names the content for good
        .record.json       what it is: key, folder, files, sizes
        FOLDER/…           the files
    partial/ID/            being made, or left by a process that died; becomes the entry by one rename
    locks/ID.fill          held by the one process that makes or removes the entry
    locks/ID.use           shared by all who use it, so that it is not evicted
    seen/ID.json           what a source meant when its registry was last heard of

Layer L1; imports `disk`, `locks`, errors and config.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from fairlead.bundle.disk import replace_file, size_of, sync, told
from fairlead.bundle.locks import Lock, try_lock, wait_lock
from fairlead.bundle.transfer import Arrived
from fairlead.config import CacheSettings
from fairlead.errors import BundleError, CacheError, SourceUnavailable

_RECORD = ".record.json"
_GONE = ".gone-"
# Where a source's meaning depends on more than its text.
_ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
)


class Record(Struct, frozen=True):
    """What an entry says of itself.

    Parameters
    ----------
    key : names the content for good.
    folder : the directory in the entry that holds the files.
    files : all of them, by name; a single one without its folder is the entry's content when `alone`.
    """

    key: str
    folder: str
    files: tuple[Arrived, ...]
    alone: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class Sighting(Struct, frozen=True):
    """What a source meant when it was last asked, for a start while its registry is away.

    Parameters
    ----------
    key, name, version : as in `Resolved`.
    seen_at : seconds since the epoch.
    """

    key: str
    name: str
    version: str | None
    seen_at: float


@dataclass(frozen=True)
class Entry:
    """An entry in use: it is not evicted before `hold` is released or this process ends.

    Parameters
    ----------
    path : the directory of its files, or the one file that it is.
    record : what it says of itself.
    hold : None where the cache cannot be written to, and so nobody can evict.
    """

    path: Path
    record: Record
    hold: Lock | None

    def release(self) -> None:
        """Let it be evicted."""
        if self.hold is not None:
            self.hold.release()


Make = Callable[[Path], Record]
Check = Callable[[Entry], None]


class Cache:
    """The entries in one directory; any number of processes and threads may work with it.

    Parameters
    ----------
    settings : where it is and how large it may become.
    environ : tells the user's directory for caches.
    """

    def __init__(self, settings: CacheSettings, environ: Mapping[str, str]) -> None:
        self._directory = directory_of(settings, environ)
        self._settings = settings
        self._environ = environ

    def find(self, key: str) -> Entry | None:
        """Give an entry that is whole, by its files' sizes, and mark it as used now."""
        name = _id(key)
        place = self._directory / "entries" / name
        if not (place / _RECORD).is_file():
            return None
        hold = self._hold(name)
        entry = self._opened(place, hold)
        if entry is None:
            if hold is not None:
                hold.release()
            return None
        with suppress(OSError):
            # The clock of a file system ticks too rarely to tell two uses apart.
            os.utime(place / _RECORD, ns=(time.time_ns(), time.time_ns()))
        return entry

    def fill(self, key: str, make: Make, check: Check, on_wait: Callable[[], None]) -> Entry:
        """Give an entry; where there is none, or a broken one, let one process of all that ask for it make it.

        Parameters
        ----------
        make : puts folder and files into the directory it is given, in which a dead process may have left its work.
        check : raises `BundleError` for an entry that changed since it was made.
        on_wait : is called when another process is found to be making it.

        Raises
        ------
        SourceUnavailable
            When another process was at it for `timeout_s`.
        CacheFull, CacheError
            When the disk does not take it.
        """
        entry = self._sound(key, check)
        if entry is not None:
            return entry
        name = _id(key)
        self._make_directories()
        lock = wait_lock(self._lock_file(name, "fill"), self._settings.timeout_s, on_wait)
        if lock is None:
            raise SourceUnavailable(
                f"{self._directory}: another process has been at the same model for {self._settings.timeout_s:g} s: "
                "see whether it still moves, and end it if not"
            )
        with lock:
            entry = self._sound(key, check)
            if entry is None:
                self._make(name, make)
                entry = self.find(key)
        if entry is None:
            raise CacheError(f"{self._directory}: an entry vanished as it was made: does anything else clear this?")
        self.evict()
        return entry

    def evict(self) -> None:
        """Remove what was used longest ago until the rest fits; never what is in use, nor what was used last."""
        with told(self._directory):
            self._remove_gone()
            found = sorted(self._sizes(), reverse=True)
        total = sum(size for _, size, _ in found)
        for _, size, place in reversed(found[1:]):
            if total <= self._settings.max_bytes:
                break
            if self._remove(place):
                total -= size

    def remember(self, source: str, sighting: Sighting) -> None:
        """Keep what a source means now. A cache that cannot be written to keeps nothing."""
        path = self._seen_file(source)
        with suppress(OSError, CacheError):
            self._make_directories()
            replace_file(path, msgspec.json.encode(sighting))

    def recall(self, source: str) -> Sighting | None:
        """Give what a source meant when it was last asked."""
        try:
            return msgspec.json.decode(self._seen_file(source).read_bytes(), type=Sighting)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _sound(self, key: str, check: Check) -> Entry | None:
        entry = self.find(key)
        if entry is None:
            return None
        try:
            check(entry)
        except BundleError:
            entry.release()
            return None
        except BaseException:
            entry.release()
            raise
        return entry

    def _opened(self, place: Path, hold: Lock | None) -> Entry | None:
        try:
            record = msgspec.json.decode((place / _RECORD).read_bytes(), type=Record)
            folder = place / record.folder
            is_whole = all((folder / file.name).stat().st_size == file.size_bytes for file in record.files)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        path = folder / record.files[0].name if record.alone else folder
        return Entry(path, record, hold) if is_whole else None

    def _hold(self, name: str) -> Lock | None:
        """Share an entry's lock, waiting for whoever is just removing it."""
        try:
            self._make_directories()
            return wait_lock(self._lock_file(name, "use"), self._settings.read_timeout_s, lambda: None, shared=True)
        except CacheError:  # read-only, or full
            return None

    def _make(self, name: str, make: Make) -> None:
        partial = self._directory / "partial" / name
        place = self._directory / "entries" / name
        with told(partial):
            partial.mkdir(exist_ok=True)
        try:
            record = make(partial)
            with told(partial):
                replace_file(partial / _RECORD, msgspec.json.encode(record))
                sync(partial)
                if place.exists():
                    self._put_away(place)
                partial.rename(place)
                sync(place.parent)
        except (CacheError, BundleError):
            # Of no use to the next try, and in the way of others where the disk is full.
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _sizes(self) -> list[tuple[float, int, Path]]:
        """List entries and what is left of unfinished ones: when it was last used, its size, its place."""
        found = []
        for kind in ("entries", "partial"):
            for place in (self._directory / kind).iterdir():
                with suppress(FileNotFoundError):
                    record = place / _RECORD
                    used = (record if record.exists() else place).stat().st_mtime
                    found.append((used, size_of(place), place))
        return found

    def _remove(self, place: Path) -> bool:
        """Remove an entry, or what is left of one, unless somebody makes or uses it."""
        files = [self._lock_file(place.name, kind) for kind in ("fill", "use")]
        locks: list[Lock] = []
        try:
            for file in files:
                lock = try_lock(file)
                if lock is None:
                    return False
                locks.append(lock)
            with told(place), suppress(FileNotFoundError):
                self._put_away(place)
            if not any((self._directory / kind / place.name).exists() for kind in ("entries", "partial")):
                # Whoever waits for one of them sees that it is gone, and makes it anew.
                for file in files:
                    file.unlink(missing_ok=True)
            return True
        finally:
            for lock in locks:
                lock.release()

    def _put_away(self, place: Path) -> None:
        """Take a directory out of sight in one step, and then remove it."""
        gone = self._directory / "partial" / f"{_GONE}{secrets.token_hex(8)}"
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _remove_gone(self) -> None:
        """Finish what a process that died had begun to remove."""
        for place in (self._directory / "partial").glob(f"{_GONE}*"):
            shutil.rmtree(place, ignore_errors=True)

    def _make_directories(self) -> None:
        with told(self._directory):
            for kind in ("entries", "partial", "locks", "seen"):
                (self._directory / kind).mkdir(parents=True, exist_ok=True)

    def _lock_file(self, name: str, kind: str) -> Path:
        return self._directory / "locks" / f"{name}.{kind}"

    def _seen_file(self, source: str) -> Path:
        meant_by = [source, *(f"{name}={self._environ.get(name, '')}" for name in _ADDRESSES)]
        return self._directory / "seen" / f"{_id(chr(10).join(meant_by))}.json"


def directory_of(settings: CacheSettings, environ: Mapping[str, str]) -> Path:
    """Give the directory of the cache.

    Raises
    ------
    CacheError
        When none is set and this user has no home.
    """
    if settings.directory is not None:
        return Path(settings.directory).expanduser().absolute()
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]) / "fairlead"
    try:
        return Path(environ.get("HOME") or Path.home()) / ".cache" / "fairlead"
    except RuntimeError as error:
        raise CacheError(
            "expected a place for models from elsewhere, this user has no home: "
            "name one with cache.directory in fairlead.yaml or FAIRLEAD_CACHE_DIRECTORY"
        ) from error


def folder_name(name: str) -> str:
    """Make a name that a directory, and a model, can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-") or "model"


def age_text(seen_at: float) -> str:
    """Tell how long ago something was, to a person."""
    age_s = max(0.0, time.time() - seen_at)
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if age_s >= length_s or unit == "second":
            number = int(age_s // length_s)
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    raise AssertionError  # the last unit always fits


def _id(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
