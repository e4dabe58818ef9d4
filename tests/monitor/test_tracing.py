from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from fairlead.errors import MissingExtra
from fairlead.monitor.logs import TraceContext, parse_traceparent
from fairlead.monitor.tracing import Tracer
from monitor.peers import Asked

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = TraceContext(TRACE, CALLER, 1)
END_NS = 1_800_000_000_000_000_000


class Recorded:
    """A tracer, and the spans it made."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = Tracer(self.provider)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.provider.shutdown()


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_span_of_a_request(recorded: Recorded) -> None:
    place = recorded.tracer.context(PARENT)
    asked = Asked(path="/models/iris/predict", trace=place)
    recorded.tracer.request(asked, "/models/{name}/predict", 200, 1_500_000, 3, "iris", "1", end_ns=END_NS)

    (span,) = recorded.spans
    assert span.name == "POST /models/{name}/predict"
    assert span.kind is SpanKind.SERVER
    assert ids(span) == (TRACE, place.span_id)
    assert span.parent is not None
    assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (CALLER, True)
    assert (span.start_time, span.end_time) == (END_NS - 1_500_000, END_NS)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "url.path": "/models/iris/predict",
        "http.response.status_code": 200,
        "http.route": "/models/{name}/predict",
        "fairlead.model": "iris",
        "fairlead.version": "1",
        "fairlead.rows": 3,
    }


def test_request_without_a_trace_begins_one(recorded: Recorded) -> None:
    place = recorded.tracer.context(None)
    recorded.tracer.request(Asked(trace=place), "/predict", 200, 1000)
    recorded.tracer.request(Asked(), "/predict", 200, 1000)
    first, second = recorded.spans
    assert ids(first) == (place.trace_id, place.span_id)
    assert first.parent is None
    assert second.parent is None
    assert ids(second)[0] != place.trace_id


def test_fault_of_ours_is_an_error_and_one_of_theirs_is_none(recorded: Recorded) -> None:
    for status in (500, 422):
        recorded.tracer.request(Asked(), "/predict", status, 1000)
    fault, refusal = recorded.spans
    assert fault.status.status_code is StatusCode.ERROR
    assert (fault.attributes or {})["error.type"] == "500"
    assert refusal.status.status_code is StatusCode.UNSET
    assert "error.type" not in (refusal.attributes or {})


def test_unknown_method_names_no_span(recorded: Recorded) -> None:
    recorded.tracer.request(Asked(method="BREW"), "/predict", 405, 1000)
    (span,) = recorded.spans
    assert span.name == "HTTP /predict"
    assert (span.attributes or {})["http.request.method"] == "_OTHER"
    assert (span.attributes or {})["http.request.method_original"] == "BREW"


def test_batch_is_linked_to_the_spans_of_its_requests(recorded: Recorded) -> None:
    tracer = recorded.tracer
    places = [tracer.context(PARENT), tracer.context(None)]
    unsampled = tracer.context(TraceContext(TRACE, CALLER, 0))
    tracer.batch("iris", "1", 5, 20_000, [*places, unsampled, None], end_ns=END_NS)
    for place in places:
        tracer.request(Asked(trace=place), "/predict", 200, 1000)

    batch, *requests = recorded.spans
    assert (batch.name, batch.kind, batch.parent) == ("fairlead.batch", SpanKind.INTERNAL, None)
    assert (batch.start_time, batch.end_time) == (END_NS - 20_000, END_NS)
    assert dict(batch.attributes or {}) == {"fairlead.model": "iris", "fairlead.version": "1", "fairlead.rows": 5}
    assert [link.context for link in batch.links] == [
        request.context and type(request.context)(**_fields(request.context)) for request in requests
    ]
    assert ids(batch)[0] not in {ids(request)[0] for request in requests}


def _fields(context: Any) -> dict[str, Any]:
    names = ("trace_id", "span_id", "is_remote", "trace_flags", "trace_state")
    return {name: getattr(context, name) for name in names}


def test_batch_of_requests_that_nobody_records_has_no_span(recorded: Recorded) -> None:
    recorded.tracer.batch("iris", "1", 5, 20_000, [TraceContext(TRACE, CALLER, 0), None])
    assert recorded.spans == ()


def test_caller_decides_what_is_recorded() -> None:
    recorded = Recorded(sampler=ParentBased(root=ALWAYS_OFF))
    for parent in (PARENT, TraceContext(TRACE, CALLER, 0), None):
        recorded.tracer.request(Asked(trace=recorded.tracer.context(parent)), "/predict", 200, 1000)
    assert [ids(span)[0] for span in recorded.spans] == [TRACE]
    recorded.provider.shutdown()


def test_place_can_be_passed_on(recorded: Recorded) -> None:
    place = recorded.tracer.context(PARENT)
    again = parse_traceparent(place.traceparent())
    assert again is not None
    assert (again.trace_id, again.span_id) == (TRACE, place.span_id)


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: opentelemetry's provider is one a process."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | environment
    return subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, timeout=60)


REQUEST = """
from fairlead.monitor.tracing import Tracer
class Asked:
    method, path, trace = "POST", "/predict", None
tracer = Tracer.create()
if tracer is None:
    print("off")
else:
    tracer.request(Asked(), "/predict", 200, 1000)
    tracer.close()
"""


@pytest.mark.parametrize(
    ("environment", "service"),
    [
        ({}, "fairlead"),
        ({"OTEL_SERVICE_NAME": "churn"}, "churn"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop"}, "shop"),
    ],
)
def test_environment_chooses_exporter_and_name(environment: dict[str, str], service: str) -> None:
    done = run(REQUEST, OTEL_TRACES_EXPORTER="console", **environment)
    assert done.returncode == 0, done.stderr
    assert '"name": "POST /predict"' in done.stdout
    assert f'"service.name": "{service}"' in done.stdout


@pytest.mark.parametrize("environment", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_environment_can_turn_it_off(environment: dict[str, str]) -> None:
    assert run(REQUEST, **environment).stdout == "off\n"


def test_exporter_that_is_missing_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "smoke_signals")
    with pytest.raises(MissingExtra, match=r"OTEL_TRACES_EXPORTER: smoke_signals is not installed, only .*console"):
        Tracer.create()


def test_provider_of_the_program_around_is_used() -> None:
    script = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
{REQUEST}
with trace.get_tracer("theirs").start_as_current_span("still alive"):
    pass
"""
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert '"name": "POST /predict"' in done.stdout
    assert '"name": "still alive"' in done.stdout
