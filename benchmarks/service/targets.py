"""What the figures have to hold: ratios to the echo and to the peers."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from figures import Figures, Measured
from wrk import Measurement

OWN, NATIVE, ECHO, FLASK, LITSERVE = "fairlead", "native", "echo", "flask", "litserve"
Read = Callable[[Measurement], float]


@dataclass(frozen=True)
class Target:
    """One line: what was found, None when it was not measured, and its bound, lower or upper."""

    what: str
    found: float | None
    bound: float
    is_upper: bool = False
    unit: str = " ×"

    @property
    def held(self) -> bool | None:
        if self.found is None:
            return None
        return self.found <= self.bound if self.is_upper else self.found >= self.bound


def speed(one: Measurement) -> float:
    return one.requests_per_s


def p50(one: Measurement) -> float:
    return one.p50_ms


def p99(one: Measurement) -> float:
    return one.p99_ms


def all_of(found: Figures) -> list[Target]:
    """Make every line, in the order of the connections."""
    best = best_peer(found, 32)
    named = f"the best peer ({best.title})" if best else "the best peer"
    return [
        Target("1 connection: p50 / the echo's", ratio(found, OWN, ECHO, 1, p50), 2, is_upper=True),
        Target("32: requests/s / Flask + gunicorn's", ratio(found, OWN, FLASK, 32, speed), 150),
        Target(f"32: requests/s / {named}'s", ratio(found, OWN, best.name if best else "", 32, speed), 25),
        Target("32: requests/s / the echo's", ratio(found, OWN, ECHO, 32, speed), 0.6),
        Target("32: native's requests/s / LitServe's", ratio(found, NATIVE, LITSERVE, 32, speed), 3),
        Target("256: requests/s / the echo's", ratio(found, OWN, ECHO, 256, speed), 0.75),
        Target("256: p99 / the echo's", ratio(found, OWN, ECHO, 256, p99), 4, is_upper=True),
        Target("256: errors of all turns", errors(found, OWN, 256), 0, is_upper=True, unit=""),
    ]


def ratio(found: Figures, one: str, other: str, connections: int, read: Read) -> float | None:
    """Divide two peers' figures: turn by turn and then the median, where both were measured in the same turns."""
    over, under = (_measured(found, name, connections) for name in (one, other))
    if not over or not under:
        return None
    if len(over) == len(under):
        return statistics.median(read(a) / read(b) for a, b in zip(over, under, strict=True) if read(b))
    divisor = statistics.median(map(read, under))
    return statistics.median(map(read, over)) / divisor if divisor else None


def errors(found: Figures, name: str, connections: int) -> float | None:
    measured = _measured(found, name, connections)
    return float(sum(one.errors for one in measured)) if measured else None


def best_peer(found: Figures, connections: int) -> Measured | None:
    """Give the fastest of those that are neither fairlead nor the echo."""
    peers = [one for one in found.peers.values() if one.role == "peer" and one.of(connections)]
    return max(peers, key=lambda one: one.median(connections, speed) or 0, default=None)


def _measured(found: Figures, name: str, connections: int) -> list[Measurement]:
    return found.peers[name].of(connections) if name in found.peers else []
