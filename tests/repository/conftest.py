"""Bundles that answer well until somebody poisons them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.schema import Schema

# What a file beside it says happens, where it says: when the module is imported, loaded or asked.
MODEL = """
import ctypes, os, subprocess, sys, threading, time
from pathlib import Path

POISON = Path({poison!r})


def act(place):
    words = POISON.read_text().split() if POISON.exists() else ["", ""]
    if words[0] != place:
        return
    what = words[1]
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "abort":
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\\n")
        os.abort()
    if what == "segfault":
        ctypes.string_at(0)
    if what == "hang":
        ctypes.PyDLL(None).sleep(600)  # with the interpreter held
    if what == "exit":
        sys.exit("no more")
    if what == "_exit":
        os._exit(3)
    if what == "raise":
        raise KeyError("town")
    if what == "print":
        print('{{"type": "passed", "examples": 9, "difference": null}}', flush=True)
        os.write(1, b"x" * 3_000_000)
    if what == "thread":
        threading.Thread(target=time.sleep, args=(600,)).start()
    if what == "child":
        child = subprocess.Popen(["sleep", "600"])
        detached = subprocess.Popen(["sleep", "600"], start_new_session=True)
        POISON.with_name("children").write_text(f"{{child.pid}} {{detached.pid}}")


act("import")


class Adviser:
    def __init__(self):
        act("load")

    def predict(self, size, town):
        act("ask")
        if town == "Gouda":
            act("gouda")
        return {answer}
"""
SCHEMA = {
    "features": [
        {"name": "size", "type": "float"},
        {"name": "town", "type": "string", "categories": ["Delft", "Gouda"]},
    ]
}


@dataclass(frozen=True)
class Advisers:
    """Builds bundles of the user's own class; `folder` is where each looks for its poison."""

    folder: Path

    def build(self, name: str, answer: str = "{'score': size * 2, 'town': town}", town: str = "Delft") -> Path:
        """Build a bundle whose example has a town, and which answers with an expression."""
        code = self.folder / f"{name}_model.py"
        code.write_text(MODEL.format(poison=str(self.folder / f"{name}.poison"), answer=answer))
        options = BuildOptions(
            data=pd.DataFrame({"size": [3.0, 4.0], "town": [town, town]}),
            schema=Schema.parse(SCHEMA),
            code=code,
            version=name,
        )
        return fairlead.build(f"{name}_model:Adviser", self.folder / name, options).path

    def poison(self, name: str, place: str, what: str) -> Path:
        """Have a bundle do something at a place from now on."""
        path = self.folder / f"{name}.poison"
        path.write_text(f"{place} {what}")
        return path


@pytest.fixture(scope="session")
def advisers(tmp_path_factory: pytest.TempPathFactory) -> Advisers:
    """Build bundles of a class of the user's own."""
    return Advisers(tmp_path_factory.mktemp("advisers"))


@pytest.fixture(scope="session")
def first(advisers: Advisers) -> Path:
    """Give the version that is served: its example is of Gouda."""
    return advisers.build("first", town="Gouda")


@pytest.fixture(scope="session")
def second_bundle(advisers: Advisers) -> Path:
    """Give a later version, which tests may poison through `second`."""
    return advisers.build("second", answer="{'score': size * 2 + 0.5, 'town': town}")


@pytest.fixture
def second(advisers: Advisers, second_bundle: Path) -> Any:
    """Give a later version that is not poisoned; a test may poison it for itself."""
    yield second_bundle
    (advisers.folder / "second.poison").unlink(missing_ok=True)


@pytest.fixture
def poison_second(advisers: Advisers, second: Path) -> Callable[[str, str], Path]:
    """Poison the later version for this test."""
    return lambda place, what: advisers.poison("second", place, what)
