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
import json
import logging
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from fairlead.monitor import after_fork
from fairlead.monitor.number_files import NumberFile, Numbers, bury, locked, owner_of
from fairlead.monitor.run_directory import DIRECTORY_VARIABLE, make_directory, remove_directory

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

Kind = Literal["counter", "histogram", "gauge_livesum", "gauge_livemax"]
Labels = tuple[str, ...]
ReloadResult = Literal["swapped", "unchanged", "refused", "failed"]
ShadowResult = Literal["equal", "differs", "failed", "dropped"]
LoadResult = Literal["loaded", "failed"]
Recorder: TypeAlias = "tuple[Numbers, int, Numbers, int, Numbers, int, list[int]]"

logger = logging.getLogger("fairlead.monitor")


@dataclass(frozen=True)
class Family:
    """One metric, with all its labels' values.

    Parameters
    ----------
    name : as Prometheus sees it.
    kind : ``gauge_livesum`` adds the gauges of living processes up, ``gauge_livemax`` takes the largest.
    help : one line for people.
    labels : names, in the order values are given in.
    bounds : upper bounds of a histogram's buckets, in the metric's unit, without the infinite one.
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()

    def key(self, suffix: str, values: Sequence[str], bound: float | None = None) -> str:
        """Give the name of one number in the files, as prometheus_client's `mmap_key`."""
        family = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        labels = dict(zip(self.labels, values, strict=True))
        if bound is not None:
            labels["le"] = "+Inf" if bound == inf else str(float(bound))
        return json.dumps([family, self.name + suffix, labels, self.help], sort_keys=True)

    def histogram_keys(self, values: Sequence[str]) -> list[str]:
        """Give the names of a histogram's sum and of its buckets in order."""
        return [self.key("_sum", values), *(self.key("_bucket", values, bound) for bound in (*self.bounds, inf))]


# 1, 2.5 and 5 of every decade; exact in nanoseconds, which is what is compared.
_BOUNDS_NS = [round(mantissa * 10**exponent) for exponent in range(4, 10) for mantissa in (1, 2.5, 5)] + [10**10]
BATCH_BOUNDS_NS = _BOUNDS_NS
REQUEST_BOUNDS_NS = _BOUNDS_NS[2:]
BATCH_ROWS_BOUNDS = [2**exponent for exponent in range(13)]

_OF_MODEL = ("model", "version")

REQUESTS = Family(
    "fairlead_requests_total", "counter", "Requests answered, by status.", ("route", "model", "version", "code")
)
REQUEST_DURATION = Family(
    "fairlead_request_duration_seconds",
    "histogram",
    "Time from a request's arrival to its answer.",
    ("route", "model", "version"),
    tuple(bound / 1e9 for bound in REQUEST_BOUNDS_NS),
)
ROWS = Family("fairlead_rows_total", "counter", "Records predicted.", _OF_MODEL)
REJECTED = Family("fairlead_rejected_records_total", "counter", "Records that the schema refused.", _OF_MODEL)
IGNORED_KEYS = Family(
    "fairlead_ignored_keys_total", "counter", "Keys of records that are no feature and were left out.", _OF_MODEL
)
UNSEEN = Family(
    "fairlead_unseen_values_total",
    "counter",
    "Values outside the categories known from training.",
    ("model", "version", "feature"),
)
BATCH_ROWS = Family(
    "fairlead_batch_rows",
    "histogram",
    "Records in one run of the engine.",
    _OF_MODEL,
    tuple(map(float, BATCH_ROWS_BOUNDS)),
)
BATCH_DURATION = Family(
    "fairlead_batch_duration_seconds",
    "histogram",
    "Time of one run of the engine.",
    _OF_MODEL,
    tuple(bound / 1e9 for bound in BATCH_BOUNDS_NS),
)
QUEUE_ROWS = Family("fairlead_queue_rows", "gauge_livesum", "Records that wait for the engine.", _OF_MODEL)
IN_FLIGHT = Family("fairlead_in_flight_requests", "gauge_livesum", "Requests that are being answered.")
WORKERS_DIED = Family("fairlead_workers_died_total", "counter", "Worker processes that ended without being told to.")
MODEL_PROCESSES_DIED = Family(
    "fairlead_model_processes_died_total",
    "counter",
    "Processes of isolated models that ended without being told to.",
    ("model",),
)
MODEL_INFO = Family(
    "fairlead_model_info", "gauge_livemax", "1 for each model that is served.", (*_OF_MODEL, "engine", "digest")
)
RELOADS = Family(
    "fairlead_reloads_total",
    "counter",
    "Looks for a newer version of a model, by what came of them.",
    ("model", "result"),
)
ROLLBACKS = Family("fairlead_rollbacks_total", "counter", "Canaries that were taken back.", _OF_MODEL)
CANARY_WEIGHT = Family(
    "fairlead_canary_weight_ratio", "gauge_livemax", "Share of the requests that a canary answers.", _OF_MODEL
)
SHADOW_ROWS = Family(
    "fairlead_shadow_rows_total",
    "counter",
    "Records that a shadow was asked too, by how its answers compare.",
    (*_OF_MODEL, "result"),
)
MODEL_LOADS = Family("fairlead_model_loads_total", "counter", "Loads of models on demand.", ("model", "result"))
EVICTIONS = Family("fairlead_model_evictions_total", "counter", "Models let go for want of memory.", ("model",))
JOBS = Family("fairlead_jobs", "gauge_livesum", "Jobs of files that wait or run now.", ("state",))
JOBS_ENDED = Family("fairlead_jobs_ended_total", "counter", "Jobs of files that are over.", ("state",))

FAMILIES = (
    REQUESTS,
    REQUEST_DURATION,
    ROWS,
    REJECTED,
    IGNORED_KEYS,
    UNSEEN,
    BATCH_ROWS,
    BATCH_DURATION,
    QUEUE_ROWS,
    IN_FLIGHT,
    WORKERS_DIED,
    MODEL_PROCESSES_DIED,
    MODEL_INFO,
    RELOADS,
    ROLLBACKS,
    CANARY_WEIGHT,
    SHADOW_ROWS,
    MODEL_LOADS,
    EVICTIONS,
    JOBS,
    JOBS_ENDED,
)


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
        times[buckets_at[bisect_left(REQUEST_BOUNDS_NS, duration_ns)]] += 1.0

    def batch(self, model: str, version: str, rows: int, duration_ns: int) -> None:
        """Count one run of the engine."""
        labels = (model, version)
        sizes, sizes_at = self._find(BATCH_ROWS, labels)
        times, times_at = self._find(BATCH_DURATION, labels)
        sizes[sizes_at[0]] += rows
        sizes[sizes_at[1 + bisect_left(BATCH_ROWS_BOUNDS, rows)]] += 1.0
        times[times_at[0]] += duration_ns * 1e-9
        times[times_at[1 + bisect_left(BATCH_BOUNDS_NS, duration_ns)]] += 1.0

    def queue_rows(self, model: str, version: str, rows: int) -> None:
        """Tell how many records wait for the engine now."""
        self._set(QUEUE_ROWS, (model, version), rows)

    def in_flight(self, requests: int) -> None:
        """Tell how many requests are being answered now."""
        self._set(IN_FLIGHT, (), requests)

    def rejected(self, model: str, version: str, records: int) -> None:
        """Count records that the schema refused."""
        self._add(REJECTED, (model, version), records)

    def ignored_keys(self, model: str, version: str, keys: int) -> None:
        """Count keys that are no feature."""
        self._add(IGNORED_KEYS, (model, version), keys)

    def unseen(self, model: str, version: str, feature: str, values: int) -> None:
        """Count values outside a feature's known categories."""
        self._add(UNSEEN, (model, version, feature), values)

    def worker_died(self, pid: int) -> None:
        """Count a worker's unexpected end, and keep its numbers: see `bury`. For the supervisor."""
        self._add(WORKERS_DIED, (), 1)
        bury(self.directory, pid)

    def model_process_died(self, model: str) -> None:
        """Count an isolated model's unexpected end."""
        self._add(MODEL_PROCESSES_DIED, (model,), 1)

    def model_info(self, model: str, version: str, engine: str, digest: str) -> None:
        """Tell that a model is served now; its counts are shown from then on, zero or not."""
        for family in (ROWS, REJECTED, IGNORED_KEYS):
            self._add(family, (model, version), 0)
        self._add(MODEL_PROCESSES_DIED, (model,), 0)
        for result in get_args(ReloadResult):
            self._add(RELOADS, (model, result), 0)
        self._infos.add((model, version, engine, digest))
        self._set(MODEL_INFO, (model, version, engine, digest), 1)

    def model_gone(self, model: str, version: str, engine: str, digest: str) -> None:
        """Tell that a model is served no more."""
        self._infos.discard((model, version, engine, digest))
        self._set(MODEL_INFO, (model, version, engine, digest), 0)

    def reloaded(self, model: str, result: ReloadResult) -> None:
        """Count a look for a newer version, which was refused when it could not be served."""
        self._add(RELOADS, (model, result), 1)

    def rolled_back(self, model: str, version: str) -> None:
        """Count a canary that was taken back."""
        self._add(ROLLBACKS, (model, version), 1)

    def canary_weight(self, model: str, version: str, weight: float) -> None:
        """Tell a canary's share of the requests, from 0 to 1; one before it has none any more."""
        before = self._canaries.get(model, version)
        if before != version:
            self._set(CANARY_WEIGHT, (model, before), 0)
        self._canaries[model] = version
        self._set(CANARY_WEIGHT, (model, version), weight)
        self._add(ROLLBACKS, (model, version), 0)

    def shadow_rows(self, model: str, version: str, result: ShadowResult, rows: int) -> None:
        """Count records that a shadow was to be asked."""
        self._add(SHADOW_ROWS, (model, version, result), rows)

    def model_loaded(self, model: str, result: LoadResult) -> None:
        """Count a load on demand."""
        self._add(MODEL_LOADS, (model, result), 1)

    def model_evicted(self, model: str) -> None:
        """Count a model that was let go for want of memory."""
        self._add(EVICTIONS, (model,), 1)

    def jobs(self, queued: int, running: int) -> None:
        """Tell how many jobs wait and run now."""
        self._set(JOBS, ("queued",), queued)
        self._set(JOBS, ("running",), running)

    def job_ended(self, state: str) -> None:
        """Count a job that is over."""
        self._add(JOBS_ENDED, (state,), 1)

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
        self._add(WORKERS_DIED, (), 0)
        for info in list(infos):
            self.model_info(*info)

    def _add(self, family: Family, labels: Labels, amount: int) -> None:
        numbers, (at,) = self._find(family, labels)
        numbers[at] += amount

    def _set(self, family: Family, labels: Labels, value: float) -> None:
        numbers, (at,) = self._find(family, labels)
        numbers[at] = value

    def _recorder(self, route: str, model: str, version: str, status: int) -> Recorder:
        codes, (code_at,) = self._find(REQUESTS, (route, model, version, str(status)))
        rows, (rows_at,) = self._find(ROWS, (model, version)) if model else _nowhere(1)
        times, (sum_at, *buckets_at) = self._find(REQUEST_DURATION, (route, model, version))
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
            collector.collect(),  # type: ignore[no-untyped-call]
            key=lambda metric: metric.name,
        )
        for metric in self._metrics:
            if metric.name == MODEL_INFO.name:
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
