"""What was measured, as it is kept in a file so that the page can be written again without measuring."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from peer import Role
from wrk import Measurement

CONNECTIONS = (1, 32, 256)


class Measured(msgspec.Struct):
    """One peer: its versions, its measurements in order, and why there are no more of them."""

    name: str
    title: str
    role: Role
    settings: str
    date: str
    seconds: int
    versions: dict[str, str] = msgspec.field(default_factory=dict)
    note: str = ""
    failed: str = ""
    measurements: list[Measurement] = msgspec.field(default_factory=list)

    def of(self, connections: int) -> list[Measurement]:
        return [one for one in self.measurements if one.connections == connections]

    def median(self, connections: int, read: Callable[[Measurement], float]) -> float | None:
        """Give the median of the turns, None when there were none."""
        found = self.of(connections)
        return statistics.median(map(read, found)) if found else None


class Machine(msgspec.Struct):
    """Where it was measured; `load` is the average of the minute before."""

    cores: int
    cpu: str
    kernel: str
    python: str
    wrk: str
    load: float


class Figures(msgspec.Struct):
    """Everything that was measured."""

    machine: Machine
    data: str
    peers: dict[str, Measured] = msgspec.field(default_factory=dict)


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def machine(wrk_version: str) -> Machine:
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), platform.machine())
    kernel = f"{platform.system()} {platform.release()}"
    return Machine(os.cpu_count() or 1, cpu, kernel, platform.python_version(), wrk_version, os.getloadavg()[0])


def read(path: Path) -> Figures:
    """Read what an earlier run kept.

    Raises
    ------
    SystemExit
        When there is no such file.
    """
    if not path.is_file():
        raise SystemExit(f"{path}: expected the figures of an earlier run: run without `--render`")
    return msgspec.json.decode(path.read_bytes(), type=Figures)


def write(path: Path, figures: Figures) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
