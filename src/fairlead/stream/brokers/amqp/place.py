"""A place in RabbitMQ that an address names, and what errors there mean.

Layer L3; imports aio-pika.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq import exceptions

from fairlead.errors import BrokerError, BrokerUnavailable
from fairlead.stream.address import Address

# What a call to RabbitMQ may raise; OSError holds Python's own TimeoutError.
FAULTS = CONNECTION_EXCEPTIONS
_DENIED = (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError, exceptions.ChannelAccessRefused)


@dataclass(frozen=True)
class Place:
    """What an address means.

    Parameters
    ----------
    address : whose parts these are.
    port : None for the usual one.
    """

    address: Address
    host: str
    port: int | None
    vhost: str
    queue: str


def meaning(place: Place, error: BaseException) -> BrokerError:
    """Translate an error of aiormq."""
    address, text = place.address, str(error) or type(error).__name__
    if isinstance(error, _DENIED):
        return BrokerError(f"{address}: RabbitMQ refused the login or a right of it: {text}: check user and password")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BrokerError(f"{address}: its certificate is not trusted: {text}: name its authority with ?ca=FILE")
    # RabbitMQ closes where it was to open the virtual host; aiormq does not give the reason.
    if isinstance(error, exceptions.InvalidFrameError) and "Connection.OpenOk" in text:
        return BrokerError(f"{address}: no such virtual host as {place.vhost}, or no right to it: make it, or name it")
    # A queue whose machine is away is said to be not found.
    if isinstance(error, exceptions.ChannelNotFoundEntity) and "down or inaccessible" not in text:
        return BrokerError(f"{address}: {text}: make it, or have fairlead make a durable queue with ?declare=true")
    if isinstance(error, exceptions.ChannelPreconditionFailed):
        return BrokerError(f"{address}: RabbitMQ refused: {text}: leave out declare and quorum to take it as it is")
    return BrokerUnavailable(f"{address}: RabbitMQ does not answer as it should: {text}")


@contextlib.contextmanager
def answering(place: Place) -> Iterator[None]:
    """Translate what RabbitMQ answers, or that it does not."""
    try:
        yield
    except FAULTS as error:
        raise meaning(place, error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled us: aiormq cancels what waits for an answer when its connection ends.
        raise meaning(place, error) from error
