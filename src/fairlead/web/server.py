"""`fairlead serve`: bundles behind a socket, until a signal says stop.

Binds the port, loads and verifies the bundles, and only then listens. One worker runs in this process;
several run in `workers`, each with its own copy of the models and the same socket.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.errors import ServeError
from fairlead.web import wire
from fairlead.web.bundles import Served, load_all, verify_all

Run = Callable[[socket.socket, Callable[[], None]], None]
BACKLOG = 2048
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
        "stdout": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "fairlead": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["stdout"], "level": "INFO", "propagate": False},
    },
}


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Parameters
    ----------
    max_body_bytes : a larger request body is refused with 413.
    access_log : write a line to standard output for each request.
    shutdown_timeout_s : how long requests that were accepted may take to finish after a signal; below
        the 30 s after which Kubernetes kills.
    """

    max_body_bytes: int = wire.MAX_BODY_BYTES
    access_log: bool = False
    shutdown_timeout_s: int = 25


def serve(
    bundles: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 9696,
    workers: int = 1,
    settings: Settings | None = None,
) -> None:
    """Serve bundles over HTTP; return when SIGINT or SIGTERM came and all accepted requests are answered.

    Parameters
    ----------
    bundles : directories made by `fairlead build`, their models' names unique.
    port : 0 takes any that is free.
    workers : processes that answer.

    Raises
    ------
    ServeError
        When the port cannot be had, two models have one name, or a worker cannot start.
    BundleError
        When a bundle is none or was changed; nothing has listened then.
    """
    settings = settings or Settings()
    if workers < 1:
        raise ServeError(f"expected at least one worker, got {workers}: give `--workers 1` or more")
    with bind(host, port) as listener:
        if workers == 1:
            served, run = prepare(bundles, settings)
            listen(listener, host, port)
            run(listener, lambda: announce(served, listener))
        else:
            from fairlead.web.workers import Plan, supervise

            served = verify_all(bundles)
            listen(listener, host, port)
            supervise(Plan(tuple(bundles), settings, listener), workers, lambda: announce(served, listener))


def prepare(bundles: Sequence[Path], settings: Settings) -> tuple[list[Served], Run]:
    """Load bundles, and give what answers with them in this process.

    Raises
    ------
    BundleError, ServeError
        As `load_all`.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as loader:
        loading = loader.submit(load_all, bundles)
        # onnxruntime parses a graph without the interpreter's lock: the server is imported meanwhile.
        from fairlead.web import process
        from fairlead.web.app import make_app
    served = loading.result()
    app = make_app(served, settings.max_body_bytes)
    return served, lambda listener, on_started: process.run(app, listener, settings, on_started)


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


def announce(served: Sequence[Served], listener: socket.socket) -> None:
    """Print where each model is."""
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    for one in served:
        sys.stdout.write(f"{one.name} {one.version} ({one.engine}): {url}{one.predict_path}, try it at {url}/docs\n")
    sys.stdout.flush()


def _cannot_listen(host: str, port: int, error: OSError | OverflowError) -> ServeError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return ServeError(f"port {port} on {host} is taken: stop what listens there, or give another with --port")
    if number == errno.EACCES:
        return ServeError(f"port {port} on {host} is not allowed to this user: give one above 1023 with --port")
    return ServeError(f"cannot listen on {host} port {port} ({error}): give another with --host and --port")
