"""Addresses of PostgreSQL: with their passwords for the driver only.

Layer L3; stdlib only.

Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from fairlead.errors import DashboardError

_FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_PASSWORD = re.compile(r"^(\w+://[^:@/?]*)(?::(.*))(@)", re.DOTALL)
_PARAMETER = re.compile(r"([?&])((?:ssl)?password=([^&]*))(?:&|$)", re.IGNORECASE)
# Whoever opens a page waits for it: a server that does not answer is given up soon, a connection that is no more
# noticed.
_PARAMETERS = {
    "application_name": "fairlead",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def without_password(uri: str) -> str:
    """Give an address as it may be kept and shown.

    Raises
    ------
    DashboardError
        When a password could not be told from the rest, because of letters that have a meaning there.

    >>> without_password("postgresql://ana:secret@db.local/rides?password=x&sslmode=require")
    'postgresql://ana@db.local/rides?sslmode=require'
    """
    match = _PASSWORD.search(uri)
    odd = sorted(set(match[2]) & set("/@?# ")) if match else []
    if odd:
        told = ", ".join(f"`{letter}` as %{ord(letter):02X}" for letter in odd)
        raise DashboardError(f"the rows' address: expected {_FORM} with a password that has {told}: write it so")
    shown = _PASSWORD.sub(r"\1\3", uri)
    while found := _PARAMETER.search(shown):
        shown = shown[: found.start(2)] + shown[found.end() :]
    return shown.rstrip("?&")


def secrets_of(uri: str) -> list[str]:
    """Find the passwords in an address, as they are written and as they are meant, the longest first."""
    match = _PASSWORD.search(uri)
    found = [match[2]] if match else []
    found += [match[3] for match in _PARAMETER.finditer(uri)]
    return sorted({text for each in found for text in (each, unquote(each)) if text}, key=len, reverse=True)


def with_limits(uri: str) -> str:
    """Add for how long to wait for the server, where the address does not say."""
    own = {name.partition("=")[0] for name in uri.partition("?")[2].split("&")}
    added = "&".join(f"{name}={value}" for name, value in _PARAMETERS.items() if name not in own)
    return f"{uri}{'&' if '?' in uri else '?'}{added}" if added else uri
