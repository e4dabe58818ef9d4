"""One Lambda function: its settings, what it loads, and which part of it answers an event."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fairlead import config
from fairlead.errors import InputError
from fairlead.stream.aws_lambda.http_events import Web, is_request
from fairlead.stream.aws_lambda.kinesis_events import is_batch

if TYPE_CHECKING:
    from fairlead.config import Settings
    from fairlead.stream.aws_lambda.batches import Batches
    from fairlead.stream.aws_lambda.outlets import Outlet
    from fairlead.stream.overflow import Overflow

_STREAM = "PREDICTIONS_STREAM_NAME"
_TEST_RUN = "TEST_RUN"
_ACCEPTED = (
    "events of Kinesis (Records[].kinesis), or requests of an API Gateway (REST or HTTP), a function URL or an "
    "application load balancer (requestContext)"
)

logger = logging.getLogger("fairlead.stream")


class Function:
    """Answers the invocations of a function, one at a time; what it needs is loaded once.

    Parameters
    ----------
    environ : has the settings, names the model and the stream, and says how to reach AWS.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def answer(self, event: Any, context: Any) -> dict[str, Any]:
        """Answer an event; see `handler`."""
        if is_batch(event):
            return self._batches.answer(event["Records"])
        if is_request(event):
            return self._web.answer(event, context)
        raise InputError(f"event: expected {_ACCEPTED}, got {_told(event)}")

    def prepare(self) -> None:
        """Load what the settings speak of: events if anything is set for them, else requests.

        The other is loaded when the first of its events comes; a function seldom has both.
        """
        if self._is_set_for_events or find_spec("mangum") is None:
            self._batches  # noqa: B018  # loads
        else:
            self._web  # noqa: B018  # loads

    def close(self) -> None:
        """Let go of connections and of the event loop; Lambda itself just ends the process."""
        for name in ("_batches", "_web"):
            if (part := self.__dict__.pop(name, None)) is not None:
                part.close()

    @cached_property
    def _settings(self) -> Settings:
        return config.read(None, self._environ, {})

    @property
    def _is_test_run(self) -> bool:
        return self._environ.get(_TEST_RUN, "").strip().lower() in ("true", "1", "yes")

    @property
    def _is_set_for_events(self) -> bool:
        return bool(
            self._environ.get(_STREAM)
            or self._environ.get(_TEST_RUN)
            or self._settings.stream != config.StreamSettings()
        )

    @cached_property
    def _web(self) -> Web:
        from fairlead.stream.aws_lambda.model import default_sources

        return Web(default_sources(self._settings, self._environ))

    @cached_property
    def _batches(self) -> Batches:
        from fairlead.stream.aws_lambda.batches import Batches
        from fairlead.stream.aws_lambda.model import load_team
        from fairlead.stream.aws_lambda.outlets import MAX_MESSAGE_BYTES

        stream = self._settings.stream
        # Before the model, which takes longer: an address may be wrong.
        predictions = self._outlet("stream.to", stream.to or self._named_stream())
        dead_letters = self._outlet("stream.dead_letter", stream.dead_letter)
        overflow = self._overflow()
        if self._is_test_run:
            logger.warning("%s is set: predictions are answered, and nothing is published", _TEST_RUN)
        elif predictions is None:
            logger.warning("neither %s nor stream.to is set: predictions are answered, and not published", _STREAM)
        return Batches(
            load_team(self._settings, self._environ),
            predictions,
            dead_letters,
            overflow,
            MAX_MESSAGE_BYTES,
            reports_failures=stream.report_batch_item_failures,
        )

    def _named_stream(self) -> str | None:
        name = self._environ.get(_STREAM, "").strip()
        return f"kinesis://{name}" if name else None

    def _outlet(self, setting: str, text: str | None) -> Outlet | None:
        """Open a stream to be written to; nothing is connected yet."""
        if text is None or self._is_test_run:
            return None
        from fairlead.stream.aws_lambda.outlets import open_outlet

        return open_outlet(setting, text, self._environ)

    def _overflow(self) -> Overflow | None:
        """Open the place for what is too large, if one is named: a directory of the function's own is soon gone."""
        if self._settings.stream.overflow is None or self._is_test_run:
            return None
        from fairlead.stream.overflow import open_overflow

        return open_overflow(self._settings.stream.overflow, self._environ)


def _told(event: Any) -> str:
    """Tell what an event is, without what is in it."""
    if not isinstance(event, Mapping):
        return f"no object but {type(event).__name__}"
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], Mapping):
        origin = records[0].get("eventSource") or records[0].get("EventSource")
        return f"Records of {origin}" if origin else f"Records with {_keys(records[0])}"
    return f"an object with {_keys(event)}"


def _keys(value: Mapping[Any, Any]) -> str:
    return ", ".join(str(key)[:50] for key in list(value)[:10]) or "nothing in it"
