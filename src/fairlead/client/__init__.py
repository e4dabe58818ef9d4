"""Ask a fairlead server from Python: `Client`, and `AsyncClient` for asyncio.

On the way of a call: `settings` is what a client is made with, `records` writes what is sent, `exchange` says when it
is sent, again or no more, `answers` says what came back, in the words of `errors`; `clients` only sends and sleeps.

Layer L3, beside the modes. httpx comes with the extra `client`, and neither it nor pandas is imported before it is
used.
"""

from __future__ import annotations

from fairlead.client.clients import AsyncClient, Client
from fairlead.client.errors import DeadlineExceeded, RequestFailed, ServiceUnavailable

__all__ = ["AsyncClient", "Client", "DeadlineExceeded", "RequestFailed", "ServiceUnavailable"]
