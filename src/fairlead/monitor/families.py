"""The metrics that there are: their names, labels, units and buckets.

Layer L2; imports nothing of fairlead.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

Kind = Literal["counter", "histogram", "gauge_livesum", "gauge_livemax"]
Labels = tuple[str, ...]


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

_OF_STEP = ("model", "step")
_OF_PARTITION = ("model", "partition")
STREAM_RECORDS = Family(
    "fairlead_stream_records_total", "counter", "Events that are done, by what became of them.", ("model", "result")
)
STREAM_DEAD_LETTERS = Family(
    "fairlead_stream_dead_letters_total", "counter", "Events that can never be scored, by why.", ("model", "reason")
)
STREAM_RETRIES = Family("fairlead_stream_retries_total", "counter", "Steps that failed and were tried again.", _OF_STEP)
STREAM_DELAY = Family(
    "fairlead_stream_delay_seconds",
    "histogram",
    "Time from an event's arrival at its broker until it is done.",
    ("model",),
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0),
)
STREAM_LAG_RECORDS = Family(
    "fairlead_stream_lag_records", "gauge_livesum", "Events that wait in a partition.", _OF_PARTITION
)
STREAM_LAG = Family(
    "fairlead_stream_lag_seconds", "gauge_livemax", "Age of the oldest event that waits in a partition.", _OF_PARTITION
)

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
    STREAM_RECORDS,
    STREAM_DEAD_LETTERS,
    STREAM_RETRIES,
    STREAM_DELAY,
    STREAM_LAG_RECORDS,
    STREAM_LAG,
)
