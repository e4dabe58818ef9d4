"""Several processes for one server, and the parent that keeps their number.

Two kinds: workers, which speak HTTP on one socket, and the processes of isolated models. Not uvicorn's
supervisor: that one looks for signals and deaths every half second, ends its workers as killed, and
leaves them behind, with the port, when it is killed itself. This one sleeps until something happens.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.config import WebSettings
from fairlead.errors import FairleadError, ServeError
from fairlead.monitor import logs
from fairlead.repository.controller import Controller
from fairlead.repository.deployments import Deployment, Variant
from fairlead.repository.finder import ProcessFinder
from fairlead.repository.state import TrafficState, state_path
from fairlead.web import server
from fairlead.web.children import SIGNALS, Child, Kind
from fairlead.web.control import STARTED, Action, NotNow, Parent, Peer
from fairlead.web.models import LOAD_TIMEOUT_S
from fairlead.web.server import Plan

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from fairlead.bundle.obtain import Progress
    from fairlead.monitor.metrics import Metrics

# Beyond the time that requests have to finish: then whoever still hangs is killed.
_END_S = 2.0
# A worker that has not done by then what it was told hangs: to load three bundles, or to put them in their place
# and give the last answers, which have a deadline.
_PREPARE_S = 3 * LOAD_TIMEOUT_S
_ANSWER_S = 10.0
# The lowest priority: a shadow gets what the others leave.
_SHADOW_NICENESS = 19

logger = logging.getLogger("fairlead.web")


Show = Callable[[], "AbstractContextManager[Progress]"]


def supervise(
    plan: Plan,
    listener: socket.socket,
    on_started: Callable[[Iterable[Deployment]], None],
    show: Show | None = None,
) -> None:
    """Keep the plan's processes running until SIGINT or SIGTERM, then let them finish.

    Parameters
    ----------
    listener : a socket that listens already.
    on_started : called once with what is served, when all models are there and all workers take requests.
    show : begins to show how far models from elsewhere are; None where nobody watches.

    Raises
    ------
    ServeError
        When one cannot even start.
    """
    supervisor = _Supervisor(plan, listener, on_started, show)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        asyncio.run(supervisor.run())
    finally:
        # With the parent's own copy open, clients would still get into the queue, to be thrown out at the end.
        listener.close()
        _end(supervisor.children, plan)
        for number, handler in before.items():
            signal.signal(number, handler)


class _Supervisor:
    """The parent: keeps children running, and has them serve what the controller decides.

    Parameters
    ----------
    plan, listener, on_started, show : as for `supervise`.

    Attributes
    ----------
    children : all that are to run.
    """

    def __init__(
        self,
        plan: Plan,
        listener: socket.socket,
        on_started: Callable[[Iterable[Deployment]], None],
        show: Show | None,
    ) -> None:
        self.children: list[Child] = []
        self._plan = plan
        self._listener = listener
        self._on_started = on_started
        self._show = show
        self._metrics = _metrics(plan)
        self._deployments = {deployment.name: deployment for deployment in plan.deployments}
        self._preparing: dict[str, Deployment] = {}
        self._lines: dict[Child, Parent] = {}
        # What each worker was started with.
        self._given: dict[Child, dict[str, Deployment]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._announced = False

    async def run(self) -> None:
        """Run until a signal."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        self._all_up = asyncio.Event()
        self._failed: asyncio.Future[None] = loop.create_future()
        for number in SIGNALS:
            loop.add_signal_handler(number, stop.set)
        finder = ProcessFinder(self._plan.cache)
        names = [deployment.name for deployment in self._plan.deployments]
        models = dict(zip(names, self._plan.models, strict=True))
        key = self._plan.state_key
        state = TrafficState(state_path(self._plan.web.state_directory, os.environ, key), key)
        self._controller = Controller(models, self._deployments, self, finder, state, self._metrics)
        for deployment in self._plan.deployments:
            self._start_models(deployment)
        for _ in range(self._plan.web.workers):
            self._start_worker()
        stopping = loop.create_task(stop.wait())
        beginning = loop.create_task(self._begin(finder))
        try:
            # First until all is there, then until it is to end.
            await _first(stopping, beginning, self._failed)
            if not stopping.done():
                await _first(stopping, self._failed)
        finally:
            for task in (stopping, beginning, *self._tasks):
                task.cancel()
            self._controller.close()
            await finder.close()
            for child in self.children:
                child.leave()
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, lambda *_: None)  # the end has begun, and takes its time

    async def _begin(self, finder: ProcessFinder) -> None:
        is_all_here = not any(deployment.is_pending for deployment in self._deployments.values())
        if self._show is None or is_all_here:
            await self._controller.begin()
        else:
            with self._show() as finder.progress:
                await self._controller.begin()
            finder.progress = None
        await self._all_up.wait()
        self._announced = True
        self._on_started(self._deployments.values())

    async def prepare(self, deployment: Deployment) -> None:
        """Have every worker load what is new in a deployment, and start the processes that it needs."""
        # At the start bundles are brought in while the workers come up.
        await self._all_up.wait()
        self._preparing[deployment.name] = deployment
        try:
            await asyncio.gather(*(child.until_up() for child in self._start_models(deployment)))
            await self._prepare_one(deployment)
            orders = (self._order(worker, "prepare", deployment) for worker in self._workers_up())
            results = await asyncio.gather(*orders, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, NotNow):
                    raise result
        except FairleadError:
            # Those that could have it let go of it.
            await self.serve(self._deployments[deployment.name])
            raise
        finally:
            del self._preparing[deployment.name]

    async def _prepare_one(self, deployment: Deployment) -> None:
        """Have one worker load a deployment before the others do: what ends one would end them all.

        Raises
        ------
        ServeError
            When two workers ended over it; one may have been chance.
        """
        workers = list(self._lines)
        for worker in (workers[0], workers[-1]):
            await worker.until_up()
            with suppress(NotNow):
                await self._order(worker, "prepare", deployment)
                return
        raise ServeError("a worker ended while it loaded what is new, and so did another")

    async def serve(self, deployment: Deployment, *, drains: bool = False) -> None:
        """Have every worker serve a deployment; those that start later do from the beginning."""
        self._deployments[deployment.name] = deployment
        action: Action = "drain" if drains else "serve"
        asyncio.get_running_loop().call_later(self._plan.web.timeout_s + _END_S, self._stop_models, deployment.name)
        await asyncio.gather(*(self._make_so(worker, action, deployment) for worker in self._workers_up()))

    async def _make_so(self, worker: Child, action: Action, deployment: Deployment) -> None:
        process = worker.process
        try:
            try:
                await self._order(worker, action, deployment)
            except NotNow:
                raise
            except ServeError:
                # It came up after the others had prepared; while it does so too, something newer may come.
                wanted = None
                while wanted != self._deployments[deployment.name]:
                    wanted = self._deployments[deployment.name]
                    await self._order(worker, "prepare", wanted)
                await self._order(worker, action, wanted)
        except NotNow:
            return  # it has died, and another will know
        except FairleadError as error:
            if worker.process is process and worker.is_running and process.is_alive():
                logger.error("worker %s cannot serve %s (%s): starting another", process.pid, deployment.name, error)
                process.kill()

    async def _order(self, worker: Child, action: Action, deployment: Deployment) -> None:
        """Have a worker do something; one that does not answer is ended, and another takes its place.

        Raises
        ------
        ServeError
            When it cannot; `NotNow` when it has ended.
        """
        process = worker.process
        limit_s = _PREPARE_S if action == "prepare" else self._plan.web.timeout_s + _ANSWER_S
        try:
            await asyncio.wait_for(self._lines[worker].order(action, deployment), limit_s)
        except TimeoutError:
            if worker.process is process and worker.is_running:
                logger.error("worker %s has not answered for %g s: killing it", process.pid, limit_s)
                process.kill()
            raise NotNow("a worker did not answer") from None

    def _workers_up(self) -> list[Child]:
        return [child for child in self._lines if child.is_up]

    def _start_worker(self) -> None:
        def arguments() -> tuple[object, ...]:
            self._given[child] = dict(self._deployments)
            return replace(self._plan, deployments=tuple(self._deployments.values())), self._listener

        def peer(line: Connection) -> Peer:
            self._lines[child] = Parent(line, self._controller, partial(self._started, child))
            return self._lines[child]

        child = Child(Kind(None, _work, arguments), peer, self._died)
        child.start()
        self.children.append(child)

    def _start_models(self, deployment: Deployment) -> list[Child]:
        """Start the processes of a deployment's bundles that do not run yet, and give all of them."""
        found = []
        for role, variant in deployment.variants():
            for number in deployment.processes_of(role):
                key = (deployment.name, variant.digest, number)
                there = [child for child in self.children if child.is_wanted and child.kind.model == key]
                found += there or [self._start_model(key, variant, _SHADOW_NICENESS if role == "shadow" else 0)]
        return found

    def _start_model(self, key: tuple[str, str, int], variant: Variant, niceness: int) -> Child:
        arguments = (self._plan.web, self._plan.run_directory, key[0], variant, key[2], niceness)
        child = Child(
            Kind(key, _run_model, lambda: arguments), lambda line: Peer(line, lambda: self._started(child)), self._died
        )
        child.start()
        self.children.append(child)
        return child

    def _stop_models(self, name: str) -> None:
        """End the processes of bundles that are not served any more under a name, nor are about to be."""
        served = {
            (name, variant.digest, number)
            for deployment in (self._deployments[name], self._preparing.get(name, self._deployments[name]))
            for role, variant in deployment.variants()
            for number in deployment.processes_of(role)
        }
        for child in self.children.copy():
            if child.kind.model is not None and child.kind.model[0] == name and child.kind.model not in served:
                child.stop()
                if not child.is_running:
                    self.children.remove(child)

    def _started(self, child: Child) -> None:
        child.take_up()
        if child in self._lines:
            given = self._given[child]
            for name, deployment in self._deployments.items():
                if given[name] != deployment:
                    task = asyncio.get_running_loop().create_task(self._make_so(child, "serve", deployment))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        if all(child.is_up for child in self.children):
            self._all_up.set()

    def _died(self, child: Child) -> None:
        if not child.is_wanted:
            self.children.remove(child)
            return
        if not (self._announced or self._all_up.is_set() or child.is_up):
            if not self._failed.done():
                self._failed.set_exception(
                    ServeError(
                        f"a {child.kind.what} ended with exit code {child.process.exitcode} before it could serve: its "
                        "own message is above"
                    )
                )
            return
        self._report_death(child)
        child.bury()

    def _report_death(self, child: Child) -> None:
        pid, code = child.process.pid, child.process.exitcode
        why = " (a batch ran longer than requests may take)" if code == -signal.SIGALRM else ""
        logger.error("%s %s died with exit code %s%s: starting another", child.kind.what, pid, code, why)
        if self._metrics is not None:
            if child.kind.model is not None:
                self._metrics.model_process_died(child.kind.model[0])
            elif pid is not None:
                self._metrics.worker_died(pid)


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait for one of several; raise what it raised."""
    done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for one in done:
        one.result()


def _metrics(plan: Plan) -> Metrics | None:
    if not plan.web.metrics:
        return None
    from fairlead.monitor.metrics import Metrics

    return Metrics(plan.run_directory)


def _end(children: Sequence[Child], plan: Plan) -> None:
    """Let the workers finish, then end the models' processes; kill what does not come to an end."""
    running = [child for child in children if child.is_running]
    workers = [child.process for child in running if child.kind.model is None]
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + plan.web.drain_s + plan.web.shutdown_timeout_s + _END_S
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            logger.error("worker %s did not end in time: killing it", worker.pid)
    for child in running:
        if child.process.is_alive():
            child.process.kill()
    for child in running:
        child.process.join()


def _work(plan: Plan, listener: socket.socket, line: Connection) -> None:
    """Be one worker: load the bundles, tell the parent, answer until told to stop."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        logs.configure(plan.web.log_format)
        server.work(plan, listener, line)
    except FairleadError as error:
        sys.exit(f"fairlead: {error}")
    except KeyboardInterrupt:
        # Ctrl-C while still loading: the parent got it too and ends.
        pass
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        # The parent, who made it, would have removed it.
        shutil.rmtree(plan.run_directory, ignore_errors=True)


def _run_model(
    web: WebSettings,
    run_directory: Path,
    name: str,
    variant: Variant,
    number: int,
    niceness: int,
    line: Connection,
) -> None:
    """Be one process of a model."""
    from fairlead.web import isolation

    os.nice(niceness)
    isolation.main(
        isolation.ModelProcess(
            name=name,
            bundle=Path(variant.path),
            digest=variant.digest,
            number=number,
            run_directory=run_directory,
            log_format=web.log_format,
            limit_s=web.timeout_s,
            linger_s=web.drain_s + web.shutdown_timeout_s + _END_S,
        ),
        lambda: line.send_bytes(STARTED),
    )


def _follow_parent() -> None:
    """End with the parent, even when it was killed: nobody else would ever free the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
