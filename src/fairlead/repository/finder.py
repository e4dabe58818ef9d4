"""Brings bundles to this machine, for a server that goes on answering meanwhile.

A bundle in a local directory is only verified. All else is the work of one process beside the server
(`python -m fairlead.repository.finder`), which has what asks registries and stores in its memory so that no process
that answers does, and which can be ended when it hangs. On its standard input and output: a line of JSON for each
wish, and for each step and result.

Layer L2; the process imports what `fairlead.bundle.obtain` needs.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from fairlead.bundle.read import Bundle, is_called_bundle, open_bundle
from fairlead.config import CacheSettings, ModelSettings, is_address, is_class
from fairlead.errors import FairleadError, SourceError, SourceUnavailable
from fairlead.repository.deployments import Deployment, Variant

if TYPE_CHECKING:
    from fairlead.bundle.locks import Lock
    from fairlead.bundle.obtain import Progress

# The process keeps to the timeouts itself; this long after the last of them it counts as hanging.
_GRACE_S = 30.0
_TELL_S = 0.2
# Answers go before what may be served later; within a session, for Linux weighs it there only.
_NICE = 10
# Of a line of news: an error may tell much.
_MAX_LINE_BYTES = 1 << 24
_REGISTERED = re.compile(r"models:/+([^/@]+)(?:[/@].*)?")

logger = logging.getLogger("fairlead.repository")


class Wish(Struct, frozen=True, tag=True):
    """What the process is to do.

    Parameters
    ----------
    number : names the wish.
    source : to be brought here.
    is_kept : as for `Finder.find`.
    """

    number: int
    source: str
    is_kept: bool


class Keep(Struct, frozen=True, tag=True):
    """The bundles that are in use; all others may leave the cache.

    Parameters
    ----------
    paths : their directories.
    """

    paths: list[str]


class Had(Struct, frozen=True, tag=True):
    """A bundle is here.

    Parameters
    ----------
    number : of the wish.
    variant : the bundle.
    warnings : what the user should know.
    """

    number: int
    variant: Variant
    warnings: list[str]


class Step(Struct, frozen=True, tag=True):
    """How far a wish is.

    Parameters
    ----------
    number : of the wish.
    step : what goes on.
    done_bytes, total_bytes : of a transfer; the total is None when it is not known.
    """

    number: int
    step: str
    done_bytes: int = 0
    total_bytes: int | None = None

    def __str__(self) -> str:
        if not self.done_bytes:
            return self.step
        total = "" if self.total_bytes is None else f" of {self.total_bytes / 1e6:.1f}"
        return f"{self.step}: {self.done_bytes / 1e6:.1f}{total} MB"


class Failed(Struct, frozen=True, tag=True):
    """A wish cannot be fulfilled.

    Parameters
    ----------
    number : of the wish.
    error : why.
    is_retryable : whether another try may do.
    """

    number: int
    error: str
    is_retryable: bool


_encode = msgspec.json.Encoder().encode
_decode_wish = msgspec.json.Decoder(Wish | Keep).decode
_decode_news = msgspec.json.Decoder(Had | Step | Failed).decode


def is_bundle(source: str) -> bool:
    """Whether a source is the directory of a bundle, or nothing at all, which is for `open_bundle` to say."""
    if is_address(source):
        return False
    path = Path(source)
    return is_called_bundle(path) or not (path.exists() or is_class(source))


def default_name(source: str) -> str:
    """Give the name of a model that is known by its source alone.

    Raises
    ------
    SourceError
        When the source has none in it.
    """
    if registered := _REGISTERED.fullmatch(source):
        name = registered[1]
    else:
        name = PurePosixPath(source.partition("#")[0].rstrip("/")).name
        name = re.sub(r"(\.tar)?\.[A-Za-z]\w*$", "", name)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    if not name:
        raise SourceError(f"{source}: it does not tell the model's name: give it one in fairlead.yaml")
    return name


def deployment_of(settings: ModelSettings, bundle: Bundle | None, is_pending: bool = False) -> Deployment:
    """Say what is served when a setting's source is this bundle, now or when it has been brought in."""
    own_name = default_name(settings.source) if bundle is None else bundle.manifest.name
    return Deployment(
        name=settings.name or own_name,
        stable=None if bundle is None or is_pending else Variant.of(bundle),
        reason="it is being fetched" if is_pending else "",
        is_pending=is_pending,
        is_lazy=settings.lazy,
        processes=settings.processes if settings.isolation == "process" else 0,
    )


async def verified(path: str) -> Variant:
    """Describe a bundle in a local directory, after verifying every byte.

    Raises
    ------
    BundleError
        When it is none or was changed.
    """
    return Variant.of(await asyncio.to_thread(open_bundle, Path(path)))


class ProcessFinder:
    """Finds bundles wherever they live, with the help of a process that is started when it is first needed.

    Parameters
    ----------
    settings : of the cache.

    Attributes
    ----------
    progress : is told what goes on; None where nobody watches.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self.progress: Progress | None = None
        self._numbers = itertools.count()
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, tuple[asyncio.Future[Variant], str, Callable[[str], None]]] = {}

    async def find(self, source: str, name: str, *, is_kept: bool, report: Callable[[str], None]) -> Variant:
        if is_bundle(source) and not is_kept:
            return await verified(source)
        process = await self._running()
        number = next(self._numbers)
        answer: asyncio.Future[Variant] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer, source, report
        try:
            self._send(process, Wish(number, source, is_kept))
            return await asyncio.wait_for(answer, self._settings.timeout_s + _GRACE_S)
        except TimeoutError:
            await self.close()  # another one may do better
            raise SourceUnavailable(
                f"{source}: expected it within {self._settings.timeout_s:g} s (cache.timeout_s), got no answer"
            ) from None
        finally:
            self._waiting.pop(number, None)

    def keep(self, paths: Iterable[str]) -> None:
        """Tell which bundles are in use; all others may leave the cache."""
        if self._process is not None:
            self._send(self._process, Keep(sorted(paths)))

    async def close(self) -> None:
        """End the process."""
        if self._process is not None and self._reading is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._reading

    def _send(self, process: asyncio.subprocess.Process, message: Wish | Keep) -> None:
        assert process.stdin is not None
        with suppress(OSError, RuntimeError):  # it has died, and whoever waits is told
            process.stdin.write(_encode(message) + b"\n")

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "fairlead.repository.finder", _encode(self._settings).decode()),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_MAX_LINE_BYTES,
                )
                self._reading = asyncio.get_running_loop().create_task(self._read(self._process))
            return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out what the process tells, until its end; whoever waits then is told of that."""
        try:
            await self._hear(process)
        except Exception:
            logger.exception("the process that brings models cannot be heard: another takes its place")
            if process.returncode is None:
                process.kill()
        code = await process.wait()
        for answer, source, _ in self._waiting.values():
            if not answer.done():
                error = f"{source}: the process that brings it ended with exit code {code}: see the log above"
                answer.set_exception(SourceUnavailable(error))

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                news = _decode_news(line)
            except msgspec.MsgspecError:
                logger.error("expected news of the process that brings models, got %.200r", line)
                continue
            if news.number not in self._waiting:
                continue
            answer, _, report = self._waiting[news.number]
            if isinstance(news, Step):
                report(str(news))
                if self.progress is not None and news.done_bytes:
                    self.progress.bytes(news.done_bytes, news.total_bytes)
                elif self.progress is not None:
                    self.progress.step(news.step)
            elif answer.done():
                continue
            elif isinstance(news, Had):
                for warning in news.warnings:
                    logger.warning("%s", warning)
                answer.set_result(news.variant)
            else:
                answer.set_exception((SourceUnavailable if news.is_retryable else SourceError)(news.error))


class _Told:
    """Passes on how far a wish is, a few times a second."""

    def __init__(self, number: int, tell: Callable[[Step], None]) -> None:
        self._number = number
        self._tell = tell
        self._step = ""
        self._at_s = 0.0

    def step(self, text: str) -> None:
        self._step = text
        self._tell(Step(self._number, text))

    def bytes(self, done: int, total: int | None) -> None:
        now_s = time.monotonic()
        if now_s - self._at_s > _TELL_S or done == total:
            self._at_s = now_s
            self._tell(Step(self._number, self._step, done, total))


class _Service:
    """The process: fulfils wishes, each in a thread of its own."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        # What a library prints is no news.
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._holds: dict[str, Lock] = {}
        # What each wish gave when it was last fulfilled, by what its source meant then.
        self._given: dict[tuple[str, bool], tuple[str, Variant]] = {}

    def run(self) -> None:
        """Fulfil wishes until the server closes its end."""
        os.setpgid(0, 0)  # Ctrl-C is for the server, which ends this one
        os.nice(_NICE)
        for line in sys.stdin.buffer:
            message = _decode_wish(line)
            if isinstance(message, Keep):
                for path in self._holds.keys() - set(message.paths):
                    self._holds.pop(path).release()
            else:
                threading.Thread(target=self._fulfil, args=(message,), daemon=True).start()
        os._exit(0)

    def _fulfil(self, wish: Wish) -> None:
        try:
            variant, warnings = self._had_again(wish) or self._obtained(wish)
        except FairleadError as error:
            self._tell(Failed(wish.number, str(error), error.retryable))
        except Exception as error:
            logger.exception("%s", wish.source)
            self._tell(Failed(wish.number, f"{wish.source}: {type(error).__name__}: {error}", is_retryable=False))
        else:
            self._tell(Had(wish.number, variant, warnings))

    def _had_again(self, wish: Wish) -> tuple[Variant, list[str]] | None:
        """Give what a wish gave before, if its source means the same now: that is one question, and nothing is read."""
        from fairlead.bundle.obtain import look_up

        given = self._given.get((wish.source, wish.is_kept))
        if given is None or is_class(wish.source):  # where a class comes from is not to be told from its name
            return None
        key, variant = given
        if look_up(wish.source, self._settings, os.environ) != key or not is_called_bundle(Path(variant.path)):
            return None
        return variant, []

    def _obtained(self, wish: Wish) -> tuple[Variant, list[str]]:
        from fairlead.bundle.obtain import obtain

        told = _Told(wish.number, self._tell)
        found = obtain(wish.source, self._settings, os.environ, told, pin=wish.is_kept)
        if found.hold is not None and self._holds.setdefault(str(found.path), found.hold) is not found.hold:
            found.hold.release()
        variant = Variant.of(open_bundle(found.path))
        self._given[wish.source, wish.is_kept] = found.key, variant
        return variant, list(found.warnings)

    def _tell(self, news: Had | Step | Failed) -> None:
        with self._lock, suppress(BrokenPipeError):
            os.write(self._out, _encode(news) + b"\n")


if __name__ == "__main__":
    _Service(msgspec.json.decode(sys.argv[1], type=CacheSettings)).run()
