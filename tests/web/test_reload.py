"""New versions come into service, or are left out, and no request notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.schema import Schema
from fairlead.web.keys import make
from load import Answer, Served, connected, descendants, eventually, post

REFRESH_S = 0.3
# Longer than a refused version takes to be tried, on a busy machine.
PATIENCE_S = 40
# What it does stands in a file beside it, for the trial or for a server.
TRIAL = "fairlead.repository.trial "
MODEL = """
import os, sys, time
from pathlib import Path


def act(place):
    where, wanted, what = {act!r}.split() or ("", "", "")
    if wanted == place and where in " ".join(sys.orig_argv):
        if what == "kill":
            os.kill(os.getpid(), 9)
        if what == "hang":
            time.sleep(600)
        if what == "raise":
            raise KeyError("town")


class Scorer:
    def __init__(self):
        act("load")

    def predict(self, {features}):
        act("ask")
        while size < 0 and not Path({release!r}).exists():
            time.sleep(0.01)
        return {answer}
"""


@dataclass(frozen=True)
class Scorers:
    """Builds versions of the model `score`."""

    folder: Path

    def build(self, version: str, act: str = "", answer: str = "", features: tuple[str, ...] = ("size",)) -> Path:
        """Build a version that answers with its number; a size below zero is how long it takes."""
        out = self.folder / f"{version} {act} {answer} {features}".replace("/", "-")
        if out.exists():
            return out
        code = self.folder / "score_model.py"
        release = str(self.folder / "release")
        code.write_text(
            MODEL.format(
                release=release,
                act=act,
                features=", ".join(features),
                answer=answer or f"{{'score': {float(version)}}}",
            )
        )
        rows = pd.DataFrame({feature: [1.0, 2.0] for feature in features})
        schema = Schema.parse({"features": [{"name": name, "type": "float"} for name in features]})
        options = BuildOptions(data=rows, schema=schema, code=code, version=version, name="score")
        # A poisoned version is built while it is still well: its module looks for the trial.
        return fairlead.build("score_model:Scorer", out, options).path


@pytest.fixture(scope="session")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> Scorers:
    return Scorers(tmp_path_factory.mktemp("scorers"))


def right(version: str) -> dict[str, Any]:
    return {"prediction": {"score": float(version)}}


def put(bundle: Path, place: Path) -> Path:
    """Put a bundle in the place of another as a careful operator does, by renaming."""
    fresh = shutil.copytree(bundle, place.with_name(place.name + ".new"))
    if place.exists():
        place.rename(place.with_name(place.name + ".old"))
    fresh.rename(place)
    shutil.rmtree(place.with_name(place.name + ".old"), ignore_errors=True)
    return place


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Keep cache, state and temporary files of servers where tests can look; give an admin key's header."""
    folder = tmp_path_factory.mktemp("surroundings")
    key, line = make("admin", admin=True)
    lone, other = make("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIRLEAD_CACHE_DIRECTORY", str(folder / "cache"))
        patch.setenv("FAIRLEAD_WEB_STATE_DIRECTORY", str(folder / "state"))
        yield {"key": key, "keys": f"{line}\n{other}", "lone": lone}


class Reloading:
    """A server of `score` whose versions come and go."""

    def __init__(self, folder: Path, surroundings: dict[str, str], model: dict[str, Any], web: dict[str, Any]) -> None:
        self.source = folder / "source"
        self.newest = 1
        config = folder / "fairlead.yaml"
        keys = folder / "keys"
        keys.write_text(surroundings["keys"] + "\n")
        web = {"timeout_s": 5, "api_keys_file": str(keys)} | web
        config.write_text(json.dumps({"models": {"score": {"source": str(self.source)} | model}, "web": web}))
        self.admin = {"x-api-key": surroundings["key"]}
        # A connection for each request, so that every worker gets its share.
        self.client = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0))
        self.head = f"x-api-key: {surroundings['key']}\r\n"
        self.served = Served(flags=("--config", str(config)))

    def put(self, scorers: Scorers, **how: Any) -> str:
        """Put a newer version there; give it."""
        self.newest += 1
        put(scorers.build(str(self.newest), **how), self.source)
        return str(self.newest)

    def workers(self) -> list[int]:
        """Give its workers, without whatever else it has started."""
        return [pid for pid in self.served.workers() if "spawn_main" in command_of(pid)]

    @property
    def version(self) -> str:
        """What all workers answer with."""
        (version,) = self.versions()
        return version

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}"

    def reload(self) -> httpx.Response:
        return self.client.post(f"{self.url}/models/score/reload", headers=self.admin)

    def versions(self, count: int = 12) -> Counter[str]:
        """Ask all workers; every answer has to be right."""
        found: Counter[str] = Counter()
        for _ in range(count):
            answer = self.client.post(f"{self.url}/models/score/predict", headers=self.admin, json={"size": 1.0})
            assert answer.status_code == 200, answer.text
            version = answer.headers["x-model-version"]
            assert answer.json() == right(version)
            found[version] += 1
        return found

    def becomes(self, version: str) -> None:
        """Wait until every worker has a version, and nothing else answers any more."""
        eventually(lambda: set(self.versions(4)) == {version}, PATIENCE_S)
        assert set(self.versions()) == {version}

    def counted(self, result: str) -> float:
        """Give how many reloads came to a result."""
        text = self.client.get(f"{self.url}/metrics", headers=self.admin).text
        line = f'fairlead_reloads_total{{model="score",result="{result}"}} '
        return sum(float(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line))


@contextmanager
def reloading(
    folder: Path, bundle: Path, surroundings: dict[str, str], model: dict[str, Any] | None = None, **web: Any
) -> Iterator[Reloading]:
    put(bundle, folder / "source")
    one = Reloading(folder, surroundings, model or {}, web)
    with one.client, one.served:
        yield one
        one.served.process.terminate()
        assert one.served.process.wait(20) == 0


@pytest.fixture(scope="module")
def watched(scorers: Scorers, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a server of two workers that watches its source; tests may leave any version there that serves."""
    folder = tmp_path_factory.mktemp("watched")
    model = {"refresh_s": REFRESH_S}
    with reloading(folder, scorers.build("1"), surroundings, model, workers=2, timeout_s=30) as one:
        yield one


async def under_load(one: Reloading, do: Callable[[], object], n_clients: int = 6) -> Counter[str]:
    """Ask again and again, on kept and on new connections, while something is done; each answer has to be right."""
    found: Counter[str] = Counter()
    is_over = False

    async def ask(is_kept: bool) -> None:
        while not is_over:
            async with connected(one.served.port) as connection:
                while not is_over:
                    answer = await connection.ask(post({"size": 1.0}, "/models/score/predict", one.head))
                    assert answer.status == 200, answer
                    version = answer.headers["x-model-version"]
                    assert answer.json == right(version)
                    found[version] += 1
                    await asyncio.sleep(0.01)  # others want the processors too
                    if not is_kept:
                        break

    asking = [asyncio.create_task(ask(number % 2 == 0)) for number in range(n_clients)]
    try:
        await asyncio.to_thread(do)
    finally:
        is_over = True
        await asyncio.gather(*asking)
    return found


def test_a_replaced_directory_is_taken_up_under_load(watched: Reloading, scorers: Scorers) -> None:
    versions = [watched.version]

    def change() -> None:
        for _ in range(2):
            versions.append(watched.put(scorers))
            watched.becomes(versions[-1])

    swapped = watched.counted("swapped")
    found = asyncio.run(under_load(watched, change))
    assert found.keys() == set(versions)
    assert set(watched.versions(30)) == {versions[-1]}
    assert watched.counted("swapped") == swapped + 2
    assert f"version {versions[-1]} is stable now" in watched.served.log()


def changed(bundle: Path) -> None:
    code = bundle / "code" / "score_model.py"
    content = bytearray((code if code.exists() else bundle / "input_example.json").read_bytes())
    content[len(content) // 2] ^= 1
    (code if code.exists() else bundle / "input_example.json").write_bytes(content)


def half(bundle: Path) -> None:
    (bundle / "input_example.json").unlink()


POISONED: dict[str, tuple[dict[str, Any], Callable[[Path], None] | None, str]] = {
    "one byte changed": ({}, changed, "changed since the bundle was built"),
    "half-written copy": ({}, half, "missing from the bundle"),
    "other outputs": ({"answer": "{'points': 2.0}"}, None, "output prediction: without score"),
    "new required feature": ({"features": ("size", "rooms")}, None, "feature rooms: new and required"),
    "raises on its example": ({"act": TRIAL + "ask raise"}, None, "town"),
    "killed while loading": ({"act": TRIAL + "load kill"}, None, "crashed with SIGKILL"),
    "killed while predicting": ({"act": TRIAL + "ask kill"}, None, "crashed with SIGKILL"),
}


def test_poisoned_versions_are_left_out_and_the_next_good_one_is_taken(
    watched: Reloading, scorers: Scorers, tmp_path: Path
) -> None:
    versions = [watched.version]

    def poison() -> None:
        for how, spoil, told in POISONED.values():
            said, refused = len(watched.served.log()), watched.counted("refused")
            bundle = shutil.copytree(scorers.build("0", **how), tmp_path / "poisoned")
            if spoil is not None:
                spoil(bundle)
            put(bundle, watched.source)
            shutil.rmtree(bundle)
            eventually(lambda said=said, told=told: told in watched.served.log()[said:], PATIENCE_S)
            assert watched.counted("refused") > refused
        assert watched.version == versions[0]
        versions.append(watched.put(scorers))
        watched.becomes(versions[1])

    said, workers = len(watched.served.log()), watched.workers()
    assert asyncio.run(under_load(watched, poison, 4)).keys() == set(versions)
    assert watched.workers() == workers
    assert "Traceback" not in watched.served.log()[said:]


def test_one_that_asks_gets_it_at_once(scorers: Scorers, surroundings: dict[str, str], tmp_path: Path) -> None:
    with reloading(tmp_path, scorers.build("1"), surroundings) as one:
        assert len(descendants(one.served.process.pid)) == 0  # one process is enough
        ask_and_get(one, scorers)


def test_one_that_asks_any_worker_gets_it_at_once_in_all(
    scorers: Scorers, surroundings: dict[str, str], tmp_path: Path
) -> None:
    with reloading(tmp_path, scorers.build("1"), surroundings, workers=2) as one:
        ask_and_get(one, scorers)


def ask_and_get(one: Reloading, scorers: Scorers) -> None:
    url = f"{one.url}/models/score/reload"
    assert one.reload().json()["result"] == "unchanged"
    put(scorers.build("2"), one.source)
    time.sleep(0.2)
    assert set(one.versions(6)) == {"1"}  # nobody looks by itself
    assert one.client.post(url).status_code == 401
    answer = one.reload()
    assert answer.status_code == 200
    assert {"name": "score", "version": "2", "result": "swapped"}.items() <= answer.json().items()
    assert len(answer.json()["digest"]) == 64
    assert set(one.versions()) == {"2"}
    assert one.reload().json()["result"] == "unchanged"
    assert (one.counted("swapped"), one.counted("unchanged")) == (1, 2)
    # What fails is told to who asked, and changes nothing.
    poisoned = scorers.build("3", act=TRIAL + "load kill")
    put(poisoned, one.source)
    refused = one.reload()
    assert refused.status_code == 409
    assert "crashed with SIGKILL" in refused.json()["detail"]
    assert set(one.versions()) == {"2"}
    assert one.client.post(f"{one.url}/models/nothing/reload", headers=one.admin).status_code == 404
    assert one.client.get(url, headers=one.admin).status_code == 405


def test_requests_under_way_finish_on_the_old_version(watched: Reloading, scorers: Scorers) -> None:
    before = watched.version
    release = scorers.folder / "release"
    release.unlink(missing_ok=True)

    async def go() -> list[Answer]:
        async with connected(watched.served.port) as slow, connected(watched.served.port) as late:
            request = post({"size": 1.0}, "/models/score/predict", watched.head)
            late.transport.write(request[:-4])  # the rest comes when the old version has gone
            waits = post({"size": -1.0}, "/models/score/predict", watched.head)
            asking = asyncio.create_task(slow.ask(waits))
            await asyncio.sleep(0.1)
            new = watched.put(scorers)
            # Not by predictions: what comes before the swap waits behind the slow one.
            eventually(lambda: f"version {new} is stable now" in watched.served.log(), PATIENCE_S)
            await asyncio.to_thread(watched.becomes, new)
            assert not asking.done()
            release.touch()
            old = await asking
            await asyncio.sleep(0.1)
            late.transport.write(request[-4:])
            return [old, await late.answer()]

    old, new = asyncio.run(go())
    after = str(watched.newest)
    assert (old.status, old.headers["x-model-version"], old.json) == (200, before, right(before))
    assert (new.status, new.headers["x-model-version"], new.json) == (200, after, right(after))


def test_workers_that_are_killed_come_back_with_the_new_version(watched: Reloading, scorers: Scorers) -> None:
    new = watched.put(scorers)
    watched.becomes(new)
    os.kill(watched.workers()[0], signal.SIGKILL)  # after
    eventually(lambda: len(watched.workers()) == 2)
    assert quietly(watched.versions) in (None, {new: 12})

    for worker in (0, -1):  # during: whichever is the first to load it
        new = watched.put(scorers)
        eventually(lambda new=new: f"version {new} was tried" in watched.served.log(), PATIENCE_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(watched.workers()[worker], signal.SIGKILL)
        eventually(lambda new=new: quietly(lambda: watched.version == new), PATIENCE_S)
        eventually(lambda: len(watched.workers()) == 2)
        watched.becomes(new)


def test_a_version_that_kills_workers_is_left_out(watched: Reloading, scorers: Scorers) -> None:
    before = watched.version
    said = len(watched.served.log())
    put(scorers.build("0", act="spawn_main load kill"), watched.source)
    eventually(lambda: "goes on as it is: a worker" in watched.served.log()[said:], PATIENCE_S)
    eventually(lambda: quietly(lambda: watched.version == before), PATIENCE_S)
    eventually(lambda: len(watched.workers()) == 2)
    watched.becomes(watched.put(scorers))


def quietly(do: Callable[[], Any]) -> Any:
    """Do what a killed worker may interrupt; None when it did."""
    try:
        return do()
    except (httpx.TransportError, ValueError):
        return None


def test_unload_and_load_through_the_repository(watched: Reloading, scorers: Scorers) -> None:
    repository = f"{watched.url}/v2/repository"
    assert watched.client.post(f"{repository}/models/score/unload", headers=watched.admin).status_code == 200

    def statuses() -> set[int]:
        url = f"{watched.url}/models/score/predict"
        return {watched.client.post(url, headers=watched.admin, json={"size": 1.0}).status_code for _ in range(6)}

    assert statuses() == {404}
    new = watched.put(scorers)
    time.sleep(3 * REFRESH_S)  # the watch does not load what somebody unloaded
    assert statuses() == {404}
    index = watched.client.post(f"{repository}/index", headers=watched.admin).json()
    assert [(entry["state"], entry["reason"]) for entry in index] == [("UNAVAILABLE", "it was unloaded")]
    assert watched.client.post(f"{repository}/models/score/load", headers=watched.admin).status_code == 200
    assert watched.version == new
    watched.becomes(watched.put(scorers))


@pytest.fixture(scope="module")
def isolated(scorers: Scorers, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("isolated")
    model = {"isolation": "process", "refresh_s": REFRESH_S}
    with reloading(folder, scorers.build("1"), surroundings, model, workers=2, timeout_s=6) as one:
        yield one


def test_processes_of_isolated_models_are_swapped(isolated: Reloading, scorers: Scorers) -> None:
    before = isolated.served.models()
    assert len(before) == 1

    def change() -> None:
        isolated.becomes(isolated.put(scorers))
        eventually(lambda: len(isolated.served.models()) == 1 and isolated.served.models() != before)

    assert asyncio.run(under_load(isolated, change, 4)).keys() == {"1", "2"}


def test_a_model_process_that_is_killed_during_a_swap_is_replaced(isolated: Reloading, scorers: Scorers) -> None:
    served = isolated.served
    before = isolated.version
    known = {served.process.pid, *descendants(served.process.pid)}
    new = isolated.put(scorers)

    def fresh() -> list[int]:
        return [pid for pid in set(descendants(served.process.pid)) - known if "spawn_main" in command_of(pid)]

    def change() -> None:
        eventually(fresh, PATIENCE_S)
        os.kill(fresh()[0], signal.SIGKILL)  # while it loads
        isolated.becomes(new)
        os.kill(served.models()[-1], signal.SIGKILL)

    # Batches of a process that was killed are run again: even now no request fails.
    assert asyncio.run(under_load(isolated, change, 4)).keys() == {before, new}
    assert isolated.version == new


def test_a_version_that_only_a_server_cannot_load_is_left_out(isolated: Reloading, scorers: Scorers) -> None:
    before = isolated.version
    said, refused = len(isolated.served.log()), isolated.counted("refused")
    put(scorers.build("0", act="spawn_main load raise"), isolated.source)
    eventually(lambda: isolated.counted("refused") > refused, PATIENCE_S)
    assert isolated.version == before
    assert "goes on as it is: a model process of score ended" in isolated.served.log()[said:]
    isolated.becomes(isolated.put(scorers))


def test_a_signal_in_the_middle_of_a_reload_ends_all(
    scorers: Scorers, surroundings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with reloading(tmp_path, scorers.build("1"), surroundings, {"refresh_s": 0.1}, workers=2) as one:
        parent = one.served.process.pid
        before = family(parent)
        put(scorers.build("2", act=TRIAL + "load hang"), one.source)
        eventually(lambda: any("fairlead.repository.trial" in command_of(pid) for pid in family(parent)), PATIENCE_S)
        assert set(one.versions(4)) == {"1"}
        all_of_it = family(parent)
        assert all_of_it > before
        one.served.process.terminate()
        assert one.served.process.wait(15) == 0
        eventually(lambda: not any(map(is_running, all_of_it)), 5)
        assert list(temporary.iterdir()) == []
        assert "Traceback" not in one.served.log()


def family(pid: int) -> set[int]:
    """Give all that a process has started, and what that has."""
    found: set[int] = set()
    for child in descendants(pid):
        found |= {child} | family(child)
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_readiness_tells_how_far_a_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LinearRegression

    monkeypatch.setenv("FAIRLEAD_CACHE_DIRECTORY", str(tmp_path / "cache"))
    model = tmp_path / "slope.pkl"
    model.write_bytes(pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])))
    server = Served(model)
    told: set[str] = set()

    def is_ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{server.port}/readyz")
            told.add(answer.json().get("detail", ""))
            return answer.status_code == 200
        return False

    try:
        eventually(is_ready, 60)
    finally:
        server.__exit__()
    assert any(text.startswith("slope: build: ") for text in told), told
