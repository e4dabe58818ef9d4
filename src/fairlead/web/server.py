"""`fairlead serve`: bundles behind a socket, until a signal says stop.

Binds the port, loads and verifies the bundles, and only then listens. One worker runs in this process;
several run in `workers`, each with its own copy of the models and the same socket.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.config import CacheSettings, JobsSettings, ModelSettings, WebSettings
from fairlead.monitor import logs
from fairlead.monitor.run_directory import prepare_directory, remove_directory
from fairlead.monitor.sockets import bind, listen
from fairlead.repository.deployments import Deployment
from fairlead.repository.finder import ProcessFinder, is_bundle
from fairlead.repository.state import deployment_key
from fairlead.web.file_jobs.keeper import Keeper, settled
from fairlead.web.models import Entry, Loader, expanded, load_all, load_planned, plan_all, predict_path

if TYPE_CHECKING:
    from fairlead.bundle.obtain import Progress
    from fairlead.web.app import App

Run = Callable[[socket.socket, Callable[[], None]], None]


@dataclass(frozen=True)
class Plan:
    """What to serve, and how.

    Parameters
    ----------
    models : where bundles come from.
    deployments : what is served of each of `models`, in their order; their names are unique.
    web, cache : of the server, and of what it brings from elsewhere.
    state_key : names the deployment, for what is kept of it.
    run_directory : what the processes of one server share: metrics, limits, sockets.
    jobs : of files, as `fairlead.web.file_jobs.keeper.settled` gives it; None where there are none.
    """

    models: tuple[ModelSettings, ...]
    deployments: tuple[Deployment, ...]
    web: WebSettings
    cache: CacheSettings
    state_key: str
    run_directory: Path
    jobs: JobsSettings | None = None


def serve(
    models: Sequence[ModelSettings],
    web: WebSettings,
    cache: CacheSettings | None = None,
    config_file: Path | None = None,
    show: Callable[[], AbstractContextManager[Progress]] | None = None,
    jobs: JobsSettings | None = None,
) -> None:
    """Serve models over HTTP; return when SIGINT or SIGTERM came and all accepted requests are answered.

    Parameters
    ----------
    models : where bundles come from; a directory of bundles stands for all of them.
    config_file : where the settings came from, if anywhere: changes made at run time are kept for it.
    show : begins to show how far models from elsewhere are; None where nobody watches.
    jobs : which files may be scored; None for none.

    Raises
    ------
    ServeError
        When the port cannot be had, two models have one name, or a worker cannot start.
    ConfigError
        When there is no place to keep jobs.
    BundleError
        When a bundle is none or was changed; nothing has listened then.
    SourceError
        When a model cannot be had from where it lives.
    """
    logs.configure(web.log_format)
    cache = cache or CacheSettings()
    every = expanded(models)
    key = deployment_key(config_file, [model.source for model in every])
    jobs = settled(jobs, web, os.environ, key)
    with (
        _run_directory() as directory,
        bind(web.host, web.port) as listener,
        Keeper(jobs, web, directory) as keeper,
    ):

        def on_started(found: Iterable[Deployment]) -> None:
            keeper.start()
            announce(found, listener, web)

        if web.workers == 1 and all(map(_is_simple, every)):
            entries, run = prepare(every, web, cache, directory, jobs)
            listen(listener, web.host, web.port)
            run(listener, lambda: on_started([entry.deployment for entry in entries]))
        else:
            from fairlead.web.workers import supervise

            plan = Plan(tuple(every), tuple(plan_all(every)), web, cache, key, directory, jobs)
            listen(listener, web.host, web.port)
            supervise(plan, listener, on_started, show)


def _is_simple(settings: ModelSettings) -> bool:
    """Whether one process is enough for a model: nothing has to be brought, watched or run elsewhere."""
    asks_more = settings.refresh_s or settings.canary or settings.shadow or settings.isolation == "process"
    return not asks_more and is_bundle(settings.source)


@contextmanager
def _run_directory() -> Iterator[Path]:
    directory = prepare_directory()
    try:
        yield directory
    finally:
        remove_directory(directory)


def prepare(
    models: Sequence[ModelSettings],
    web: WebSettings,
    cache: CacheSettings,
    run_directory: Path,
    jobs: JobsSettings | None = None,
) -> tuple[list[Entry], Run]:
    """Load bundles that are here, and give what answers with them in this process alone.

    Raises
    ------
    BundleError, ServeError
        As `load_all`.
    """
    loader = Loader(web.max_queue_rows, run_directory)
    entries, app = _make_app(lambda: load_all(models, loader), loader, web, run_directory, jobs)
    take_control(app, models, cache)
    return entries, _runner(app, web)


def work(plan: Plan, listener: socket.socket, line: Connection) -> None:
    """Load a plan's bundles, and answer with them in this process, one of several.

    Parameters
    ----------
    line : to the parent.
    """
    from fairlead.web.control import STARTED, Worker

    loader = Loader(plan.web.max_queue_rows, plan.run_directory)
    load = partial(load_planned, plan.deployments, loader)
    _, app = _make_app(load, loader, plan.web, plan.run_directory, plan.jobs)
    worker = Worker(line, app.served)
    app.control = worker
    app.on_start.append(worker.listen)
    _runner(app, plan.web)(listener, lambda: line.send_bytes(STARTED))


def _make_app(
    load: Callable[[], list[Entry]],
    loader: Loader,
    web: WebSettings,
    run_directory: Path,
    jobs: JobsSettings | None,
) -> tuple[list[Entry], App]:
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        loading = pool.submit(load)
        # onnxruntime parses a graph without the interpreter's lock: the server is imported meanwhile.
        from fairlead.web import process  # noqa: F401  # for `_runner`
        from fairlead.web.app import App
        from fairlead.web.gate import make_gate

        gate = make_gate(web, run_directory)
    entries = loading.result()
    return entries, App(entries, gate, loader, jobs)


def take_control(app: App, models: Sequence[ModelSettings], cache: CacheSettings) -> None:
    """Let an app's own process decide what it serves.

    Parameters
    ----------
    models : where each of the app's models comes from, in its order.
    """
    from fairlead.repository.controller import Controller
    from fairlead.repository.state import TrafficState

    deployments = {name: entry.deployment for name, entry in app.served.entries.items()}
    settings = dict(zip(deployments, models, strict=True))
    state = TrafficState(None, "")
    app.control = Controller(settings, deployments, app.served, ProcessFinder(cache), state, app.gate.metrics)


def _runner(app: App, web: WebSettings) -> Run:
    from fairlead.web import process

    return lambda listener, on_started: process.run(app, listener, web, on_started)


def announce(deployments: Iterable[Deployment], listener: socket.socket, web: WebSettings) -> None:
    """Print where each model is."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if web.tls_certificate else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    for one in deployments:
        what = "" if one.stable is None else f" {one.stable.version} ({one.stable.engine})"
        sys.stdout.write(f"{one.name}{what}: {url}{predict_path(one.name)}, try it at {url}/docs\n")
    sys.stdout.flush()
