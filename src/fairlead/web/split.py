"""One path, two versions: a canary answers its share of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from fairlead.repository.rollback import Counts, Tally
from fairlead.repository.traffic import Sticky, feature_key, goes_to_canary, place_of

if TYPE_CHECKING:
    from fairlead.predict.validate import Row
    from fairlead.repository.deployments import Deployment
    from fairlead.web.calls import Call, Handler
    from fairlead.web.endpoint import Endpoint
    from fairlead.web.jobs import Source

# How often it is told how the canary does.
_TELL_S = 1.0


def parted(stable: Endpoint, canary: Endpoint, deployment: Deployment) -> Handler:
    """Make of two endpoints one that leaves each call to either.

    Parameters
    ----------
    deployment : says who gets what.
    """
    name, weight = deployment.name, deployment.weight
    sticky = None if deployment.sticky is None else Sticky.parse(deployment.sticky)
    if sticky is None:
        return _Split(stable, canary, lambda call: goes_to_canary(None, weight, name))
    if sticky.kind == "feature":
        place = place_of(sticky.name, stable.model.intake.manifest.schema)

        def divert(rows: Sequence[Row], source: Source | None) -> Endpoint | None:
            first = rows[:1] if source is None else source.take(0, 1).rows
            key = feature_key(first[0][place]) if first else None
            return canary if goes_to_canary(key, weight, name) else None

        stable.divert = divert
        return stable
    header = sticky.name.encode()
    key_of = (lambda call: call.fields.get(header)) if sticky.kind == "header" else _cookie(sticky.name)
    return _Split(stable, canary, lambda call: goes_to_canary(key_of(call), weight, name))


class _Split:
    """Leaves each call to one of two endpoints, by what its headers say or by chance."""

    def __init__(self, stable: Endpoint, canary: Endpoint, is_canarys: Callable[[Call], bool]) -> None:
        self._stable = stable
        self._canary = canary
        self._is_canarys = is_canarys

    def handle(self, call: Call) -> None:
        (self._canary if self._is_canarys(call) else self._stable).handle(call)

    def refuse_size(self, call: Call) -> None:
        self._stable.refuse_size(call)


def _cookie(name: str) -> Callable[[Call], bytes | None]:
    def key(call: Call) -> bytes | None:
        try:
            morsel = SimpleCookie(call.fields.get(b"cookie", b"").decode("latin-1")).get(name)
        except CookieError:
            return None
        return None if morsel is None else morsel.value.encode()

    return key


class Reporter:
    """Counts how a canary does, and passes it on every second.

    Parameters
    ----------
    tell : takes the counts since the last time.
    max_latency_s : above which an answer counts as slow.
    """

    def __init__(self, tell: Callable[[Counts], None], max_latency_s: float | None) -> None:
        self.tally = Tally(max_latency_s)
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def count(self, failed: bool, duration_ns: int) -> None:
        """Count one answer."""
        self.tally.add(failed, duration_ns)
        if self._timer is None and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(_TELL_S, self._pass_on)

    def close(self) -> None:
        """Count for nobody any more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _pass_on(self) -> None:
        self._timer = None
        self._tell(self.tally.take())
