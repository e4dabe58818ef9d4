"""The ASGI app: predictions by exact path, everything else by Starlette behind them.

`App` answers nothing itself. The path decides between an `Endpoint` and the Starlette app that holds the
probes, the description of the service, its page and its metrics; the `Gate` is in front of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead import __version__
from fairlead.config import ModelSettings
from fairlead.errors import ServeError
from fairlead.web import asgi_calls, docs, inference_v2, models, openapi, page, probes, wire
from fairlead.web.asgi_calls import Message, Receive, Scope, Send
from fairlead.web.calls import Call
from fairlead.web.control import Action
from fairlead.web.dialects.infer import Infer
from fairlead.web.dialects.instances import Instances
from fairlead.web.dialects.invocations import Invocations
from fairlead.web.dialects.predict import Body, Query
from fairlead.web.endpoint import Endpoint
from fairlead.web.gate import SAFE, Gate
from fairlead.web.models import Listing, Model, check_names, predict_path
from fairlead.web.problems import Refusal, failure

# What tells of the process and not of the models: probes have no key, and a browser gets to the page without one.
_OPEN = frozenset({"/", "/docs", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"})
_OPEN_UNDER = ("/docs/", "/static/")
_ADMIN_UNDER = ("/v2/repository/models/",)
_EXPOSED = ("x-request-id", "x-model-version", "retry-after", "inference-header-content-length")
# Clients of these look for what is wrong under `error`.
_WITH_ERROR = ("/v1/", "/v2/")
# How often a model that is taken out of service is looked at, whether its last request is answered.
_LOOK_S = 0.01


class App:
    """An ASGI app that serves models by name.

    Parameters
    ----------
    models : at least one, names unique.
    gate : admits requests and records them.

    Attributes
    ----------
    endpoints : of predictions, by path as it stands in the request line.
    models : that are loaded, by name.
    listings : of all models that there are, loaded or not.
    reasons : why a model is not loaded, by name.
    open_model : verifies and loads a model anew, in a thread.
    broadcast : has other processes of this server ``load`` or ``unload`` a model too.
    on_start : called by `start`.

    Raises
    ------
    ServeError
        When two models have one name.
    """

    def __init__(self, models: Sequence[Model], gate: Gate) -> None:
        check_names([model.name for model in models])
        self.gate = gate
        self.models = {model.name: model for model in models}
        self.listings = {model.name: model.listing for model in models}
        self.reasons: dict[str, str] = {}
        self.open_model: Callable[[Listing], Model] = self._open
        self.broadcast: Callable[[Action, str], Awaitable[None]] | None = None
        self.on_start: list[Callable[[], None]] = []
        self._changes = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self.endpoints: dict[bytes, Endpoint] = {}
        self._root = gate.settings.root_path.rstrip("/")
        for model in models:
            model.observe(gate.metrics, gate.tracer)
        self._publish()
        self._outer: Any = self._serve
        if gate.settings.cors_origins:
            self._outer = CORSMiddleware(
                self._serve,
                allow_origins=gate.settings.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("*",),
                expose_headers=_EXPOSED,
                max_age=3600,
            )

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered now."""
        return bool(self.models) and not self.gate.is_draining and all(m.is_ready for m in self.models.values())

    def check_ready(self, model: Model | None = None) -> None:
        """Refuse with ``not_ready`` unless requests are answered now, those for one model or all."""
        if self.gate.is_draining:
            why = "the server is shutting down"
        elif not self.models:
            why = "no model is loaded"
        elif not (self.is_ready if model is None else model.is_ready):
            why = "a model does not answer"
        else:
            return
        raise Refusal("not_ready", why, headers=[(b"retry-after", b"1")])

    def find(self, name: str) -> Model:
        """Give a loaded model.

        Raises
        ------
        Refusal
            ``not_found``.
        """
        if name in self.models:
            return self.models[name]
        if name in self.listings:
            raise Refusal("not_found", f"{name} is not loaded: {self.reasons[name]}")
        raise Refusal("not_found", f"there is no such model: there are {', '.join(self.listings)}")

    async def load(self, name: str) -> None:
        """Load a model from its bundle as it is now, in all workers; raises what `load_here` does."""
        await self.load_here(name)
        # Not within the lock: another worker may be waiting for this one to do the same.
        if self.broadcast is not None:
            await self.broadcast("load", name)

    async def unload(self, name: str) -> None:
        """Take a model out of service, in all workers; raises what `unload_here` does."""
        await self.unload_here(name)
        if self.broadcast is not None:
            await self.broadcast("unload", name)

    async def act(self, action: Action, name: str) -> None:
        """Do what another worker has done already."""
        if action == "load":
            await self.load_here(name)
        elif name in self.models:
            await self.unload_here(name)

    async def load_here(self, name: str) -> None:
        """Load a model from its bundle as it is now; until that has worked the one that is loaded goes on.

        Raises
        ------
        Refusal
            ``not_found``.
        FairleadError
            When the bundle cannot be served; the model that was loaded stays.
        """
        async with self._changes:
            if name not in self.listings:
                self.find(name)
            model = await asyncio.to_thread(self.open_model, self.listings[name])
            if model.name != name:
                raise ServeError(f"its bundle holds a model named {model.name} by now")
            model.observe(self.gate.metrics, self.gate.tracer)
            model.batcher.runner.start()
            before = self.models.get(name)
            self.listings[name] = model.listing
            self.reasons.pop(name, None)
            loaded = {**self.models, name: model}
            self.models = {key: loaded[key] for key in self.listings if key in loaded}
            self._publish()
            if before is not None:
                task = asyncio.get_running_loop().create_task(self._retire(before))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    async def unload_here(self, name: str) -> None:
        """Take a model out of service, and return when its last request is answered.

        Raises
        ------
        Refusal
            ``not_found`` for a model that is not loaded.
        """
        async with self._changes:
            model = self.find(name)
            self.models = {key: value for key, value in self.models.items() if key != name}
            self.reasons[name] = "it was unloaded"
            self._publish()
            await self._retire(model)

    async def _retire(self, model: Model) -> None:
        """Wait for a model's last answer, which has a deadline, and let go of its engine."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.gate.settings.timeout_s
        try:
            while not model.batcher.is_idle and loop.time() < end_s:
                await asyncio.sleep(_LOOK_S)
        finally:
            model.batcher.close()
            if self.gate.metrics is not None:
                one = model.listing
                self.gate.metrics.model_gone(one.name, one.version, one.engine, one.digest)
                if model.name in self.models:  # the same bundle may have been loaded again meanwhile
                    self.models[model.name].observe(self.gate.metrics, self.gate.tracer)

    def _open(self, listing: Listing) -> Model:
        return models.load(ModelSettings(str(listing.path), name=listing.name), self.gate.settings.max_queue_rows)

    def _publish(self) -> None:
        """Serve the models that are loaded now, in one step."""
        self._route()
        self._rest = Starlette(routes=self._routes(), exception_handlers=self._handlers())

    def start(self) -> None:
        """Begin, on the event loop, what a model needs besides requests."""
        for model in self.models.values():
            model.batcher.runner.start()
        for begin in self.on_start:
            begin()

    def tell_metrics(self) -> None:
        """Bring up to date what is not counted request by request; cheap enough for every second."""
        metrics = self.gate.metrics
        if metrics is not None:
            metrics.in_flight(self.gate.in_flight)
            for model in self.models.values():
                model.tell(metrics)

    def drain(self) -> None:
        """Tell load balancers, through ``/readyz``, to send no more, and clients to connect anew."""
        self.gate.is_draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI says."""
        if scope["type"] == "http":
            await self._outer(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._bare_path(scope)
        endpoint = self.endpoints.get(path.encode())
        if endpoint is None:
            await self._serve_rest(scope, path, receive, send)
            return
        await asgi_calls.serve(endpoint, self.gate, scope, path, receive, send)

    async def _serve_rest(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        """Let Starlette answer, and see to headers, keys and the record."""
        call = asgi_calls.AsgiCall(scope, path, b"")
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = list(message.get("headers", []))
                names = {name for name, _ in given}
                missing = [header for header in SAFE if header[0] not in names]
                message["headers"] = [*given, *missing, *self.gate.call_headers(call)]
            await send(message)

        inner = {**scope, "root_path": self._root, "path": self._root + path, "fairlead.call": call}
        try:
            if path in _OPEN or path.startswith(_OPEN_UNDER):
                self.gate.identify(call)
            else:
                is_admin = call.method == "POST" and path.startswith(_ADMIN_UNDER)
                self.gate.admit(call, is_admin, is_counted=False)
        except Refusal as refusal:
            await _refused(Request(inner), refusal)(inner, receive, send_with_headers)
        else:
            await self._rest(inner, receive, send_with_headers)
        self.gate.record(call, "other", None, status, 0)

    def _bare_path(self, scope: Scope) -> str:
        """Give the path without the prefix, which a proxy may or may not have taken off."""
        path: str = scope["path"]
        for root in (scope.get("root_path", ""), self._root):
            if root and path.startswith(root + "/"):
                return path[len(root) :]
        return path

    def _route(self) -> None:
        """Put every model's paths into `endpoints`, in place, because connections hold on to it."""
        self.endpoints.clear()
        for model in self.models.values():
            for path, endpoint in self._endpoints(model).items():
                self.endpoints[path.encode()] = endpoint
                self.endpoints[(self._root + path).encode()] = endpoint

    def _endpoints(self, model: Model) -> dict[str, Endpoint]:
        name, manifest, gate = model.name, model.intake.manifest, self.gate
        predict = Endpoint(model, (Body(gate.settings.max_body_bytes), Query()), gate)
        infer = Endpoint(model, (Infer(manifest),), gate)
        invocations = Endpoint(model, (Invocations(manifest.schema),), gate)
        found = {
            predict_path(name): predict,
            f"/models/{name}/invocations": invocations,
            f"/v1/models/{name}:predict": Endpoint(model, (Instances(manifest.schema),), gate),
            f"/v2/models/{name}/infer": infer,
            f"/v2/models/{name}/versions/{model.version}/infer": infer,
        }
        # Not `models`: a path must not come to mean another model because one was unloaded.
        return found | {"/predict": predict, "/invocations": invocations} if len(self.listings) == 1 else found

    def _routes(self) -> list[Route]:
        """Make the routes of everything that is not a prediction; answers that never change are written once, here."""
        models = list(self.models.values())
        described = [openapi.Described(m.intake.manifest, m.intake.digest, m.example) for m in models]
        document = openapi.document(described, self.gate.keys is not None, self._root, len(self.listings) == 1)
        description = wire.encode(document)
        index = wire.encode(
            {
                "service": "fairlead",
                "fairlead_version": __version__,
                "models": [{"name": m.name, "version": m.version, "predict": predict_path(m.name)} for m in models],
                "docs": "/docs",
                "openapi": "/openapi.json",
            }
        )

        async def livez(request: Request) -> Response:
            return Response(b'{"status":"live"}', media_type="application/json")

        async def readyz(request: Request) -> Response:
            self.check_ready()
            return Response(b'{"status":"ready"}', media_type="application/json")

        async def show_openapi(request: Request) -> Response:
            return Response(description, media_type="application/json")

        async def metrics(request: Request) -> Response:
            if self.gate.metrics is None:
                raise HTTPException(404)
            self.tell_metrics()
            body, media_type = await run_in_threadpool(self.gate.metrics.render, request.headers.get("accept", ""))
            return Response(body, headers={"content-type": media_type})

        routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/openapi.json", show_openapi)]
        routes += [*page.routes(index), Route("/metrics", metrics)]
        routes += [*inference_v2.routes(self), *probes.routes(self)]
        return [*routes, *docs.routes(" · ".join(self.models))]

    def _handlers(self) -> dict[Any, Any]:
        def raised(request: Request, error: HTTPException) -> Response:
            if error.status_code == 405:
                # Starlette has them in a set.
                allow = ", ".join(sorted((error.headers or {}).get("Allow", "GET, HEAD").split(", ")))
                headers = [(b"allow", allow.encode())]
                return _refused(request, Refusal("method_not_allowed", f"expected {allow}", headers=headers))
            parts = request.scope["path"].removeprefix(self._root).replace(":", "/").split("/")
            for name in self.reasons:
                if name in parts:
                    return _refused(request, Refusal("not_found", f"{name} is not loaded: {self.reasons[name]}"))
            names = list(self.models)
            shown = ", ".join(map(predict_path, names[:20])) + (" and more" if len(names) > 20 else "")
            nowhere = f"nothing is at this path: predictions are at {shown}, and /openapi.json tells all paths"
            return _refused(request, Refusal("not_found", nowhere))

        def failed(request: Request, error: Exception) -> Response:
            call: Call = request.scope["fairlead.call"]
            return _refused(request, failure(error, call.request_id.decode()))

        return {HTTPException: raised, Refusal: _refused, Exception: failed}


def _refused(request: Request, refusal: Refusal) -> Response:
    headers = {name.decode(): value.decode() for name, value in refusal.headers}
    path: str = request.scope["fairlead.call"].path
    body = refusal.body_with_error() if (path + "/").startswith(_WITH_ERROR) else refusal.body
    return Response(body, refusal.status, headers, "application/problem+json")
