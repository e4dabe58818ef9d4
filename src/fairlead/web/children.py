"""A process of a server, to be kept running: another takes its place when it dies."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from fairlead.errors import ServeError
from fairlead.web.control import Peer
from fairlead.web.models import LOAD_TIMEOUT_S

# Before another try for a process that could not even start; each time twice as long, up to the latter.
RESTART_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 8.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("fairlead.web")
# A fork would copy the threads' locks of onnxruntime without the threads.
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Kind:
    """What a child is, and how another is made.

    Parameters
    ----------
    model : the name, the bundle's digest and the number among its like of the model that it runs in isolation;
        None for a worker.
    target : what it runs.
    arguments : gives what it is run with; a line is added, to tell that it has started and to talk.
    """

    model: tuple[str, str, int] | None
    target: Callable[..., None]
    arguments: Callable[[], tuple[object, ...]]

    @property
    def what(self) -> str:
        """What it is, for people."""
        return "worker" if self.model is None else f"model process of {self.model[0]}"


class Child:
    """A process that runs, or will again.

    Parameters
    ----------
    kind : what it is.
    peer : makes this end of the line to it; what that is told of its start goes to `take_up`.
    on_death : called when it has ended, whatever the reason; then `bury` it or `stop` it.

    Attributes
    ----------
    process : the one that runs now, or did.
    is_up : whether it has told that it has started.
    is_wanted : whether another is started in its place.
    """

    def __init__(self, kind: Kind, peer: Callable[[Connection], Peer], on_death: Callable[[Child], None]) -> None:
        self.kind = kind
        self.is_wanted = True
        self.is_up = False
        self.process: SpawnProcess
        self._make_peer = peer
        self._on_death = on_death
        self._pause_s = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def start(self) -> None:
        """Start a process, on the event loop."""
        line, far_end = _context.Pipe()
        self._line = line
        name = f"fairlead-{self.kind.model[0] if self.kind.model else 'worker'}"
        arguments = (*self.kind.arguments(), far_end)
        self.process = _context.Process(target=self.kind.target, args=arguments, name=name)
        # Held up until the child knows what to do with them: while Python starts, Ctrl-C is a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            far_end.close()
        self._again = None
        self.is_up = False
        self._peer = self._make_peer(line)
        self._peer.listen()
        asyncio.get_running_loop().add_reader(self.process.sentinel, self._ended)

    @property
    def is_running(self) -> bool:
        """Whether there is a process now."""
        return self._again is None

    def take_up(self) -> None:
        """Take note that it has started."""
        self.is_up = True
        self._pause_s = 0.0
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def until_up(self) -> None:
        """Wait until it has started.

        Raises
        ------
        ServeError
            When it ended before, twice, or takes too long.
        """
        if not self.is_up:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await asyncio.wait_for(waiting, LOAD_TIMEOUT_S)
            except TimeoutError as error:
                raise ServeError(f"a {self.kind.what} did not start within {LOAD_TIMEOUT_S:g} s") from error

    def bury(self) -> None:
        """Let go of a dead one, and start another: at once, if it could start at all."""
        self._let_go()
        if not self.is_up:
            self._pause_s = min(max(RESTART_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
        self.is_up = False
        self._again = asyncio.get_running_loop().call_later(self._pause_s, self._start_again)

    def _start_again(self) -> None:
        try:
            self.start()
        except OSError as error:
            # What the last one died of may be what there is too little of: memory, processes, files.
            self._pause_s = min(max(RESTART_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S)
            logger.error("a %s cannot be started (again in %g s): %s", self.kind.what, self._pause_s, error)
            self._line.close()
            self._again = asyncio.get_running_loop().call_later(self._pause_s, self._start_again)

    def stop(self) -> None:
        """End it for good, without a word."""
        self.is_wanted = False
        if self._again is not None:
            self._again.cancel()
            self._give_up("was ended")
        elif self.process.is_alive():
            self.process.kill()

    def leave(self) -> None:
        """Stop listening to it: what becomes of it is no more this loop's business."""
        if self._again is not None:
            self._again.cancel()
        else:
            self._peer.close()
            asyncio.get_running_loop().remove_reader(self.process.sentinel)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self.process.sentinel)
        self.process.join()
        self._peer.close()
        if self._pause_s or not self.is_wanted:  # once may be chance
            self._give_up(f"ended with exit code {self.process.exitcode}")
        self._on_death(self)

    def _give_up(self, why: str) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(ServeError(f"a {self.kind.what} {why} before it could serve"))
        self._waiting.clear()

    def _let_go(self) -> None:
        self._line.close()
        self.process.close()
