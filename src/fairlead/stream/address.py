"""The address of a stream: which broker, where, and which stream of it.

    kinesis://rides?region=eu-west-1          kafka://one:9092,two:9092/rides
    redis://localhost:6379/rides?db=0         nats://localhost:4222/rides.new?stream=RIDES
    amqp://user:secret@localhost:5672/%2F/rides   file:///var/rides.jsonl   file://rides.jsonl   memory://rides

Layer L3; imports nothing third-party.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from fairlead.errors import ConfigError


@dataclass(frozen=True)
class Address:
    """The parts of an address.

    Parameters
    ----------
    text : as it was given; it may hold a password.
    scheme : in small letters.
    netloc : between ``//`` and the next slash, as it stands there.
    hosts : ``host:port``, or without its port; several where commas part them.
    user, password : None where there is none.
    path : after the hosts, without its first slash, percent signs undone.
    options : what stands behind the question mark.
    """

    text: str
    scheme: str
    netloc: str
    hosts: tuple[str, ...]
    user: str | None
    password: str | None
    path: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises
        ------
        ConfigError
            When it is none, or has an option twice or without a value.
        """
        try:
            parts = urlsplit(text)
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise ConfigError(f"{text.partition('://')[0]}://…: expected an address: {error}") from error
        options = dict(pairs)
        if not parts.scheme or len(options) < len(pairs):
            raise ConfigError(f"{shown(text)}: expected an address such as kinesis://rides, each option once")
        login, _, hosts = parts.netloc.rpartition("@")
        user, colon, password = login.partition(":")
        return cls(
            text=text,
            scheme=parts.scheme,
            netloc=parts.netloc,
            hosts=tuple(filter(None, hosts.split(","))),
            user=unquote(user) or None,
            password=unquote(password) if colon else None,
            path=unquote(parts.path.removeprefix("/")),
            options=options,
        )

    def check_options(self, *known: str) -> None:
        """Refuse options that a broker does not have.

        Raises
        ------
        ConfigError
            Naming those that it has.
        """
        for name in self.options:
            if name not in known:
                raise ConfigError(f"{self}: no such option: {name}; known are {', '.join(known) or 'none'}")

    def __str__(self) -> str:
        return shown(self.text)


def shown(text: str) -> str:
    """Give an address without its user and password, for people.

    >>> shown("amqp://me:secret@host/rides?heartbeat=5")
    'amqp://host/rides?heartbeat=5'
    """
    head, found, rest = text.partition("://")
    if not found:
        return text.rpartition("@")[2]  # a login may be in what is no address
    login, at, place = rest.rpartition("@")
    # A password with a slash in it, which should be written as %2F, ends no login for people.
    hides = at and (":" in login or "/" not in login)
    return f"{head}{found}{place if hides else rest}"
