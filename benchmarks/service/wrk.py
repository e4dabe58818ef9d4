"""Load from wrk, and what it found as numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

SCRIPT = Path(__file__).with_name("load.lua")
# Longer than any queue here: wrk forgets the latency of a request that took more.
REQUEST_TIMEOUT_S = 60


class Measurement(msgspec.Struct, frozen=True):
    """One run of wrk; errors are answers with a status above 399 and everything that went wrong on a socket."""

    connections: int
    seconds: float
    requests: int
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    status_errors: int
    socket_errors: int

    @property
    def errors(self) -> int:
        return self.status_errors + self.socket_errors


@dataclass(frozen=True)
class Target:
    """What to load: an address, a file with one body a line, and headers beside the content type."""

    url: str
    bodies: Path
    headers: Mapping[str, str] = field(default_factory=dict)


def command() -> str:
    """Find wrk.

    Raises
    ------
    SystemExit
        When it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("expected wrk on PATH, got none: run `sudo apt-get install wrk`")
    return found


def load(target: Target, connections: int, seconds: int) -> Measurement:
    """Load a server over so many connections, one request at a time on each.

    Raises
    ------
    ValueError
        When wrk says nothing that can be read.
    """
    threads = 1 if connections == 1 else min(2, os.cpu_count() or 1)
    called = [command(), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", f"--timeout={REQUEST_TIMEOUT_S}s"]
    called += [f"-H{name}: {value}" for name, value in target.headers.items()]
    called += ["-s", str(SCRIPT), target.url, "--", str(target.bodies)]
    done = subprocess.run(called, capture_output=True, text=True, check=False, timeout=seconds + REQUEST_TIMEOUT_S)
    return read(done.stdout + done.stderr, connections)


def read(printed: str, connections: int) -> Measurement:
    """Read the line that load.lua prints.

    >>> read('figures {"requests": 6, "duration_us": 2000000, "bytes": 9, "p50_us": 1500.0, "p90_us": 2, "p99_us": 3, '
    ...      '"status": 1, "connect": 0, "read": 2, "write": 0, "timeout": 0}', 1).requests_per_s
    3.0
    """
    line = re.search(r"^figures (\{.*\})$", printed, re.MULTILINE)
    if line is None:
        raise ValueError(f"wrk printed no figures: {printed.strip()[-300:]}")
    found = msgspec.json.decode(line[1], type=dict[str, float])
    seconds = found["duration_us"] / 1e6
    return Measurement(
        connections=connections,
        seconds=seconds,
        requests=int(found["requests"]),
        requests_per_s=found["requests"] / seconds,
        p50_ms=found["p50_us"] / 1e3,
        p90_ms=found["p90_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        status_errors=int(found["status"]),
        socket_errors=int(sum(found[kind] for kind in ("connect", "read", "write", "timeout"))),
    )


def version() -> str:
    """Give wrk's own version, such as `4.1.0`."""
    printed = subprocess.run([command(), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", printed.stdout + printed.stderr)
    return found[0] if found else "unknown"
