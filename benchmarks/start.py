"""From process start to the first answer, and the memory of a worker, against loading the pickle.

python benchmarks/start.py [--data telco-churn.csv] [--repeats 7]
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from results import Figure, Forest, build, median, options, train, write

LOAD = """
import pickle, sys
import pandas, sklearn
with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
print("loaded", flush=True)
sys.stdin.read()
"""
POLL_S, START_S = 0.002, 60
MB = 1_000_000


@dataclass(frozen=True)
class Start:
    """How long a process took until it was of use, and its memory then."""

    time_s: float
    rss_mb: float
    pss_mb: float


def memory_mb(pid: int) -> tuple[float, float]:
    """Read a process's RSS and PSS (shared pages counted in part). Source: proc(5), smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    rss, pss = (int(re.findall(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[0]) for name in ("Rss", "Pss"))
    return rss * 1024 / MB, pss * 1024 / MB


def serve(bundle: Path, body: bytes) -> Start:
    """Start a server with one worker, ask until it answers, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "fairlead", "serve", str(bundle), "--port", str(port), "--workers", "1"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while not answered(port, body):
                if server.poll() is not None or time.perf_counter() > start + START_S:
                    raise SystemExit("the server did not start")
                time.sleep(POLL_S)
            return Start(time.perf_counter() - start, *memory_mb(server.pid))
        finally:
            server.terminate()


def answered(port: int, body: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def load(forest: Forest) -> Start:
    """Start a Python that imports scikit-learn and pandas and unpickles the model."""
    start = time.perf_counter()
    command = [sys.executable, "-c", LOAD, str(forest.model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"loaded\n":
            raise SystemExit("the pickle was not loaded")
        found = Start(time.perf_counter() - start, *memory_mb(process.pid))
        process.communicate()
    return found


def run_s(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    chosen = options(__doc__, repeats=7)
    served: list[Start] = []
    loaded: list[Start] = []
    imported: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        forest = train(chosen.data, Path(directory))
        bundle = Path(directory) / "telco"
        build(forest, bundle)
        example = json.loads((bundle / "input_example.json").read_bytes())
        if example.keys() >= {"columns", "data"}:
            example = dict(zip(example["columns"], example["data"][0], strict=True))
        body = json.dumps(example).encode()
        for turn in range(chosen.repeats + 1):
            if turn == 1:  # the first filled the disk's cache
                for kept in (served, loaded, imported, bare):
                    kept.clear()
            served.append(serve(bundle, body))
            loaded.append(load(forest))
            imported.append(run_s("import fairlead"))
            bare.append(run_s("pass"))

    serve_s, load_s = (median([one.time_s for one in some]) for some in (served, loaded))
    import_s, bare_s = median(imported), median(bare)
    serve_mb, load_mb = (median([one.rss_mb for one in some]) for some in (served, loaded))
    pss_mb = median([one.pss_mb for one in served])
    figures = [
        Figure("`fairlead serve`, process start to first answered `POST /predict`", serve_s, "s"),
        Figure("import scikit-learn and pandas, unpickle the model", load_s, "s"),
        Figure("start / unpickling", serve_s / load_s, "×", 0.4),
        Figure("RSS of a worker after its first answer", serve_mb, "MB", 120),
        Figure("PSS of a worker after its first answer", pss_mb, "MB"),
        Figure("RSS of the Python that unpickled", load_mb, "MB"),
        Figure('`python -c "import fairlead"`', import_s, "s"),
        Figure('`python -c "pass"`', bare_s, "s"),
        Figure("import with the interpreter / unpickling", import_s / load_s, "×", 0.1),
        Figure("import without the interpreter / unpickling without it", (import_s - bare_s) / (load_s - bare_s), "×"),
    ]
    write(chosen.results, "start", f"{forest.told}; medians of {chosen.repeats} fresh processes each", figures)


if __name__ == "__main__":
    main()
