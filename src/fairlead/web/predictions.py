"""The hot route: one model behind ``POST`` and ``GET`` of a path, in raw ASGI.

Reads the request with `wire`, runs the predictor, writes the answer. `PredictRoute.run` is the one place
where records meet the predictor: what batches requests goes there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from fairlead.predict.predictor import Outcome, Predictor
from fairlead.predict.validate import child_path, type_name
from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.problems import Refusal, failure
from fairlead.web.wire import Receive, Scope, Send

ALLOW = (b"allow", b"GET, HEAD, POST")


class PredictRoute:
    """An ASGI app that answers with the predictions of one model.

    Parameters
    ----------
    predictor : the model.
    max_body_bytes : a larger body is refused.
    """

    def __init__(self, predictor: Predictor, max_body_bytes: int = wire.MAX_BODY_BYTES) -> None:
        self.predictor = predictor
        self._max_body_bytes = max_body_bytes
        self._features = frozenset(predictor.schema.names)
        # The user's own code may take long and need not be thread-safe: it gets one thread of its own, so
        # that probes are answered meanwhile. A compiled model is quicker than the way to a thread.
        runs_their_code = predictor.manifest.engine == "native" or predictor.manifest.code is not None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=predictor.name) if runs_their_code else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI says."""
        method: str = scope["method"]
        try:
            if method == "POST":
                body = await wire.read_body(scope, receive, self._max_body_bytes)
                if body is None:
                    return
                result = await self._predict(wire.decode(body))
            elif method in ("GET", "HEAD"):
                result = await self._predict_query(scope["query_string"])
            else:
                raise Refusal("method_not_allowed", "expected POST with JSON, or GET with a query", headers=[ALLOW])
            content = wire.encode(result)
        except Refusal as refusal:
            await wire.refuse(send, refusal, method == "HEAD")
        except Exception as error:
            await wire.refuse(send, failure(error), method == "HEAD")
        else:
            await wire.answer(send, 200, [wire.JSON_TYPE], content, method == "HEAD")

    async def run(self, records: Sequence[object]) -> Outcome:
        """Run the predictor without holding up the event loop for long."""
        if self._thread is None:
            return self.predictor.run(records)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.predictor.run, records)

    async def _predict(self, data: Any) -> object:
        if type(data) is dict:
            outcome = await self.run([data])
            if outcome.rejections:
                raise _invalid([problem.alone() for problem in outcome.rejections[0]])
            return outcome.predictions[0]
        if type(data) is not list:
            raise _invalid([Problem("$", "an object or an array", type_name(data))])
        if not data:
            return data
        outcome = await self.run(data)
        if outcome.rejections:
            rows = sorted(outcome.rejections)
            problems = [problem for row in rows for problem in outcome.rejections[row]]
            raise _invalid(problems, f"{len(rows)} of {len(data)} records")
        return outcome.predictions

    async def _predict_query(self, query: bytes) -> object:
        fields, repeated = _read_query(query)
        features = [(name, count) for name, count in repeated.items() if name in self._features]
        problems = [Problem(child_path("$", name), "one value", f"{count} values") for name, count in features]
        record, unread = self.predictor.parse_text({k: v for k, v in fields.items() if k not in dict(features)})
        problems += unread
        outcome = await self.run([record])
        # A field that could not be read is missing in the record: it was told already, and better.
        told = {problem.path for problem in problems}
        problems += [p for p in map(Problem.alone, outcome.rejections.get(0, ())) if p.path not in told]
        if problems:
            raise _invalid(problems)
        return outcome.predictions[0]


def _read_query(query: bytes) -> tuple[dict[str, str], dict[str, int]]:
    """Give the fields of a query string, and how often each repeated one was there."""
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise Refusal("bad_query", "expected a query string in UTF-8") from error
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields, {}
    keys = [key for key, _ in pairs]
    return fields, {key: count for key in fields if (count := keys.count(key)) > 1}


def _invalid(problems: Sequence[Problem], where: str = "the record") -> Refusal:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return Refusal("invalid_records", f"{count} in {where}", problems)
