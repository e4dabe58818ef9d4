"""What the tests here share: a request as the monitor sees one, and worker processes that count.

Imported as `monitor.peers`, so that a spawned process finds it too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fairlead.monitor.logs import AccessLog, TraceContext
from fairlead.monitor.metrics import Metrics


@dataclass
class Asked:
    method: str = "POST"
    path: str = "/predict"
    body: bytes = b"{}"
    client: str | None = "192.0.2.1"
    request_id: bytes = b"id-1"
    key_name: str | None = None
    trace: TraceContext | None = None


def count_and_stay(directory: Path, n_requests: int, told: Connection) -> None:
    """Be a worker that has counted, holds some requests, and lives until it is killed."""
    metrics = Metrics(directory)
    metrics.model_info("iris", "1", "onnx", "abc")
    for _ in range(n_requests):
        metrics.request("/predict", "iris", "1", 200, 70_000, 2)
    metrics.batch("iris", "1", 2 * n_requests, 30_000)
    metrics.in_flight(3)
    metrics.queue_rows("iris", "1", 7)
    told.send("counted")
    time.sleep(60)


def count_until_killed(directory: Path, told: Connection) -> None:
    """Be a worker that tells of each request right after it counted it."""
    metrics = Metrics(directory)
    for n in range(1, 10_000_000):
        metrics.request("/predict", "iris", "1", 200, 70_000, 2)
        told.send(n)


def write_lines(fd: int, n_lines: int, path: str) -> None:
    """Be a worker that writes to a log that others write to."""
    log = AccessLog(fd)
    for _ in range(n_lines // 100):
        for _ in range(100):
            log.write(Asked(path=path), 200, 1000)
        log.close(timeout_s=20)
