"""A Kafka cluster as an address means it: how to connect, what is there, and what its errors mean.

Layer L3; imports aiokafka and FastStream.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from faststream.kafka.security import parse_security
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from fairlead.errors import BrokerError, BrokerUnavailable, ConfigError
from fairlead.stream.address import Address

START_S = 5.0
REQUEST_S = 10.0
_PORT = 9092
_SECURITY = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = {"plain": SASLPlaintext, "scram-sha-256": SASLScram256, "scram-sha-512": SASLScram512}

# What no other try mends. All else may be the broker's, its network's or a rebalance's, and pass.
_FINAL = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.IncompatibleBrokerVersion,
    kafka_errors.InconsistentGroupProtocolError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InvalidTopicError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.UnsupportedVersionError,
)


@dataclass(frozen=True)
class Cluster:
    """Where a topic is, and how to get there.

    Parameters
    ----------
    address : for people, printed without its login.
    servers : ``host:port`` each.
    topic : its name.
    security : as FastStream takes it.
    """

    address: Address
    servers: tuple[str, ...]
    topic: str
    security: BaseSecurity

    @classmethod
    def at(cls, address: Address) -> Cluster:
        """Read an address.

        Raises
        ------
        ConfigError
            When it names no broker, no topic or an unknown security.
        """
        if not address.hosts or not address.path or "/" in address.path:
            raise ConfigError(f"{address}: expected kafka://HOST:9092/TOPIC, with several hosts between commas")
        servers = tuple(host if ":" in host else f"{host}:{_PORT}" for host in address.hosts)
        return cls(address, servers, address.path, _security(address))

    def told(self, error: BaseException) -> BrokerError:
        """Say what an error of Kafka's means for whoever reads or writes the topic."""
        if isinstance(error, BrokerError):
            return error
        if isinstance(error, kafka_errors.InvalidSessionTimeoutError):
            return BrokerError(
                f"{self.address}: the lease is outside what the broker allows (group.min.session.timeout.ms, 6 s, to "
                f"group.max.session.timeout.ms, 1800 s, unless told otherwise): give another one"
            )
        if isinstance(error, kafka_errors.MessageSizeTooLargeError | kafka_errors.RecordListTooLargeError):
            return BrokerError(
                f"{self.address}: a message is larger than the topic takes: raise max.message.bytes of the topic, or "
                f"lower max_message_bytes in the address"
            )
        reason = str(error) or "no answer in time"
        said = f"{self.address}: {type(error).__name__}: {reason}"
        if isinstance(error, _FINAL):
            return BrokerError(f"{said}: see the address, its login and its rights")
        return BrokerUnavailable(f"{said}: see whether a broker runs there, and the login if it needs one")

    async def check(self) -> list[TopicPartition]:
        """Connect once, and list the partitions of the topic.

        Raises
        ------
        BrokerError
            When there is no such topic; `BrokerUnavailable` when nobody answers.
        """
        admin = AIOKafkaAdminClient(**self._connecting())
        try:
            async with asyncio.timeout(START_S):
                await admin.start()
                # To ask for the one topic by its name could make it, under a broker's usual settings.
                if self.topic not in await admin.list_topics():
                    raise BrokerError(
                        f"{self.address}: expected a topic {self.topic}, found none that this login may see: make it "
                        f"with kafka-topics.sh --create --topic {self.topic}"
                    )
                (found,) = await admin.describe_topics([self.topic])
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise self.told(error) from error
        finally:
            await admin.close()
        return [TopicPartition(self.topic, each["partition"]) for each in found["partitions"]]

    async def begin_at_end(self, group: str, partitions: list[TopicPartition]) -> None:
        """Have a group that has read nothing of a partition begin behind what is there now.

        That is kept at once: were the end looked up whenever the group has committed nothing, a consumer killed
        before its first commit would skip what came meanwhile.
        """
        consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **self._connecting())
        try:
            async with asyncio.timeout(START_S):
                await consumer.start()
                consumer.assign(partitions)
                new = [each for each in partitions if await consumer.committed(each) is None]
                # A group that has members has begun already.
                with suppress(kafka_errors.CommitFailedError):
                    if new:
                        await consumer.commit(await consumer.end_offsets(new))
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            raise self.told(error) from error
        finally:
            await consumer.stop()

    def _connecting(self) -> dict[str, Any]:
        timeout_ms = int(REQUEST_S * 1000)
        return {
            "bootstrap_servers": list(self.servers),
            "request_timeout_ms": timeout_ms,
            **parse_security(self.security),
        }


def _security(address: Address) -> BaseSecurity:
    has_login = address.user is not None
    security = address.options.get("security", "sasl_ssl" if has_login else "plaintext")
    mechanism = address.options.get("mechanism", "plain")
    if security not in _SECURITY:
        raise ConfigError(f"{address}: security: expected one of {', '.join(_SECURITY)}, got {security!r}")
    if mechanism not in _MECHANISMS:
        raise ConfigError(f"{address}: mechanism: expected one of {', '.join(_MECHANISMS)}, got {mechanism!r}")
    if has_login != security.startswith("sasl_"):
        raise ConfigError(f"{address}: expected a login with security=sasl_ssl or sasl_plaintext, and only then")
    context = _context(address) if security.endswith("ssl") else None
    if not has_login:
        return BaseSecurity(use_ssl=context is not None, ssl_context=context)
    return _MECHANISMS[mechanism](
        username=address.user or "",
        password=address.password or "",
        use_ssl=context is not None,
        ssl_context=context,
    )


def _context(address: Address) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=address.options.get("ca"))
    except OSError as error:
        raise ConfigError(f"{address}: ca: expected a file of certificates: {error}") from error
