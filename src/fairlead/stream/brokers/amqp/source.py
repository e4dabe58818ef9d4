"""Reads a queue of RabbitMQ.

Layer L3; imports aio-pika and faststream.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

from aiormq.abc import DeliveredMessage

from fairlead.errors import BrokerError
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers.amqp.connection import Connection
from fairlead.stream.brokers.amqp.messages import record
from fairlead.stream.brokers.amqp.place import Place
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Lag, Record

_LAG_S = 2.0
_MAX_PREFETCH = 65535  # AMQP's number has two bytes
_MAX_PAUSE_S = 2.0
_PATIENCE_S = 0.5


class AmqpSource:
    """Gives messages as records, and acknowledges those that are committed.

    RabbitMQ sends ahead what `SourceOptions.max_records` allows twice, and hands out again what is not acknowledged
    when a connection ends.
    """

    is_over = False

    def __init__(self, place: Place, options: SourceOptions) -> None:
        self._place = place
        self._ahead = min(2 * options.max_records, _MAX_PREFETCH)
        self._inbox = Inbox(self._ahead)
        self._connection: Connection | None = None
        self._tags = Tags()
        self._lag: list[Lag] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._open()
        self._task = asyncio.create_task(self._watched())

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        return await self._inbox.take(max_records, max_wait_s)

    async def commit(self, records: Sequence[Record]) -> None:
        tag = self._tags.done([record.position for record in records])
        connection = self._connection
        if not tag or connection is None:
            return
        # When its connection has ended, no other try can acknowledge: RabbitMQ hands the messages out again, and
        # `receive` says what happened.
        with contextlib.suppress(BrokerError):
            await connection.asked(connection.channel.basic_ack(tag, multiple=True))

    def lag(self) -> list[Lag]:
        return self._lag

    async def close(self) -> None:
        task = self._task
        while task is not None and not task.done():  # more than once: a call may swallow it
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE_S)
        await self._let_go()

    async def _open(self) -> None:
        tags = Tags(self._tags.generation + 1)

        async def take(message: DeliveredMessage) -> None:
            tags.delivered += 1
            # Never waits: RabbitMQ sends no more than there is room for.
            await self._inbox.put([record(self._place.queue, message, tags.generation)])

        self._connection = connection = await Connection.open(self._place, self._ahead)
        self._tags = tags
        try:
            self._note(await connection.declare())
            await connection.consume(take)
        except BaseException:
            await self._let_go()
            raise

    async def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _watched(self) -> None:
        try:
            await self._keep()
        except Exception as error:  # a fault of ours must not look like an empty queue
            await self._inbox.fail(error)
            raise

    async def _keep(self) -> None:
        """Connect again whenever a connection ended; ask for the lag as long as it has not."""
        while True:
            connection = self._connection
            assert connection is not None
            while not await connection.ended(_LAG_S):
                with contextlib.suppress(BrokerError):  # then the channel is closed, and the connection has ended
                    self._note(await connection.declare(is_passive=True))
            await self._inbox.fail(connection.why())
            await self._let_go()
            # They come again, under other tags.
            await self._inbox.discard(self._place.queue)
            await self._reopen()

    async def _reopen(self) -> None:
        pause_s = 0.1
        while True:
            try:
                await self._open()
            except BrokerError as error:
                await self._inbox.fail(error)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
            else:
                return

    def _note(self, waiting: int) -> None:
        """Note how many wait: in the queue, and here; those that other copies have are told by them."""
        self._lag = [Lag(partition=self._place.queue, records=waiting + self._tags.open)]


class Tags:
    """Which deliveries of one connection are done.

    RabbitMQ numbers them from one, and is told the number up to which all are.

    Parameters
    ----------
    generation : tells deliveries of this connection from those of others.

    Attributes
    ----------
    delivered : how many there were.
    """

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.delivered = 0
        self._all_until = 0
        self._done: set[int] = set()

    @property
    def open(self) -> int:
        """How many were delivered and are not done."""
        return self.delivered - self._all_until - len(self._done)

    def done(self, positions: Sequence[tuple[int, int]]) -> int:
        """Note what is done; give the number to acknowledge, 0 when that is none.

        >>> tags = Tags(7)
        >>> tags.done([(7, 2), (6, 9)]), tags.done([(7, 1), (7, 3)])
        (0, 3)
        """
        self._done.update(tag for generation, tag in positions if generation == self.generation)
        before = self._all_until
        while self._all_until + 1 in self._done:
            self._all_until += 1
            self._done.remove(self._all_until)
        return self._all_until if self._all_until > before else 0
