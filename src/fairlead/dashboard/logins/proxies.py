"""Where a request comes from: what its connection says, and beyond that only what trusted proxies say.

Layer L3; imports flask.

Source: RFC 7239 sections 6.3 and 8.1 (what anybody may have written is not believed; nodes that hide their address)
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from flask import request

from fairlead.errors import DashboardError

UNIX = "unix"
# As some load balancers write it.
_WITH_PORT = re.compile(r"(\[.+\]|[\d.]+):\d+")

logger = logging.getLogger("fairlead.dashboard")


class Proxies:
    """The proxies before the server, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` count.

    Parameters
    ----------
    trusted : their addresses or networks; ``unix`` for one that is connected by a socket of that kind.

    Raises
    ------
    DashboardError
        When one is something else.
    """

    def __init__(self, trusted: Collection[str] = ()) -> None:
        self._is_unix_trusted = UNIX in trusted
        try:
            self._networks = [ip_network(one) for one in trusted if one != UNIX]
        except ValueError as error:
            raise DashboardError(
                f"dashboard.trusted_proxies: expected addresses or networks such as 10.0.0.0/8, or {UNIX}, got: {error}"
            ) from None
        self._is_told = False

    def address(self) -> IPv4Address | IPv6Address | None:
        """Tell the last address on the request's way that is no trusted proxy's, None for a socket without any."""
        address = _parsed(request.remote_addr or "")
        way = _listed("X-Forwarded-For")
        if way and not self._is_trusted(address):
            self._tell_once(address)
        while way and self._is_trusted(address) and (before := _parsed(way.pop())) is not None:
            address = before
        return address

    def is_secure(self) -> bool:
        """Whether the browser speaks TLS."""
        if request.is_secure:
            return True
        told = _listed("X-Forwarded-Proto")[:1]
        return told == ["https"] and self._is_trusted(_parsed(request.remote_addr or ""))

    def _is_trusted(self, address: IPv4Address | IPv6Address | None) -> bool:
        if address is None:
            return self._is_unix_trusted
        return any(address in network for network in self._networks)

    def _tell_once(self, address: IPv4Address | IPv6Address | None) -> None:
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "%s says that it asks for others: if it is a proxy of yours, name it with --trusted-proxies; until "
                "then wrong passwords of all who come through it count as one's",
                address or "a socket without an address",
            )


def _listed(header: str) -> list[str]:
    told = ",".join(request.headers.getlist(header)).lower().split(",")
    return [part.strip() for part in told if part.strip()]


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((with_port[1] if with_port else text).strip("[]"))
    except ValueError:
        return None
    # What a socket of both versions calls one of version 4.
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
