"""What happens to every request for a prediction, whatever its form: admit, read, run, answer.

An `Endpoint` is one model behind one path. It answers each call exactly once, and never raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.batching import ClientGone
from fairlead.web.dialects import JSON
from fairlead.web.jobs import Job
from fairlead.web.problems import PROBLEM_JSON, Header, Refusal, failure, invalid, invalid_array, rebased

if TYPE_CHECKING:
    from fairlead.web.calls import Call
    from fairlead.web.dialects import Dialect
    from fairlead.web.gate import Gate
    from fairlead.web.models import Model

# What proxies log for a client that did not wait; no answer is sent.
CLIENT_GONE = 499


class Endpoint:
    """One model behind one path.

    Parameters
    ----------
    model : what predicts.
    dialects : the forms in which it may be asked, of different methods.
    gate : decides who gets in, and keeps the record.
    """

    def __init__(self, model: Model, dialects: Sequence[Dialect], gate: Gate) -> None:
        self.model = model
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
            rows, write, origin, source = dialect.read(call, self.model.intake)
            job = Job(call, rows, self._finish, write, origin, source)
            job.deadline_ns = deadline_ns
            self.model.batcher.submit(job)
        except Refusal as refusal:
            self._refuse(call, refusal)
        except Exception as error:
            self._refuse(call, failure(error, call.request_id.decode()))

    def refuse_size(self, call: Call) -> None:
        """Answer a call whose body is larger than the settings allow."""
        self._gate.identify(call)
        self._refuse(call, wire.too_large(self._gate.settings.max_body_bytes))

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
        self._gate.record(call, self._dialects[call.method].name, self.model, 200, job.n_rows)

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
            self._refuse(call, invalid_array(job.rejections, job.n_rows, job.origin))

    def _refuse(self, call: Call, refusal: Refusal) -> None:
        dialect = self._dialects.get(call.method, self._first)
        if refusal.n_records and self._gate.metrics is not None:
            self._gate.metrics.rejected(self.model.name, self.model.version, refusal.n_records)
        headers = self._gate.headers(PROBLEM_JSON, self._version, *refusal.headers)
        call.send(refusal.status, headers, dialect.refused(refusal))
        self._gate.record(call, dialect.name, self.model, refusal.status, 0)
