"""Scoring with Ray Data: machines of a cluster read and score pieces of files, and this one writes them in order.

Layer L4; imports batch, and ray when it is used.

Each actor has the cores of a machine, the smallest's, and the model once. Inputs must be visible from every machine.
Variables of this process that tell how S3 is reached go along; files such as ``~/.aws`` do not.

Source: https://docs.ray.io/en/latest/data/api/data_context.html
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from fairlead.batch.formats.form import Piece, Reader
from fairlead.batch.places.place import Place
from fairlead.batch.resources import core_count
from fairlead.batch.task import Task
from fairlead.batch.work import Scored, Work
from fairlead.bundle.read import Bundle
from fairlead.cluster.ray_worker import Assignment, End, Part, Told, Worker, messages
from fairlead.cluster.shipped import pack
from fairlead.errors import ConfigError, FairleadError, ModelFailed
from fairlead.extras import require

_LOCAL = "local"
_CONNECT_TIMEOUT_S = 5.0
# How S3 is reached, by its names and MLflow's.
_S3_VARIABLES = ("AWS_", "MLFLOW_S3_", "MLFLOW_BOTO_")
# More cores than these would wait for the one thread that reads.
_MOST_CORES = 8
# Blocks of results, about one a chunk, so that they are written as soon as they are there.
_BLOCK_BYTES = 1 << 20
# What may wait in Ray's store, for each actor.
_WAITING_BYTES = 512 << 20
# Chunks that an actor is ahead of whoever takes them: with Ray's own 2 it waits most of the time.
_AHEAD = 8
# As many actors in a row may die before they have begun.
_DEATHS = 3
_OPENERS = 16
_CURE = (
    "run this on a machine of the cluster (`ray status` tells there), with RAY_AUTH_MODE=token and its token where it "
    "asks for one; or leave --address out to use this machine alone"
)
# What says who may use a cluster. Source: https://docs.ray.io/en/latest/ray-security/token-auth.html
_TOKENS = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
# Read when ray is imported and when it starts.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_logger = logging.getLogger(__name__)


class RayScorers(AbstractContextManager["RayScorers"]):
    """Scores on a Ray cluster. See `batch.job.Cluster`; to be used in a `with` statement.

    Parameters
    ----------
    address : of the cluster, such as ``10.0.0.5:6379``, which is left running; None for the one that this process is
        connected to, else what ``RAY_ADDRESS`` says, else one of its own on this machine, which ends with it.

    Raises
    ------
    MissingExtra
        When ray is not installed.
    ConfigError
        When there is no cluster at the address.
    """

    def __init__(self, address: str | None) -> None:
        self._given = address
        self._address = address or os.environ.get("RAY_ADDRESS") or _LOCAL

    def __enter__(self) -> RayScorers:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        self._ray = require("ray", "ray")
        require("ray.data", "ray")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters is raised too
        # Without an address, a program that is connected already has its own cluster used, and left as it is.
        self._connects = self._given is not None or not self._ray.is_initialized()
        # In the main thread Ray would take SIGTERM for itself, and a signal would break it off midway; and its
        # processes end with the thread that started them, which is kept for that reason.
        self._starter = ThreadPoolExecutor(1, "ray")
        if self._connects:
            try:
                self._connect()
            except BaseException:
                self._starter.shutdown()
                self._ray.shutdown()
                raise
        self._waiting: deque[list[Part]] = deque()
        self._messages: Generator[Told] | None = None
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._messages is not None:
                self._messages.close()
        finally:
            if self._connects:
                self._ray.shutdown()
            self._starter.shutdown()

    def begin(self, bundle: Bundle, tasks: Sequence[Task]) -> None:
        """Have the cluster read what will be scored, piece by piece and ahead."""
        with ThreadPoolExecutor(_OPENERS) as openers:
            pieces = list(openers.map(partial(_pieces, tasks[0].place()), tasks)) if tasks else []
        parts = [[Part(place, piece) for piece in found] for place, found in enumerate(pieces)]
        if parts and bundle.manifest.kind == "function":
            parts.insert(0, [Part(None)])
        self._waiting.extend(parts)
        environ = {name: value for name, value in os.environ.items() if name.startswith(_S3_VARIABLES)}
        n_cores, n_actors = self._cores()
        assignment = Assignment(pack(bundle), tuple(tasks), n_cores, environ)
        self._messages = self._told(assignment, [part for each in parts for part in each], n_actors)

    def answer(self, record: dict[str, object]) -> dict[str, object]:
        """Give the answer to the bundle's example, which is the only record that is asked for."""
        (found,) = self._next_parts()
        assert isinstance(found, dict)
        return found

    def score(self, task: Task, reader: Reader, work: Work) -> Iterator[tuple[Scored, float | None]]:
        """Hand on what the cluster scored of a task."""
        n_rows = 0
        for message in self._next_parts():
            assert isinstance(message, tuple)
            scored, share = message
            n_rows += scored.n_rows
            yield scored, share if reader.n_rows is None else n_rows / reader.n_rows

    def _next_parts(self) -> Iterator[Told]:
        """Give what is told of the next task, and make sure that it is all of it.

        Raises
        ------
        FairleadError
            That an actor raised.
        """
        for part in self._waiting.popleft():
            n_told = 0
            for message in self._messages or ():
                if isinstance(message, FairleadError):
                    raise message
                if isinstance(message, End):
                    break
                n_told += 1
                yield message
            else:
                message = None
            if message != End(part, n_told):
                raise AssertionError(f"expected the end of {part} after {n_told} chunks, got {message}")

    def _told(self, assignment: Assignment, parts: list[Part], n_actors: int) -> Generator[Told]:
        """Run them all on the cluster; begins with the first that is asked for.

        Raises
        ------
        ModelFailed
            When an actor dies over the same part again and again.
        """
        data, errors = self._ray.data, self._ray.exceptions
        with data.DataContext.current(_context(data, n_actors)):
            rows = data.from_items([{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
        scored = rows.map_batches(
            Worker,
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(n_actors, len(parts))),
            fn_constructor_args=(self._ray.put(assignment),),
            num_cpus=assignment.n_cores,
        )
        try:
            for block in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from messages(block)
        except errors.RayTaskError:
            raise  # a fault of ours
        except errors.RayError as error:
            raise ModelFailed(
                f"the cluster gave up: {str(error).strip().partition(chr(10))[0]}: was there too little memory?"
            ) from error

    def _cores(self) -> tuple[int, int]:
        """Say how many cores an actor takes, and how many actors the cluster has room for."""
        machines = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        n_free = int(self._ray.available_resources().get("CPU", 0))
        if n_free < 1:
            _logger.warning("no core of the Ray cluster is free: waiting for one")
        n_cores = max(1, min([_MOST_CORES, n_free, *filter(None, machines)]))
        return n_cores, max(1, sum(size // n_cores for size in machines))

    def _connect(self) -> None:
        quiet = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        if self._address == _LOCAL:
            if not _TOKENS & os.environ.keys():
                # A cluster of our own lets nobody else in, and leaves no token in the user's home.
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            call = partial(self._ray.init, _LOCAL, num_cpus=core_count(), include_dashboard=False, **quiet)
        else:
            call = partial(self._ray.init, self._address, **quiet)
        try:
            if self._address != _LOCAL:
                _check(self._address)
            self._starter.submit(call).result()
            if threading.current_thread() is threading.main_thread():
                # Ray's core has put one before it that writes the machine's stack to the terminal.
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{self._address}: no Ray cluster to work with ({reason}): {_CURE}") from error


def _check(address: str) -> None:
    """Refuse an address where nobody listens: Ray would try for minutes, and end the process."""
    host, _, port = address.rpartition(":")
    if "://" in address or (host and not port.isdecimal()):
        raise ConfigError(f"{address}: expected HOST:PORT of a Ray cluster's head, or auto: {_CURE}")
    if host:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()


def _pieces(place: Place | None, task: Task) -> Sequence[Piece]:
    if place is None:
        return (None,)  # a database is not asked for nothing
    try:
        with task.open(place) as reader:
            return reader.pieces
    except FairleadError:
        return (None,)  # it is told when its turn comes: the files before it are scored


def _context(data: Any, n_actors: int) -> Any:
    """Give the settings of a run of Ray Data."""
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK_BYTES
    context._max_num_blocks_in_streaming_gen_buffer = _AHEAD
    context.max_consecutive_actor_init_deaths = _DEATHS
    context.execution_no_progress_timeout_s = -1  # a slow model may take its time
    options = context.execution_options
    options.preserve_order = True
    options.resource_limits = data.ExecutionResources.for_limits(object_store_memory=n_actors * _WAITING_BYTES)
    return context
