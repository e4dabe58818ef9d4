"""Models in processes of their own, whatever the number of workers that speak HTTP.

A model process (`main`) opens a bundle and answers batches on a Unix socket; each worker's `ProcessRunner`
keeps a connection to each of a model's processes. A connection that ends is a process that died: its
batches are given back at once, to be run elsewhere, while the parent starts another.

On the wire, each way: four bytes of length, then MessagePack. First the process says who it is
(`Greeting`); then it gives a `Reply` for each batch of rows. A connection has one batch at a time.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2s
from multiprocessing import parent_process
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec

from fairlead.errors import BundleError, FairleadError, ModelFailed
from fairlead.monitor import logs
from fairlead.predict.predictor import Answers, Predictor, predictor_of
from fairlead.predict.validate import Row
from fairlead.schema import Problem
from fairlead.web.batching import EngineDied
from fairlead.web.runners import Cost, Done, place

_LENGTH_BYTES = 4
_MAX_FRAME_BYTES = 1 << 30
_RECONNECT_S = 0.02
# `sun_path` holds 108 bytes with the zero at its end. Source: unix(7).
_MAX_PATH_BYTES = 107
# The type of a MessagePack extension: an integer beyond 64 bits, as text.
_LARGE_INT = 1

logger = logging.getLogger("fairlead.web")


class Greeting(msgspec.Struct, frozen=True, tag=True):
    """What a model process says first.

    Parameters
    ----------
    pid : of the process.
    digest : of the bundle that it runs.
    fixed_ns, row_ns : what a batch costs there.
    """

    pid: int
    digest: str
    fixed_ns: float
    row_ns: float


class Reply(msgspec.Struct, frozen=True, tag=True):
    """What became of a batch.

    Parameters
    ----------
    answers, rejections : as `Predictor.answer` gives them.
    error : what was raised instead.
    trace : its traceback, for the worker's log.
    is_fault_of_model : whether the error is the model's own.
    took_ns : how long it ran.
    """

    answers: list[dict[str, Any] | None]
    rejections: dict[int, tuple[Problem, ...]]
    error: str | None
    trace: str
    is_fault_of_model: bool
    took_ns: int


def _large_int(code: int, data: memoryview) -> Any:
    if code != _LARGE_INT:
        raise msgspec.DecodeError(f"expected no extension type {code}")
    return int(bytes(data))


_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[tuple[Any, ...]]).decode
_decode_message = msgspec.msgpack.Decoder(Greeting | Reply, ext_hook=_large_int).decode


@dataclass(frozen=True)
class ModelProcess:
    """What one model process is to do.

    Parameters
    ----------
    name : of the model.
    bundle : where it is.
    digest : what it was when the server started; another bundle is not served in its place.
    number : from 0, among the model's processes.
    run_directory : of the server, where its socket will be.
    log_format : of its log.
    limit_s : a batch that runs longer hangs: nobody waits for it any more, and the process ends.
    linger_s : how long workers may take to end when the parent was killed.
    """

    name: str
    bundle: Path
    digest: str
    number: int
    run_directory: Path
    log_format: logs.LogFormat
    limit_s: float
    linger_s: float


def socket_path(run_directory: Path, name: str, digest: str, number: int) -> Path:
    """Give the address of a process of a bundle, by its number from 0; short, because a socket's is limited."""
    return run_directory / f"{blake2s(f'{name} {digest}'.encode(), digest_size=6).hexdigest()}.{number}"


class _Address:
    """A socket's path as the kernel takes it: one that is too long goes by the folder's descriptor."""

    def __init__(self, path: Path) -> None:
        self._folder = None
        self.text = str(path)
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            self.text = f"/proc/self/fd/{self._folder}/{path.name}"

    def __enter__(self) -> str:
        return self.text

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)


class _Frames(asyncio.Protocol):
    """Cuts what comes on a socket into messages."""

    def __init__(self) -> None:
        self.transport: Any  # uvloop's is no `asyncio.Transport`
        self._kept = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            # Nearly always this is one whole message.
            if not self._kept and _length(data) == len(data) - _LENGTH_BYTES:
                self.received(data[_LENGTH_BYTES:])
                return
            self._kept += data
            while (end := _LENGTH_BYTES + _length(self._kept)) <= len(self._kept):
                message = bytes(self._kept[_LENGTH_BYTES:end])
                del self._kept[:end]
                self.received(message)
        except (msgspec.DecodeError, ValueError):
            logger.exception("expected a message of another process of this server")
            self.transport.abort()

    def received(self, message: bytes) -> None:
        raise NotImplementedError

    def send(self, message: bytes) -> None:
        self.transport.write(len(message).to_bytes(_LENGTH_BYTES, "big") + message)


def _length(data: bytes | bytearray) -> int:
    """Read how long a message is; more than can be there when that is not known yet."""
    if len(data) < _LENGTH_BYTES:
        return _MAX_FRAME_BYTES
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if length >= _MAX_FRAME_BYTES:
        raise ValueError(f"expected a message below {_MAX_FRAME_BYTES} bytes, got one of {length}")
    return length


class ProcessRunner:
    """Runs batches in a model's processes.

    Parameters
    ----------
    paths : the processes' addresses.
    digest : of the bundle that they have to run.

    Attributes
    ----------
    on_change : called when a process has come, with what a batch costs there, or gone.
    slots : processes that are connected.
    """

    place = "process"

    def __init__(self, paths: Sequence[Path], digest: str) -> None:
        self.on_change: Callable[[Cost | None], None] = lambda cost: None
        self._digest = digest
        self._paths = list(paths)
        self._idle: list[_Peer] = []
        self._peers: set[_Peer] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def slots(self) -> int:
        return len(self._peers)

    def start(self) -> None:
        """Connect, now and again whenever a process has died; on the event loop."""
        self._tasks = [asyncio.create_task(self._stay_connected(path)) for path in self._paths]

    def run(self, rows: Sequence[Row], done: Done) -> None:
        try:
            message = _encode(rows)
        except Exception as error:  # a fault of ours: the rows passed the schema
            done(error, 0)
            return
        if not self._idle:
            done(EngineDied(), 0)
            return
        peer = self._idle.pop()
        peer.done = done
        peer.send(message)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for peer in list(self._peers):
            peer.transport.close()

    def greeted(self, peer: _Peer, greeting: Greeting) -> bool:
        """Take a process in, unless it runs another bundle than the one that requests are checked for."""
        if greeting.digest != self._digest:
            return False
        self._peers.add(peer)
        self._idle.append(peer)
        self.on_change(Cost(greeting.fixed_ns, greeting.row_ns))
        return True

    def answered(self, peer: _Peer, reply: Reply) -> None:
        """Give a batch's answers to whoever waits for them."""
        self._idle.append(peer)
        peer.finish(_outcome(reply), reply.took_ns)

    def lost(self, peer: _Peer) -> None:
        """Give back the batch of a process that died."""
        if peer in self._peers:
            self._peers.discard(peer)
            if peer in self._idle:
                self._idle.remove(peer)
            peer.finish(EngineDied(), 0)
            self.on_change(None)

    async def _stay_connected(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer = _Peer(self)
            with suppress(OSError):
                with _Address(path) as address:
                    await loop.create_unix_connection(lambda peer=peer: peer, address)  # type: ignore[misc]  # mypy cannot infer a default
                await peer.over.wait()
            await asyncio.sleep(_RECONNECT_S)


class _Peer(_Frames):
    """A connected process, and the batch that it has."""

    def __init__(self, runner: ProcessRunner) -> None:
        super().__init__()
        self.over = asyncio.Event()
        self.done: Done | None = None
        self._runner = runner

    def received(self, message: bytes) -> None:
        told = _decode_message(message)
        if isinstance(told, Reply):
            self._runner.answered(self, told)
        elif not self._runner.greeted(self, told):
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set()
        self._runner.lost(self)

    def finish(self, answers: Answers | Exception, took_ns: int) -> None:
        done, self.done = self.done, None
        if done is not None:
            done(answers, took_ns)


def _outcome(reply: Reply) -> Answers | Exception:
    if reply.error is None:
        return reply.answers, reply.rejections
    error = ModelFailed(reply.error) if reply.is_fault_of_model else RuntimeError(reply.error)
    error.add_note(reply.trace)
    return error


def main(task: ModelProcess, on_started: Callable[[], None]) -> None:
    """Be one model process: open the bundle, tell the parent, answer batches until the parent ends."""
    # Ctrl-C and a group's SIGTERM are for the workers, which still need this one to finish.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Until here they were held up; a process that the model starts must not inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    logs.configure(task.log_format)
    end = _End(task)
    threading.Thread(target=end.follow_parent, daemon=True).start()
    import uvloop

    from fairlead.bundle.read import open_bundle

    try:
        opened = open_bundle(task.bundle)
        if opened.digest != task.digest:
            raise BundleError(f"{task.bundle}: the bundle was changed since the server started: start the server again")
        predictor = predictor_of(opened)
        cost = place(predictor, opened.example()).cost
    except FairleadError as error:
        raise SystemExit(f"fairlead: {error}") from error
    greeting = _encode(Greeting(os.getpid(), opened.digest, cost.fixed_ns, cost.row_ns))
    uvloop.run(_listen(lambda: _Worker(predictor, greeting, task.limit_s, end), task, end, on_started))


async def _listen(
    make: Callable[[], asyncio.Protocol], task: ModelProcess, end: _End, on_started: Callable[[], None]
) -> None:
    path = socket_path(task.run_directory, task.name, task.digest, task.number)
    path.unlink(missing_ok=True)
    loop = end.loop = asyncio.get_running_loop()
    with _Address(path) as address:
        server = await loop.create_unix_server(make, address)
    on_started()
    await server.serve_forever()


class _Worker(_Frames):
    """A connected worker. Its batch runs on the event loop: whoever asks next finds out by waiting."""

    def __init__(self, predictor: Predictor, greeting: bytes, limit_s: float, end: _End) -> None:
        super().__init__()
        self._predictor = predictor
        self._greeting = greeting
        self._limit_s = limit_s
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._end.workers.add(self)
        self.send(self._greeting)

    def connection_lost(self, error: Exception | None) -> None:
        self._end.workers.discard(self)
        self._end.look()

    def received(self, message: bytes) -> None:
        rows = _decode_rows(message)
        # The kernel ends the process when this rings: a hanging model may hold on to the interpreter.
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        reply = run(self._predictor, rows)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.send(packed(reply))


def run(predictor: Predictor, rows: Sequence[Row]) -> Reply:
    """Run a batch; never raises."""
    start = perf_counter_ns()
    try:
        answers, rejections = predictor.answer(rows)
    except BaseException as error:  # the user's own code, which may even try to exit
        told = str(error) if isinstance(error, ModelFailed) else f"{type(error).__name__}: {error}"
        is_model = isinstance(error, ModelFailed) or not isinstance(error, Exception)
        return Reply([], {}, told, traceback.format_exc(), is_model, perf_counter_ns() - start)
    return Reply(answers, rejections, None, "", False, perf_counter_ns() - start)


def packed(reply: Reply) -> bytes:
    """Write a reply, with integers beyond MessagePack's 64 bits as extensions."""
    try:
        return _encode(reply)
    except OverflowError:
        return _encode(msgspec.structs.replace(reply, answers=_with_large_ints(reply.answers)))


def _with_large_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_large_ints(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_large_ints(one) for one in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_LARGE_INT, b"%d" % value)
    return value


class _End:
    """When a model process ends: with its parent, but not before the workers that still finish.

    Attributes
    ----------
    workers : those that are connected.
    loop : set when there is one.
    """

    def __init__(self, task: ModelProcess) -> None:
        self.workers: set[_Worker] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._task = task
        self._is_orphan = False

    def follow_parent(self) -> None:
        parent = parent_process()
        if parent is None:
            return
        parent.join()
        self._is_orphan = True
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.look)
            time.sleep(self._task.linger_s)
        self._leave()

    def look(self) -> None:
        if self._is_orphan and not self.workers:
            self._leave()

    def _leave(self) -> None:
        # The parent, who made it, would have removed it.
        shutil.rmtree(self._task.run_directory, ignore_errors=True)
        os._exit(0)
