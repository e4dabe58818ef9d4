"""A subject as a source, read through a durable pull consumer that all copies share.

Layer L3; imports nats-py and FastStream, of which the connection is. Its subscriber is not used: it waits until a
batch is full, and takes a consumer that was deleted, or a server without JetStream, for silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers.nats.server import FAULTS, REQUEST_S, Server, let_go
from fairlead.stream.inbox import Inbox
from fairlead.stream.records import Lag, Record

# Source: NATS documentation, "JetStream wire API reference", acknowledging messages.
_ACK, _PROGRESS = b"+ACK", b"+WPI"
# Handed out again only when this connection is gone: a request of ours that the server still has would take it along.
_NAK = b'-NAK {"delay": 200000000}'
_RETRY_S = 0.5
# How long to wait for a first message, and then for the rest of what is there already.
_FIRST_S = 2.0
_REST_S = 0.02


class NatsSource:
    """A subject. See `Source`.

    Parameters
    ----------
    server : where it is.
    options : the group, where it begins, and how much is fetched ahead.
    ack_wait_s : after what silence the server hands a message out again, if the group is a new one.
    max_pending : messages that all copies may hold, if the group is a new one.
    """

    is_over = False

    def __init__(self, server: Server, options: SourceOptions, ack_wait_s: float, max_pending: int) -> None:
        self._server = server
        self._options = options
        self._consumer = ConsumerConfig(
            durable_name=options.group,
            filter_subject=server.subject,
            deliver_policy=DeliverPolicy.NEW if options.start == "newest" else DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_ack_pending=max_pending,
            max_deliver=-1,
        )
        self._has_wildcards = "*" in server.subject or ">" in server.subject
        self._inbox = Inbox(options.max_records)
        self._client: Client | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._stream = ""
        self._ack_wait_s = ack_wait_s
        # What was handed to us and is not committed, by its number in the stream.
        self._held: dict[int, Msg] = {}
        self._pending = 0

    async def start(self) -> None:
        await self._join()
        self._tasks = [asyncio.create_task(self._fetch()), asyncio.create_task(self._extend())]

    async def receive(self, max_records: int, max_wait_s: float) -> list[Record]:
        return await self._inbox.take(max_records, max_wait_s)

    async def commit(self, records: Sequence[Record]) -> None:
        held = [(record.position, self._held[record.position]) for record in records if record.position in self._held]
        if not held:
            return
        if self._client is None or not self._client.is_connected:
            raise BrokerUnavailable(f"{self._server.address}: not connected, so nothing can be acknowledged")
        try:
            async with asyncio.timeout(REQUEST_S):
                for _, message in held[:-1]:
                    await self._client.publish(message.reply, _ACK)
                # The server takes what one connection sends in its order: its answer to the last is one to all.
                await self._client.request(held[-1][1].reply, _ACK, timeout=REQUEST_S)
        except FAULTS as error:
            raise BrokerUnavailable(str(self._server.told(error))) from error
        for number, _ in held:
            self._held.pop(number, None)

    def lag(self) -> list[Lag]:
        first = next(iter(self._held.values()), None)
        age_s = None if first is None else max(0.0, time.time() - first.metadata.timestamp.timestamp())
        return [Lag(self._stream, self._pending + len(self._held), age_s)]

    async def close(self) -> None:
        self._is_closing = True
        while running := [task for task in self._tasks if not task.done()]:
            # Once is not enough: nats-py takes it for the end of a connection that is lost at the same time.
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=_RETRY_S)
        with suppress(Exception):
            await self._say(_NAK)  # so that another copy need not wait
        await let_go(self._client)
        self._client = None

    async def _join(self) -> JetStreamContext:
        """Connect, unless that is so already, and find the group's consumer or make it."""
        if self._client is None or not self._client.is_connected:
            await let_go(self._client)
            self._client = None
            self._client = await self._server.connect()
        jetstream = self._client.jetstream(timeout=REQUEST_S)
        self._stream = (await self._server.find(jetstream)).config.name or ""
        try:
            found = await self._find_or_make(jetstream)
        except FAULTS as error:
            raise self._server.told(error) from error
        config, group = found.config, self._options.group
        if config.filter_subject not in {None, "", self._server.subject} or config.deliver_subject:
            raise BrokerError(
                f"{self._server.address}: expected a pull consumer {group} of {self._server.subject}, found one of "
                f"{config.filter_subject or 'all subjects'}{', which pushes' if config.deliver_subject else ''}: take "
                f"another group"
            )
        if config.ack_policy != AckPolicy.EXPLICIT:
            raise BrokerError(
                f"{self._server.address}: expected explicit acknowledgements of {group}: take another group"
            )
        self._ack_wait_s = config.ack_wait or self._ack_wait_s
        return jetstream

    async def _find_or_make(self, jetstream: JetStreamContext) -> ConsumerInfo:
        with suppress(js_errors.NotFoundError):
            found: ConsumerInfo = await jetstream.consumer_info(self._stream, self._options.group)
            return found
        made: ConsumerInfo = await jetstream.add_consumer(self._stream, self._consumer)
        return made

    async def _fetch(self) -> None:
        while not self._is_closing:
            try:
                await self._consume(await self._join())
            except Exception as error:  # whatever it is, whoever receives has to know
                await self._inbox.fail(self._server.told(error))
            await asyncio.sleep(_RETRY_S)

    async def _consume(self, jetstream: JetStreamContext) -> None:
        pulled = await jetstream.pull_subscribe_bind(durable=self._options.group, stream=self._stream)
        try:
            while self._client is not None and self._client.is_connected:
                await self._inbox.put(())  # waits for room
                if await self._pull(pulled, 1, _FIRST_S):
                    await self._pull(pulled, self._options.max_records, _REST_S)
                else:
                    await self._look(pulled)
        finally:
            with suppress(*FAULTS):
                await pulled.unsubscribe()
        raise BrokerUnavailable(f"{self._server.address}: the connection is lost, and tried again")

    async def _pull(self, pulled: JetStreamContext.PullSubscription, count: int, timeout_s: float) -> bool:
        try:
            messages = await pulled.fetch(count, timeout=timeout_s)
        except TimeoutError:
            return False
        await self._inbox.put(self._records(messages))
        return True

    async def _look(self, pulled: JetStreamContext.PullSubscription) -> None:
        """Find out whether nothing comes because nothing is there: nats-py tells both alike."""
        try:
            self._pending = (await pulled.consumer_info()).num_pending or 0
        except js_errors.NotFoundError as error:
            group = self._options.group
            raise BrokerUnavailable(f"{self._server.address}: {group} was deleted, and is made again") from error
        if self._pending:
            await asyncio.sleep(_REST_S)  # refused for now, as when the group holds all that it may

    def _records(self, messages: list[Msg]) -> list[Record]:
        records = []
        for message in messages:
            number = message.metadata.sequence.stream
            # The server may hand out again what waits here, after a cut of the connection.
            if number not in self._held:
                records.append(self._record(message, number))
            self._held[number] = message
        self._pending = messages[-1].metadata.num_pending if messages else self._pending
        return records

    def _record(self, message: Msg, number: int) -> Record:
        return Record(
            data=message.data,
            key=f"{self._stream}/{number}",
            partition=self._stream,
            position=number,
            partition_key=message.subject if self._has_wildcards else "",
            arrived_at_s=message.metadata.timestamp.timestamp(),
            headers={name.lower(): value for name, value in (message.headers or {}).items()},
        )

    async def _extend(self) -> None:
        """Tell the server in time that what is held is still worked on, so that it goes to nobody else."""
        while True:
            await asyncio.sleep(self._ack_wait_s / 3)
            with suppress(*FAULTS):
                await self._say(_PROGRESS)

    async def _say(self, word: bytes) -> None:
        if self._client is not None and self._client.is_connected:
            for message in list(self._held.values()):
                await self._client.publish(message.reply, word)
