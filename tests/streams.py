"""A small model of prices whose versions fail on demand, and consumers of it as users start them, on files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.bundle.read import open_bundle
from fairlead.repository.deployments import Deployment, Variant
from fairlead.schema import Schema
from fairlead.stream.envelope import Envelope
from fairlead.stream.models import Models, load
from fairlead.stream.records import Record
from fairlead.stream.scoring import Member
from load import eventually

END_S = 20
MAX_RECORD_BYTES = 1024 * 1024
# Which versions fail now stands in a file.
MODEL = """
from pathlib import Path


class Pricer:
    def predict(self, size: float, rooms: int = 1):
        if size == 13 or {version!r} in Path({down!r}).read_text().split():
            raise ValueError("no price")
        return {factor} * size
"""
FEATURES = [{"name": "size", "type": "float"}, {"name": "rooms", "type": "int", "default": 1}]


@dataclass(frozen=True)
class Pricers:
    """Builds versions of the model `price`, which answers with the size times the version's number."""

    folder: Path

    def build(self, version: str, output: str = "price", **schema: Any) -> Path:
        """Give a version's bundle; do not change it."""
        out = self.folder / f"{version} {output} {schema}".replace("/", "-")
        if out.exists():
            return out
        self.fail()
        code = self.folder / "price_model.py"
        code.write_text(MODEL.format(version=version, factor=float(version), down=str(self._down)))
        options = BuildOptions(
            data=pd.DataFrame({"size": [1.0, 2.0], "rooms": [1, 2]}),
            schema=Schema.parse({"features": FEATURES, **schema}),
            code=code,
            outputs=(f"{output}=prediction",),
            version=version,
            name="price",
        )
        return fairlead.build("price_model:Pricer", out, options).path

    def fail(self, *versions: str) -> None:
        """Have these versions fail from now on, and no others."""
        beside = self._down.with_suffix(".new")
        beside.write_text(" ".join(versions))
        beside.replace(self._down)

    @property
    def _down(self) -> Path:
        return self.folder / "down"


def variant(bundle: Path) -> Variant:
    return Variant.of(open_bundle(bundle))


def member(bundle: Path, envelope: Envelope | None = None) -> Member:
    return load(variant(bundle), "price", envelope or Envelope(), MAX_RECORD_BYTES)


async def models_of(bundle: Path, envelope: Envelope | None = None, **deployment: Any) -> Models:
    """Give what serves a bundle."""
    models = Models("price", envelope or Envelope(), MAX_RECORD_BYTES)
    served = Deployment(name="price", stable=variant(bundle), **deployment)
    await models.prepare(served)
    await models.serve(served)
    return models


def event(number: int, **values: Any) -> bytes:
    return json.dumps({"size": number + 0.5, "id": number, **values}).encode()


def record(data: object, number: int = 0, **more: Any) -> Record:
    """Give a record of bytes, or of what becomes JSON."""
    content = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Record(content, f"homes/{number}", "homes", number, **more)


def told(path: Path) -> list[Any]:
    """Give what stands in a file of JSON lines, without what is still being written."""
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


class Streaming:
    """A `fairlead stream` process from files to files of a folder, its log in one.

    Parameters
    ----------
    folder : has ``in.jsonl``; all else is made there, and found there by the next process.
    model : the bundle; None where the arguments name one.
    follows : whether it waits for more at the end of the file.
    flags : beside those for the files.
    """

    def __init__(
        self,
        folder: Path,
        model: Path | None,
        follows: bool = True,
        flags: Sequence[object] = (),
        environ: Mapping[str, str] | None = None,
        stderr: int | None = None,
    ) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # a pipe that nobody reads would hold up the consumer
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as above
        given: dict[str, object] = {
            "--from": f"file://{folder}/in.jsonl{'?follow=true' if follows else ''}",
            "--to": f"file://{folder}/out.jsonl",
            "--dead-letter": f"file://{folder}/dead.jsonl",
            "--state-directory": folder / "state",
            "--id": "id",
            "--port": self.port,
        }
        command = [sys.executable, "-m", "fairlead", "stream", *([] if model is None else [str(model)])]
        self.process = subprocess.Popen(
            [*command, *(str(part) for pair in given.items() for part in pair), *map(str, flags)],
            env=os.environ | (environ or {}),
            stdout=self._out,
            stderr=self._log if stderr is None else stderr,
            start_new_session=True,
        )

    def __enter__(self) -> Streaming:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        print(self.log())  # shown when the test fails
        self._log.close()
        self._out.close()

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def out(self) -> str:
        self._out.seek(0)
        return self._out.read()

    def answers(self) -> list[Any]:
        return told(self.folder / "out.jsonl")

    def dead_letters(self) -> list[Any]:
        return told(self.folder / "dead.jsonl")

    def add(self, *events: bytes) -> None:
        with (self.folder / "in.jsonl").open("ab") as file:
            file.write(b"".join(one + b"\n" for one in events))

    def answered(self, ids: Sequence[int]) -> None:
        """Wait until events are answered; each once, and in their order."""
        eventually(lambda: len(self.answers()) >= len(ids) or self.process.poll() is not None)
        assert [one["prediction"]["id"] for one in self.answers()] == list(ids)

    def get(self, path: str) -> tuple[int, str]:
        """Ask its port; the status is 0 when nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float:
        """Give a metric's value, 0 where there is none."""
        inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
        start = f"{name}{{{inside}}} "
        return sum(
            float(line.removeprefix(start)) for line in self.get("/metrics")[1].splitlines() if line.startswith(start)
        )

    def ready(self) -> Streaming:
        eventually(lambda: self.get("/readyz")[0] == 200 or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and give the code that it ends with."""
        self.process.send_signal(number)
        return self.process.wait(END_S)
