"""Titanic: who survived, and why does the model think so? A dashboard that is built, guarded, shown and kept current.

python examples/titanic/run.py [--out DIR] [--port 8050] [--stay]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

HERE = Path(__file__).parent
CATEGORIES = ["Sex", "Deck", "Embarked"]
NUMBERS = [
    "PassengerClass", "Age", "Fare", "No_of_siblings_plus_spouses_on_board", "No_of_parents_plus_children_on_board",
]  # fmt: skip
PASSWORD = "women-and-children-first"
WAIT_S = 120


def passengers(part: str) -> pd.DataFrame:
    """Read explainerdashboard's own data, and put its one-hot columns together again."""
    from explainerdashboard import datasets

    found = pd.read_csv(datasets.train_csv if part == "train" else datasets.test_csv)
    for name in CATEGORIES:
        columns = [column for column in found if column.startswith(f"{name}_")]
        found[name] = found[columns].idxmax(axis=1).str.removeprefix(f"{name}_")
        found = found.drop(columns=columns)
    return found.rename(columns={"Survival": "Survived"})[["Name", *NUMBERS, *CATEGORIES, "Survived"]]


def train(model_path: Path, depth: int) -> None:
    """Train a forest, and put it where a rebuilt one would be put, in one step."""
    known = passengers("train")
    columns = ColumnTransformer(
        [("category", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)], remainder="passthrough"
    )
    model = Pipeline([("columns", columns), ("forest", RandomForestClassifier(50, max_depth=depth, random_state=47))])
    model.fit(known[NUMBERS + CATEGORIES], known["Survived"])
    beside = model_path.with_suffix(".new")
    beside.write_bytes(pickle.dumps(model))
    beside.replace(model_path)


def fairlead(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command, as from a shell."""
    print("$ fairlead", *arguments, flush=True)
    return subprocess.run([sys.executable, "-m", "fairlead", *map(str, arguments)], check=True, text=True, **more)


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Have a command run beside the rest."""
    print("$ fairlead", *arguments, "&", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "fairlead", *map(str, arguments)], text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Visitor:
    """Somebody with a browser."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._opener.addheaders = [("Accept", "text/html"), ("Origin", address)]

    def open(self, path: str, form: dict[str, str] | None = None) -> str:
        data = None if form is None else urllib.parse.urlencode(form).encode()
        with self._opener.open(self.address + path, data, timeout=60) as answer:
            return str(answer.read().decode())

    def log_in(self, name: str, password: str) -> None:
        token = re.search(r'name="token" value="([^"]+)"', self.open("/login"))
        assert token is not None
        self.open("/login", {"name": name, "password": password, "token": token[1]})

    def is_there(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return self.open("/readyz") != ""
        return False


def digest_of(store: Path) -> str:
    """Tell which model a store explains."""
    return str(json.loads((store / "manifest.json").read_bytes())["store"]["bundle_digest"])


def until(what: str, is_so: Any, within_s: float = WAIT_S) -> None:
    begun_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun_s < within_s, f"{what}: not within {within_s} s"
        time.sleep(0.2)
    print(f"{what}: after {time.monotonic() - begun_s:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "build", help="where everything goes")
    parser.add_argument("--port", type=int, default=8050)
    parser.add_argument("--stay", action="store_true", help="keep showing the dashboard until Ctrl-C")
    given = parser.parse_args()
    out = given.out
    out.mkdir(parents=True, exist_ok=True)
    model, test, store, users = out / "model.pickle", out / "test.csv", out / "titanic.dash", out / "users.sqlite"

    train(model, depth=5)
    passengers("test").to_csv(test, index=False)
    fairlead(
        "dashboard", "build", model, "--data", test, "--target", "Survived", "--index", "Name",
        "--title", "Who survived?", "--static", out / "titanic.html", "-o", store,
    )  # fmt: skip
    users.unlink(missing_ok=True)
    fairlead("dashboard", "users", "add", "rose", "--users", users, "--password-file", "-", input=PASSWORD)
    fairlead("dashboard", "users", "grant", "rose", "titanic", "--users", users)

    visitor = Visitor(f"http://127.0.0.1:{given.port}")
    shown = ("--users", users, "--port", given.port, "--workers", 2)
    with running("dashboard", "serve", store, *shown) as server, running("dashboard", "watch", store):
        until("the dashboard is shown", visitor.is_there)
        page = visitor.open("/titanic/")
        print("who is not logged in sees the login page:", 'name="password"' in page)
        visitor.log_in("rose", PASSWORD)
        page = visitor.open("/titanic/")
        print("rose sees", re.findall(r"<title>(.*?)</title>", page)[0])
        before = digest_of(store)
        train(model, depth=6)  # a better one, as a training job would put it there
        until("the new model is explained", lambda: digest_of(store) != before)
        model.write_bytes(b"half a mod")  # and one that is no model
        until("the page tells why it is not current", lambda: "no pickle" in visitor.open("/titanic/"))
        if given.stay:
            print(f"http://127.0.0.1:{given.port}/titanic/, rose, {PASSWORD}; Ctrl-C ends it")
            with contextlib.suppress(KeyboardInterrupt):
                server.wait()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
