"""`fairlead stream`: a consumer with its model, its probes and its signals, until it is told to stop.

Layer L3; wires the modules of this package together.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from fairlead.bundle.read import open_bundle
from fairlead.config import CacheSettings, ModelSettings, StreamSettings, is_address
from fairlead.errors import ConfigError, FairleadError
from fairlead.monitor import logs
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from fairlead.monitor.sockets import bind, listen
from fairlead.repository.controller import Controller
from fairlead.repository.finder import ProcessFinder, deployment_of, is_bundle
from fairlead.repository.state import TrafficState, deployment_key, state_directory, state_path
from fairlead.stream.address import shown
from fairlead.stream.broker import Sink, Source, SourceOptions
from fairlead.stream.brokers import open_sink, open_source
from fairlead.stream.consumer import Consumer
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.envelope import Envelope
from fairlead.stream.models import Models
from fairlead.stream.overflow import open_overflow
from fairlead.stream.progress import Progress, Status
from fairlead.stream.retry import Retry

if TYPE_CHECKING:
    from fairlead.bundle.obtain import Progress as Bringing

Watch = Callable[[Status], None]
Show = Callable[[], "AbstractContextManager[Bringing]"]
_STOP = (signal.SIGINT, signal.SIGTERM)
_LOOK_S = 1.0
# A batch makes some thousands of objects that live until it is published.
_YOUNG_OBJECTS = 50_000

logger = logging.getLogger("fairlead.stream")


def run(
    model: ModelSettings,
    settings: StreamSettings,
    cache: CacheSettings,
    config_file: Path | None = None,
    show: Show | None = None,
    watch: Watch | None = None,
) -> Status:
    """Score events until SIGINT or SIGTERM, or until no more come.

    SIGHUP has it look for a newer version of the model.

    Parameters
    ----------
    model : where its bundle comes from.
    settings : of the stream; `from_`, `to` and `dead_letter` are set.
    cache : of what is brought from elsewhere.
    config_file : where the settings came from, if anywhere.
    show : begins to show how far a model from elsewhere is; None where nobody watches.
    watch : told every second how it is; None where nobody watches.

    Returns
    -------
    How it was at the end.

    Raises
    ------
    ConfigError, BrokerError, BundleError, SourceError, ServeError
        When it cannot start, or cannot go on.
    """
    logs.configure(settings.log_format)
    places = _Places.of(settings)
    directory = prepare_directory()
    try:
        with bind(settings.host, settings.port) as listener:
            service = _Service(model, settings, places, cache, config_file, show, watch)
            listen(listener, settings.host, settings.port)
            return asyncio.run(service.run(listener))
    finally:
        remove_directory(directory)


@dataclass(frozen=True)
class _Places:
    """Where everything comes from and goes to.

    Parameters
    ----------
    from_, to, dead_letter, checkpoints, overflow : as in `StreamSettings`, none left open.
    """

    from_: str
    to: str
    dead_letter: str
    checkpoints: str
    overflow: str

    @classmethod
    def of(cls, settings: StreamSettings) -> _Places:
        """Take them from the settings, and fill in where things are kept.

        Raises
        ------
        ConfigError
            Naming what is left open.
        """
        for flag, address in (
            ("--from", settings.from_),
            ("--to", settings.to),
            ("--dead-letter", settings.dead_letter),
        ):
            if address is None:
                raise ConfigError(f"{flag}: expected an address such as kinesis://rides, got nothing")
            if flag != "--from" and _stream_of(address) == _stream_of(str(settings.from_)):
                raise ConfigError(f"{flag}: expected another stream than --from, which would never end to fill itself")
        state = state_directory(settings.state_directory, os.environ)
        if state is None and (settings.checkpoints is None or settings.overflow is None):
            raise ConfigError("stream.state_directory: expected a directory, as the user has no home: set it")
        state = state or Path()
        checkpoints = settings.checkpoints or str(state / "checkpoints.sqlite")
        given = (str(settings.from_), str(settings.to), str(settings.dead_letter))
        return cls(*given, checkpoints, settings.overflow or str(state / "overflow"))


def _stream_of(address: str) -> str:
    """Leave out of an address who asks, and the options that do not tell streams apart."""
    path, _, query = shown(address).partition("?")
    return "&".join([path, *sorted(one for one in query.split("&") if one.startswith(("db=", "region=")))])


class _Service:
    """A consumer and what it needs."""

    def __init__(
        self,
        model: ModelSettings,
        settings: StreamSettings,
        places: _Places,
        cache: CacheSettings,
        config_file: Path | None,
        show: Show | None,
        watch: Watch | None,
    ) -> None:
        from fairlead.monitor.metrics import Metrics

        self._settings = settings
        self._places = places
        self._model = model
        self._show = show
        self._watch = watch
        options = SourceOptions(
            group=settings.group,
            start=settings.start,
            max_records=settings.max_records,
            checkpoints=places.checkpoints if is_address(places.checkpoints) else Path(places.checkpoints),
            lease_s=settings.lease_s,
            environ=os.environ,
        )
        envelope = Envelope.of(settings)
        # Before the model is brought: an address may be wrong.
        self._source: Source = open_source(places.from_, options)
        self._sink: Sink = open_sink(places.to, os.environ)
        self._dead_letters: Sink = open_sink(places.dead_letter, os.environ)
        self._overflow = open_overflow(places.overflow, os.environ)
        bundle = open_bundle(Path(model.source)) if is_bundle(model.source) else None
        deployment = deployment_of(model, bundle, is_pending=True)
        name = deployment.name
        self._left_out(model)
        self._metrics = Metrics()
        self._models = Models(name, envelope, settings.max_record_bytes, self._metrics)
        self._progress = Progress(name, self._metrics, self._source.lag)
        self._retry = Retry(self._progress)
        self._finder = ProcessFinder(cache)
        key = deployment_key(config_file, [places.from_, model.source])
        state = TrafficState(state_path(settings.state_directory, os.environ, key), key)
        self._controller = Controller(
            {name: model}, {name: deployment}, self._models, self._finder, state, self._metrics
        )
        self._models.on_canary = self._controller.count
        self._name = name
        self._consumer: Consumer | None = None

    def _left_out(self, model: ModelSettings) -> None:
        if model.shadow is not None:
            logger.warning("shadow: left out of a stream: run a second consumer with another group and output")
        if model.isolation == "process" or model.lazy:
            logger.warning("isolation and lazy: left out of a stream, which is a process of its own for one model")

    async def run(self, listener: socket.socket) -> Status:
        """Run until a signal or the end."""
        from fairlead.stream.port import Port

        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in _STOP:
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        port = Port(self._status, self._progress.tell_lag, self._metrics)
        beside = [asyncio.ensure_future(port.answer(listener)), asyncio.ensure_future(self._tell())]
        work = asyncio.ensure_future(self._work())
        stop = asyncio.ensure_future(stopping.wait())
        either: set[asyncio.Future[Any]] = {work, stop}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._end(work, stopping)
            if not work.cancelled():
                work.result()
            return replace(self._status(), reason="")  # that it has stopped goes without saying
        finally:
            port.should_exit = True
            stop.cancel()
            beside[1].cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._close()

    async def _work(self) -> None:
        if self._show is None:
            await self._controller.begin()
        else:
            with self._show() as self._finder.progress:
                await self._controller.begin()
            self._finder.progress = None
        for stream in (self._dead_letters, self._sink, self._source):
            self._progress.waits_for("it connects to its streams")
            await self._retry.until_done("start", stream.start)
        settings = self._settings
        made = DeadLetters(shown(self._places.from_), self._dead_letters.max_message_bytes, self._overflow)
        streams = (self._source, self._sink, self._dead_letters)
        batches = (settings.max_records, settings.max_wait_s)
        self._consumer = Consumer(*streams, made, self._models, self._progress, self._retry, *batches)
        self._progress.waits_for("")
        version = self._status().version
        logger.info("%s %s: from %s to %s", self._name, version, shown(self._places.from_), shown(self._places.to))
        # What was made at start stays: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        await self._consumer.run()

    async def _end(self, work: asyncio.Future[None], stopping: asyncio.Event) -> None:
        """Let what was received be committed; a second signal, or the time that there is for it, ends that."""
        self._progress.waits_for("it is stopping")
        stopping.clear()
        if self._consumer is not None:
            self._consumer.stop()
            again = asyncio.ensure_future(stopping.wait())
            timeout_s = self._settings.shutdown_timeout_s
            either: set[asyncio.Future[Any]] = {work, again}
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            again.cancel()
        if not work.done():
            if self._consumer is not None:
                logger.warning("stopped before all was committed: the rest is handed out again")
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    async def _close(self) -> None:
        self._controller.close()
        await self._finder.close()
        for stream in (self._source, self._sink, self._dead_letters):
            await stream.close()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._progress.tell_lag()
            if self._watch is not None:
                self._watch(self._status())

    def _status(self) -> Status:
        if self._models.team is not None:
            self._progress.version = self._models.team.stable.variant.version
        return self._progress.status()

    def _reload(self) -> None:
        async def reload() -> None:
            try:
                done = await self._controller.reload(self._name)
                logger.info("%s: reload: %s, version %s", self._name, done.result, done.version)
            except FairleadError as error:
                logger.error("%s: goes on as it is: %s", self._name, error)

        self._reloading = asyncio.ensure_future(reload())
