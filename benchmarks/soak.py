"""The faults of tests/web/test_faults.py for longer: kill, overload and drain real servers; exit code 1 on any failure.

python benchmarks/soak.py [--seconds 30] [--rounds 5]

Bounded: four runs of `--seconds` each, and `--rounds` ends under load of a second or two for each way to serve.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fairlead
from fairlead.bundle.build import BuildOptions

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from load import (  # what tests share lies in their folder
    Served,
    Tally,
    closed_loop,
    connected,
    eventually,
    for_seconds,
    kill_one,
    meanwhile,
    open_loop,
    post,
    quantile,
)

ISOLATED = ("--isolation", "process")
QUICK, SLOW = {"a": 1.5, "b": 2.5}, {"seconds": 0.005}
SLEEPER = """
import time


class Sleeper:
    def predict(self, seconds):
        time.sleep(seconds)
        return {"slept": seconds}
"""


@dataclass(frozen=True)
class Bundles:
    """A compiled model that takes microseconds, and one of Python that takes 5 ms a row."""

    quick: Path
    slow: Path


@dataclass
class Run:
    """What came of one run, and why it failed."""

    what: str
    tally: Tally
    failures: list[str]


def make_bundles(folder: Path) -> Bundles:
    rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 3.0, 2.0]})
    source = folder / "quick.pkl"
    source.write_bytes(pickle.dumps(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, [0, 0, 1, 1])))
    quick = fairlead.build(source, folder / "quick", BuildOptions(data=rows, engine="onnx")).path
    code = folder / "sleeper_model.py"
    code.write_text(SLEEPER)
    slow_rows = pd.DataFrame({"seconds": [0.0, 0.01]})
    slow = fairlead.build("sleeper_model:Sleeper", folder / "slow", BuildOptions(data=slow_rows, code=code)).path
    return Bundles(quick, slow)


def answer_of(server: Served, body: object) -> bytes:
    async def ask() -> bytes:
        async with connected(server.port) as connection:
            return (await connection.ask(post(body))).body

    return asyncio.run(ask())


def kill_model_processes(bundles: Bundles, seconds: float) -> Run:
    with Served(bundles.quick, flags=(*ISOLATED, "--processes", "2", "--workers", "2")) as server:
        load = closed_loop(server.port, post(QUICK), answer_of(server, QUICK), for_seconds(seconds), 32)
        turn = itertools.count()
        tally = asyncio.run(meanwhile(load, 1.0, lambda: kill_one(server.models(), turn)))
        return Run(f"model processes killed: {next(turn)}", tally, only(tally, {200}))


def kill_workers(bundles: Bundles, seconds: float) -> Run:
    with Served(bundles.quick, flags=("--workers", "2")) as server:
        load = closed_loop(server.port, post(QUICK), answer_of(server, QUICK), for_seconds(seconds), 32, may_lose=True)
        turn = itertools.count()
        tally = asyncio.run(meanwhile(load, 1.0, lambda: kill_one(server.workers(), turn)))
        return Run(f"workers killed: {next(turn)}", tally, only(tally, {200}))


def overload(bundles: Bundles, seconds: float, flags: tuple[str, ...]) -> Run:
    request = post(SLOW)
    with Served(bundles.slow, flags=flags, timeout_s=2) as server:
        asyncio.run(open_loop(server.port, request, None, 2000, 3.0))
        calm, before_kb = at_ease(server, request), server.memory_kb()
        tally = asyncio.run(open_loop(server.port, request, None, 2000, seconds))
        after, after_kb = at_ease(server, request), server.memory_kb()
    failures = only(tally, {200, 503, 504})
    good = tally.statuses[200] / seconds
    slowest_s = max([*tally.latencies_s, *tally.refused_s], default=0)
    checks = {
        f"{good:.0f} good answers a second": good > 100,
        f"{tally.statuses[504]} late ones": tally.statuses[504] <= 20 + 0.02 * tally.statuses[200],
        f"slowest {slowest_s:.1f} s": slowest_s < 2 + 2,
        f"{after_kb - before_kb} kB more memory": after_kb - before_kb < 40_000,
        f"one answer {calm:.4f} s before, {after:.4f} s after": after < 3 * calm + 0.02,
    }
    failures += [what for what, is_good in checks.items() if not is_good]
    where = "isolated" if flags else "in a thread"
    return Run(f"ten times the load, {where}: {'; '.join(checks)}", tally, failures)


def at_ease(server: Served, request: bytes) -> float:
    time.sleep(3)
    tally = asyncio.run(closed_loop(server.port, request, None, for_seconds(1), 1))
    return quantile(tally.latencies_s, 0.5)


def ends_under_load(bundles: Bundles, rounds: int, flags: tuple[str, ...], is_kept_alive: bool) -> Run:
    whole = Tally()
    failures = []
    for turn in range(rounds):
        with Served(bundles.quick, flags=flags) as server:
            wanted = answer_of(server, QUICK)
            tally = asyncio.run(one_end(server, wanted, 0.3 + 0.13 * turn, is_kept_alive))
            eventually(lambda: server.process.poll() is not None)  # called before the next turn
            if server.process.returncode:
                failures.append(f"exit code {server.process.returncode}")
        whole.statuses += tally.statuses
        whole.latencies_s += tally.latencies_s
        whole.faults += tally.faults
    what = f"{rounds} ends under load, {' '.join(flags) or 'one process'}, {'kept alive' if is_kept_alive else 'anew'}"
    return Run(what, whole, failures + only(whole, {200}))


async def one_end(server: Served, wanted: bytes, after_s: float, is_kept_alive: bool) -> Tally:
    """Ask until connections are refused; one that was made and gets no answer is a fault."""
    tally = Tally()
    asyncio.get_running_loop().call_later(after_s, server.process.send_signal, signal.SIGTERM)

    async def ask_on() -> None:
        try:
            while True:
                async with connected(server.port) as connection:
                    while True:
                        start = time.perf_counter()
                        answer = await connection.ask(post(QUICK))
                        tally.take(answer, time.perf_counter() - start, wanted)
                        if not is_kept_alive or answer.headers.get("connection") == "close":
                            break
        except ConnectionError:
            return  # refused, or reset in the middle of connecting: the server never had it
        except Exception as error:
            tally.faults.append(repr(error))

    await asyncio.wait_for(asyncio.gather(*[ask_on() for _ in range(32)]), 60)
    return tally


def only(tally: Tally, statuses: set[int]) -> list[str]:
    odd = {status: count for status, count in tally.statuses.items() if status not in statuses}
    failures = [f"{count} answers {status}" for status, count in odd.items()]
    if tally.faults:
        failures.append(f"{len(tally.faults)} faults, the first: {tally.faults[0]}")
    if not tally.statuses[200]:
        failures.append("no good answer at all")
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    console = Console(width=180)
    table = Table("what", "200", "503", "504", "p50 ms", "p99 ms", "most ms", "retried", "failures")
    runs: list[Callable[[], Run]] = []
    with tempfile.TemporaryDirectory() as folder:
        bundles = make_bundles(Path(folder))
        runs.append(lambda: kill_model_processes(bundles, chosen.seconds))
        runs.append(lambda: kill_workers(bundles, chosen.seconds))
        runs += [lambda flags=flags: overload(bundles, chosen.seconds, flags) for flags in ((), ISOLATED)]
        for flags in ((), ("--workers", "2"), ISOLATED):
            for is_kept_alive in (True, False):
                runs.append(lambda f=flags, k=is_kept_alive: ends_under_load(bundles, chosen.rounds, f, k))
        failed = 0
        for run in runs:
            done = run()
            failed += bool(done.failures)
            tally = done.tally
            counts = [str(tally.statuses[status]) for status in (200, 503, 504)]
            times = [f"{1e3 * value:.1f}" for value in (quantile(tally.latencies_s, q) for q in (0.5, 0.99, 1.0))]
            table.add_row(done.what, *counts, *times, str(tally.retried), "; ".join(done.failures) or "none")
    console.print(table)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
