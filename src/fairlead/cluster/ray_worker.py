"""Who scores on a machine of a Ray cluster: reads a piece of a file, scores it on its cores, and hands on the chunks.

Layer L4; imports batch. It runs as an actor of Ray Data, in processes that Ray starts.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from fairlead import __version__
from fairlead.batch.crew import crew_of
from fairlead.batch.formats.form import Piece
from fairlead.batch.job import columns_of
from fairlead.batch.resources import use_lean_memory
from fairlead.batch.task import Task
from fairlead.batch.work import Scored, Work, written_schema
from fairlead.cluster.shipped import ShippedBundle
from fairlead.errors import ConfigError, FairleadError, ModelFailed


@dataclass(frozen=True)
class Part:
    """What one call of an actor is about.

    Parameters
    ----------
    task : its place among the tasks; None for the answer to the bundle's example.
    piece : which part of the file.
    """

    task: int | None
    piece: Piece = None


@dataclass(frozen=True)
class Assignment:
    """What a run's actors are told when they begin.

    Parameters
    ----------
    bundle : to score with.
    tasks : all files, in order.
    n_cores : of each actor.
    environ : how S3 is reached.
    run : names the run.
    version : of whoever assigns.
    """

    bundle: ShippedBundle
    tasks: Sequence[Task]
    n_cores: int
    environ: dict[str, str]
    run: str = field(default_factory=lambda: uuid4().hex)
    version: str = __version__


@dataclass(frozen=True)
class End:
    """Follows what is told of a part.

    Parameters
    ----------
    part : which.
    n_told : how many messages there were.
    """

    part: Part
    n_told: int


# An actor may die so often before a part is given up.
_DEATHS = 3
# What is told of a part: chunks without what is written of them, each with the share of the part; or an answer.
Told = tuple[Scored, float | None] | dict[str, Any] | FairleadError | End
_SCHEMA = pa.schema([("told", pa.large_binary()), ("table", pa.large_binary()), ("text", pa.large_binary())])


class Worker:
    """Scores parts with all cores of an actor. Ray Data makes one in each, and calls it part by part.

    What is the user's to mend is told in the place of a chunk: an exception would be wrapped and logged by Ray.

    Parameters
    ----------
    assignment : refers to an `Assignment` in Ray's store.
    """

    def __init__(self, assignment: Any) -> None:
        import ray

        self._assignment: Assignment = ray.get(assignment)
        self._failure: FairleadError | None = None
        self._is_next = ray.get_runtime_context().was_current_actor_reconstructed
        use_lean_memory()
        os.environ |= self._assignment.environ
        try:
            self._begin()
        except FairleadError as error:
            self._failure = error

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        """Give a row for each chunk of a part, and one for its end."""
        part: Part = pickle.loads(batch["part"][0])
        n_told = 0
        try:
            for row in self._rows(part):
                n_told += 1
                yield row
        except FairleadError as error:
            yield _row(error)
        yield _row(End(part, n_told))

    def _rows(self, part: Part) -> Iterator[pa.Table]:
        if self._failure is not None:
            raise self._failure
        where = "the example" if part.task is None else self._assignment.tasks[part.task].item.shown
        with counted(self._assignment.run, part, where) if self._is_next else nullcontext():
            if part.task is None:
                yield _row(self._crew.answer(self._bundle.example()))
            else:
                yield from self._scored(self._assignment.tasks[part.task], part.piece)

    def _begin(self) -> None:
        if self._assignment.version != __version__:
            raise ConfigError(
                f"expected fairlead {self._assignment.version} on the cluster, as here, got {__version__}: "
                "install the same on both"
            )
        first = self._assignment.tasks[0]
        self._place = first.place()
        self._bundle = self._assignment.bundle.here()
        self._crew = crew_of(self._bundle, first, self._assignment.n_cores)
        self._columns = columns_of(self._bundle, self._crew)

    def _scored(self, task: Task, piece: Piece) -> Iterator[pa.Table]:
        where = task.item.shown
        with task.open(self._place) as reader:
            schema = written_schema(reader.kept_schema, self._columns, where)
            work = Work(reader.parser, task.encoder(schema), self._columns, where)
            for scored, share in self._crew.score(task, reader, work, piece):
                yield _row((replace(scored, encoded=None), share), scored.encoded)


@contextmanager
def counted(run: str, part: Part, where: str) -> Iterator[None]:
    """Count in a file, which outlives this process, how often a part was begun after a death.

    Ray itself would begin it for ever.

    Raises
    ------
    ModelFailed
        When it was too often.
    """
    deaths = Path(tempfile.gettempdir()) / f"fairlead-{run}-{part.task}-{part.piece}"
    with deaths.open("ab") as file:
        file.write(b".")
        n_begun = file.tell()
    try:
        if n_begun > _DEATHS:
            raise ModelFailed(f"{where}: who scored it was killed, again and again: is memory short on the cluster?")
        yield
    finally:
        deaths.unlink(missing_ok=True)


def messages(block: pa.Table) -> Iterator[Told]:
    """Read the rows of a block that a worker made."""
    for told, table, text in zip(*block.columns, strict=True):
        message: Told = pickle.loads(told.as_buffer())
        if isinstance(message, tuple):
            encoded = pa.ipc.open_stream(table.as_buffer()).read_all() if table.is_valid else text.as_py()
            message = replace(message[0], encoded=encoded), message[1]
        yield message


def _row(message: Told, encoded: pa.Table | bytes | None = None) -> pa.Table:
    told = pa.py_buffer(pickle.dumps(message, protocol=5))
    table = text = None
    if isinstance(encoded, bytes):
        text = pa.py_buffer(encoded)
    elif encoded is not None:
        # As a stream, a slice of a table takes no more room than its own rows.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, encoded.schema) as stream:
            stream.write_table(encoded)
        table = sink.getvalue()
    return pa.table([_cell(told), _cell(table), _cell(text)], schema=_SCHEMA)


def _cell(data: pa.Buffer | None) -> pa.LargeBinaryArray:
    """Make a column of one value, which is not copied."""
    if data is None:
        return pa.nulls(1, pa.large_binary())
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, data])
