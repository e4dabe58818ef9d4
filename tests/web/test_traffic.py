"""Two versions behind one path: who gets which, when the newer one is taken back, and one that only listens."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

import fairlead
from fairlead.bundle.build import BuildOptions
from fairlead.repository.traffic import bucket, feature_key
from fairlead.schema import Schema
from fairlead.web.keys import make
from load import Answer, Served, connected, eventually, get, post

SCHEMA = {"features": [{"name": "size", "type": "float"}, {"name": "customer", "type": "int"}]}
ROWS = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "customer": [3, 1, 4, 2]})
CUSTOMERS = range(100, 130)
# Compiled versions answer with ten times the size, and twenty times.
FACTORS = {"1": 10.0, "2": 20.0}
STABLE = "size * 2"
# Of a class: raises, is slow, or does to itself what a size below zero says.
FAILING = "1 / 0 if size == 13 else size * 2"
SLOW = "time.sleep(0.06) or size * 2"
SHADOW = "shadow(size)"
MODEL = """
import os, time
from pathlib import Path

RELEASE = Path({release!r})


def shadow(size):
    if size == -1:
        raise KeyError("size")
    if size == -2:
        os.kill(os.getpid(), 9)
    while size == -3 and not RELEASE.exists():
        time.sleep(0.01)
    return size * 2 + (size == 7)


class {name}:
    def predict(self, size, customer):
        return {{"price": {answer}}}
"""


def compiled(folder: Path, version: str) -> Path:
    """Build a compiled version of the model `price`."""
    from sklearn.linear_model import LinearRegression

    model = folder / f"{version}.pkl"
    model.write_bytes(pickle.dumps(LinearRegression().fit(ROWS, ROWS["size"] * FACTORS[version])))
    options = BuildOptions(
        data=ROWS, schema=Schema.parse(SCHEMA), outputs=("price=prediction",), version=version, name="price"
    )
    return fairlead.build(model, folder / f"price-{version}", options).path


def made(folder: Path, version: str, name: str, answer: str) -> Path:
    """Build a version of a class that answers with an expression."""
    code = folder / f"{name.lower()}_model.py"
    code.write_text(MODEL.format(name=name, answer=answer, release=str(folder / "release")))
    options = BuildOptions(data=ROWS, schema=Schema.parse(SCHEMA), code=code, version=version, name="price")
    return fairlead.build(f"{name.lower()}_model:{name}", folder / name, options).path


@dataclass
class Town:
    """One server of many models, each with traffic of its own."""

    served: Served
    key: str
    reader: str
    folder: Path
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.served.port}"

    @property
    def admin(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    def ask(self, requests: Iterable[bytes], n_connections: int = 6) -> list[Answer]:
        """Ask over several connections, so that all workers get their share; give the answers in order."""

        async def go() -> list[Answer]:
            waiting = list(enumerate(requests))[::-1]
            found: dict[int, Answer] = {}

            async def client() -> None:
                async with connected(self.served.port) as connection:
                    while waiting:
                        number, request = waiting.pop()
                        found[number] = await connection.ask(request)

            await asyncio.gather(*(client() for _ in range(n_connections)))
            return [found[number] for number in sorted(found)]

        return asyncio.run(go())

    def post(self, model: str, body: object, headers: str = "", path: str = "/models/{}/predict") -> bytes:
        return post(body, path.format(model), f"x-api-key: {self.reader}\r\n{headers}")

    def traffic(self, model: str) -> Any:
        return self.client.get(f"{self.url}/models/{model}/traffic", headers={"x-api-key": self.reader}).json()

    def weigh(self, model: str, weight: float) -> httpx.Response:
        body = {"canary": {"weight": weight}}
        return self.client.put(f"{self.url}/models/{model}/traffic", headers=self.admin, json=body)

    def metric(self, name: str, **labels: str) -> float:
        text = self.client.get(f"{self.url}/metrics", headers=self.admin).text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if line.startswith(name + "{")]
        return sum(float(line.split()[-1]) for line in lines if all(one in line for one in wanted))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    one, two = (str(compiled(folder, version)) for version in FACTORS)
    stable = str(made(folder, "1", "Stable", STABLE))
    failing, slow = str(made(folder, "2", "Failing", FAILING)), str(made(folder, "2", "Slow", SLOW))
    shadow = str(made(folder, "3", "Listening", SHADOW))
    models = {
        "chance": {"source": one, "canary": {"source": two, "weight": 0.3}},
        "header": {"source": one, "canary": {"source": two, "weight": 0.2, "sticky": "header:X-Customer"}},
        "cookie": {"source": one, "canary": {"source": two, "weight": 0.4, "sticky": "cookie:customer"}},
        "feature": {"source": one, "canary": {"source": two, "weight": 0.4, "sticky": "feature:customer"}},
        "nobody": {"source": one, "canary": {"source": two, "weight": 0.4, "sticky": "feature:nobody"}},
        "plain": {"source": one},
        "failing": {"source": stable, "canary": {"source": failing, "weight": 1, "min_requests": 30}},
        "slow": {"source": stable, "canary": {"source": slow, "weight": 1, "min_requests": 20, "max_latency_s": 0.05}},
        "shadowed": {"source": stable, "shadow": {"source": shadow}},
        "twin": {"source": stable, "isolation": "process", "shadow": {"source": stable}},
    }
    key, line = make("admin", admin=True)
    reader, other = make("reader")
    (folder / "keys").write_text(f"{line}\n{other}\n")
    web = {"workers": 2, "api_keys_file": "keys", "state_directory": "state", "timeout_s": 8}
    config = folder / "fairlead.yaml"
    config.write_text(json.dumps({"models": models, "web": web, "cache": {"directory": "cache"}}))
    with Served(flags=("--config", str(config))) as served, httpx.Client(timeout=20) as client:
        yield Town(served, key, reader, folder, client)


def versions(answers: Iterable[Answer]) -> list[str]:
    """Give who answered; each answer has to be that version's."""
    found = []
    for answer in answers:
        assert answer.status == 200, answer
        version = answer.headers["x-model-version"]
        assert answer.json == {"price": pytest.approx(FACTORS[version])}
        found.append(version)
    return found


RECORD = {"size": 1.0, "customer": 100}


def test_a_share_is_left_to_chance(town: Town) -> None:
    n_requests = 400
    for weight in (0.3, 0.7):
        town.weigh("chance", weight)
        count = Counter(versions(town.ask([town.post("chance", RECORD)] * n_requests)))["2"]
        # Five standard deviations: one run in a million is further off.
        deviation = (n_requests * weight * (1 - weight)) ** 0.5
        assert abs(count - n_requests * weight) < 5 * deviation
    town.weigh("chance", 0.0)
    assert set(versions(town.ask([town.post("chance", RECORD)] * 50))) == {"1"}
    town.weigh("chance", 1.0)
    assert set(versions(town.ask([town.post("chance", RECORD)] * 50))) == {"2"}
    assert town.metric("fairlead_canary_weight_ratio", model="chance") == 1.0


def expected(key: bytes, model: str, weight: float) -> str:
    return "2" if bucket(key, model) < weight else "1"


@pytest.mark.parametrize("model", ["header", "cookie", "feature"])
def test_a_caller_keeps_a_version_and_a_larger_weight_moves_callers_one_way(town: Town, model: str) -> None:
    def request(customer: int) -> bytes:
        body = {"size": 1.0, "customer": customer if model == "feature" else 5}
        head = {"header": f"x-customer: {customer}\r\n", "cookie": f'cookie: a=b; customer="{customer}"; c=d\r\n'}
        return town.post(model, body, head.get(model, ""))

    before: dict[int, str] = {}
    for weight in (0.0, 0.2, 0.5, 0.8, 1.0):
        assert town.weigh(model, weight).status_code == 200
        found = versions(town.ask([request(customer) for customer in CUSTOMERS for _ in range(3)]))
        each = {customer: found[3 * place : 3 * place + 3] for place, customer in enumerate(CUSTOMERS)}
        assert all(len(set(of_one)) == 1 for of_one in each.values())
        now = {customer: of_one[0] for customer, of_one in each.items()}
        assert now == {customer: expected(str(customer).encode(), model, weight) for customer in CUSTOMERS}
        assert not any(before.get(customer) == "2" and now[customer] == "1" for customer in CUSTOMERS)
        before = now
    # Who cannot be told apart is left to chance, whatever they send.
    town.weigh(model, 0.5)
    if model != "feature":
        odd = "" if model == "header" else "cookie: ;;=;customer;\x80\r\n"
        assert set(versions(town.ask([town.post(model, RECORD, odd)] * 40))) == {"1", "2"}


def dialects(town: Town, model: str, customer: int, n_rows: int = 1) -> dict[str, bytes]:
    """Ask for the same in every form."""
    head = f"x-customer: {customer}\r\n"
    rows = [[1.0, customer]] + [[1.0, customer + 1]] * (n_rows - 1)
    records = [dict(zip(("size", "customer"), row, strict=True)) for row in rows]
    infer = {
        "inputs": [
            {"name": "size", "shape": [n_rows], "datatype": "FP64", "data": [row[0] for row in rows]},
            {"name": "customer", "shape": [n_rows], "datatype": "INT64", "data": [row[1] for row in rows]},
        ]
    }
    split = {"dataframe_split": {"columns": ["size", "customer"], "data": rows}}
    csv = "size,customer\n" + "".join(f"{size},{who}\n" for size, who in rows)
    as_csv = town.post(model, csv.encode(), head, "/models/{}/invocations")
    return {
        "predict": town.post(model, records, head),
        "query": get(f"/models/{model}/predict?size=1.0&customer={customer}", f"x-api-key: {town.reader}\r\n{head}"),
        "infer": town.post(model, infer, head, "/v2/models/{}/infer"),
        "instances": town.post(model, {"instances": records}, head, "/v1/models/{}:predict"),
        "invocations": town.post(model, split, head, "/models/{}/invocations"),
        "csv": as_csv.replace(b"application/json", b"text/csv"),
    }


@pytest.mark.parametrize("model", ["header", "feature"])
@pytest.mark.parametrize("n_rows", [1, 2000])
def test_every_form_of_a_request_is_split(town: Town, model: str, n_rows: int) -> None:
    assert town.weigh(model, 0.5).status_code == 200
    for customer in CUSTOMERS[:6]:
        asked = dialects(town, model, customer, n_rows)
        wanted = expected(feature_key(customer) or b"", model, 0.5)
        for name, answer in zip(asked, town.ask(asked.values()), strict=True):
            assert (name, answer.status) == (name, 200), answer.body
            assert (name, answer.headers["x-model-version"]) == (name, wanted)
            # All rows go where the first one goes.
            prices = [round(float(number), 6) for number in re.findall(rb"\d+\.\d+", answer.body)]
            assert prices == [FACTORS[wanted]] * (1 if name == "query" else n_rows)


def test_a_version_that_is_asked_for_by_its_name_answers(town: Town) -> None:
    body = json.loads(dialects(town, "header", 1)["infer"].partition(b"\r\n\r\n")[2])
    for weight in (0.0, 1.0):
        town.weigh("header", weight)
        for version in FACTORS:
            path = f"/v2/models/{{}}/versions/{version}/infer"
            answers = town.ask([town.post("header", body, path=path)] * 6)
            assert {answer.headers["x-model-version"] for answer in answers} == {version}
            assert {answer.json["model_version"] for answer in answers} == {version}
    assert town.ask([town.post("header", body, path="/v2/models/{}/versions/3/infer")])[0].status == 404
    asked = [f"{town.url}/v2/models/header/versions/{version}{end}" for version in "123" for end in ("", "/ready")]
    assert [town.client.get(url, headers=town.admin).status_code for url in asked] == [200, 200, 200, 200, 404, 404]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"canary":{}}',
        b'{"canary":null}',
        b'{"canary":{"weight":null}}',
        b'{"canary":{"weight":"0.5"}}',
        b'{"canary":{"weight":1.01}}',
        b'{"canary":{"weight":-0.01}}',
        b'{"canary":{"weight":NaN}}',
        b'{"canary":{"weight":1e999}}',
        b'{"canary":{"weight":0.5,"sticky":"header:x"}}',
        b'{"canary":{"weight":0.5},"stable":{}}',
        b'{"canary":{"weight":0.5}} x',
        b"\xff\xfe",
    ],
)
def test_a_bad_change_of_traffic_changes_nothing(town: Town, body: bytes) -> None:
    before = town.traffic("header")
    answer = town.client.put(f"{town.url}/models/header/traffic", headers=town.admin, content=body)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert town.traffic("header") == before


def test_who_may_change_traffic(town: Town) -> None:
    url, change = f"{town.url}/models/header/traffic", {"canary": {"weight": 0.9}}
    before = town.traffic("header")
    assert town.client.put(url, json=change).status_code == 401
    assert town.client.put(url, json=change, headers={"x-api-key": town.reader}).status_code == 403
    assert town.client.get(url).status_code == 401
    assert town.client.post(f"{town.url}/models/header/reload", headers={"x-api-key": town.reader}).status_code == 403
    assert town.traffic("header") == before
    assert before["stable"]["version"] == "1"
    assert before["canary"]["version"] == "2"
    assert before["sticky"] == "header:X-Customer"
    assert town.weigh("nothing", 0.5).status_code == 404
    answer = town.weigh("plain", 0.5)
    assert answer.status_code == 409
    assert "plain has no canary" in answer.json()["detail"]
    assert town.traffic("plain")["canary"] is None


def test_a_canary_that_cannot_be_told_apart_is_left_out(town: Town) -> None:
    assert town.traffic("nobody")["canary"] is None
    expected = "nobody: its canary is left out: sticky: feature:nobody: expected one of the model's features"
    assert expected in town.served.log()
    assert set(versions(town.ask([town.post("nobody", RECORD)] * 6))) == {"1"}


def test_a_failing_canary_is_taken_back(town: Town) -> None:
    # What a caller does wrong does not count against it.
    wrong = town.ask([town.post("failing", {"size": "x", "customer": 1})] * 20)
    right = town.ask([town.post("failing", RECORD)] * 20)
    assert {answer.status for answer in wrong} == {422}
    assert {(answer.status, answer.headers["x-model-version"]) for answer in right} == {(200, "2")}
    assert town.traffic("failing")["rolled_back"] is None
    bad = town.ask([town.post("failing", {"size": 13, "customer": 1})] * 10)
    assert {answer.status for answer in bad} == {500}
    eventually(lambda: town.traffic("failing")["canary"]["weight"] == 0)
    traffic = town.traffic("failing")
    assert "failed" in traffic["rolled_back"]
    assert "the bound is 5 %" in traffic["rolled_back"]
    assert traffic["stable"]["weight"] == 1
    assert f"failing: its canary 2 is taken back: {traffic['rolled_back']}" in town.served.log()
    assert town.metric("fairlead_rollbacks_total", model="failing") == 1
    good = town.ask([town.post("failing", {"size": 13, "customer": 1})] * 20)
    assert {(answer.status, answer.headers["x-model-version"]) for answer in good} == {(200, "1")}
    # Somebody may give it another try, which is judged anew.
    assert town.weigh("failing", 1.0).json()["rolled_back"] is None
    assert {answer.status for answer in town.ask([town.post("failing", RECORD)] * 20)} == {200}
    town.ask([town.post("failing", {"size": 13, "customer": 1})] * 20)
    eventually(lambda: town.traffic("failing")["canary"]["weight"] == 0)


def test_a_slow_canary_is_taken_back(town: Town) -> None:
    assert {answer.status for answer in town.ask([town.post("slow", RECORD)] * 30)} == {200}
    eventually(lambda: town.traffic("slow")["canary"]["weight"] == 0)
    assert "took longer than 0.05 s" in town.traffic("slow")["rolled_back"]
    answers = town.ask([town.post("slow", RECORD)] * 6)
    assert {answer.headers["x-model-version"] for answer in answers} == {"1"}


def shadowed(town: Town, sizes: Iterable[float]) -> None:
    """Ask, and see that each is answered as it should be."""
    asked = list(sizes)
    answers = town.ask([town.post("shadowed", {"size": size, "customer": 1}) for size in asked])
    for size, answer in zip(asked, answers, strict=True):
        assert (answer.status, answer.headers["x-model-version"]) == (200, "1")
        assert answer.json == {"prediction": {"price": size * 2}}


def test_a_shadow_is_compared_and_fails_no_answer(town: Town) -> None:
    def counts() -> dict[str, float]:
        results = ("equal", "differs", "failed", "dropped")
        return {one: town.metric("fairlead_shadow_rows_total", model="shadowed", result=one) for one in results}

    before = counts()

    def counted(**more: int) -> bool:
        return counts() == {name: count + more.get(name, 0) for name, count in before.items()}

    shadowed(town, [1.0] * 5 + [7.0] * 3 + [-1.0] * 2)
    eventually(lambda: counted(equal=5, differs=3, failed=2))
    # Several rows at once, in another form, and more of them than a shadow is asked.
    forms = dialects(town, "shadowed", 1, 3)
    del forms["infer"]  # an answer that is an object is no tensor
    assert {answer.status for answer in town.ask(forms.values())} == {200}
    many = town.ask([town.post("shadowed", [{"size": 1.0, "customer": 1}] * 300)])
    assert many[0].status == 200
    eventually(lambda: counted(equal=5 + 4 * 3 + 1, differs=3, failed=2, dropped=300))
    # While it hangs, and while it is away, answers come all the same.
    shadowed(town, [-3.0])
    shadowed(town, [1.0] * 20)
    assert counted(equal=18, differs=3, failed=2, dropped=300)
    (town.folder / "release").touch()
    eventually(lambda: counted(equal=39, differs=3, failed=2, dropped=300))
    shadowed(town, [-2.0])
    shadowed(town, [1.0] * 20)
    eventually(lambda: sum(counts().values()) == sum(before.values()) + 39 + 5 + 300 + 21)
    equal = counts()["equal"]

    def is_back() -> bool:
        shadowed(town, [1.0])
        return counts()["equal"] > equal

    eventually(is_back)
    assert town.metric("fairlead_model_processes_died_total", model="shadowed") >= 1


def test_a_shadow_has_a_process_of_its_own_that_goes_last(town: Town) -> None:
    eventually(lambda: len(town.served.models()) == 3)
    niceness = [os.getpriority(os.PRIO_PROCESS, pid) for pid in town.served.models()]
    # That of `shadowed`, and for `twin` two of the same bundle.
    assert sorted(niceness) == [0, 19, 19]
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in town.served.workers()} == {0}
    answers = town.ask([town.post("twin", RECORD)] * 6)
    assert {(answer.status, answer.headers["x-model-version"]) for answer in answers} == {(200, "1")}
    eventually(lambda: town.metric("fairlead_shadow_rows_total", model="twin", result="equal") >= 6)


def test_a_weight_outlives_the_server_but_not_another_configuration(town: Town, tmp_path: Path) -> None:
    config = tmp_path / "fairlead.yaml"
    web = {"api_keys_file": str(town.folder / "keys"), "state_directory": "state"}

    def configure(weight: float) -> None:
        canary = {"source": str(town.folder / "price-2"), "weight": weight}
        models = {"kept": {"source": str(town.folder / "price-1"), "canary": canary}}
        config.write_text(json.dumps({"models": models, "web": web}))

    def start() -> Served:
        return Served(flags=("--config", str(config)))

    configure(0.0)
    with start() as served:
        restarted = Town(served, town.key, town.reader, tmp_path, town.client)
        assert restarted.weigh("kept", 1.0).status_code == 200
    with start() as served:
        restarted = Town(served, town.key, town.reader, tmp_path, town.client)
        assert restarted.traffic("kept")["canary"]["weight"] == 1.0
        assert set(versions(restarted.ask([restarted.post("kept", RECORD)] * 10))) == {"2"}
    configure(0.25)
    with start() as served:
        assert Town(served, town.key, town.reader, tmp_path, town.client).traffic("kept")["canary"]["weight"] == 0.25
