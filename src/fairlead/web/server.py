"""`fairlead serve`: bundles behind a socket, until a signal says stop.

Binds the port, loads and verifies the bundles, and only then listens. One worker runs in this process;
several run in `workers`, each with its own copy of the models and the same socket.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fairlead.config import ModelSettings, WebSettings
from fairlead.errors import ServeError
from fairlead.monitor import logs
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from fairlead.web.models import Listing, Model, load, load_all, predict_path, verify

Run = Callable[[socket.socket, Callable[[], None]], None]
BACKLOG = 2048


@dataclass(frozen=True)
class Plan:
    """What to serve, and how.

    Parameters
    ----------
    models : bundles made by `fairlead build`, their models' names unique.
    web : of the server.
    run_directory : what the processes of one server share: metrics, limits, sockets.
    """

    models: tuple[ModelSettings, ...]
    web: WebSettings
    run_directory: Path


def serve(models: Sequence[ModelSettings], web: WebSettings) -> None:
    """Serve bundles over HTTP; return when SIGINT or SIGTERM came and all accepted requests are answered.

    Raises
    ------
    ServeError
        When the port cannot be had, two models have one name, or a worker cannot start.
    BundleError
        When a bundle is none or was changed; nothing has listened then.
    """
    logs.configure(web.log_format)
    with _run_directory() as directory, bind(web.host, web.port) as listener:
        plan = Plan(tuple(models), web, directory)
        if web.workers == 1 and not any(model.isolation == "process" for model in models):
            listings, run = prepare(plan)
            listen(listener, web.host, web.port)
            run(listener, lambda: announce(listings, listener, web))
        else:
            from fairlead.web.workers import supervise

            listings = verify(plan.models)
            listen(listener, web.host, web.port)
            supervise(plan, listings, listener, lambda: announce(listings, listener, web))


@contextmanager
def _run_directory() -> Iterator[Path]:
    directory = prepare_directory()
    try:
        yield directory
    finally:
        remove_directory(directory)


def prepare(plan: Plan, line: Connection | None = None) -> tuple[list[Listing], Run]:
    """Load bundles, and give what answers with them in this process.

    Parameters
    ----------
    line : to the parent of several workers.

    Raises
    ------
    BundleError, ServeError
        As `load_all`.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as loader:
        loading = loader.submit(load_all, plan.models, plan.web.max_queue_rows, plan.run_directory)
        # onnxruntime parses a graph without the interpreter's lock: the server is imported meanwhile.
        from fairlead.web import process
        from fairlead.web.app import App
        from fairlead.web.gate import make_gate

        gate = make_gate(plan.web, plan.run_directory)
    models = loading.result()
    app = App(models, gate)
    listings = [model.listing for model in models]
    app.open_model = _opener(plan, listings)
    if line is not None:
        from fairlead.web.control import Worker

        worker = Worker(line, app.act)
        app.broadcast = worker.broadcast
        app.on_start.append(worker.start)
    return listings, lambda listener, on_started: process.run(app, listener, plan.web, on_started)


def _opener(plan: Plan, listings: Sequence[Listing]) -> Callable[[Listing], Model]:
    """Give what loads a model of the plan anew."""
    settings = {listing.name: model for listing, model in zip(listings, plan.models, strict=True)}

    def open_model(listing: Listing) -> Model:
        model = load(settings[listing.name], plan.web.max_queue_rows, plan.run_directory)
        if settings[listing.name].isolation == "process" and model.listing.digest != listing.digest:
            detail = "its processes hold the bundle that was there at start: restart the server to serve another"
            raise ServeError(f"{listing.name}: {detail}")
        return model

    return open_model


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


def announce(listings: Sequence[Listing], listener: socket.socket, web: WebSettings) -> None:
    """Print where each model is."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if web.tls_certificate else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    for one in listings:
        where = f"{url}{predict_path(one.name)}, try it at {url}/docs"
        sys.stdout.write(f"{one.name} {one.version} ({one.engine}): {where}\n")
    sys.stdout.flush()


def _cannot_listen(host: str, port: int, error: OSError | OverflowError) -> ServeError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return ServeError(f"port {port} on {host} is taken: stop what listens there, or give another with --port")
    if number == errno.EACCES:
        return ServeError(f"port {port} on {host} is not allowed to this user: give one above 1023 with --port")
    return ServeError(f"cannot listen on {host} port {port} ({error}): give another with --host and --port")
