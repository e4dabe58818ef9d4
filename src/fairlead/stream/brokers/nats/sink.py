"""A subject as a sink: published to JetStream, whose answers are waited for together.

Each message carries its idempotency key as `Nats-Msg-Id`, by which the stream drops what it has already, for as long
as it remembers (two minutes unless told otherwise). Layer L3; imports nats-py and FastStream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from fairlead.errors import BrokerError
from fairlead.stream.broker import Unpublished
from fairlead.stream.brokers.nats.server import FAULTS, REQUEST_S, Server, let_go
from fairlead.stream.records import Message

_PATIENCE_S = 10.0
_LOOK_S = 0.2
# For the headers, which count as the message.
_AROUND_BYTES = 4096


class NatsSink:
    """A subject. See `Sink`.

    Parameters
    ----------
    server : where it is.
    """

    def __init__(self, server: Server) -> None:
        self.max_message_bytes: int | None = None
        self._server = server
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._stream = ""

    async def start(self) -> None:
        await self._open()

    async def publish(self, messages: Sequence[Message]) -> None:
        answers: list[asyncio.Future[Any]] = []
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._send(messages, answers)
        except (*FAULTS, BrokerError) as error:
            failure = error
        await self._wait(answers)
        rest = list(messages[len(answers) :])
        for message, answer in reversed(list(zip(messages, answers, strict=False))):
            if not answer.done():
                answer.cancel()
            elif answer.exception() is None:
                continue
            else:
                failure = answer.exception()
            rest.insert(0, message)
        if rest:
            told = self._server.told(failure or TimeoutError())
            if not told.retryable:
                raise told from failure
            raise Unpublished(f"{len(rest)} of {len(messages)} messages are not known to be kept: {told}", rest)

    async def close(self) -> None:
        await let_go(self._client)
        self._client = self._jetstream = None

    async def _open(self) -> JetStreamContext:
        if self._client is None or not self._client.is_connected or self._jetstream is None:
            await self.close()
            self._client = await self._server.connect()
            jetstream = self._client.jetstream(timeout=REQUEST_S)
            found = (await self._server.find(jetstream)).config
            await self._server.check_writable(jetstream, found.name or "")
            self._stream, self._jetstream = found.name or "", jetstream
            sizes = [self._client.max_payload, found.max_msg_size or 0]
            self.max_message_bytes = min(size for size in sizes if size > 0) - _AROUND_BYTES
        return self._jetstream

    async def _send(self, messages: Sequence[Message], answers: list[asyncio.Future[Any]]) -> None:
        jetstream = await self._open()
        for message in messages:
            answer = await jetstream.publish_async(
                self._server.subject, message.data, stream=self._stream, headers={"Nats-Msg-Id": message.key}
            )
            answers.append(answer)

    async def _wait(self, answers: list[asyncio.Future[Any]]) -> None:
        """Wait for all answers. Those to what was sent on a connection that is lost will not come."""
        deadline_s = time.monotonic() + _PATIENCE_S
        waiting = set(answers)
        while waiting and time.monotonic() < deadline_s and self._client is not None and self._client.is_connected:
            _, waiting = await asyncio.wait(waiting, timeout=_LOOK_S)
