"""A version that is asked what the stable one was asked, when that has answered; its answers are only compared.

It runs in a process of its own, of the lowest priority, and takes nothing on while it has enough to do: the answers
that count are neither later nor fewer for it.
"""

from __future__ import annotations

import logging
from time import perf_counter_ns
from typing import TYPE_CHECKING

from fairlead.repository.compatibility import answer_difference
from fairlead.web.calls import Call
from fairlead.web.jobs import Job
from fairlead.web.problems import Refusal

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics, ShadowResult
    from fairlead.web.dialects import Dialect
    from fairlead.web.models import Model
    from fairlead.web.problems import Header

# Rows that may wait for a shadow, and that a request may have for it.
_MAX_QUEUE_ROWS = 1024
_MAX_ROWS = 256
# As the proof of parity allows for numbers that are the same.
_TOLERANCE = 1e-6

logger = logging.getLogger("fairlead.web")


class Shadow:
    """Asks a shadow too.

    Parameters
    ----------
    stable, model : whose answers count, and whose are compared with them.
    metrics : where that is counted; None where nobody wants it.
    timeout_s : how long the shadow may take.
    """

    def __init__(self, stable: Model, model: Model, metrics: Metrics | None, timeout_s: float) -> None:
        self._model = model
        self._metrics = metrics
        self._timeout_ns = int(timeout_s * 1e9)
        self._is_same_schema = stable.intake.manifest.schema == model.intake.manifest.schema

    def mirror(self, job: Job, dialect: Dialect) -> None:
        """Ask what a job asked, now that it is answered; never raises.

        Parameters
        ----------
        dialect : that of the request.
        """
        batcher = self._model.batcher
        if job.n_rows > _MAX_ROWS or batcher.queued_rows > _MAX_QUEUE_ROWS or not self._model.is_ready:
            self._count("dropped", job.n_rows)
            return
        try:
            rows = job.rows
            if job.source is not None or not self._is_same_schema:
                rows, _, _, source = dialect.read(job.call, self._model.intake)
                if source is not None:
                    checked = source.take(0, source.n_rows)
                    rows = checked.rows
            if len(rows) != job.n_rows:
                self._count("failed", job.n_rows)
                return
            copy = Job(_Unheard(job.call), rows, lambda done: self._compare(job, done), lambda answers: None)
            copy.deadline_ns = copy.call.started_ns + self._timeout_ns
            batcher.submit(copy)
        except Refusal as refusal:
            self._count("dropped" if refusal.status == 503 else "failed", job.n_rows)
        except Exception:
            logger.exception("%s: its shadow %s", self._model.name, self._model.version)
            self._count("failed", job.n_rows)

    def _compare(self, job: Job, copy: Job) -> None:
        if copy.error is not None:
            is_dropped = isinstance(copy.error, Refusal) and copy.error.status == 503
            self._count("dropped" if is_dropped else "failed", job.n_rows)
            return
        for answer, other in zip(job.answers, copy.answers or [None] * job.n_rows, strict=True):
            if other is None:
                self._count("failed", 1)
            else:
                self._count("equal" if answer_difference(answer, other) <= _TOLERANCE else "differs", 1)

    def _count(self, result: ShadowResult, n_rows: int) -> None:
        if self._metrics is not None:
            self._metrics.shadow_rows(self._model.name, self._model.version, result, n_rows)


class _Unheard(Call):
    """A call that nobody waits for."""

    __slots__ = ()

    def __init__(self, call: Call) -> None:
        super().__init__(call.method, call.path, call.query, call.headers, b"", None)
        self.started_ns = perf_counter_ns()

    def send(self, status: int, headers: tuple[Header, ...], body: bytes) -> None:
        pass
