"""What both clients are made with, and what they ask for with it.

Between the clients and `exchange`; imports httpx when a client is made.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from fairlead import __version__
from fairlead.client.errors import DeadlineExceeded, RequestFailed, ServiceUnavailable
from fairlead.client.exchange import Call, Exchange, OnProgress
from fairlead.client.records import Request, count, requests
from fairlead.extras import require


class Settings:
    """What both clients are made with; see `Client`."""

    def __init__(
        self, url: str, model: str | None, api_key: str | None, timeout_s: float, retries: int, max_rows: int
    ) -> None:
        self.url = _checked(url)
        self.model = model
        key = _key(api_key)
        if max_rows < 1 or retries < 0:
            raise ValueError("expected at least one row per request and no fewer than 0 retries")
        self._timeout_s, self._retries, self._max_rows = timeout_s, retries, max_rows
        self._headers = {"accept": "application/json", "user-agent": f"fairlead/{__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model={self.model!r})"

    def _predictions(self, data: Any, timeout_s: float | None, on_progress: OnProgress | None) -> Call:
        total = count(data)
        path = "/predict" if self.model is None else f"/models/{quote(self.model, safe='')}/predict"
        headers = {**self._headers, "content-type": "application/json"}
        bodies = requests(f"{self.url}{path}", data, self._max_rows)
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return Call(headers, timeout_s, self._retries, bodies, total, on_progress)

    def _models(self) -> Exchange[list[dict[str, Any]]]:
        url = f"{self.url}/"
        index = yield from Call(self._headers, self._timeout_s, self._retries).exchange(Request(url))
        if not isinstance(index, dict) or not isinstance(index.get("models"), list):
            raise RequestFailed(f"{url}: expected a fairlead server's list of models, got other JSON")
        models: list[dict[str, Any]] = index["models"]
        return models

    def _probe(self, path: str) -> Exchange[bool]:
        try:
            yield from Call(self._headers, self._timeout_s, 0).exchange(Request(f"{self.url}{path}"))
        except (ServiceUnavailable, DeadlineExceeded):
            return False
        return True


def _checked(url: str) -> str:
    httpx = require("httpx", "client")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError("url: expected one such as http://localhost:9696, got none") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.userinfo:
        raise ValueError("url: expected one such as http://localhost:9696, without user, password and query")
    return str(parsed).rstrip("/")


def _key(api_key: str | None) -> str:
    key = (os.environ.get("FAIRLEAD_API_KEY", "") if api_key is None else api_key).strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key: expected visible ASCII characters, got others")  # never the key itself
    return key
