"""Models that are loaded by their first request, and let go when memory is needed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from fairlead.bundle.manifest import DESCRIPTOR, decode_descriptor, encode_descriptor
from fairlead.config import CacheSettings, ModelSettings, WebSettings
from fairlead.errors import FairleadError
from fairlead.monitor.metrics import Metrics
from fairlead.predict.validate import Row
from fairlead.repository.deployments import Variant
from fairlead.repository.memory import resident_bytes
from fairlead.web import lazy
from fairlead.web.app import App
from fairlead.web.batching import ClientGone
from fairlead.web.calls import Call
from fairlead.web.gate import make_gate
from fairlead.web.jobs import Job
from fairlead.web.lazy import LazyBatcher, Residents
from fairlead.web.models import Loader, expanded, load_all
from fairlead.web.problems import Refusal
from fairlead.web.runners import Cost, Done, Running
from fairlead.web.server import take_control

RECORD = {"tenure": 2, "contract": "monthly"}
MB = 1_000_000


def renamed(bundle: Path, to: Path, version: str = "1") -> Path:
    """Copy a bundle and give the copy the name of its folder."""
    shutil.copytree(bundle, to, dirs_exist_ok=True)
    data = (bundle / DESCRIPTOR).read_bytes()
    manifest = msgspec.structs.replace(decode_descriptor(data, "bundle"), name=to.name, version=version)
    mlflow = json.loads(data.rpartition(b"# sha256: ")[0])
    (to / DESCRIPTOR).write_bytes(encode_descriptor(manifest, mlflow))
    return to


@pytest.fixture
def folder(tmp_path: Path, churn_bundle: Path) -> Path:
    """Give a folder of the bundles `one`, `two` and `three`."""
    for name in ("one", "two", "three"):
        renamed(churn_bundle, tmp_path / "bundles" / name)
    return tmp_path / "bundles"


def app_of(folder: Path, **settings: Any) -> App:
    web = WebSettings(**settings)
    models = expanded([ModelSettings(str(folder))])
    loader = Loader(web.max_queue_rows)
    app = App(load_all(models, loader), make_gate(web), loader)
    take_control(app, models, CacheSettings())
    return app


@asynccontextmanager
async def client_of(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def is_loaded(app: App, name: str) -> bool:
    batcher = app.served.find(name).batcher
    assert isinstance(batcher, LazyBatcher)
    return batcher.runner.is_loaded


def delay_load(app: App, name: str, until: threading.Event) -> list[str]:
    """Have a model's load wait, and give the list to which each is added."""
    batcher = app.served.find(name).batcher
    assert isinstance(batcher, LazyBatcher)
    load, begun = batcher.load, []

    def slow() -> Running:
        begun.append(name)
        assert until.wait(20)
        return load()

    batcher.load = slow
    return begun


async def eventually(check: Callable[[], object]) -> None:
    for _ in range(2000):
        if check():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(check)


def test_models_are_described_before_any_is_loaded(folder: Path) -> None:
    async def go() -> None:
        app = app_of(folder)
        async with client_of(app) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert [one["name"] for one in (await client.get("/")).json()["models"]] == ["one", "three", "two"]
            assert (await client.get("/v1/models")).json() == {"models": ["one", "three", "two"]}
            index = (await client.post("/v2/repository/index")).json()
            assert [(one["name"], one["version"], one["state"]) for one in index] == [
                (name, "1", "READY") for name in ("one", "three", "two")
            ]
            assert (await client.get("/v2/models/two")).json()["inputs"][0]["name"] == "tenure"
            assert (await client.get("/v2/models/two/ready")).json()["ready"]
            described = (await client.get("/openapi.json")).content
            assert {f"/models/{name}/predict" for name in ("one", "two", "three")} < json.loads(described)[
                "paths"
            ].keys()
            assert (await client.post("/models/two/predict", json={})).status_code == 422
            assert (await client.post("/models/two/predict", json=[])).json() == []
            assert not any(is_loaded(app, name) for name in ("one", "two", "three"))
            assert (await client.post("/models/two/predict", json=RECORD)).status_code == 200
            assert is_loaded(app, "two")
            assert not is_loaded(app, "one")
            before = app._description
            assert (await client.get("/openapi.json")).content == described
            assert app._description is before, "a load does not change what is described"

    asyncio.run(go())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/one/predict", RECORD),
        ("/models/one/invocations", {"dataframe_records": [RECORD]}),
        ("/v1/models/one:predict", {"instances": [RECORD]}),
    ],
)
def test_every_way_to_ask_loads_a_model(folder: Path, path: str, body: object) -> None:
    async def go() -> None:
        app = app_of(folder)
        async with client_of(app) as client:
            assert (await client.post(path, json=body)).status_code == 200
        assert is_loaded(app, "one")

    asyncio.run(go())


def test_many_requests_make_one_load(folder: Path) -> None:
    async def go() -> None:
        app, gate = app_of(folder), threading.Event()
        begun = delay_load(app, "one", gate)
        async with client_of(app) as client:
            asked = [asyncio.ensure_future(client.post("/models/one/predict", json=RECORD)) for _ in range(30)]
            await eventually(lambda: app.served.find("one").batcher.queued_rows == 30)
            gate.set()
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
            assert begun == ["one"]
            shown = (await client.get("/metrics")).text
            assert 'fairlead_model_loads_total{model="one",result="loaded"} 1.0' in shown

    asyncio.run(go())


def test_who_may_not_ask_loads_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairlead.web import keys

    secret, line = keys.make("client", False, 0.01, 1)
    monkeypatch.setenv("FAIRLEAD_API_KEYS", line)

    async def go() -> None:
        app = app_of(folder)
        async with client_of(app) as client:
            assert (await client.post("/models/one/predict", json=RECORD)).status_code == 401
            headers = {"x-api-key": secret}
            assert not is_loaded(app, "one")
            # Its one request is counted once, though it waited for a load.
            assert (await client.post("/models/one/predict", json=RECORD, headers=headers)).status_code == 200
            assert (await client.post("/models/two/predict", json=RECORD, headers=headers)).status_code == 429
            assert not is_loaded(app, "two")

    asyncio.run(go())


def test_a_slow_model_holds_nobody_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_ALONE_S", 0.05)

    async def go() -> None:
        app, gate = app_of(folder), threading.Event()
        delay_load(app, "one", gate)
        async with client_of(app) as client:
            assert (await client.post("/models/two/predict", json=RECORD)).status_code == 200
            slow = asyncio.ensure_future(client.post("/models/one/predict", json=RECORD))
            await eventually(lambda: app.served.find("one").batcher.queued_rows)
            assert (await client.post("/models/two/predict", json=RECORD)).status_code == 200
            assert (await client.post("/models/three/predict", json=RECORD)).status_code == 200, "loaded meanwhile"
            assert not slow.done()
            gate.set()
            assert (await slow).status_code == 200

    asyncio.run(go())


def test_who_waits_too_long_is_told_when_to_come_again(folder: Path) -> None:
    async def go() -> None:
        app, gate = app_of(folder, max_queue_rows=20), threading.Event()
        begun = delay_load(app, "one", gate)
        async with client_of(app) as client:
            many = asyncio.ensure_future(client.post("/models/one/predict", json=[RECORD] * 15))
            await eventually(lambda: begun)
            full = await client.post("/models/one/predict", json=[RECORD] * 6)
            assert (full.status_code, full.headers["retry-after"]) == (503, "1")
            late = await client.post("/models/one/predict", json=RECORD, headers={"x-request-timeout": "0.05"})
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            assert "waited as long as it might" in late.json()["detail"]
            gate.set()
            assert (await many).status_code == 200

    asyncio.run(go())


def test_a_broken_bundle_is_refused_and_not_tried_all_the_time(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "_PAUSE_S", 0.2)

    async def go() -> None:
        app, opened = app_of(folder), threading.Event()
        opened.set()
        begun = delay_load(app, "one", opened)
        model = folder / "one" / "model.onnx"
        right = model.read_bytes()
        model.write_bytes(b"broken")
        async with client_of(app) as client:
            for _ in range(3):
                answer = await client.post("/models/one/predict", json=RECORD)
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["type"] == "urn:problem-type:fairlead:not_ready"
                assert "one could not be loaded: model.onnx: changed since" in answer.json()["detail"]
                assert str(folder) not in answer.text
            assert begun == ["one"]
            assert str(model) in caplog.text, "the log tells where"
            assert (await client.get("/v2/models/one/ready")).status_code == 503
            assert (await client.get("/readyz")).status_code == 200, "the others are there"
            assert (await client.post("/models/two/predict", json=RECORD)).status_code == 200
            model.write_bytes(right)
            await asyncio.sleep(0.2)
            assert (await client.post("/models/one/predict", json=RECORD)).status_code == 200
            assert (await client.get("/v2/models/one/ready")).status_code == 200
            shown = (await client.get("/metrics")).text
            assert 'fairlead_model_loads_total{model="one",result="failed"} 1.0' in shown

    asyncio.run(go())


def test_an_unloaded_model_stays_away_until_it_is_loaded_again(folder: Path) -> None:
    async def go() -> None:
        app = app_of(folder)
        async with client_of(app) as client:
            assert (await client.post("/models/one/predict", json=RECORD)).status_code == 200
            assert app.control is not None
            await app.control.unload("one")
            assert (await client.post("/models/one/predict", json=RECORD)).status_code == 404
            index = (await client.post("/v2/repository/index")).json()
            assert [one["state"] for one in index if one["name"] == "one"] == ["UNAVAILABLE"]
            await app.control.reload("one")
            assert not is_loaded(app, "one")
            assert (await client.post("/models/one/predict", json=RECORD)).status_code == 200

    asyncio.run(go())


def test_a_reload_takes_the_place_of_what_is_loaded(folder: Path, churn_bundle: Path) -> None:
    async def go() -> None:
        app = app_of(folder)
        async with client_of(app) as client:
            assert (await client.post("/models/one/predict", json=RECORD)).headers["x-model-version"] == "1"
            former = app.served.find("one").batcher
            assert isinstance(former, LazyBatcher)
            renamed(churn_bundle, folder / "one", version="2")
            assert app.control is not None
            assert (await app.control.reload("one")).result == "swapped"
            assert not is_loaded(app, "one")
            assert (await client.post("/models/one/predict", json=RECORD)).headers["x-model-version"] == "2"
            await eventually(lambda: former.is_closed and not former.runner.is_loaded)

    asyncio.run(go())


def test_lazy_models_that_are_watched_are_swapped_in_all_workers(
    start: Callable[..., Any], folder: Path, churn_bundle: Path
) -> None:
    flags = ("--refresh-s", "0.3", "--memory-budget-bytes", "100000000")
    with start(folder, workers=2, more=flags).wait_until_ready() as server:

        def version() -> str:
            answer = httpx.post(f"{server.url}/models/one/predict", json=RECORD)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-model-version"]

        assert {version() for _ in range(8)} == {"1"}
        renamed(churn_bundle, folder / "one", version="2")

        async def swapped() -> None:
            await eventually(lambda: {version() for _ in range(6)} == {"2"})

        asyncio.run(swapped())
        assert httpx.post(f"{server.url}/models/two/predict", json=RECORD).headers["x-model-version"] == "1"


class Ballast:
    """An engine that is nothing but memory, and answers after a while."""

    place, slots = "thread", 1

    def __init__(self, size: int, delay_s: float) -> None:
        self.memory: Any = np.ones(size, np.uint8)
        self.delay_s = delay_s

    def start(self) -> None:
        pass

    def run(self, rows: Sequence[Row], done: Done) -> None:
        answers: Any = ([{"row": row} for row in rows], {})
        asyncio.get_running_loop().call_later(self.delay_s, done, answers, 1000)

    def close(self) -> None:
        self.memory = None


class Asked:
    """Models of ballast in one process, and what was asked of them."""

    def __init__(self, budget: int | None, sizes: Sequence[int], metrics: Metrics | None = None) -> None:
        self.residents = Residents(budget, 5.0, metrics)
        self.delay_s = 0.0
        self.models = [self._model(number, size) for number, size in enumerate(sizes)]

    def _model(self, number: int, size: int) -> LazyBatcher:
        variant = Variant(name=f"m{number}", version="1", engine="native", digest=f"{number}", path="/nowhere")

        def load() -> Running:
            return Running(Ballast(size, self.delay_s), Cost(0.0, 1000.0), dict)

        model = LazyBatcher(f"m{number}", variant, size, load, 100)
        model.residents = self.residents
        return model

    @property
    def loaded(self) -> list[int]:
        return [number for number, model in enumerate(self.models) if model.runner.is_loaded]

    def ask(self, number: int, timeout_s: float = 20.0) -> tuple[Call, asyncio.Future[Job]]:
        answer: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        call = Call("POST", "/", b"", [], b"", None)
        job = Job(call, [(number,)], answer.set_result, lambda answers: answers)
        job.deadline_ns = perf_counter_ns() + int(timeout_s * 1e9)
        self.models[number].submit(job)
        return call, answer

    async def answered(self, number: int) -> None:
        job = await self.ask(number)[1]
        assert job.error is None
        assert job.answers == [{"row": (number,)}]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    gc.collect()  # what other tests left must not go while a model's size is measured
    asyncio.run(test())


def test_the_least_recently_used_makes_room() -> None:
    async def go() -> None:
        asked = Asked(100 * MB, [30 * MB] * 6)
        before = resident_bytes()
        for number in (0, 1, 2):
            await asked.answered(number)
        await asked.answered(0)
        await asked.answered(3)
        assert asked.loaded == [0, 2, 3]
        for number in (4, 5, 1, 0, 2, 3) * 3:
            await asked.answered(number)
            assert resident_bytes() - before < 115 * MB
            assert len(asked.loaded) <= 3
        assert len(asked.loaded) == 3, "there is no less than there may be"

    run(go)


def test_without_a_budget_all_stay() -> None:
    async def go() -> None:
        asked = Asked(None, [MB] * 5)
        for number in range(5):
            await asked.answered(number)
        assert asked.loaded == [0, 1, 2, 3, 4]

    run(go)


def test_a_model_beyond_the_budget_is_served_alone(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def go() -> None:
        metrics = Metrics(tmp_path)
        asked = Asked(20 * MB, [5 * MB, 60 * MB], metrics)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await asked.answered(0)
                assert asked.loaded == [0]
                await asked.answered(1)
                assert asked.loaded == [1]
        assert [record.getMessage()[:21] for record in caplog.records] == ["m1 1: with it alone t"]
        assert b'fairlead_model_evictions_total{model="m0"} 3.0' in metrics.render()[0]

    run(go)


def test_a_busy_model_gives_its_last_answers_before_it_goes() -> None:
    async def go() -> None:
        asked = Asked(40 * MB, [30 * MB] * 2)
        asked.delay_s = 0.3
        first = [asked.ask(0)[1] for _ in range(3)]
        await eventually(lambda: asked.loaded == [0])
        await asked.answered(1)
        assert asked.loaded == [1]
        assert all(job.done() and job.result().error is None for job in first)

    run(go)


def test_models_that_are_always_busy_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "_PATIENCE_S", 0.05)

    async def go() -> None:
        asked = Asked(40 * MB, [30 * MB] * 2)
        asked.delay_s = 0.02
        counts = [0, 0]

        async def keep_busy(number: int) -> None:
            while min(counts) < 10:
                await asked.answered(number)
                counts[number] += 1

        async with asyncio.timeout(20):
            await asyncio.gather(*(keep_busy(number) for number in (0, 0, 0, 1, 1, 1)))
        assert len(asked.loaded) == 1

    run(go)


def test_nothing_is_loaded_for_clients_that_have_gone() -> None:
    async def go() -> None:
        asked = Asked(None, [MB] * 2)
        gate = threading.Event()
        load = asked.models[0].load

        def slow() -> Running:
            assert gate.wait(20)
            return load()

        asked.models[0].load = slow
        first = asked.ask(0)[1]
        call, second = asked.ask(1)
        call.is_gone = True
        gate.set()
        await first
        late = asked.ask(1)[1]
        assert isinstance((await second).error, ClientGone)
        assert (await late).error is None

    run(go)


def test_a_load_that_ends_the_thread_is_a_failure() -> None:
    async def go() -> None:
        asked = Asked(None, [MB])

        def load() -> Running:
            raise SystemExit(3)

        asked.models[0].load = load
        error = (await asked.ask(0)[1]).error
        assert isinstance(error, Refusal)
        assert "SystemExit" in str(error)
        assert not isinstance(error, FairleadError)
        with pytest.raises(Refusal, match="could not be loaded"):
            asked.ask(0)

    run(go)
