"""The line between a worker and its parent.

The parent decides what is served and has every worker make it so (`Crew`); a worker passes on what it was asked to
change over HTTP, and what it counts of a canary (`Worker`). Whoever sends an order gets a `Done` for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol

import msgspec

from fairlead.errors import FairleadError, ServeError
from fairlead.repository.control import Control, Reloaded, Traffic, TrafficChange
from fairlead.repository.deployments import Deployment
from fairlead.repository.rollback import Counts

Action = Literal["prepare", "serve", "drain"]
Wish = Literal["reload", "unload", "traffic", "set_traffic"]


class Order(msgspec.Struct, frozen=True, tag=True):
    """The parent's: make this so.

    Parameters
    ----------
    number : names it among the orders of its sender.
    action : ``prepare`` loads what is new, ``serve`` puts it in its place, ``drain`` does and waits for last answers.
    deployment : what is to be served.
    """

    number: int
    action: Action
    deployment: Deployment


class Ask(msgspec.Struct, frozen=True, tag=True):
    """A worker's: do this for all.

    Parameters
    ----------
    number : names it among those of its sender.
    wish, name : what to do with which model.
    change : of its traffic.
    """

    number: int
    wish: Wish
    name: str
    change: TrafficChange | None = None


class Done(msgspec.Struct, frozen=True, tag=True):
    """An order or wish was carried out, or not.

    Parameters
    ----------
    number : of it.
    result : what came of it.
    error : why not.
    is_retryable : whether another try may do.
    """

    number: int
    result: Any = None
    error: str | None = None
    is_retryable: bool = False


class Counted(msgspec.Struct, frozen=True, tag=True):
    """A worker's: how a canary did since the last time.

    Parameters
    ----------
    name, digest : the model, and the canary's bundle.
    counts : of its answers.
    """

    name: str
    digest: str
    counts: Counts


class Started(msgspec.Struct, frozen=True, tag=True):
    """A process takes requests now."""


class NotNow(ServeError):
    """What was asked for failed elsewhere, and may work later."""

    retryable = True


def _gone() -> NotNow:
    return NotNow("the process that was asked has ended")


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Order | Ask | Done | Started | Counted).decode
# What a child of the parent sends once it takes requests.
STARTED = _encode(Started())


class Peer:
    """One end of a line, on the event loop.

    Parameters
    ----------
    line : to the other process.
    on_started : called when the other takes requests.
    """

    def __init__(self, line: Connection, on_started: Callable[[], None] = lambda: None) -> None:
        self._line = line
        self._on_started = on_started
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._is_closed = False

    def listen(self) -> None:
        """Begin to read what the other sends."""
        asyncio.get_running_loop().add_reader(self._line.fileno(), self._read)

    def close(self) -> None:
        """Stop reading; whoever waits for the other is told that it has gone."""
        self._is_closed = True
        asyncio.get_running_loop().remove_reader(self._line.fileno())
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_gone())
        self._waiting.clear()

    def send(self, message: Order | Ask | Done | Counted) -> None:
        """Send a message; one to a process that has died is dropped."""
        with suppress(OSError):
            self._line.send_bytes(_encode(message))

    async def request(self, make: Callable[[int], Order | Ask]) -> Any:
        """Send what `make` makes of a number, and give the result.

        Raises
        ------
        ServeError
            When the other could not do it; `NotNow` when another try may do.
        """
        if self._is_closed:
            raise _gone()
        self._number += 1
        number = self._number
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        self.send(make(number))
        return await answer

    async def handle(self, message: Order | Ask) -> Any:
        """Do what the other asks for."""
        raise NotImplementedError(type(message))

    def counted(self, counted: Counted) -> None:
        """Hear how a canary did."""

    def _read(self) -> None:
        try:
            message = _decode(self._line.recv_bytes())
        except (EOFError, OSError):
            self.close()
            return
        if isinstance(message, Started):
            self._on_started()
        elif isinstance(message, Counted):
            self.counted(message)
        elif isinstance(message, Done):
            self._settle(message)
        else:
            task = asyncio.get_running_loop().create_task(self._handle(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _settle(self, done: Done) -> None:
        answer = self._waiting.pop(done.number, None)
        if answer is None or answer.done():  # who asked may have gone away
            return
        if done.error is None:
            answer.set_result(done.result)
        else:
            answer.set_exception((NotNow if done.is_retryable else ServeError)(done.error))

    async def _handle(self, message: Order | Ask) -> None:
        try:
            self.send(Done(message.number, await self.handle(message)))
        except FairleadError as error:
            self.send(Done(message.number, None, str(error), error.retryable))
        except Exception as error:  # told to who asked, whatever it is
            self.send(Done(message.number, None, f"{type(error).__name__}: {error}"))


class Obeys(Protocol):
    """What a worker has orders carried out by: its models."""

    async def prepare(self, deployment: Deployment) -> None: ...
    async def serve(self, deployment: Deployment, *, drains: bool = False) -> None: ...


class Worker(Peer):
    """A worker's end of the line.

    Parameters
    ----------
    line : to the parent.
    served : makes so what the parent decides, in this worker.
    """

    def __init__(self, line: Connection, served: Obeys) -> None:
        super().__init__(line)
        self._served = served

    async def handle(self, message: Order | Ask) -> None:
        assert isinstance(message, Order)
        if message.action == "prepare":
            await self._served.prepare(message.deployment)
        else:
            await self._served.serve(message.deployment, drains=message.action == "drain")

    async def reload(self, name: str) -> Reloaded:
        return msgspec.convert(await self._ask("reload", name), Reloaded)

    async def unload(self, name: str) -> None:
        await self._ask("unload", name)

    async def traffic(self, name: str) -> Traffic:
        return msgspec.convert(await self._ask("traffic", name), Traffic)

    async def set_traffic(self, name: str, change: TrafficChange) -> Traffic:
        return msgspec.convert(await self._ask("set_traffic", name, change), Traffic)

    def count(self, name: str, digest: str, counts: Counts) -> None:
        self.send(Counted(name, digest, counts))

    async def _ask(self, wish: Wish, name: str, change: TrafficChange | None = None) -> Any:
        return await self.request(lambda number: Ask(number, wish, name, change))


class Parent(Peer):
    """The parent's end of the line to one worker.

    Parameters
    ----------
    line : to the worker.
    control : fulfils the worker's wishes.
    on_started : called when the worker takes requests.
    """

    def __init__(self, line: Connection, control: Control, on_started: Callable[[], None]) -> None:
        super().__init__(line, on_started)
        self._control = control

    async def handle(self, message: Order | Ask) -> Any:
        assert isinstance(message, Ask)
        if message.wish == "reload":
            return await self._control.reload(message.name)
        if message.wish == "unload":
            return await self._control.unload(message.name)
        if message.wish == "traffic":
            return await self._control.traffic(message.name)
        assert message.change is not None
        return await self._control.set_traffic(message.name, message.change)

    def counted(self, counted: Counted) -> None:
        self._control.count(counted.name, counted.digest, counted.counts)

    def order(self, action: Action, deployment: Deployment) -> Awaitable[None]:
        """Have the worker make a deployment so; raises as `request`."""
        return self.request(lambda number: Order(number, action, deployment))
