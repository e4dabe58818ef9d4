"""What happens to every request for a prediction, whatever its form: admit, read, run, answer.

An `Endpoint` is one model behind one path. It answers each call exactly once, and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.batching import ClientGone
from fairlead.web.dialects import JSON
from fairlead.web.jobs import Job
from fairlead.web.problems import PROBLEM_JSON, Header, Refusal, failure, invalid, invalid_array, rebased

if TYPE_CHECKING:
    from fairlead.predict.validate import Row
    from fairlead.web.calls import Call
    from fairlead.web.dialects import Dialect
    from fairlead.web.gate import Gate
    from fairlead.web.jobs import Source
    from fairlead.web.models import Model
    from fairlead.web.shadow import Shadow
    from fairlead.web.split import Reporter

# What proxies log for a client that did not wait; no answer is sent.
CLIENT_GONE = 499


class Endpoint:
    """One model behind one path.

    Parameters
    ----------
    model : what predicts.
    dialects : the forms in which it may be asked, of different methods.
    gate : decides who gets in, and keeps the record.

    Attributes
    ----------
    divert : gives the endpoint that a call is for, once its rows are read; None keeps it here.
    shadow : is asked what was answered here.
    reporter : counts what becomes of calls, for who judges this model.
    """

    def __init__(self, model: Model, dialects: Sequence[Dialect], gate: Gate) -> None:
        self.model = model
        self.divert: Callable[[Sequence[Row], Source | None], Endpoint | None] | None = None
        self.shadow: Shadow | None = None
        self.reporter: Reporter | None = None
        self._gate = gate
        self._dialects = {method: dialect for dialect in dialects for method in dialect.methods}
        self._methods = sorted(self._dialects)
        self._first = dialects[0]
        self._version: Header = (b"x-model-version", model.version.encode())
        # The same object for each answer, so that it is written out as bytes only once.
        self._headers = gate.headers(JSON, self._version)

    def handle(self, call: Call) -> None:
        """Answer a call, now or when its batch has run."""
        try:
            deadline_ns = self._gate.admit(call)
            dialect = self._dialects.get(call.method)
            if dialect is None:
                headers = [(b"allow", ", ".join(self._methods).encode())]
                raise Refusal("method_not_allowed", f"expected {' or '.join(self._methods)}", headers=headers)
            if b"content-encoding" in call.fields:
                call.body = self._gate.decompressed(call)
            self._begin(call, dialect, deadline_ns)
        except Refusal as refusal:
            self._refuse(call, refusal)
        except Exception as error:
            self._refuse(call, failure(error, call.request_id.decode()))

    def refuse_size(self, call: Call) -> None:
        """Answer a call whose body is larger than the settings allow."""
        self._gate.identify(call)
        self._refuse(call, wire.too_large(self._gate.settings.max_body_bytes))

    def _begin(self, call: Call, dialect: Dialect, deadline_ns: int) -> None:
        rows, write, origin, source = dialect.read(call, self.model.intake)
        if self.divert is not None and (other := self.divert(rows, source)) is not None:
            other._begin(call, other._dialects[call.method], deadline_ns)
            return
        job = Job(call, rows, self._finish, write, origin, source)
        job.deadline_ns = deadline_ns
        self.model.batcher.submit(job)

    def _finish(self, job: Job) -> None:
        call = job.call
        if job.error is not None or job.rejections or job.failures:
            self._fail(job)
            return
        try:
            content = job.write(job.answers)
        except Exception as error:
            self._refuse(call, failure(error, call.request_id.decode()))
            return
        if content.headers or content.media_type is not JSON:
            headers = self._gate.headers(content.media_type, self._version, *content.headers)
        else:
            headers = self._headers
        call.send(200, headers, content.body)
        dialect = self._dialects[call.method]
        self._gate.record(call, dialect.name, self.model, 200, job.n_rows)
        if self.reporter is not None:
            self.reporter.count(False, perf_counter_ns() - call.started_ns)
        if self.shadow is not None:
            self.shadow.mirror(job, dialect)

    def _fail(self, job: Job) -> None:
        call, error = job.call, job.error
        if isinstance(error, ClientGone):
            self._gate.record(call, self._dialects[call.method].name, self.model, CLIENT_GONE, 0)
        elif isinstance(error, Refusal):
            self._refuse(call, error)
        elif error is not None:
            self._refuse(call, failure(error, call.request_id.decode()))
        elif job.failures:
            places = sorted(job.failures)
            problems = [Problem(f"$[{place}]", "a record that the model can predict", "another") for place in places]
            told = () if job.origin is None else rebased(problems, job.origin)
            self._refuse(call, failure(job.failures[places[0]], call.request_id.decode(), told))
        elif job.origin is None:
            self._refuse(call, invalid([problem.alone() for problem in job.rejections[0]], "the record"))
        else:
            self._refuse(call, invalid_array(job.rejections, job.n_checked, job.origin, job.n_rows - job.n_checked))

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        dialect = self._dialects.get(call.method, self._first)
        if refusal.n_records and self._gate.metrics is not None:
            self._gate.metrics.rejected(self.model.name, self.model.version, refusal.n_records)
        headers = self._gate.headers(PROBLEM_JSON, self._version, *refusal.headers)
        call.send(refusal.status, headers, dialect.refused(refusal))
        self._gate.record(call, dialect.name, self.model, refusal.status, 0)
        if self.reporter is not None:
            self.reporter.count(refusal.status >= 500, perf_counter_ns() - call.started_ns)
