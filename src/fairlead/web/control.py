"""One change in every worker: a model that is loaded or unloaded in one of them is so in all.

A worker asks its parent (`Worker.broadcast`), the parent has every other worker do the same and tells the
first when all have (`Parent`). The parent remembers what is unloaded, for workers that start later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

import msgspec

from fairlead.errors import FairleadError, ServeError

Action = Literal["load", "unload"]


class Order(msgspec.Struct, frozen=True, tag=True):
    """Do this, and say when it is done.

    Parameters
    ----------
    number : names it among the orders of its sender.
    action, name : what to do with which model.
    """

    number: int
    action: Action
    name: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """An order was carried out, or not.

    Parameters
    ----------
    number : of the order.
    error : why not.
    """

    number: int
    error: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Order | Done).decode


class Worker:
    """A worker's end of the line.

    Parameters
    ----------
    line : to the parent.
    act : does what an order says, in this worker alone.
    """

    def __init__(self, line: Connection, act: Callable[[Action, str], Awaitable[None]]) -> None:
        self._line = line
        self._act = act
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    def start(self) -> None:
        """Listen to the parent, on the event loop."""
        asyncio.get_running_loop().add_reader(self._line.fileno(), self._read)

    async def broadcast(self, action: Action, name: str) -> None:
        """Have all other workers do the same; return when they have.

        Raises
        ------
        ServeError
            When one could not.
        """
        self._number += 1
        number = self._number
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._line.send_bytes(_encode(Order(number, action, name)))
        error = await answer
        if error is not None:
            raise ServeError(f"another worker could not {action} it: {error}")

    def _read(self) -> None:
        try:
            message = _decode(self._line.recv_bytes())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._line.fileno())  # the parent is gone, and we follow
            return
        if isinstance(message, Done):
            answer = self._waiting.pop(message.number)
            if not answer.done():  # who asked may have gone away
                answer.set_result(message.error)
            return
        task = asyncio.get_running_loop().create_task(self._obey(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _obey(self, order: Order) -> None:
        error = None
        try:
            await self._act(order.action, order.name)
        except Exception as failure:  # told to who asked, whatever it is
            error = str(failure) if isinstance(failure, FairleadError) else f"{type(failure).__name__}: {failure}"
        self._line.send_bytes(_encode(Done(order.number, error)))


@dataclass
class _Change:
    """An order that workers are carrying out."""

    asker: Connection
    number: int
    left: set[Connection]
    errors: list[str] = field(default_factory=list)


class Parent:
    """The parent's end of all lines."""

    def __init__(self) -> None:
        self.lines: list[Connection] = []
        self._unloaded: set[str] = set()
        self._changes: dict[int, _Change] = {}
        self._number = 0

    def add(self, line: Connection) -> None:
        """Take in a worker that has started, and tell it what the others know already."""
        self.lines.append(line)
        for name in sorted(self._unloaded):
            self._number += 1
            self._send(line, Order(self._number, "unload", name))

    def remove(self, line: Connection) -> None:
        """Forget a worker that has died; nobody waits for it any more."""
        if line in self.lines:
            self.lines.remove(line)
        for number in list(self._changes):
            self._settle(number, line, None)

    def read(self, line: Connection) -> None:
        """Take one message of a worker's."""
        try:
            message = _decode(line.recv_bytes())
        except (EOFError, OSError):
            self.remove(line)
            return
        if isinstance(message, Done):
            self._settle(message.number, line, message.error)
            return
        (self._unloaded.add if message.action == "unload" else self._unloaded.discard)(message.name)
        self._number += 1
        number = self._number
        others = {other for other in self.lines if other is not line}
        self._changes[number] = _Change(line, message.number, set(others))
        for other in others:
            self._send(other, Order(number, message.action, message.name))
        self._settle(number, line, None)

    def _settle(self, number: int, line: Connection, error: str | None) -> None:
        change = self._changes.get(number)
        if change is None:
            return
        change.left.discard(line)
        if error is not None:
            change.errors.append(error)
        if not change.left:
            del self._changes[number]
            self._send(change.asker, Done(change.number, "; ".join(change.errors) or None))

    def _send(self, line: Connection, message: Order | Done) -> None:
        with suppress(OSError):  # it has died, and its sentinel will tell
            line.send_bytes(_encode(message))
