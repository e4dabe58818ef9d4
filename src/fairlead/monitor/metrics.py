"""Counts and durations of all worker processes, in the format of Prometheus.

Each process adds to numbers in files mapped into its memory, in the format of prometheus_client's
multiprocess mode; that library merges and renders them, in whichever process is asked. A number is in the
file with the instruction that adds to it: a killed process takes nothing along, nothing has to be flushed,
and counting needs neither a lock nor the library, which is imported with the first `Metrics.render`.

Layer L2; imports nothing of fairlead but its package.

Source: https://prometheus.github.io/client_python/multiprocess/ and ``prometheus_client/mmap_dict.py``
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from fairlead.monitor import after_fork, families
from fairlead.monitor.families import Family, Kind, Labels
from fairlead.monitor.number_files import NumberFile, Numbers, bury, locked, owner_of
from fairlead.monitor.run_directory import DIRECTORY_VARIABLE, make_directory, remove_directory

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

ReloadResult = Literal["swapped", "unchanged", "refused", "failed"]
ShadowResult = Literal["equal", "differs", "failed", "dropped"]
LoadResult = Literal["loaded", "failed"]
Recorder: TypeAlias = "tuple[Numbers, int, Numbers, int, Numbers, int, list[int]]"

logger = logging.getLogger("fairlead.monitor")


class Metrics:
    """The metrics of this process, and the sight of those of all. Make one a process.

    Values of labels must come from the service, never from a request: each new set of them stays for good.
    Threads may share it.

    Parameters
    ----------
    directory : what all processes of a service share; default the environment's, and where that has none a
        new one for this process alone, removed at its end.
    """

    def __init__(self, directory: Path | None = None) -> None:
        given = directory or os.environ.get(DIRECTORY_VARIABLE)
        if given is None:
            given = make_directory()
            weakref.finalize(self, _remove_as, os.getpid(), given)
        self.directory = Path(given)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._open()
        after_fork(self._open)

    def request(self, route: str, model: str, version: str, status: int, duration_ns: int, rows: int) -> None:
        """Count one answered request.

        Parameters
        ----------
        route : the service's name of the route, such as the path's template; never the path itself.
        model, version : empty for a route of no model.
        rows : records predicted for it.
        """
        try:
            recorder = self._requests[route, model, version, status]
        except KeyError:
            recorder = self._recorder(route, model, version, status)
        codes, code_at, rows_, rows_at, times, sum_at, buckets_at = recorder
        # CPython switches threads where a call or a backward jump ends, so never inside one of these lines.
        codes[code_at] += 1.0
        rows_[rows_at] += rows
        times[sum_at] += duration_ns * 1e-9
        times[buckets_at[bisect_left(families.REQUEST_BOUNDS_NS, duration_ns)]] += 1.0

    def batch(self, model: str, version: str, rows: int, duration_ns: int) -> None:
        """Count one run of the engine."""
        labels = (model, version)
        sizes, sizes_at = self._find(families.BATCH_ROWS, labels)
        times, times_at = self._find(families.BATCH_DURATION, labels)
        sizes[sizes_at[0]] += rows
        sizes[sizes_at[1 + bisect_left(families.BATCH_ROWS_BOUNDS, rows)]] += 1.0
        times[times_at[0]] += duration_ns * 1e-9
        times[times_at[1 + bisect_left(families.BATCH_BOUNDS_NS, duration_ns)]] += 1.0

    def queue_rows(self, model: str, version: str, rows: int) -> None:
        """Tell how many records wait for the engine now."""
        self.set(families.QUEUE_ROWS, (model, version), rows)

    def in_flight(self, requests: int) -> None:
        """Tell how many requests are being answered now."""
        self.set(families.IN_FLIGHT, (), requests)

    def rows(self, model: str, version: str, records: int) -> None:
        """Count records predicted, where that is not told with their request."""
        self.add(families.ROWS, (model, version), records)

    def rejected(self, model: str, version: str, records: int) -> None:
        """Count records that the schema refused."""
        self.add(families.REJECTED, (model, version), records)

    def ignored_keys(self, model: str, version: str, keys: int) -> None:
        """Count keys that are no feature."""
        self.add(families.IGNORED_KEYS, (model, version), keys)

    def unseen(self, model: str, version: str, feature: str, values: int) -> None:
        """Count values outside a feature's known categories."""
        self.add(families.UNSEEN, (model, version, feature), values)

    def worker_died(self, pid: int) -> None:
        """Count a worker's unexpected end, and keep its numbers: see `bury`. For the supervisor."""
        self.add(families.WORKERS_DIED, (), 1)
        bury(self.directory, pid)

    def model_process_died(self, model: str) -> None:
        """Count an isolated model's unexpected end."""
        self.add(families.MODEL_PROCESSES_DIED, (model,), 1)

    def model_info(self, model: str, version: str, engine: str, digest: str) -> None:
        """Tell that a model is served now; its counts are shown from then on, zero or not."""
        for family in (families.ROWS, families.REJECTED, families.IGNORED_KEYS):
            self.add(family, (model, version), 0)
        self.add(families.MODEL_PROCESSES_DIED, (model,), 0)
        for result in get_args(ReloadResult):
            self.add(families.RELOADS, (model, result), 0)
        self._infos.add((model, version, engine, digest))
        self.set(families.MODEL_INFO, (model, version, engine, digest), 1)

    def model_gone(self, model: str, version: str, engine: str, digest: str) -> None:
        """Tell that a model is served no more."""
        self._infos.discard((model, version, engine, digest))
        self.set(families.MODEL_INFO, (model, version, engine, digest), 0)

    def reloaded(self, model: str, result: ReloadResult) -> None:
        """Count a look for a newer version, which was refused when it could not be served."""
        self.add(families.RELOADS, (model, result), 1)

    def rolled_back(self, model: str, version: str) -> None:
        """Count a canary that was taken back."""
        self.add(families.ROLLBACKS, (model, version), 1)

    def canary_weight(self, model: str, version: str, weight: float) -> None:
        """Tell a canary's share of the requests, from 0 to 1; one before it has none any more."""
        before = self._canaries.get(model, version)
        if before != version:
            self.set(families.CANARY_WEIGHT, (model, before), 0)
        self._canaries[model] = version
        self.set(families.CANARY_WEIGHT, (model, version), weight)
        self.add(families.ROLLBACKS, (model, version), 0)

    def shadow_rows(self, model: str, version: str, result: ShadowResult, rows: int) -> None:
        """Count records that a shadow was to be asked."""
        self.add(families.SHADOW_ROWS, (model, version, result), rows)

    def model_loaded(self, model: str, result: LoadResult) -> None:
        """Count a load on demand."""
        self.add(families.MODEL_LOADS, (model, result), 1)

    def model_evicted(self, model: str) -> None:
        """Count a model that was let go for want of memory."""
        self.add(families.EVICTIONS, (model,), 1)

    def jobs(self, queued: int, running: int) -> None:
        """Tell how many jobs wait and run now."""
        self.set(families.JOBS, ("queued",), queued)
        self.set(families.JOBS, ("running",), running)

    def job_ended(self, state: str) -> None:
        """Count a job that is over."""
        self.add(families.JOBS_ENDED, (state,), 1)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Write the metrics of all processes of the service.

        Takes milliseconds, and the first time some 50 for the import of prometheus_client: call it in a
        thread, not on an event loop.

        Parameters
        ----------
        accept : the request's header of that name; OpenMetrics is given to whom asks for it.

        Returns
        -------
        The body and its content type.
        """
        from prometheus_client.exposition import choose_encoder

        encoder, content_type = choose_encoder(_known_formats(accept))
        with locked(self.directory, fcntl.LOCK_SH):
            merged = _Merged(self.directory)
        return encoder(cast("Collector", merged)), content_type

    def _open(self) -> None:
        """Begin with no number of this process; its files are made when there is a first."""
        self._lock = threading.Lock()
        self._files: dict[Kind, NumberFile] = {}
        self._found: dict[tuple[str, Labels], tuple[Numbers, list[int]]] = {}
        self._requests: dict[tuple[str, str, str, int], Recorder] = {}
        self._canaries: dict[str, str] = {}
        infos = getattr(self, "_infos", set[tuple[str, str, str, str]]())
        self._infos: set[tuple[str, str, str, str]] = infos
        for gauges in self.directory.glob(f"gauge_*_{owner_of(os.getpid())}.db"):
            # Of a process that had this one's id before.
            gauges.unlink()
        self.add(families.WORKERS_DIED, (), 0)
        for info in list(infos):
            self.model_info(*info)

    def add(self, family: Family, labels: Labels, amount: float) -> None:
        """Add to a counter, whose first sight is zero."""
        numbers, (at,) = self._find(family, labels)
        numbers[at] += amount

    def set(self, family: Family, labels: Labels, value: float) -> None:
        """Set a gauge."""
        numbers, (at,) = self._find(family, labels)
        numbers[at] = value

    def observe(self, family: Family, labels: Labels, value: float) -> None:
        """Add a value to a histogram."""
        numbers, at = self._find(family, labels)
        numbers[at[0]] += value
        numbers[at[1 + bisect_left(family.bounds, value)]] += 1.0

    def _recorder(self, route: str, model: str, version: str, status: int) -> Recorder:
        codes, (code_at,) = self._find(families.REQUESTS, (route, model, version, str(status)))
        rows, (rows_at,) = self._find(families.ROWS, (model, version)) if model else _nowhere(1)
        times, (sum_at, *buckets_at) = self._find(families.REQUEST_DURATION, (route, model, version))
        recorder = (codes, code_at, rows, rows_at, times, sum_at, buckets_at)
        self._requests[route, model, version, status] = recorder
        return recorder

    def _find(self, family: Family, labels: Labels) -> tuple[Numbers, list[int]]:
        """Give where a metric's numbers are: one, or a histogram's sum and buckets."""
        try:
            return self._found[family.name, labels]
        except KeyError:
            with self._lock:
                return self._found.setdefault((family.name, labels), self._make(family, labels))

    def _make(self, family: Family, labels: Labels) -> tuple[Numbers, list[int]]:
        keys = family.histogram_keys(labels) if family.kind == "histogram" else [family.key("", labels)]
        try:
            file = self._files.get(family.kind)
            if file is None:
                name = f"{family.kind}_{owner_of(os.getpid())}.db"
                file = self._files[family.kind] = NumberFile(self.directory / name)
            return file.find(keys)
        except OSError as error:
            # Answers go on without: what does not fit is counted where nobody sees it.
            logger.error("%s of %s is not recorded: %s in %s", family.name, labels, error.strerror, self.directory)
            return _nowhere(len(keys))


def _remove_as(pid: int, directory: Path) -> None:
    # A forked child comes by here at its end too.
    if os.getpid() == pid:
        remove_directory(directory)


class _Merged:
    """The numbers of all processes, added up, as a collector of prometheus_client."""

    def __init__(self, directory: Path) -> None:
        from prometheus_client.multiprocess import MultiProcessCollector

        collector = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]  # has no types
        self._metrics: list[Metric] = sorted(
            collector.collect(),  # type: ignore[no-untyped-call]  # has no types
            key=lambda metric: metric.name,
        )
        for metric in self._metrics:
            if metric.name == families.MODEL_INFO.name:
                metric.samples = [sample for sample in metric.samples if sample.value]

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _known_formats(accept: str) -> str:
    """Leave out of the header what asks for a version that prometheus_client cannot write.

    It would fail on one that is no number, and claim to have written any other.
    """
    known = ("0.0.1", "0.0.4", "1.0.0")
    parts = []
    for part in accept.split(","):
        fields = [field.partition("=") for field in part.split(";")]
        if all(value.strip() in known for name, _, value in fields if name.strip() == "version"):
            parts.append(part)
    return ",".join(parts)


def _nowhere(count: int) -> tuple[Numbers, list[int]]:
    return memoryview(bytearray(8 * count)).cast("d"), list(range(count))
