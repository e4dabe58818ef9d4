"""Where a service listens: an address that is taken first, and listened on when all else is there.

Layer L2; imports errors only.
"""

from __future__ import annotations

import errno
import socket

from fairlead.errors import ServeError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Take the address, without listening yet.

    Raises
    ------
    ServeError
        When it is taken, not allowed, or no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # `getaddrinfo` takes any port modulo 65536; `bind` does not.
        listener.bind((address[0], port, *address[2:]))
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def listen(listener: socket.socket, host: str, port: int) -> None:
    """Let clients connect; they wait in the socket's queue until a worker takes them.

    Raises
    ------
    ServeError
        When another process that had bound the same port was quicker.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError | OverflowError) -> ServeError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return ServeError(f"port {port} on {host} is taken: stop what listens there, or give another with --port")
    if number == errno.EACCES:
        return ServeError(f"port {port} on {host} is not allowed to this user: give one above 1023 with --port")
    return ServeError(f"cannot listen on {host} port {port} ({error}): give another with --host and --port")
