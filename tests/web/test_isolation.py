"""Models in processes of their own: the same answers, and nobody notices when one of them dies."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.bundle.read import open_bundle
from fairlead.errors import ModelFailed
from fairlead.predict.predictor import Answers
from fairlead.schema import Problem, Schema
from fairlead.web import isolation
from fairlead.web.batching import EngineDied
from fairlead.web.isolation import Greeting, ProcessRunner, packed, run, socket_path
from fairlead.web.runners import Cost
from load import Served, closed_loop, connected, descendants, eventually, for_seconds, get, kill_one, meanwhile, post

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
ISOLATED = ("--isolation", "process")

# One model for all that may go wrong, and for every type that may cross over.
TRICKY = """
import os, sys, time


class Tricky:
    def predict(self, what, number, amount, flag, when, note):
        if what == "kill":
            os.kill(os.getpid(), 9)
        if what == "hang":
            time.sleep(60)
        if what == "exit":
            sys.exit("no more")
        if what == "raise":
            raise KeyError("a secret")
        if what == "huge":
            return {"int": 2**70, "ints": [1, {"deep": -(2**90)}]}
        if what == "large":
            return {"text": "ä" * 3_000_000}
        if what == "sleep":
            time.sleep(amount)
        return {
            "what": what, "number": number, "amount": amount, "flag": flag, "note": note,
            "when": None if when is None else when.isoformat(), "is_aware": bool(when and when.tzinfo),
            "types": [type(v).__name__ for v in (what, number, amount, flag, when, note)], "tuple": (1, 2.5, None),
        }
"""
PLAIN = {
    "what": "tell",
    "number": 3,
    "amount": 2.0,
    "flag": True,
    "when": "2024-02-29T12:30:00.123456+02:00",
    "note": None,
}


@pytest.fixture(scope="session")
def tricky_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tricky")
    code = folder / "tricky_model.py"
    code.write_text(TRICKY)
    types = {"what": "string", "number": "int", "amount": "float", "flag": "bool", "when": "datetime", "note": "string"}
    schema = Schema.parse(
        {
            "features": [
                {"name": name, "type": kind, "nullable": name in ("when", "note", "number")}
                for name, kind in types.items()
            ]
        }
    )
    example = PLAIN | {"when": pd.Timestamp("2024-02-29T12:30:00Z"), "note": "x"}
    options = BuildOptions(data=pd.DataFrame([example, example]), schema=schema, code=code)
    return fairlead.build("tricky_model:Tricky", folder / "tricky", options).path


@pytest.fixture(scope="module")
def isolated(churn_bundle: Path, tricky_bundle: Path, price_bundle: Path) -> Iterator[Served]:
    """Give a server of two isolated models and one that is not; tests may kill processes of `tricky`."""
    config = tricky_bundle.parent / "fairlead.yaml"
    models = {
        "churn": {"source": str(churn_bundle), "isolation": "process"},
        "tricky": {"source": str(tricky_bundle), "isolation": "process", "processes": 2},
        "price": {"source": str(price_bundle)},
    }
    config.write_text(json.dumps({"models": models, "web": {"timeout_s": 4}}))
    with Served(flags=("--config", str(config))) as server:
        yield server


@pytest.fixture(scope="module")
def plain(churn_bundle: Path, tricky_bundle: Path) -> Iterator[Served]:
    with Served(churn_bundle, tricky_bundle) as server:
        yield server


def ask(server: Served, body: object, path: str, headers: str = "", timeout_s: float = 20) -> Any:
    async def go() -> Any:
        async with connected(server.port) as connection:
            return await connection.ask(post(body, path, headers), timeout_s)

    return asyncio.run(go())


tricky = partial(ask, path="/models/tricky/predict")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"number": 2**63 - 1, "when": None, "note": "ä\u2028\ud83d\ude00"},
        {"number": -(2**63), "amount": 1e308, "flag": False, "when": "9999-12-31T23:59:59.999999Z"},
        {"number": None, "amount": 5e-324, "when": "0001-01-01T00:00:00Z", "note": ""},
        {"amount": 3, "note": "x" * 300_000},
        {"amount": -0.0, "what": "huge"},
        {"what": "large"},
    ],
)
def test_answers_are_those_of_a_server_without_isolation(
    isolated: Served, plain: Served, changes: dict[str, Any]
) -> None:
    one, other = (tricky(server, PLAIN | changes) for server in (isolated, plain))
    assert one.status == other.status == 200
    assert one.body == other.body
    rows = [PLAIN, PLAIN | changes]
    assert tricky(isolated, rows).body == tricky(plain, rows).body


def test_a_large_request_is_answered_as_without_isolation(isolated: Served, plain: Served) -> None:
    rows = [GOOD | {"tenure": place % 73} for place in range(20_000)]
    one, other = (ask(server, rows, "/models/churn/predict") for server in (isolated, plain))
    assert one.status == other.status == 200
    found, wanted = one.json, other.json
    assert len(found) == len(rows)
    for row, expected in zip(found, wanted, strict=True):
        # Batches differ, and may be summed in another order.
        assert row["churn_probability"] == pytest.approx(expected["churn_probability"], rel=1e-12)
        assert row["churn"] == expected["churn"]


def test_several_models_each_in_its_own_way(isolated: Served, tricky_bundle: Path) -> None:
    assert ask(isolated, GOOD, "/models/churn/predict").json["churn"] is False
    assert ask(isolated, {"size": 2.0, "town": "Gouda"}, "/models/price/predict").json["is_dear"] is False
    assert len(isolated.models()) == 3
    digest = open_bundle(tricky_bundle).digest
    assert len(isolated.models(socket_path(Path(), "tricky", digest, 0).stem)) == 2


@pytest.mark.parametrize("what", ["raise", "exit"])
def test_what_the_model_raises_is_500_and_its_traceback_is_in_the_log(isolated: Served, what: str) -> None:
    before = isolated.models()
    answer = tricky(isolated, PLAIN | {"what": what})
    assert answer.status == 500
    assert answer.json["type"].endswith(":model_failed")
    assert "secret" not in answer.body.decode()
    assert isolated.models() == before
    log = isolated.log()
    assert answer.json["request_id"] in log
    assert {"raise": "KeyError: 'a secret'", "exit": "SystemExit: no more"}[what] in log


def test_a_record_that_kills_every_process_fails_alone(isolated: Served) -> None:
    async def go() -> list[Any]:
        bodies = [[PLAIN] * 3, PLAIN, PLAIN | {"what": "kill"}, [PLAIN] * 40, PLAIN]
        async with Several(isolated.port, len(bodies)) as connections:
            asked = zip(connections, bodies, strict=True)
            return list(await asyncio.gather(*[c.ask(post(b, "/models/tricky/predict")) for c, b in asked]))

    before = isolated.log().count("model process of tricky")
    answers = asyncio.run(go())
    assert [answer.status for answer in answers] == [200, 200, 500, 200, 200]
    assert answers[2].json["type"].endswith(":model_failed")
    # Deaths are bounded: it is tried apart, and given up.
    assert 2 <= isolated.log().count("model process of tricky") - before <= 5
    eventually(lambda: len(isolated.models()) == 3)


class Several:
    """Several connections at once."""

    def __init__(self, port: int, count: int) -> None:
        self._managers = [connected(port) for _ in range(count)]

    async def __aenter__(self) -> list[Any]:
        return [await manager.__aenter__() for manager in self._managers]

    async def __aexit__(self, *_: object) -> None:
        for manager in self._managers:
            await manager.__aexit__(None, None, None)


def test_a_process_that_hangs_is_ended_and_replaced(isolated: Served) -> None:
    before = set(isolated.models())
    start = time.monotonic()
    answer = tricky(isolated, PLAIN | {"what": "hang"})
    assert answer.status == 504
    assert 3.5 < time.monotonic() - start < 12
    eventually(lambda: len(before - set(isolated.models())) == 1 and len(isolated.models()) == 3)
    assert "a batch ran longer than requests may take" in isolated.log()
    assert tricky(isolated, PLAIN).status == 200


def test_a_client_in_a_hurry_kills_no_process(isolated: Served) -> None:
    before = isolated.models()
    for _ in range(3):
        answer = tricky(isolated, PLAIN | {"what": "sleep", "amount": 0.3}, headers="x-request-timeout: 0.05\r\n")
        assert answer.status in (503, 504)
        assert tricky(isolated, PLAIN).status == 200
    assert isolated.models() == before


def test_killed_processes_are_replaced_and_no_request_fails(churn_bundle: Path) -> None:
    turn = itertools.count()
    with Served(churn_bundle, flags=(*ISOLATED, "--processes", "2", "--workers", "2")) as server:
        wanted = ask(server, GOOD, "/predict").body
        before = server.models()
        load = closed_loop(server.port, post(GOOD), wanted, for_seconds(4), n_clients=8)
        tally = asyncio.run(meanwhile(load, 1.0, lambda: kill_one(server.models(), turn)))
        assert next(turn) >= 2
        eventually(lambda: len(server.models()) == 2)
        assert server.models() != before
        found = re.findall(rb'fairlead_model_processes_died_total{model="churn"} (\d+)', metrics_of(server))
        assert int(found[0]) >= 2
    assert tally.faults == []
    assert set(tally.statuses) == {200}


def metrics_of(server: Served) -> bytes:
    async def go() -> bytes:
        async with connected(server.port) as connection:
            return (await connection.ask(get("/metrics"))).body

    return asyncio.run(go())


def test_a_killed_worker_leaves_the_models_process_alone(tricky_bundle: Path) -> None:
    slow = PLAIN | {"what": "sleep", "amount": 0.5}
    with Served(tricky_bundle, flags=ISOLATED) as server:
        (model,) = server.models()
        (worker,) = server.workers()
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(post(slow))
        time.sleep(0.2)  # its batch runs now
        os.kill(worker, signal.SIGKILL)
        client.close()
        eventually(lambda: ask_or_none(server, PLAIN) == 200)
        assert server.models() == [model]
        # Once more with an answer too large for the socket's buffer.
        (worker,) = server.workers()
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(post(PLAIN | {"what": "large"}))
        os.kill(worker, signal.SIGKILL)
        client.close()
        eventually(lambda: ask_or_none(server, PLAIN) == 200)
        assert server.models() == [model]


def ask_or_none(server: Served, body: object) -> int | None:
    try:
        status: int = ask(server, body, "/predict").status
    except Exception:
        return None
    return status


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_accepted_requests_finish_in_the_models_process(tricky_bundle: Path, sign: int) -> None:
    with Served(tricky_bundle, flags=(*ISOLATED, "--workers", "2")) as server:
        got: list[int] = []
        slow = PLAIN | {"what": "sleep", "amount": 1.0}
        asking = threading.Thread(target=lambda: got.append(ask(server, slow, "/predict").status))
        asking.start()
        time.sleep(0.4)
        if sign == signal.SIGINT:
            os.killpg(server.process.pid, sign)  # as Ctrl-C does
        else:
            server.process.send_signal(sign)
        asking.join()
        assert server.process.wait(20) == 0
        log = server.log()
    assert got == [200]
    assert "Traceback" not in log
    assert "ERROR" not in log


def test_nothing_is_left_when_the_parent_was_killed(tricky_bundle: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path))
        server = Served(tricky_bundle, flags=(*ISOLATED, "--processes", "2"))
    with server:
        pids = descendants(server.process.pid)
        assert len(pids) == 3
        got: list[int] = []
        slow = PLAIN | {"what": "sleep", "amount": 1.0}
        asking = threading.Thread(target=lambda: got.append(ask(server, slow, "/predict").status))
        asking.start()
        time.sleep(0.4)
        server.process.kill()
        asking.join()
        assert got == [200]  # even now
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert list(tmp_path.glob("fairlead-*")) == []


def test_a_bundle_that_was_changed_is_not_served_in_the_old_ones_place(tmp_path: Path, tricky_bundle: Path) -> None:
    bundle = shutil.copytree(tricky_bundle, tmp_path / "tricky")
    with Served(bundle, flags=ISOLATED, timeout_s=1) as server:
        kept = (bundle / "MLmodel").read_bytes()
        (bundle / "MLmodel").write_bytes(kept.replace(b"version: '1'", b"version: '2'") + b"\n# changed\n")
        (model,) = server.models()
        os.kill(model, signal.SIGKILL)
        eventually(lambda: "died with exit code 1" in server.log())
        assert ask(server, PLAIN, "/predict").status == 503
        (bundle / "MLmodel").write_bytes(kept)
        eventually(lambda: ask_or_none(server, PLAIN) == 200)
        assert server.log().count("died with exit code") < 6  # it pauses


def test_a_path_too_long_for_a_socket(churn_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        server = Served(churn_bundle, flags=ISOLATED)
    with server:
        assert ask(server, GOOD, "/predict").status == 200
    assert socket_path(Path(), "a" * 60 + "1", "digest", 0) != socket_path(Path(), "a" * 60 + "2", "digest", 0)


class Fake:
    """A model process made by hand, on a socket in `folder`."""

    def __init__(self, digest: str = "right") -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "model.0"
        self.runner = ProcessRunner([self.path], "right")
        self.changes: list[Cost | None] = []
        self.runner.on_change = self.changes.append
        self._digest = digest

    async def __aenter__(self) -> Fake:
        self.streams: asyncio.Queue[Any] = asyncio.Queue()
        self.server = await asyncio.start_unix_server(lambda r, w: self.streams.put((r, w)), self.path)
        self.runner.start()
        await self.connect()
        return self

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.wait_for(self.streams.get(), 5)
        self.send(Greeting(1, self._digest, 1.0, 2.0))

    def send(self, message: object) -> None:
        self.write(msgspec.msgpack.encode(message))

    def write(self, data: bytes) -> None:
        self.writer.write(len(data).to_bytes(4, "big") + data)

    async def __aexit__(self, *_: object) -> None:
        self.runner.close()
        self.writer.close()
        self.server.close()
        await asyncio.sleep(0.01)
        self.folder.cleanup()

    def run(self, rows: list[Any]) -> asyncio.Future[Answers | Exception]:
        found = asyncio.get_running_loop().create_future()
        self.runner.run(rows, lambda answers, took_ns: found.set_result(answers))
        return found


def on_a_loop(test: Any) -> Any:
    def go() -> None:
        asyncio.run(asyncio.wait_for(test(), 20))

    go.__name__ = test.__name__
    return go


async def until(check: Any) -> None:
    while not check():
        await asyncio.sleep(0.005)


REPLY = isolation.Reply([{"a": 1}, None], {1: (Problem("$[1].a", "more", "less"),)}, None, "", False, 5)


@on_a_loop
async def test_messages_may_come_in_any_pieces() -> None:
    async with Fake() as process:
        await until(lambda: process.runner.slots)
        assert process.changes == [Cost(1.0, 2.0)]
        when = datetime(2024, 1, 1, tzinfo=UTC)
        asked = process.run([(1, when)])
        length = int.from_bytes(await process.reader.readexactly(4), "big")
        assert msgspec.msgpack.decode(await process.reader.readexactly(length)) == [[1, when]]
        framed = packed(REPLY)
        for byte in len(framed).to_bytes(4, "big") + framed:
            process.writer.write(bytes([byte]))
            await process.writer.drain()
            await asyncio.sleep(0)
        assert await asked == ([{"a": 1}, None], {1: (Problem("$[1].a", "more", "less"),)})


@on_a_loop
async def test_a_death_gives_the_batch_back_at_once_and_the_next_process_is_found() -> None:
    async with Fake() as process:
        await until(lambda: process.runner.slots)
        asked = process.run([(1,)])
        process.writer.write(b"\0\0")  # it dies in the middle of an answer
        process.writer.close()
        assert isinstance(await asked, EngineDied)
        assert process.runner.slots == 0
        assert process.changes[-1] is None
        assert isinstance(await process.run([(1,)]), EngineDied)
        await process.connect()
        await until(lambda: process.runner.slots)


@pytest.mark.parametrize("nonsense", [b"nonsense", b"", b"\xc1", msgspec.msgpack.encode({"type": "Reply"})])
def test_nonsense_is_taken_for_a_death(nonsense: bytes) -> None:
    @on_a_loop
    async def go() -> None:
        async with Fake() as process:
            await until(lambda: process.runner.slots)
            asked = process.run([(1,)])
            process.write(nonsense)
            assert isinstance(await asked, EngineDied)

    go()


@on_a_loop
async def test_a_length_beyond_reason_is_taken_for_a_death() -> None:
    async with Fake() as process:
        await until(lambda: process.runner.slots)
        asked = process.run([(1,)])
        process.writer.write(b"\xff\xff\xff\xff")
        assert isinstance(await asked, EngineDied)


@on_a_loop
async def test_a_process_of_another_bundle_is_not_used() -> None:
    async with Fake("wrong") as process:
        assert await asyncio.wait_for(process.reader.read(), 5) == b""
        assert process.runner.slots == 0
        assert process.changes == []


@on_a_loop
async def test_rows_that_cannot_be_written_fail_and_the_process_is_still_there() -> None:
    async with Fake() as process:
        await until(lambda: process.runner.slots)
        assert isinstance(await process.run([(2**70,)]), OverflowError)
        assert process.runner.slots == 1
        asked = process.run([(1,)])
        process.send(REPLY)
        assert isinstance(await asked, tuple)


@on_a_loop
async def test_errors_are_of_the_model_or_ours_and_bring_their_traceback() -> None:
    class Raises:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def answer(self, rows: object) -> Answers:
            raise self.error

    async with Fake() as process:
        await until(lambda: process.runner.slots)
        for error, kind in ((ModelFailed("bad"), ModelFailed), (OSError("ours"), RuntimeError)):
            asked = process.run([(1,)])
            process.write(packed(run(Raises(error), [])))
            found = await asked
            assert type(found) is kind
            assert "Traceback" in found.__notes__[0]


def test_a_process_that_cannot_start_is_told_at_the_start(tmp_path: Path, sleeper_bundle: Path) -> None:
    code = tmp_path / "broken_model.py"
    code.write_text("import os\nif os.environ.get('BROKEN'):\n    raise ValueError('no')\n" + SOUND)
    rows = pd.DataFrame({"x": [1.0, 2.0]})
    bundle = fairlead.build("broken_model:Sound", tmp_path / "broken", BuildOptions(data=rows, code=code)).path
    command = [sys.executable, "-m", "fairlead", "serve", str(bundle), "--port", "0", *ISOLATED]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, env=os.environ | {"BROKEN": "1"}, check=False
    )
    assert done.returncode != 0
    assert "model process of broken ended with exit code" in done.stderr


SOUND = """
class Sound:
    def predict(self, x):
        return x
"""
