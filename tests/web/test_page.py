"""The page at /, in a real Chromium: what it shows, sends, marks and refuses to run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

import fairlead.web
from browser import FAINT, Browser, Tab
from fairlead.web import page

PHONE = {"width": 390, "height": 844}
TYPED = "new Event('input', {bubbles: true})"
HOSTILE = "<img src=x onerror=window.hacked=1>"


class Site:
    """A server with the page before an app of models, and what a test may change while it runs."""

    def __init__(self, models: Any, prefix: str = "") -> None:
        self.metrics: str | None = ""
        self.key: str | None = None
        self.answers: list[Response] = []
        self.bodies: list[Any] = []
        rest = [Route("/metrics", self._show_metrics), Mount("/", models)]
        routes = [*page.routes(lambda: b'{"service":"fairlead"}'), *rest]
        self._app = Starlette(routes=[Mount(prefix, routes=routes)] if prefix else routes)
        self._server = uvicorn.Server(
            uvicorn.Config(self, port=0, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._prefix = prefix

    def __enter__(self) -> Site:
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.host = f"http://127.0.0.1:{port}"
        self.url = f"{self.host}{self._prefix}/"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app: Any = self._app
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            wanted = f"Bearer {self.key}".encode()
            if (
                scope["path"].endswith(("/predict", "/metrics", "/openapi.json"))
                and self.key
                and headers.get(b"authorization") != wanted
            ):
                app = JSONResponse(problem("expected an API key"), 401, media_type="application/problem+json")
            elif scope["path"].endswith("/predict") and self.answers:
                app = self.answers.pop(0)

        async def receive_and_note() -> Any:
            message = await receive()
            if message.get("body"):
                self.bodies.append(json.loads(message["body"]))
            return message

        async def send_with_version(message: Any) -> None:
            if message["type"] == "http.response.start" and scope["path"].endswith("/predict"):
                kept = [header for header in message["headers"] if header[0] != b"x-model-version"]
                message["headers"] = [*kept, (b"x-model-version", b"7")]
            await send(message)

        await app(scope, receive_and_note, send_with_version)

    async def _show_metrics(self, request: Request) -> Response:
        return PlainTextResponse("none", 404) if self.metrics is None else PlainTextResponse(self.metrics)


def problem(detail: str) -> dict[str, Any]:
    return {"type": "urn:problem-type:fairlead:x", "title": "No", "status": 400, "detail": detail, "errors": []}


def described(models: dict[str, dict[str, Any]], answer: Any = None) -> Starlette:
    """Give an app of models that only an OpenAPI document tells of; all predict the same."""
    schemas: dict[str, Any] = {}
    for name, record in models.items():
        schemas[f"{name}.record"] = {"type": "object", **record}
        schemas[f"{name}.prediction"] = {"type": "object", "properties": {"prediction": {"type": "number"}}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "x", "version": "1", "description": "Predictions served by fairlead 0."},
        "tags": [{"name": name, "description": "Function, version 1, native engine"} for name in models],
        "paths": {f"/models/{name}/predict": {} for name in models},
        "components": {"schemas": schemas},
    }

    async def show(request: Request) -> Response:
        return JSONResponse(document)

    async def predict(request: Request) -> Response:
        await request.body()  # which notes it
        return JSONResponse({"prediction": 1} if answer is None else answer)

    return Starlette(routes=[Route("/openapi.json", show), Route("/models/{name}/predict", predict, methods=["POST"])])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def churn(churn_bundle: Path) -> Iterator[Site]:
    with Site(fairlead.web.asgi(churn_bundle)) as site:
        yield site


@pytest.fixture
def shown(browser: Browser) -> Callable[..., Any]:
    """How to look at a site: a tab that is ready, and that in the end asked no other host and complained of nothing."""

    @contextmanager
    def show(site: Site, allowed: tuple[str, ...] = (), **look: Any) -> Iterator[Tab]:
        with browser.open(site.url + look.pop("fragment", ""), **look) as tab:
            tab.wait("!document.getElementById('service')?.hidden && document.querySelector('#forms form') !== null")
            yield tab
            tab.run("1")
            assert {url for url in tab.requests if not url.startswith((site.host, "about:", "data:"))} == set()
            assert [one for one in tab.complaints if not any(code in one for code in allowed)] == []

    return show


def field(name: str) -> str:
    """Give the expression for the control whose label starts with a feature's name."""
    label = f"[...document.querySelectorAll('.field .name')].find(e => e.textContent === {json.dumps(name)})"
    return f"document.getElementById({label}.parentNode.htmlFor)"


def predict(tab: Tab) -> None:
    tab.run("document.querySelector('#result .outcome')?.remove()")
    tab.click("form .primary[type=submit]:not(#key *)")
    tab.wait("document.querySelector('#result .outcome') !== null")


def set_value(tab: Tab, name: str, value: str) -> None:
    tab.run(f"{{const c = {field(name)}; c.value = {json.dumps(value)}; c.dispatchEvent({TYPED})}}")


def test_the_form_holds_the_example_and_predicts_what_the_api_does(churn: Site, shown: Any, tmp_path: Path) -> None:
    document = httpx.get(churn.url + "openapi.json").json()
    example = document["components"]["schemas"]["churn.record"]["examples"][0]
    expected = httpx.post(churn.url + "models/churn/predict", json=example).json()
    with shown(churn) as tab:
        assert tab.run("document.title") == "churn · fairlead"
        assert "version 1" in tab.text("#facts")
        for name, value in example.items():
            assert tab.run(f"{field(name)}.value") == ("" if value is None else str(value))
        assert tab.run(f"{field('tenure')}.type") == "number"
        assert "Seen 0 to 72" in tab.run(f"{field('tenure')}.closest('.field').innerText")
        assert "months" in tab.run(f"{field('tenure')}.labels[0].innerText")
        assert tab.run(f"[...{field('contract')}.list.options].map(o => o.value)") == ["monthly", "yearly"]

        predict(tab)
        assert churn.bodies[-1] == example
        titles = tab.run(
            "Object.fromEntries([...document.querySelectorAll('.outputs > div')].map("
            "e => [e.querySelector('dt').innerText, e.querySelector('dd').title]))"
        )
        assert int(titles["prediction"]) == expected["prediction"]
        assert float(titles["churn_probability"]) == expected["churn_probability"]
        assert titles["churn"] == json.dumps(expected["churn"])
        bars = tab.run(
            "Object.fromEntries([...document.querySelectorAll('.bars li')].map("
            "e => [e.querySelector('.label').innerText, Number(e.title)]))"
        )
        assert bars == expected["probabilities"]
        assert "version 7" in tab.text(".outcome")
        assert " ms" in tab.text(".outcome")
        assert json.loads(tab.run("document.querySelector('#raw pre').textContent")) == expected
        assert tab.run("document.getElementById('result').getAttribute('aria-live')") == "polite"
        tab.screenshot(tmp_path / "desktop.png")


def test_nullable_and_default_fields_may_be_empty(churn: Site, shown: Any) -> None:
    with shown(churn) as tab:
        set_value(tab, "charges", "")
        set_value(tab, "tenure", "5")
        tab.run(f"{field('contract')}.focus()")
        tab.press("Enter")
        tab.wait("document.querySelector('#result .outcome') !== null")
        assert churn.bodies[-1] == {"tenure": 5, "charges": None, "contract": "yearly"} | {
            "contract": tab.run(f"{field('contract')}.value")
        }
        assert "*" in tab.run(f"{field('tenure')}.labels[0].innerText")
        assert "*" not in tab.run(f"{field('charges')}.labels[0].innerText")


def test_a_refused_value_marks_its_field_until_it_is_mended(churn: Site, shown: Any, tmp_path: Path) -> None:
    with shown(churn, allowed=("422",)) as tab:
        set_value(tab, "tenure", "1.5")
        predict(tab)
        assert tab.run(f"{field('tenure')}.getAttribute('aria-invalid')") == "true"
        error = tab.run(f"document.getElementById({field('tenure')}.id + '-error').innerText")
        assert error.startswith("Expected an integer, got ")
        assert tab.run(f"{field('tenure')}.getAttribute('aria-describedby').includes('-error')")
        assert tab.run(f"document.activeElement === {field('tenure')}")
        assert "422" in tab.text(".outcome")
        assert tab.run("document.querySelectorAll('[aria-invalid]').length") == 1
        tab.screenshot(tmp_path / "invalid.png")
        set_value(tab, "tenure", "2")
        assert tab.run("document.querySelectorAll('[aria-invalid]').length") == 0


def test_an_empty_required_field_and_text_that_is_no_number(churn: Site, shown: Any) -> None:
    with shown(churn, allowed=("422",)) as tab:
        set_value(tab, "contract", "")
        set_value(tab, "tenure", "")
        predict(tab)
        assert churn.bodies[-1].keys() == {"charges"}
        assert tab.run("document.querySelectorAll('[aria-invalid]').length") == 2
        before = len(churn.bodies)
        tab.run(f"{field('tenure')}.focus()")
        tab.send("Input.insertText", text="1e")
        tab.press("Enter")
        tab.wait("document.getElementById('result').innerText.includes('nothing was sent')")
        assert len(churn.bodies) == before


def test_every_type_has_its_control_and_arrives_as_that_type(shown: Any, tmp_path: Path) -> None:
    properties = {
        "big": {"type": "integer"},
        "monthly charges": {
            "type": ["number", "null"],
            "description": "What is paid. Unit: EUR. Seen in training: from 1 to 9.",
        },
        "town": {"type": "string", "enum": ["", "Delft", "it's"]},
        "code": {"type": ["integer", "null"], "enum": [1, 2, None]},
        "open": {"type": "string", "x-categories": [f"c{i}" for i in range(30)]},
        "active": {"type": "boolean"},
        "married": {"type": ["boolean", "null"]},
        "at": {"type": "string", "format": "date-time"},
        "never": {"type": ["string", "null"], "format": "date-time"},
        "note": {"type": "string", "default": "none"},
    }
    example = {
        "big": 9007199254740993, "monthly charges": 2.5, "town": "it's", "code": None, "open": "c3", "active": True,
        "married": False, "at": "2026-03-01T13:00:00+01:00", "never": None, "note": "",
    }  # fmt: skip
    required = [name for name in properties if name != "note"]
    app = described({"all": {"properties": properties, "required": required, "examples": [example]}})
    with Site(app) as site, shown(site, allowed=("503", "422", "429")) as tab:
        kinds = {name: tab.run(f"{field(name)}.type") for name in properties}
        assert kinds == {
            "big": "number", "monthly charges": "number", "town": "select-one", "code": "select-one", "open": "text",
            "active": "checkbox", "married": "select-one", "at": "datetime-local", "never": "datetime-local",
            "note": "text",
        }  # fmt: skip
        predict(tab)
        assert site.bodies[-1] == {
            **{k: v for k, v in example.items() if k != "note"}, "at": "2026-03-01T12:00:00Z"
        }  # fmt: skip
        curl = tab.run("document.querySelector('#curl pre').textContent")
        assert '"town": "it\'\\\'\'s"' in curl
        assert "9007199254740993" in curl
        assert curl.startswith(f"curl '{site.url}models/all/predict'")
        schema = tab.text("#schema")
        assert "What is paid" in schema
        assert "EUR" in schema
        assert "1 to 9" in schema

        headers = {"Retry-After": "3"}
        site.answers = [JSONResponse(problem("the queue is full"), status, headers) for status in (503, 429)]
        predict(tab)
        assert "Try again in 3 seconds" in tab.text("#result")
        predict(tab)
        assert "429" in tab.text("#result")
        errors = [{"path": '$["monthly charges"]', "expected": "a number", "got": "null"},
                  {"path": "$.elsewhere", "expected": "nothing", "got": HOSTILE}]  # fmt: skip
        site.answers = [JSONResponse({**problem("2 problems in the record"), "errors": errors}, 422)]
        predict(tab)
        assert tab.run(f"{field('monthly charges')}.getAttribute('aria-invalid')") == "true"
        assert HOSTILE in tab.text("#result")
        tab.screenshot(tmp_path / "types.png")


def test_names_and_descriptions_are_text_whatever_they_hold(shown: Any) -> None:
    feature = {"type": "string", "x-categories": [HOSTILE, "</option>"], "description": HOSTILE + "."}
    record = {"properties": {HOSTILE: feature}, "required": [HOSTILE], "examples": [{HOSTILE: HOSTILE}]}
    answer = {HOSTILE: HOSTILE, "nested": {HOSTILE: [1]}, "probabilities": {HOSTILE: 0.25, "b": 0.75}}
    with Site(described({"m": record}, answer)) as site, shown(site) as tab:
        predict(tab)
        assert site.bodies[-1] == {HOSTILE: HOSTILE}
        assert tab.run(f"{field(HOSTILE)}.value") == HOSTILE
        for part in ("#result", "#schema", "#forms"):
            assert HOSTILE in tab.text(part)
        assert tab.run("document.querySelectorAll('main img').length") == 0
        assert tab.run("window.hacked === undefined")
        # The policy itself stands behind it.
        refused = "(() => { try { document.body.innerHTML = '<b></b>'; return false } catch { return true } })()"
        assert tab.run(refused)
        tab.complaints.clear()


def test_many_models_are_filtered_and_linked_to(shown: Any, tmp_path: Path) -> None:
    record = {"properties": {"x": {"type": "number"}}, "required": ["x"], "examples": [{"x": 1}]}
    names = [f"model-{i:02}" for i in range(30)]
    with Site(described(dict.fromkeys(names, record))) as site, shown(site, fragment="#model-07", **PHONE) as tab:
        assert tab.text("h1") == "model-07"
        tab.fill("#filter input", "-2")
        assert tab.run("[...document.querySelectorAll('#picker a')].filter(e => !e.hidden).length") == 10
        tab.click("#picker a[href='#model-21']")
        tab.wait("document.querySelector('h1').innerText === 'model-21'")
        assert tab.text("#picker [aria-current]") == "model-21"
        set_value(tab, "x", "5")
        predict(tab)
        assert tab.requests[-1].endswith("models/model-21/predict") or "metrics" in tab.requests[-1]
        tab.run("history.back()")
        tab.wait("document.querySelector('h1').innerText === 'model-07'")
        assert not tab.is_wider_than_seen()
        tab.screenshot(tmp_path / "models.png", whole=False)


def test_a_feature_is_found_among_many(shown: Any) -> None:
    properties = {f"feature_{i}": {"type": "number"} for i in range(60)}
    record = {"properties": properties, "required": list(properties), "examples": [dict.fromkeys(properties, 1)]}
    with Site(described({"wide": record})) as site, shown(site, allowed=("422",)) as tab:
        seen = "[...document.querySelectorAll('.field')].filter(e => e.checkVisibility()).length"
        assert tab.run(seen) == 60
        tab.fill("#find input", "feature_4")
        assert tab.run(seen) == 11
        # What is not seen is sent all the same, and seen again when it is refused.
        errors = [{"path": "$.feature_7", "expected": "a number", "got": "null"}]
        site.answers = [JSONResponse({**problem("1 problem in the record"), "errors": errors}, 422)]
        predict(tab)
        assert tab.run(seen) == 12
        predict(tab)
        assert len(site.bodies[-1]) == 60


def test_a_key_is_asked_for_kept_and_sent(churn: Site, browser: Browser, tmp_path: Path) -> None:
    churn.key = "s3cret"
    with browser.open(churn.url) as tab:
        tab.wait("document.getElementById('key')?.hidden === false")
        assert tab.run("document.activeElement.id") == "key-value"
        tab.fill("#key-value", "wrong")
        tab.press("Enter")
        tab.wait("document.getElementById('key-error').innerText.includes('did not take this key')")
        tab.fill("#key-value", "s3cret")
        tab.press("Enter")
        tab.wait("document.querySelector('#forms form') !== null && document.getElementById('key').hidden")
        predict(tab)
        assert "200" in tab.text(".outcome")
        curl = tab.run("document.querySelector('#curl pre').textContent")
        assert "$API_KEY" in curl
        assert "s3cret" not in curl
        assert tab.run("localStorage.length + document.cookie.length") == 0

        churn.key = "another"
        predict(tab)
        assert "401" in tab.text(".outcome")
        tab.wait("document.getElementById('live-note').innerText.includes('need an API key')")
        tab.screenshot(tmp_path / "key.png", whole=False)
        tab.fill("#key-value", "another")
        tab.press("Enter")
        tab.wait("document.getElementById('key').hidden && !document.getElementById('tiles').hidden")
        predict(tab)
        assert "200" in tab.text(".outcome")
        assert [one for one in tab.complaints if "401" not in one] == []


def metrics_after(requests: int, errors: int) -> str:
    """Give the text of a server that answered so many requests of the model, a tenth of them slow, and others."""
    model = 'model="churn",version="1"'
    route = f'route="/models/{{name}}/predict",{model}'
    fast = requests * 9 // 10
    return f"""# HELP fairlead_requests_total Requests.
# TYPE fairlead_requests_total counter
fairlead_requests_total{{{route},code="200"}} {requests - errors}
fairlead_requests_total{{{route},code="503"}} {errors}
fairlead_requests_total{{route="/metrics",model="",version="",code="200"}} 1e6
fairlead_request_duration_seconds_bucket{{{route},le="0.001"}} 0
fairlead_request_duration_seconds_bucket{{{route},le="0.002"}} {fast}
fairlead_request_duration_seconds_bucket{{{route},le="0.1"}} {requests}
fairlead_request_duration_seconds_bucket{{{route},le="+Inf"}} {requests}
fairlead_request_duration_seconds_sum{{{route}}} 1.5
fairlead_request_duration_seconds_count{{{route}}} {requests}
fairlead_rows_total{{{model}}} {requests * 3}
fairlead_batch_rows_sum{{{model}}} {requests * 3}
fairlead_batch_rows_count{{{model}}} {requests // 2}
fairlead_queue_rows{{{model}}} 12
fairlead_rows_total{{model="with \\"quotes\\"",version="1"}} 5
fairlead_in_flight_requests 4
"""


def test_live_figures_are_differences_of_the_metrics(churn: Site, shown: Any) -> None:
    churn.metrics = metrics_after(1000, 10)
    with shown(churn) as tab:
        tab.wait("document.getElementById('live-note').innerText.includes('Last 10 s')")
        assert tab.text("#tiles .value") == "–"
        churn.metrics = metrics_after(1400, 30)
        tiles = "Object.fromEntries([...document.querySelectorAll('.tile')].map(e => [e.querySelector('dt').innerText, [e.querySelector('.value').innerText, e.querySelector('.more').innerText]]))"  # noqa: E501
        tab.wait("document.querySelector('#tiles .value').innerText !== '–'")
        shown_now = tab.run(tiles)
        # 400 requests in about 2 s.
        assert 150 <= float(shown_now["Requests / s"][0]) <= 205
        assert 450 <= float(shown_now["Rows / s"][0]) <= 615
        assert shown_now["Latency p50"] == ["1.6 ms", "p99 90 ms"]
        assert 7 <= float(shown_now["Errors / s"][0]) <= 10.3
        assert shown_now["Errors / s"][1].startswith("503: ")
        assert shown_now["Queued rows"] == ["12", "4 in flight"]
        assert shown_now["Rows a batch"][0] == "6"
        assert tab.run("document.querySelectorAll('.tile path.line')[0].getAttribute('d')").startswith("M")
        # A restarted server counts from nothing: no rate is better than a wrong one.
        churn.metrics = metrics_after(10, 0)
        tab.wait("document.querySelector('#tiles .value').innerText === '–'")


def test_metrics_that_are_not_there_are_said_so_once(churn: Site, shown: Any) -> None:
    churn.metrics = None
    with shown(churn, allowed=("404",)) as tab:
        tab.wait("document.getElementById('live-note').innerText === 'This server offers no metrics.'")
        assert tab.run("document.getElementById('metrics').hidden")
        time.sleep(2.5)
        tab.run("1")
        assert sum(url.endswith("/metrics") for url in tab.requests) == 1


def test_quantiles_are_those_of_prometheus(churn: Site, shown: Any) -> None:
    with shown(churn) as tab:
        run = "import('./static/prometheus.js').then(m => {})"
        assert tab.run(run.format("m.quantile(0.5, [[1, 0], [2, 10], [Infinity, 10]])")) == 1.5
        assert tab.run(run.format("m.quantile(0.99, [[1, 1], [Infinity, 10]])")) == 1
        assert tab.run(run.format("m.quantile(0.5, [[1, 0], [Infinity, 0]])")) is None
        labels = tab.run(run.format(r"""[...m.samples('a{b="x\\"}\\n",c="y,z"} 1.5e3 1700\n# no\nd +Inf')]"""))
        assert labels[0] == {"name": "a", "labels": {"b": 'x"}\n', "c": "y,z"}, "value": 1500}
        assert labels[1]["name"] == "d"


def test_it_works_behind_a_path_prefix(churn_bundle: Path, shown: Any) -> None:
    with Site(fairlead.web.asgi(churn_bundle), "/scoring") as site, shown(site) as tab:
        predict(tab)
        assert "200" in tab.text(".outcome")
        assert {url for url in tab.requests if not url.startswith((site.url, "about:"))} == set()
        assert "/scoring/models/churn/predict" in tab.run("document.querySelector('#curl pre').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE, {"width": 320, "height": 640}])
def test_it_fits_and_can_be_read(churn: Site, shown: Any, tmp_path: Path, scheme: str, size: Any) -> None:
    with shown(churn, allowed=("422",), scheme=scheme, **size) as tab:
        dark = tab.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 100")
        assert dark == (scheme == "dark")
        assert not tab.is_wider_than_seen()
        predict(tab)
        tab.run("document.querySelectorAll('details').forEach(e => e.open = true)")
        assert not tab.is_wider_than_seen()
        assert tab.run(FAINT) == []
        tab.screenshot(tmp_path / f"{size['width']}-{scheme}.png")
        set_value(tab, "tenure", "1.5")
        predict(tab)
        assert tab.run(FAINT) == []
        assert not tab.is_wider_than_seen()


def test_every_control_has_a_name_and_the_keyboard_reaches_it(churn: Site, shown: Any) -> None:
    with shown(churn) as tab:
        nameless = """[...document.querySelectorAll('input, select, button, a, [role=region], [role=group]')]
          .filter(e => e.checkVisibility() && !e.labels?.length && !e.getAttribute('aria-label') &&
          !e.innerText.trim()).map(e => e.outerHTML)"""
        assert tab.run(nameless) == []
        reached = []
        for _ in range(12):
            tab.press("Tab")
            reached.append(tab.run("document.activeElement.labels?.[0]?.innerText ?? document.activeElement.innerText"))
        assert reached[0] == "Skip to the form"
        assert any(str(one).startswith("tenure") for one in reached)
        assert "Predict" in reached


def test_headers_let_nothing_else_in() -> None:
    with Site(described({})) as site:
        addresses = ["", *(f"static/{path.name}" for path in page.FOLDER.iterdir() if path.name != page.PAGE)]
        assert len(addresses) > 3
        for address in addresses:
            answer = httpx.get(site.url + address, headers={"accept": "text/html"})
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
            assert "unsafe" not in policy
            again = httpx.get(
                site.url + address, headers={"accept": "text/html", "if-none-match": answer.headers["etag"]}
            )
            assert (again.status_code, again.content) == (304, b"")
        assert httpx.get(site.url).json() == {"service": "fairlead"}
        assert httpx.head(site.url).status_code == 200


def test_no_file_names_another_host() -> None:
    for path in page.FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML =" not in text
