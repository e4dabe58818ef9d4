"""Spans of OpenTelemetry: one for each request, and one for each run of the engine that several shared.

A request gets its place in a trace when it arrives, which costs a microsecond; its span is made of that
after the answer. Where spans go, how many are kept and what the service is called is said by the standard
environment variables, ``OTEL_TRACES_EXPORTER`` and the like.

Layer L2; opentelemetry is imported by `Tracer.create`.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

from fairlead.errors import MissingExtra
from fairlead.extras import require
from fairlead.monitor.logs import SAMPLED, Request, TraceContext, new_trace

EXTRA = "tracing"
SERVICE = "fairlead"
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})


class Tracer:
    """Makes spans after the fact. Threads may share it.

    Parameters
    ----------
    provider : a `TracerProvider` of opentelemetry's SDK.
    owned : whether to shut it down with this.
    """

    def __init__(self, provider: Any, owned: bool = False) -> None:
        self._api = require("opentelemetry.trace", EXTRA)
        self._provider = provider
        self._owned = owned
        self._tracer = provider.get_tracer(SERVICE)
        # Links to spans that are made later need ids that are known before.
        self._ids = _Ids(self._tracer.id_generator)
        self._tracer.id_generator = self._ids

    @classmethod
    def create(cls) -> Tracer | None:
        """Make the tracer that the environment asks for.

        A provider of opentelemetry's SDK that is set already, by the program around an app or by
        ``opentelemetry-instrument``, is used as it is.

        Returns
        -------
        None where ``OTEL_SDK_DISABLED`` is true, or ``OTEL_TRACES_EXPORTER`` is none.

        Raises
        ------
        MissingExtra
            When opentelemetry's SDK, or the exporter that was asked for, is not installed.
        """
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        sdk = require("opentelemetry.sdk.trace", EXTRA)
        present = require("opentelemetry.trace", EXTRA).get_tracer_provider()
        if isinstance(present, sdk.TracerProvider):
            return cls(present)
        names = [name.strip() for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")]
        if names == ["none"]:
            return None
        exporters = [_exporter(name) for name in names]
        resource = require("opentelemetry.sdk.resources", EXTRA).Resource.create(_resource())
        export = require("opentelemetry.sdk.trace.export", EXTRA)
        provider = sdk.TracerProvider(resource=resource)
        for exporter in exporters:
            provider.add_span_processor(export.BatchSpanProcessor(exporter))
        return cls(provider, owned=True)

    def context(self, parent: TraceContext | None) -> TraceContext:
        """Make the place of a request's span, when the request arrives.

        Parameters
        ----------
        parent : of the request's ``traceparent``; without it a trace begins here.
        """
        return parent.child() if parent is not None else new_trace()

    def request(
        self,
        request: Request,
        route: str,
        status: int,
        duration_ns: int,
        rows: int = 0,
        model: str = "",
        version: str = "",
        end_ns: int | None = None,
    ) -> None:
        """Make a request's span, after its answer.

        Parameters
        ----------
        request : its `trace` is what `context` gave; without one, it is made here.
        route : the service's name of the route; best the path's template, as OpenTelemetry has it.
        end_ns : since the epoch; default now.
        """
        method = request.method if request.method in METHODS else "_OTHER"
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.path": request.path,
            "http.response.status_code": status,
            "http.route": route,
        }
        if method == "_OTHER":
            attributes["http.request.method_original"] = request.method
        if status >= 500:
            attributes["error.type"] = str(status)
        if model:
            attributes |= {"fairlead.model": model, "fairlead.version": version, "fairlead.rows": rows}
        end_ns = time.time_ns() if end_ns is None else end_ns
        place = request.trace if request.trace is not None else new_trace()
        with self._ids.reserved(place):
            span = self._tracer.start_span(
                f"{method if method != '_OTHER' else 'HTTP'} {route}".strip(),
                context=self._context_of_parent(place),
                kind=self._api.SpanKind.SERVER,
                attributes=attributes,
                start_time=end_ns - duration_ns,
            )
        if status >= 500:
            span.set_status(self._api.StatusCode.ERROR)
        span.end(end_time=end_ns)

    def batch(
        self,
        model: str,
        version: str,
        rows: int,
        duration_ns: int,
        requests: Iterable[TraceContext | None],
        end_ns: int | None = None,
    ) -> None:
        """Make the span of one run of the engine, linked to those of its requests; none if nobody records those.

        Parameters
        ----------
        requests : what `context` gave for them; opentelemetry keeps 128 links (``OTEL_SPAN_LINK_COUNT_LIMIT``).
        end_ns : since the epoch; default now.
        """
        links = [
            self._api.Link(self._span_context(request.trace_id, request.span_id, request.flags, is_remote=False))
            for request in requests
            if request is not None and request.flags & SAMPLED
        ]
        if not links:
            return
        end_ns = time.time_ns() if end_ns is None else end_ns
        span = self._tracer.start_span(
            "fairlead.batch",
            context=self._api.set_span_in_context(self._api.INVALID_SPAN),
            kind=self._api.SpanKind.INTERNAL,
            attributes={"fairlead.model": model, "fairlead.version": version, "fairlead.rows": rows},
            links=links,
            start_time=end_ns - duration_ns,
        )
        span.end(end_time=end_ns)

    def close(self) -> None:
        """Send what is left; for the end of the process."""
        if self._owned:
            self._provider.shutdown()

    def _context_of_parent(self, place: TraceContext) -> Any:
        if not place.parent_id:
            return self._api.set_span_in_context(self._api.INVALID_SPAN)
        parent = self._span_context(place.trace_id, place.parent_id, place.flags, is_remote=True)
        return self._api.set_span_in_context(self._api.NonRecordingSpan(parent))

    def _span_context(self, trace_id: str, span_id: str, flags: int, is_remote: bool) -> Any:
        return self._api.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, self._api.TraceFlags(flags))


def _resource() -> dict[str, str]:
    # Resource.create reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, but what it is given wins over them.
    given = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or os.environ.get("OTEL_SERVICE_NAME")
    return {} if given else {"service.name": SERVICE}


def _exporter(name: str) -> Any:
    """Make a span exporter by its name in ``OTEL_TRACES_EXPORTER``."""
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        names = [{"grpc": "otlp_proto_grpc"}.get(protocol, "otlp_proto_http")] if protocol else []
        names = names or ["otlp_proto_http", "otlp_proto_grpc"]
    else:
        names = [name]
    known = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    for candidate in names:
        if candidate in known:
            return known[candidate].load()()
    raise MissingExtra(
        f"OTEL_TRACES_EXPORTER: {name} is not installed, only {', '.join(sorted(known))}: "
        "for otlp run `pip install opentelemetry-exporter-otlp-proto-http`"
    )


class _Ids:
    """An `IdGenerator`: gives the ids of a place in a trace while its span is made, else those that `ids` makes."""

    def __init__(self, ids: Any) -> None:
        self._ids = ids
        self._reserved = threading.local()

    @contextlib.contextmanager
    def reserved(self, place: TraceContext) -> Iterator[None]:
        self._reserved.place = place
        try:
            yield
        finally:
            self._reserved.place = None

    def generate_trace_id(self) -> int:
        place = getattr(self._reserved, "place", None)
        made: int = self._ids.generate_trace_id() if place is None else int(place.trace_id, 16)
        return made

    def generate_span_id(self) -> int:
        place = getattr(self._reserved, "place", None)
        made: int = self._ids.generate_span_id() if place is None else int(place.span_id, 16)
        return made

    def is_trace_id_random(self) -> bool:
        return True
