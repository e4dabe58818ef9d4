"""`make demo`: train the iris model, build it, serve it, ask it over HTTP, stop it. `--stay` keeps it running."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from rich.console import Console
from run import VIRGINICA, build, train

HOST = "127.0.0.1"
OUT = Path("demo")
START_S, STOP_S = 60, 15
console = Console(highlight=False, soft_wrap=True)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def fetch(request: urllib.request.Request) -> tuple[int, bytes]:
    """Send one request; an answer is an answer, whatever its status."""
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def wait_until_ready(base: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server stopped with exit code {server.returncode} before it was ready")
        try:
            if fetch(urllib.request.Request(f"{base}/readyz"))[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"the server was not ready within {START_S} s")


def ask(what: str, curl: str, request: urllib.request.Request) -> int:
    """Send a request and show it, as curl would be told, with its answer; return the status."""
    status, body = fetch(request)
    console.print(f"\n[bold]{what}[/]\n$ {curl}", markup=True)
    console.print(f"[{'green' if status < 300 else 'yellow'}]HTTP {status}[/]")
    console.print_json(body.decode())
    return status


def ask_all(base: str) -> list[int]:
    url = f"{base}/predict?{urlencode(VIRGINICA)}"
    flower = json.dumps({**VIRGINICA, "petal_width": "2.3"})
    posted = urllib.request.Request(
        f"{base}/predict", flower.encode(), {"Content-Type": "application/json"}, method="POST"
    )
    by_post = f"curl {posted.full_url} -H 'Content-Type: application/json' -d '{flower}'"
    return [
        ask("A good flower", f"curl '{url}'", urllib.request.Request(url)),
        ask("A number in a string", by_post, posted),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9696)
    parser.add_argument("--stay", action="store_true", help="serve until Ctrl-C instead of asking")
    options = parser.parse_args()
    base = f"http://{HOST}:{options.port}"
    if not is_free(options.port):
        sys.exit(f"port {options.port} is taken: stop what listens there, or name another, as in `make demo PORT=9697`")

    accuracy = train(OUT / "model.pickle")
    console.print(f"trained {OUT}/model.pickle, accuracy on the test split {accuracy:.3f}")
    build(OUT / "model.pickle", OUT / "iris")
    command = [sys.executable, "-m", "fairlead", "serve", f"{OUT}/iris", "--host", HOST, "--port", str(options.port)]
    if options.stay:
        console.print(f"\ntry {base}/docs in a browser, or: curl '{base}/predict?{urlencode(VIRGINICA)}'")
        sys.stdout.flush()
        os.execv(sys.executable, command)

    console.print(f"\n$ fairlead {' '.join(command[3:])}")
    server = subprocess.Popen(command)
    try:
        wait_until_ready(base, server)
        statuses = ask_all(base)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOP_S)
    console.print(f"\nserver stopped, exit code {code}")
    sys.exit(statuses != [200, 422] or code != 0)


if __name__ == "__main__":
    main()
