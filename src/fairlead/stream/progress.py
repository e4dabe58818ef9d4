"""How a consumer is doing: for probes, metrics, logs and a terminal.

Everything happens on one event loop. Layer L3; imports msgspec.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from fairlead.monitor import families
from fairlead.stream.records import Lag, Record

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics

Step = Literal["start", "receive", "score", "publish", "dead_letter", "commit"]
_WINDOW_S = 10.0


class Status(Struct, frozen=True):
    """What ``/readyz`` tells.

    Parameters
    ----------
    status : ``ready``, or ``not ready``.
    reason : why it is not ready; empty else.
    model, version : that answer.
    records, dead_letters, retries : since the start.
    records_per_s : of late.
    lag : by partition.
    """

    status: Literal["ready", "not ready"]
    reason: str
    model: str
    version: str
    records: int
    dead_letters: int
    retries: int
    records_per_s: float
    lag: list[Lag]


class Progress:
    """Counts what happens.

    Parameters
    ----------
    model : its name.
    metrics : where it is counted too; None where nobody wants it.
    lag : tells how far behind the source is.
    """

    def __init__(self, model: str, metrics: Metrics | None, lag: Callable[[], list[Lag]]) -> None:
        self.records = 0
        self.dead_letters = 0
        self.retries = 0
        self.version = ""
        self._model = model
        self._metrics = metrics
        self._lag = lag
        self._troubles: dict[Step, str] = {}
        self._waiting_for = "it is starting"
        self._recent: deque[tuple[float, int]] = deque()
        self._partitions: set[str] = set()
        if metrics is not None:
            for result in ("published", "dead_letter"):
                metrics.add(families.STREAM_RECORDS, (model, result), 0)

    def waits_for(self, reason: str) -> None:
        """Tell why nothing is scored yet, or no more; empty when it goes on."""
        self._waiting_for = reason

    def done(self, records: Sequence[Record], reasons: Sequence[str]) -> None:
        """Count events that are committed.

        Parameters
        ----------
        reasons : the codes of those among them that became dead letters.
        """
        now_s = time.monotonic()
        self.records += len(records)
        self.dead_letters += len(reasons)
        self._recent.append((now_s, len(records)))
        self._forget(now_s)
        if self._metrics is None:
            return
        self._metrics.add(families.STREAM_RECORDS, (self._model, "published"), len(records) - len(reasons))
        for reason, count in Counter(reasons).items():
            self._metrics.add(families.STREAM_RECORDS, (self._model, "dead_letter"), count)
            self._metrics.add(families.STREAM_DEAD_LETTERS, (self._model, reason), count)
        arrived = [record.arrived_at_s for record in records if record.arrived_at_s is not None]
        if arrived:
            self._metrics.observe(families.STREAM_DELAY, (self._model,), time.time() - min(arrived))

    def failed(self, step: Step, reason: str) -> None:
        """Tell that a step did not succeed and will be tried again."""
        self.retries += 1
        self._troubles[step] = reason
        if self._metrics is not None:
            self._metrics.add(families.STREAM_RETRIES, (self._model, step), 1)

    def succeeded(self, step: Step) -> None:
        """Tell that a step that had failed has succeeded."""
        self._troubles.pop(step, None)

    def status(self) -> Status:
        """Tell how it is doing now."""
        self._forget(time.monotonic())
        troubles = [f"{step}: {why}" for step, why in self._troubles.items()]
        reason = "; ".join([self._waiting_for, *troubles] if self._waiting_for else troubles)
        return Status(
            status="not ready" if reason else "ready",
            reason=reason,
            model=self._model,
            version=self.version,
            records=self.records,
            dead_letters=self.dead_letters,
            retries=self.retries,
            records_per_s=round(sum(count for _, count in self._recent) / _WINDOW_S, 1),
            lag=self._lag(),
        )

    def tell_lag(self) -> None:
        """Bring the metrics of the lag up to date; partitions that went elsewhere have none."""
        if self._metrics is None:
            return
        lag = self._lag()
        for partition in self._partitions - {one.partition for one in lag}:
            self._metrics.set(families.STREAM_LAG_RECORDS, (self._model, partition), 0)
            self._metrics.set(families.STREAM_LAG, (self._model, partition), 0)
        self._partitions = {one.partition for one in lag}
        for one in lag:
            if one.records is not None:
                self._metrics.set(families.STREAM_LAG_RECORDS, (self._model, one.partition), one.records)
            if one.age_s is not None:
                self._metrics.set(families.STREAM_LAG, (self._model, one.partition), one.age_s)

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()
