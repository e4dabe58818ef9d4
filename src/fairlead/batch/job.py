"""A run: files are scored one after the other, each on all cores, and each written once.

Layer L3; imports predict, bundle and the rest of this package.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from fairlead.batch import journal
from fairlead.batch.crew import crew_of
from fairlead.batch.formats.form import FormatName, Reader, ReadOptions
from fairlead.batch.places import place_of
from fairlead.batch.places.place import Place, Stamp
from fairlead.batch.plan import Item, Plan, plan
from fairlead.batch.rejects import Rejects
from fairlead.batch.report import FileReport, Progress, Report, Silent
from fairlead.batch.resources import core_count
from fairlead.batch.task import Task
from fairlead.batch.work import Scored, Work, written_schema
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.errors import InputError
from fairlead.predict.columns import OutputColumns

_TELL_EVERY_S = 0.1


@dataclass(frozen=True)
class ScoreOptions:
    """How to score.

    Parameters
    ----------
    keep : the columns of the input to keep; None for all.
    dates : what fills the template of input and output, a file for each.
    query : what to ask a database.
    format : of outputs whose name does not tell it.
    encoding : of CSV that is read.
    resume : skip what an earlier run has done.
    max_rejects : more rejected rows than these end the run; None for any number.
    workers : threads or processes that score; None for one a core.
    """

    keep: tuple[str, ...] | None = None
    dates: tuple[datetime, ...] = ()
    query: str | None = None
    format: FormatName | None = None
    encoding: str = "utf-8"
    resume: bool = False
    max_rejects: int | None = None
    workers: int | None = None


class Scorers(Protocol):
    """Whoever scores the chunks of a file: cores of this machine, or a cluster."""

    def answer(self, record: dict[str, object]) -> dict[str, object]:
        """Predict one record that is known to be good."""
        ...

    def score(self, task: Task, reader: Reader, work: Work) -> Iterator[tuple[Scored, float | None]]:
        """Score all chunks of a task, in order, each with the share of the file that is read by then, where known."""
        ...


class Cluster(Scorers, Protocol):
    """Scorers on other machines, which read files themselves, and ahead of whoever writes."""

    def begin(self, bundle: Bundle, tasks: Sequence[Task]) -> None:
        """Hear of all files that will be scored, in this order, before the first of them."""
        ...


def score(
    bundle: Path,
    input: str,
    output: str,
    options: ScoreOptions = ScoreOptions(),
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Report:
    """Score files.

    Parameters
    ----------
    bundle : a bundle's directory; `bundle.obtain.obtain` brings one from anywhere.
    input : a file, a directory, a glob, a template such as ``data/{year:04d}/{month:02d}.parquet``, or the address
        of a database; files on this machine or in S3. Parquet, CSV or JSON lines, by suffix.
    output : a file, a directory or a template.
    progress : is told how far it is.
    cluster : scores in the place of the cores of this machine.

    Returns
    -------
    What became of each file. Files that were done before an error stay done: `resume` goes on after them.

    Raises
    ------
    BundleError, InputError, OutputError, ModelFailed, TooManyRejects, MissingExtra
    """
    start = time.monotonic()
    opened = open_bundle(bundle)
    planned = plan(input, output, options.dates, options.format, os.environ, options.query)
    with ExitStack() as stack:
        run = _Run(opened, planned, options, progress or Silent(), cluster, stack)
        files = tuple(map(run.file, run.waiting()))
        run.finish(files)
    manifest = opened.manifest
    return Report(manifest.name, manifest.version, opened.digest, files, time.monotonic() - start)


def columns_of(bundle: Bundle, scorers: Scorers) -> OutputColumns:
    """Say which columns the bundle's answers become; what a function answers is known from an answer alone."""
    example = scorers.answer(bundle.example()) if bundle.manifest.kind == "function" else None
    return OutputColumns(bundle.manifest, example)


@dataclass(frozen=True)
class _Waiting:
    """A file before its turn.

    Parameters
    ----------
    task : how to read it.
    stamp : its state.
    how : a digest of the options that change the output.
    done : what an earlier run did of it, where that holds still.
    """

    task: Task
    stamp: Stamp | None
    how: str
    done: FileReport | None


class _Run:
    def __init__(
        self,
        bundle: Bundle,
        planned: Plan,
        options: ScoreOptions,
        progress: Progress,
        cluster: Cluster | None,
        stack: ExitStack,
    ) -> None:
        self._bundle = bundle
        self._plan = planned
        self._options = options
        self._progress = progress
        self._cluster = cluster
        self._scorers: Scorers | None = cluster
        self._stack = stack
        self._columns: OutputColumns | None = None
        self._rejects_left = options.max_rejects
        self._source: Place | None = None
        self._place = place_of(planned.success, os.environ)
        # Whoever looks for this file shall not find that of an earlier run.
        self._place.delete(planned.success)
        progress.planned(len(planned.items))

    def waiting(self) -> Iterable[_Waiting]:
        """Look at the files: each when its turn comes, or all of them now for those who read ahead."""
        found = map(self._look, self._plan.items)
        if self._cluster is None:
            return found
        looked = tuple(found)
        self._cluster.begin(self._bundle, [each.task for each in looked if each.done is None])
        return looked

    def file(self, waiting: _Waiting) -> FileReport:
        """Score one file, unless an earlier run has."""
        report = waiting.done
        if report is None:
            report = self._scored(waiting.task, waiting.stamp)
            self._record(waiting.task.item, waiting.stamp, waiting.how, report)
        self._progress.finished(report)
        return report

    def _look(self, item: Item) -> _Waiting:
        options = ReadOptions(self._options.keep, item.output_form.name, self._options.encoding)
        task = Task(item, self._bundle.manifest.schema, options, self._options.query)
        if self._source is None:
            self._source = task.place()
        stamp = task.stamp(self._source)
        how = journal.options_digest(options.keep, options.encoding, item.output_form)
        return _Waiting(task, stamp, how, self._done(item, stamp, how) if self._options.resume else None)

    def finish(self, files: tuple[FileReport, ...]) -> None:
        """Say that everything is there."""
        told = {"files": len(files), "rows_out": sum(file.rows_out for file in files), "digest": self._bundle.digest}
        self._place.put(self._plan.success, msgspec.json.encode(told) + b"\n")

    def _done(self, item: Item, stamp: Stamp | None, how: str) -> FileReport | None:
        """Find what an earlier run did; None where the input, the model or the options are others since."""
        entry = journal.read(self._place, item.journal)
        now = self._place.stamp(item.output)
        if entry is None or not journal.is_done(entry, item.shown, stamp, self._bundle.digest, how, now):
            return None
        rows = entry.rows_in, entry.rows_out, entry.rejects
        return FileReport(
            entry.input, item.output, *rows, entry.duration_s, True, item.rejects if entry.rejects else None
        )

    def _record(self, item: Item, stamp: Stamp | None, how: str, report: FileReport) -> None:
        written = self._place.stamp(item.output)
        entry = journal.Entry(
            input=report.input,
            stamp=stamp,
            digest=self._bundle.digest,
            options_digest=how,
            rows_in=report.rows_in,
            rows_out=report.rows_out,
            rejects=report.rejects,
            duration_s=report.duration_s,
            output_size_bytes=0 if written is None else written.size_bytes,
        )
        journal.write(self._place, item.journal, entry)

    def _scored(self, task: Task, stamp: Stamp | None) -> FileReport:
        start = time.monotonic()
        item = task.item
        rows_in = rows_out = 0
        with task.open(self._source) as reader:
            scorers, columns = self._crew(task)
            schema = written_schema(reader.kept_schema, columns, item.shown)
            work = Work(reader.parser, task.encoder(schema), columns, item.shown)
            self._progress.began(item.shown, item.output, reader.n_rows)
            with (
                self._place.write(item.output) as draft,
                Rejects(self._place, item.rejects, item.shown, self._rejects_left) as rejects,
            ):
                writer = task.writer(draft.file, schema)
                told = start
                for scored, share in scorers.score(task, reader, work):
                    rejects.add(scored.rejections, rows_in)
                    writer.write(scored.encoded)
                    rows_in += scored.n_rows
                    rows_out += scored.n_written
                    if time.monotonic() - told >= _TELL_EVERY_S:
                        told = time.monotonic()
                        self._progress.advanced(rows_in, rejects.count, share)
                writer.close()
                if rows_in != rows_out + rejects.count:
                    raise AssertionError(f"{rows_in} rows in, {rows_out} out and {rejects.count} rejected")
                if task.stamp(self._source) != stamp:
                    raise InputError(f"{item.shown}: changed while it was read: score it again when it is complete")
                rejects.publish()
                draft.publish()
        if self._rejects_left is not None:
            self._rejects_left -= rejects.count
        duration_s = time.monotonic() - start
        path = rejects.path if rejects.count else None
        return FileReport(item.shown, item.output, rows_in, rows_out, rejects.count, duration_s, rejects_file=path)

    def _crew(self, task: Task) -> tuple[Scorers, OutputColumns]:
        """Have somebody who scores, from the first file that needs it."""
        if self._scorers is None:
            n_workers = self._options.workers or core_count()
            self._scorers = self._stack.enter_context(crew_of(self._bundle, task, n_workers))
        if self._columns is None:
            self._columns = columns_of(self._bundle, self._scorers)
        return self._scorers, self._columns
