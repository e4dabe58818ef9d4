"""Who gets in, and the record of what became of it: the same for every request of a server.

Request ids, API keys, rate limits and deadlines on the way in; headers, metrics, logs and spans on the way
out.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from fairlead.config import WebSettings
from fairlead.monitor.logs import AccessLog, RequestIds, parse_traceparent, valid_request_id
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.keys import Keys
from fairlead.web.problems import Header, Refusal

if TYPE_CHECKING:
    from fairlead.monitor.metrics import Metrics
    from fairlead.monitor.tracing import Tracer
    from fairlead.web.models import Model
    from fairlead.web.rate_limit import RateLimiter

logger = logging.getLogger("fairlead.web")
# Sent with every answer: what is served is data, never to be taken for a page or kept by a cache.
SAFE: tuple[Header, ...] = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


@dataclass
class Gate:
    """Admits requests, and records what became of them.

    Parameters
    ----------
    settings : of the server.
    metrics, access_log, tracer : where the record goes; None where nobody wants it.
    keys, limiter : who may come, and how often; None for everybody.

    Attributes
    ----------
    is_draining : whether the server is about to end; then answers ask clients to connect anew.
    """

    settings: WebSettings
    metrics: Metrics | None = None
    access_log: AccessLog | None = None
    tracer: Tracer | None = None
    keys: Keys | None = None
    limiter: RateLimiter | None = None
    is_draining: bool = False

    def __post_init__(self) -> None:
        self._timeout_ns = int(self.settings.timeout_s * 1e9)
        self.new_request_id = RequestIds()
        self.in_flight = 0

    def admit(self, call: Call, admin: bool = False, is_counted: bool = True) -> int:
        """Let a request in.

        Parameters
        ----------
        admin : whether it takes an admin key.
        is_counted : whether it counts against the key's rate limit, as predictions do.

        Returns
        -------
        When it has to be answered, on the clock of `time.perf_counter_ns`.

        Raises
        ------
        Refusal
            ``unauthorized``, ``forbidden``, ``rate_limited``, or ``bad_header``.
        """
        self.identify(call)
        fields = call.fields
        if self.keys is not None:
            self._check_key(call, admin, is_counted)
        elif admin:
            raise Refusal("forbidden", "this takes an admin key, and none is configured")
        if b"x-request-timeout" in fields:
            return call.started_ns + min(self._timeout_ns, _read_timeout_ns(fields))
        return call.started_ns + self._timeout_ns

    def identify(self, call: Call) -> None:
        """Give a request its id and its place in a trace, the client's where they are well-formed."""
        given = call.fields.get(b"x-request-id")
        call.request_id = given if given is not None and valid_request_id(given) else self.new_request_id()
        self.in_flight += 1
        if b"traceparent" in call.fields:
            call.trace = parse_traceparent(call.fields[b"traceparent"])
        if self.tracer is not None:
            call.trace = self.tracer.context(call.trace)

    def decompressed(self, call: Call) -> bytes:
        """Give a request's body without its content encoding."""
        return wire.decompressed(call.body, call.fields[b"content-encoding"], self.settings.max_body_bytes)

    def headers(self, media_type: bytes, *more: Header) -> tuple[Header, ...]:
        """Make the headers of an answer."""
        return ((b"content-type", media_type), *more, *SAFE)

    def call_headers(self, call: Call) -> tuple[Header, ...]:
        """Make the headers that differ from answer to answer."""
        request_id = (b"x-request-id", call.request_id)
        return (request_id, (b"connection", b"close")) if self.is_draining else (request_id,)

    def record(self, call: Call, route: str, model: Model | None, status: int, n_rows: int) -> None:
        """Note that a call was answered, or given up; once for each that was identified."""
        self.in_flight -= 1
        duration_ns = perf_counter_ns() - call.started_ns
        name, version = (model.name, model.version) if model is not None else ("", "")
        if self.metrics is not None:
            self.metrics.request(route, name, version, status, duration_ns, n_rows)
        if self.access_log is not None:
            self.access_log.write(call, status, duration_ns, n_rows, name, version)
        if self.tracer is not None:
            self.tracer.request(call, route, status, duration_ns, n_rows, name, version)

    def close(self) -> None:
        """Write and send what is left of the record, at the end of the process."""
        if self.access_log is not None:
            self.access_log.close()
        if self.tracer is not None:
            self.tracer.close()

    def _check_key(self, call: Call, admin: bool, is_counted: bool) -> None:
        assert self.keys is not None
        key = self.keys.find(call.headers)
        if key is None:
            challenge = [(b"www-authenticate", b"Bearer")]
            detail = "expected an API key: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            raise Refusal("unauthorized", detail, headers=challenge)
        call.key_name = key.name
        if admin and not key.is_admin:
            raise Refusal("forbidden", "expected an admin key: this one may predict only")
        if is_counted and self.limiter is not None and (wait_s := self.limiter.wait_s(key)) > 0:
            headers = [(b"retry-after", b"%d" % max(1, math.ceil(wait_s)))]
            raise Refusal("rate_limited", "this API key has made as many requests as it may", headers=headers)


def _read_timeout_ns(fields: Mapping[bytes, bytes]) -> int:
    try:
        seconds = float(fields[b"x-request-timeout"])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise Refusal("bad_header", "x-request-timeout: expected seconds, a number above 0")
    return int(min(seconds, 1e6) * 1e9)


def make_gate(settings: WebSettings, run_directory: Path | None = None) -> Gate:
    """Make the gate of one process.

    Parameters
    ----------
    run_directory : what the processes of one server share; without it this process is alone.

    Raises
    ------
    ConfigError
        When the API keys cannot be read.
    """
    limiter = metrics = access_log = tracer = None
    keys = Keys.read(os.environ, None if settings.api_keys_file is None else Path(settings.api_keys_file))
    if keys is not None:
        from fairlead.web.rate_limit import RateLimiter

        limiter = RateLimiter(keys, None if run_directory is None else run_directory / "limits")
        for warning in keys.warnings:
            logger.warning(warning)
    if settings.metrics:
        from fairlead.monitor.metrics import Metrics

        metrics = Metrics(run_directory)
    if settings.access_log:
        access_log = AccessLog(sys.stdout.fileno())
    if settings.tracing:
        from fairlead.monitor.tracing import Tracer

        tracer = Tracer.create()
    return Gate(settings, metrics, access_log, tracer, keys, limiter)
