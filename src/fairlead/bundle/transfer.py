"""Bring the files of a store onto this disk: a few at once, and after a break from where it broke.

What has arrived stays in the directory between tries, also those of other processes: whole files under their names,
begun ones in `.parts`, and in `.listing.json` what the store said of each. A file whose etag changed begins anew.
Layer L1; imports `sources.store`, `disk`, errors and config.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from fairlead.bundle.disk import check_space, replace_file, size_text, sync, told
from fairlead.bundle.sources.store import NoResume, RemoteFile, Store
from fairlead.config import CacheSettings
from fairlead.errors import SourceError, SourceUnavailable

PARTS = ".parts"
LISTING = ".listing.json"
_AT_ONCE = 4
# Tries in a row that brought nothing; one that brought a byte begins to count anew.
_MOST_TRIES = 4
_FIRST_PAUSE_S = 0.25
_REPORT_EVERY_S = 0.1
_READ_BYTES = 1024 * 1024

Result = TypeVar("Result")


class Arrived(Struct, frozen=True):
    """A file that is here, whole.

    Parameters
    ----------
    name : relative, with forward slashes.
    size_bytes, sha256 : of its content.
    """

    name: str
    size_bytes: int
    sha256: str


class Transferred(Struct, frozen=True):
    """What came of a transfer.

    Parameters
    ----------
    files : sorted by name.
    alone : whether the source is the one file, rather than a directory that holds it.
    """

    files: tuple[Arrived, ...]
    alone: bool


class _Said(Struct, frozen=True):
    """What the store said of a file when it was begun."""

    size_bytes: int | None
    etag: str | None


def transfer(
    store: Store,
    directory: Path,
    folder: str,
    source: str,
    settings: CacheSettings,
    progress: Callable[[int, int | None], None],
) -> Transferred:
    """Fetch all files of a store.

    Parameters
    ----------
    directory : where an earlier try left what it had; only one process may work in it.
    folder : the name in `directory` under which the files are in the end.
    source : how errors call it.
    settings : bounds of every wait and of the whole.
    progress : is told the bytes here and in all, None where the store does not tell; from other threads, but
        never twice at once.

    `LISTING` stays: whoever is done with the directory removes it.

    Raises
    ------
    SourceUnavailable
        When the store was away or silent too long, or `timeout_s` passed; what came is kept for the next try.
    SourceError
        And its kinds; a file of another digest than was promised is removed.
    CacheFull, CacheError
        When the disk does not take it.
    """
    return _Transfer(store, directory, folder, source, settings, progress).run()


def retried(call: Callable[[], Result], deadline: float, most_tries: int = _MOST_TRIES) -> Result:
    """Call again what could not be reached, with growing pauses.

    Parameters
    ----------
    deadline : of `time.monotonic`, after which nothing is begun again.
    most_tries : how often to call.

    Raises
    ------
    SourceUnavailable
        The last one.
    """
    tries = _Tries(deadline, most_tries)
    while True:
        try:
            return call()
        except SourceUnavailable:
            pause_s = tries.next_pause_s()
            if pause_s is None:
                raise
            time.sleep(pause_s)


class _Tries:
    """Counts the tries that brought nothing, and says how long to wait before the next."""

    def __init__(self, deadline: float, most: int = _MOST_TRIES) -> None:
        self._deadline = deadline
        self._most = most
        self._failed = 0

    def next_pause_s(self) -> float | None:
        """Give the pause before the next try; None when there is to be none."""
        self._failed += 1
        pause_s: float = _FIRST_PAUSE_S * 2 ** (self._failed - 1)
        is_over = self._failed >= self._most or time.monotonic() + pause_s >= self._deadline
        return None if is_over else pause_s

    def forget(self) -> None:
        self._failed = 0


class _Stopped(Exception):
    """Another file failed, so this one need not go on."""


class _Transfer:
    def __init__(
        self,
        store: Store,
        directory: Path,
        folder: str,
        source: str,
        settings: CacheSettings,
        progress: Callable[[int, int | None], None],
    ) -> None:
        self._store = store
        self._directory = directory
        self._target = directory / folder
        self._source = source
        self._settings = settings
        self._deadline = time.monotonic() + settings.timeout_s
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._arrived: dict[str, Arrived] = {}
        self._count = _Count(progress)

    def run(self) -> Transferred:
        files = retried(self._store.files, self._deadline)
        with told(self._directory):
            self._target.mkdir(exist_ok=True)
            (self._directory / PARTS).mkdir(exist_ok=True)
            self._keep_only(files)
        sizes = [file.size_bytes for file in files]
        here = sum(self._here_bytes(file) for file in files)
        self._count.begin(here, None if None in sizes else sum(size or 0 for size in sizes))
        check_space(self._directory, sum(size or 0 for size in sizes) - here)
        self._fetch_all(files)
        with told(self._directory):
            for folder, _, _ in os.walk(self._target):
                sync(Path(folder))
            shutil.rmtree(self._directory / PARTS)
        self._count.finish()
        return Transferred(tuple(self._arrived[file.name] for file in files), files[0].alone)

    def _keep_only(self, files: list[RemoteFile]) -> None:
        """Remove what came of files that the store now has otherwise, or no longer; write down what it has."""
        says = {file.name: _Said(file.size_bytes, file.etag) for file in files}
        path = self._directory / LISTING
        said: dict[str, _Said] = {}
        with suppress(FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            said = msgspec.json.decode(path.read_bytes(), type=dict[str, _Said])
        parts = {self._part(file).name for file in files if says[file.name] == said.get(file.name) and file.etag}
        for part in list((self._directory / PARTS).iterdir()):
            if part.name not in parts:
                part.unlink()
        for here in sorted(self._target.rglob("*"), reverse=True):
            known = here.relative_to(self._target).as_posix()
            if here.is_dir():
                with suppress(OSError):  # not empty
                    here.rmdir()
            elif known not in says or says[known] != said.get(known):
                here.unlink()
        replace_file(path, msgspec.json.encode(says))

    def _fetch_all(self, files: list[RemoteFile]) -> None:
        waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
        # The largest first, so that it does not come alone at the end.
        for file in sorted(files, key=lambda file: -(file.size_bytes or 0)):
            waiting.put(file)
        # Daemons: at Ctrl-C the command must end, and not wait for a store that is silent.
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name=f"fetch-{place}", daemon=True)
            for place in range(min(_AT_ONCE, len(files)))
        ]
        try:
            for thread in threads:
                thread.start()
            # A store keeps its own timeouts; this one is for a store that does not.
            last = self._deadline + self._settings.connect_timeout_s + self._settings.read_timeout_s
            for thread in threads:
                thread.join(max(0.0, last - time.monotonic()))
        finally:
            self._stop.set()
        if self._errors:
            raise self._errors[0]
        if any(thread.is_alive() for thread in threads):
            raise self._too_late()

    def _work(self, waiting: queue.SimpleQueue[RemoteFile]) -> None:
        try:
            while not self._stop.is_set():
                self._fetch(waiting.get_nowait())
        except (queue.Empty, _Stopped):
            pass
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def _fetch(self, file: RemoteFile) -> None:
        """Bring one file, in as many tries as it takes."""
        whole = self._whole(file)
        if whole.is_file():
            self._arrived[file.name] = _read_back(file.name, whole)
            return
        tries = _Tries(self._deadline)
        furthest = 0
        while True:
            start = self._here_bytes(file)
            try:
                self._finish(file, self._receive(file, start), was_begun=start > 0)
                return
            except NoResume:
                self._discard(file)
                if not start and not self._wait(tries):
                    raise
            except SourceUnavailable:
                if self._here_bytes(file) > max(start, furthest):
                    tries.forget()
                    furthest = self._here_bytes(file)
                if not self._wait(tries):
                    if time.monotonic() + _FIRST_PAUSE_S >= self._deadline:
                        raise self._too_late() from None
                    raise
            if not file.etag:
                # Nothing tells whether the rest would be of the same file.
                self._discard(file)

    def _wait(self, tries: _Tries) -> bool:
        pause_s = tries.next_pause_s()
        if pause_s is None:
            return False
        if self._stop.wait(pause_s):
            raise _Stopped
        return True

    def _receive(self, file: RemoteFile, start: int) -> str:
        """Append to the part what the store gives from `start` on; give the SHA-256 of the whole."""
        part = self._part(file)
        digest = hashlib.sha256()
        with told(part):
            sink = part.open("r+b" if start else "w+b")
        with sink:
            with told(part):
                for data in iter(lambda: sink.read(_READ_BYTES), b""):
                    digest.update(data)
            size = start
            # A process may have died with the whole of it here, but its name.
            coming = iter(()) if start == file.size_bytes else self._store.read(file, start)
            with _closed(coming) as chunks:
                for chunk in chunks:
                    self._go_on()
                    with told(part):
                        sink.write(chunk)
                        # What is counted as here has to be here for the next try, whenever this process dies.
                        sink.flush()
                    digest.update(chunk)
                    size += len(chunk)
                    self._count.add(len(chunk))
            with told(part):
                os.fsync(sink.fileno())
        if file.size_bytes is not None and size < file.size_bytes:
            raise SourceUnavailable(
                f"{self._source}: {file.name}: the transfer broke off, expected {file.size_bytes} bytes, got {size}"
            )
        return digest.hexdigest()

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped
        if time.monotonic() >= self._deadline:
            raise self._too_late()

    def _finish(self, file: RemoteFile, sha256: str, was_begun: bool) -> None:
        """Take a part for whole, if it is what was promised."""
        part = self._part(file)
        size = self._here_bytes(file)
        is_of_size = file.size_bytes is None or size == file.size_bytes
        if not is_of_size or (file.sha256 is not None and sha256 != file.sha256):
            self._discard(file)
            if was_begun:
                raise NoResume(f"{self._source}: {file.name}: its beginning and its end do not belong together")
            expected, got = (file.size_bytes, size) if not is_of_size else (file.sha256, sha256)
            what = "bytes" if not is_of_size else "SHA-256"
            raise SourceError(
                f"{self._source}: {file.name}: expected {what} {expected}, got {got}: "
                "it is not the file that was promised, and was removed"
            )
        whole = self._whole(file)
        with told(whole):
            whole.parent.mkdir(parents=True, exist_ok=True)
            part.rename(whole)
        self._arrived[file.name] = Arrived(file.name, size, sha256)

    def _here_bytes(self, file: RemoteFile) -> int:
        for path in (self._whole(file), self._part(file)):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def _discard(self, file: RemoteFile) -> None:
        self._count.add(-self._here_bytes(file))
        self._part(file).unlink(missing_ok=True)

    def _whole(self, file: RemoteFile) -> Path:
        return self._target / file.name

    def _part(self, file: RemoteFile) -> Path:
        # By digest: a name may have folders, and may end as another one with a suffix would.
        return self._directory / PARTS / hashlib.sha256(os.fsencode(file.name)).hexdigest()[:32]

    def _too_late(self) -> SourceUnavailable:
        total = "" if self._count.total is None else f" of {size_text(self._count.total)}"
        return SourceUnavailable(
            f"{self._source}: not fetched within {self._settings.timeout_s:g} s; {size_text(self._count.done)}{total} "
            "are here and are kept: try again to go on from there, or allow more with cache.timeout_s"
        )


class _Count:
    """Counts bytes of all threads, and tells of them now and then."""

    def __init__(self, progress: Callable[[int, int | None], None]) -> None:
        self.done = 0
        self.total: int | None = None
        self._progress = progress
        self._lock = threading.Lock()
        self._told_at = 0.0

    def begin(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total
        self.finish()

    def add(self, size: int) -> None:
        with self._lock:
            self.done += size
            now = time.monotonic()
            if now - self._told_at >= _REPORT_EVERY_S:
                self._told_at = now
                self._progress(self.done, self.total)

    def finish(self) -> None:
        with self._lock:
            self._progress(self.done, self.total)


@contextmanager
def _closed(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Let go of the connection behind an iterator, if it has one, also when it is not read to its end."""
    close = getattr(chunks, "close", None)
    if close is None:
        yield chunks
    else:
        with closing(chunks):  # type: ignore[type-var]  # a generator has `close`, an Iterator need not
            yield chunks


def _read_back(name: str, path: Path) -> Arrived:
    with told(path), path.open("rb") as file:
        return Arrived(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
