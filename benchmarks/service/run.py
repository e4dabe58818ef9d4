"""fairlead's web service against its peers: `make bench`.

python benchmarks/service/run.py [--only NAME ...] [--seconds 8] [--turns 3]

Installs each peer in an environment of its own, asks it the same rows of the same model in its own protocol, and
loads it with wrk over 1, 32 and 256 connections, one server at a time. fairlead and the echo take turns, so that a
busy moment of the machine meets both. What fails is in the table with its reason.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import chart
import figures as kept
import page
import rows as model_rows
import wrk
from figures import CONNECTIONS, Figures, Measured
from measure import Ready, load, make_ready, reason, serving
from peer import HERE, ROOT, Peer, find
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

BUSY_LOAD = 0.5


@dataclass
class Run:
    """What one run works with."""

    chosen: argparse.Namespace
    found: Figures
    progress: Progress
    task: TaskID
    ready: dict[str, Ready] = field(default_factory=dict)

    def show(self, told: str) -> None:
        self.progress.update(self.task, description=told)

    def fail(self, name: str, error: Exception) -> None:
        measured = self.found.peers[name]
        measured.failed = reason(error, self.chosen.build / name / "server.log")
        self.progress.console.print(f"[red]{name}[/]: {measured.failed}", highlight=False)
        self.ready.pop(name, None)


def options(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}; others stay")
    parser.add_argument("--seconds", type=int, default=8, help="of one measurement; default 8")
    parser.add_argument("--turns", type=int, default=3, help="of fairlead and the echo; default 3")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page; .svg beside it")
    parser.add_argument("--build", type=Path, default=HERE / "build", help="environments, models, logs")
    parser.add_argument("--figures", type=Path, help="default: figures.json in --build")
    parser.add_argument("--render", action="store_true", help="write the page from the figures, measure nothing")
    parser.add_argument("--upgrade", action="store_true", help="make the environments again, on today's releases")
    chosen = parser.parse_args()
    chosen.build = chosen.build.resolve()
    chosen.figures = chosen.figures or chosen.build / "figures.json"
    return chosen


def measure_all(chosen: argparse.Namespace, peers: list[Peer]) -> Figures:
    """Install, check and load the peers, keeping the figures after each."""
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    rows = model_rows.make(chosen.build / "model")
    found = Figures(kept.machine(wrk.version()), rows.told)
    if chosen.only and chosen.figures.is_file():
        found.peers = kept.read(chosen.figures).peers
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        steps = sum(1 + len(CONNECTIONS) * (chosen.turns if peer.in_turns else 1) for peer in peers)
        run = Run(chosen, found, progress, progress.add_task("", total=steps))
        for peer in peers:
            install(run, peer, rows)
        for name, connections in plan(peers, chosen.turns):
            if name in run.ready:
                measure(run, name, connections)
            progress.advance(run.task)
            kept.write(chosen.figures, found)
    return found


def install(run: Run, peer: Peer, rows: model_rows.Rows) -> None:
    run.show(f"{peer.name}: installing")
    measured = Measured(peer.name, peer.title, peer.role, peer.settings, kept.today(), run.chosen.seconds)
    run.found.peers[peer.name] = measured
    try:
        ready = make_ready(peer, rows, run.chosen.build, run.chosen.upgrade)
    except Exception as error:
        run.fail(peer.name, error)
    else:
        run.ready[peer.name] = ready
        measured.versions, measured.note = ready.versions, ready.note
    run.progress.advance(run.task)


def plan(peers: list[Peer], turns: int) -> Iterator[tuple[str, int]]:
    """Order the measurements: in turns those that want it, then the others one by one."""
    in_turns = [peer.name for peer in peers if peer.in_turns]
    for turn in range(turns):
        for connections in CONNECTIONS:
            # Whoever is first meets the machine as the one before left it.
            for name in in_turns[:: -1 if turn % 2 else 1]:
                yield name, connections
    for peer in peers:
        if not peer.in_turns:
            for connections in CONNECTIONS:
                yield peer.name, connections


def measure(run: Run, name: str, connections: int) -> None:
    run.show(f"{name}: {connections} connections")
    try:
        with serving(run.ready[name]) as server:
            found = load(run.ready[name], connections, run.chosen.seconds, server)
    except Exception as error:
        run.fail(name, error)
    else:
        run.found.peers[name].measurements.append(found)
        told = f"{name}, {connections} connections: {found.requests_per_s:,.0f}/s, p99 {found.p99_ms:.4g} ms"
        run.progress.console.print(f"{told}, {found.errors} errors", highlight=False)


def main() -> None:
    # So that an ended run ends its server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    peers = find()
    chosen = options(list(peers))
    if chosen.render:
        found = kept.read(chosen.figures)
    else:
        wrk.command()
        if os.getloadavg()[0] > BUSY_LOAD:
            print(f"the machine is busy: load {os.getloadavg()[0]:.2f} before anything was started", file=sys.stderr)
        found = measure_all(chosen, [peers[name] for name in chosen.only or peers])
    picture = chosen.output.with_suffix(".svg")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(chart.draw(found), encoding="utf-8")
    page.write(chosen.output, picture.name, found)
    print(f"{chosen.output}, {picture}")


if __name__ == "__main__":
    main()
