"""Requests that Lambda hands over, answered by the ASGI app of `fairlead.web` by way of mangum.

Source: https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway.html, urls-invocation.html, services-alb.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.extras import require

# What is text goes as text, all else as base64, which mangum would do with errors too.
_TEXT = [
    "text/",
    "application/json",
    "application/problem+json",
    "application/openmetrics-text",
    "application/x-ndjson",
    "application/javascript",
    "application/xml",
    "image/svg+xml",
]


def is_request(event: Any) -> bool:
    """Whether an event is a request over HTTP, in a form that mangum knows."""
    context = event.get("requestContext") if isinstance(event, Mapping) else None
    if not isinstance(context, Mapping):
        return False
    # A WebSocket's event has neither a method nor a path.
    has_method = "http" in context or "httpMethod" in event
    return "elb" in context or (has_method and ("version" in event or "resource" in event))


class Web:
    """Answers requests as ``fairlead serve`` does, on an event loop of its own that stands still in between.

    Parameters
    ----------
    sources : bundles, beside those of the file that `FAIRLEAD_CONFIG` names.

    Raises
    ------
    FairleadError
        As `fairlead.web.asgi`.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._mangum = require("mangum", "lambda")
        # The one place where a mode imports another: a Lambda's front door may be either.
        from fairlead.web import asgi

        self._app = asgi(*sources)
        self._loop = asyncio.new_event_loop()

    def answer(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Answer a request."""
        asyncio.set_event_loop(self._loop)  # where mangum looks for one
        try:
            adapter = self._mangum.Mangum(
                self._app, lifespan="off", api_gateway_base_path=_stage(event), text_mime_types=_TEXT
            )
            answer: dict[str, Any] = adapter(event, context)
            return answer
        finally:
            asyncio.set_event_loop(None)

    def close(self) -> None:
        """Close the event loop."""
        self._loop.close()


def _stage(event: Mapping[str, Any]) -> str:
    """Give what to take off the path: an HTTP API has the name of its stage there, unless it is the default one."""
    context = event["requestContext"]
    if event.get("version") != "2.0":
        return "/"
    stage = f"/{context.get('stage')}"
    return stage if f"{context['http']['path']}/".startswith(f"{stage}/") else "/"
