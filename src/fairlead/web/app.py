"""The ASGI app: predictions by exact path, everything else by Starlette behind them.

`App` answers nothing itself. The path decides between an `Endpoint` and the Starlette app that holds the
probes, the description of the service, its page and its metrics; the `Gate` is in front of both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead import __version__
from fairlead.repository.deployments import ROLES
from fairlead.repository.threads import in_thread
from fairlead.web import admin, asgi_calls, docs, inference_v2, openapi, page, probes, wire
from fairlead.web.asgi_calls import Message, Receive, Scope, Send
from fairlead.web.calls import Call, Handler
from fairlead.web.dialects.infer import Infer
from fairlead.web.dialects.instances import Instances
from fairlead.web.dialects.invocations import Invocations
from fairlead.web.dialects.predict import Body, Query
from fairlead.web.endpoint import Endpoint
from fairlead.web.file_jobs import routes as file_jobs
from fairlead.web.gate import SAFE, Gate
from fairlead.web.models import Entry, Loader, Model, predict_path
from fairlead.web.problems import Refusal, failure
from fairlead.web.served import Served, not_loaded
from fairlead.web.shadow import Shadow
from fairlead.web.split import Reporter, parted

if TYPE_CHECKING:
    from fairlead.config import JobsSettings
    from fairlead.repository.control import Control
    from fairlead.repository.deployments import Deployment
    from fairlead.repository.rollback import Counts

# What tells of the process and not of the models: probes have no key, and a browser gets to the page without one.
_OPEN = frozenset({"/", "/docs", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready"})
_OPEN_UNDER = ("/docs/", "/static/")
_EXPOSED = ("x-request-id", "x-model-version", "retry-after", "inference-header-content-length")
# Clients of these look for what is wrong under `error`.
_WITH_ERROR = ("/v1/", "/v2/")


class App:
    """An ASGI app that serves models by name.

    Parameters
    ----------
    entries : at least one, names unique.
    gate : admits requests and records them.
    loader : loads other bundles; one for this process alone is made where it is left out.
    jobs : of files, as `fairlead.web.file_jobs.keeper.settled` gives it; None where there are none.

    Attributes
    ----------
    served : the models.
    endpoints : of predictions, by path as it stands in the request line.
    control : changes what is served, for this process or all; without it nothing changes.
    on_start : called by `start`.

    Raises
    ------
    ServeError
        When two models have one name.
    """

    def __init__(
        self, entries: Sequence[Entry], gate: Gate, loader: Loader | None = None, jobs: JobsSettings | None = None
    ) -> None:
        settings = gate.settings
        self.gate = gate
        loader = loader or Loader(settings.max_queue_rows)
        budget_bytes = settings.memory_budget_bytes and settings.memory_budget_bytes // settings.workers
        self.served = Served(entries, loader, settings.timeout_s, gate.metrics, gate.tracer, budget_bytes)
        self.served.on_change = self._publish
        self.control: Control | None = None
        self.on_start: list[Callable[[], None]] = []
        self.endpoints: dict[bytes, Handler] = {}
        self._reporters: dict[str, Reporter] = {}
        self._paths: dict[str, list[bytes]] = {}
        self._description: tuple[list[str], bytes] | None = None
        self._describing = asyncio.Lock()
        self._root = settings.root_path.rstrip("/")
        self._jobs = jobs
        for name in self.served.entries:
            self._publish(name)
        self._rest = Starlette(routes=self._routes(), exception_handlers=self._handlers())
        self._outer: Any = self._serve
        if settings.cors_origins:
            self._outer = CORSMiddleware(
                self._serve,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("*",),
                expose_headers=_EXPOSED,
                max_age=3600,
            )

    def check_ready(self, model: Model | None = None) -> None:
        """Refuse with ``not_ready`` unless requests are answered now, those for one model or all."""
        why = "the server is shutting down" if self.gate.is_draining else None
        if why is None and model is None:
            why = self.served.why_not_ready()
        elif why is None and model is not None and not model.is_ready:
            why = "a model does not answer"
        if why is not None:
            raise Refusal("not_ready", why, headers=[(b"retry-after", b"1")])

    def start(self) -> None:
        """Begin, on the event loop, what a model needs besides requests."""
        self.served.start()
        for begin in self.on_start:
            begin()

    def tell_metrics(self) -> None:
        """Bring up to date what is not counted request by request; cheap enough for every second."""
        metrics = self.gate.metrics
        if metrics is not None:
            metrics.in_flight(self.gate.in_flight)
            self.served.tell_metrics(metrics)

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
        key = path.encode()
        endpoint = self.endpoints.get(key)
        if endpoint is None:
            await self._serve_rest(scope, path, receive, send)
            return
        # While a body comes, another version may.
        await asgi_calls.serve(lambda: self.endpoints.get(key, endpoint), self.gate, scope, path, receive, send)

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
                self.gate.admit(call, admin.needs_admin(call.method, path), is_counted=False)
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

    def _publish(self, name: str) -> None:
        """Serve what there is under a name now, in one step."""
        found: dict[bytes, Handler] = {}
        for path, endpoint in self._endpoints(self.served.entries[name]).items():
            found[path.encode()] = endpoint
            found[(self._root + path).encode()] = endpoint
        for former in self._paths.get(name, ()):
            if former not in found:
                del self.endpoints[former]
        self.endpoints.update(found)
        self._paths[name] = list(found)

    def _endpoints(self, entry: Entry) -> dict[str, Handler]:
        """Make the endpoints of a name, by path."""
        if (reporter := self._reporters.pop(entry.deployment.name, None)) is not None:
            reporter.close()
        stable, canary, shadow = (entry.models.get(role) for role in ROLES)
        if stable is None:
            return {}
        endpoints = self._endpoints_of(stable)
        if shadow is not None:
            mirror = Shadow(stable, shadow, self.gate.metrics, self.gate.settings.timeout_s)
            for endpoint in endpoints.values():
                endpoint.shadow = mirror
        if canary is None or canary is stable:
            return dict(endpoints)
        return self._parted(endpoints, self._endpoints_of(canary), entry.deployment)

    def _parted(
        self, stable: dict[str, Endpoint], canary: dict[str, Endpoint], deployment: Deployment
    ) -> dict[str, Handler]:
        """Leave to a canary its share of what comes to a model's paths."""
        name, variant = deployment.name, deployment.canary
        assert variant is not None
        found: dict[str, Handler] = dict(stable)

        def tell(counts: Counts) -> None:
            if self.control is not None:
                self.control.count(name, variant.digest, counts)

        reporter = Reporter(tell, deployment.max_latency_s)
        self._reporters[name] = reporter
        for path, endpoint in canary.items():
            endpoint.reporter = reporter
            found[path] = parted(stable[path], endpoint, deployment) if path in stable else endpoint
        return found

    def _endpoints_of(self, model: Model) -> dict[str, Endpoint]:
        name, manifest, gate = model.name, model.intake.manifest, self.gate
        predict = Endpoint(model, (Body(gate.settings.max_body_bytes), Query()), gate)
        invocations = Endpoint(model, (Invocations(manifest.schema),), gate)
        found = {
            predict_path(name): predict,
            f"/models/{name}/invocations": invocations,
            f"/v1/models/{name}:predict": Endpoint(model, (Instances(manifest.schema),), gate),
            f"/v2/models/{name}/infer": Endpoint(model, (Infer(manifest),), gate),
            f"/v2/models/{name}/versions/{model.version}/infer": Endpoint(model, (Infer(manifest),), gate),
        }
        return found | {"/predict": predict, "/invocations": invocations} if self._is_alone else found

    @property
    def _is_alone(self) -> bool:
        """Whether ``/predict`` means a model; it must not come to mean another because one was unloaded."""
        return len(self.served.entries) == 1

    def _routes(self) -> list[Route]:
        """Make the routes of everything that is not a prediction."""

        async def livez(request: Request) -> Response:
            return Response(b'{"status":"live"}', media_type="application/json")

        async def readyz(request: Request) -> Response:
            self.check_ready()
            return Response(b'{"status":"ready"}', media_type="application/json")

        async def show_openapi(request: Request) -> Response:
            async with self._describing:
                digests = [f"{model.name} {model.intake.digest}" for model in self.served.stable().values()]
                if self._description is None or self._description[0] != digests:
                    self._description = digests, await in_thread(self._describe)
                return Response(self._description[1], media_type="application/json")

        async def metrics(request: Request) -> Response:
            if self.gate.metrics is None:
                raise HTTPException(404)
            self.tell_metrics()
            body, media_type = await run_in_threadpool(self.gate.metrics.render, request.headers.get("accept", ""))
            return Response(body, headers={"content-type": media_type})

        routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/openapi.json", show_openapi)]
        routes += [*page.routes(self._index), Route("/metrics", metrics)]
        routes += [*inference_v2.routes(self), *probes.routes(self), *admin.routes(self)]
        if self._jobs is not None:
            routes += file_jobs.routes(self, self._jobs)
        return [*routes, *docs.routes(" · ".join(self.served.entries))]

    def _describe(self) -> bytes:
        """Write the description of the models that answer."""
        models = self.served.stable().values()
        described = [openapi.Described(m.intake.manifest, m.intake.digest, m.example) for m in models]
        needs_key, has_jobs = self.gate.keys is not None, self._jobs is not None
        return wire.encode(openapi.document(described, needs_key, self._root, self._is_alone, has_jobs))

    def _index(self) -> bytes:
        """Write what ``/`` gives to programs."""
        models = self.served.stable().values()
        return wire.encode(
            {
                "service": "fairlead",
                "fairlead_version": __version__,
                "models": [{"name": m.name, "version": m.version, "predict": predict_path(m.name)} for m in models],
                "docs": "/docs",
                "openapi": "/openapi.json",
            }
        )

    def _handlers(self) -> dict[Any, Any]:
        def raised(request: Request, error: HTTPException) -> Response:
            if error.status_code == 405:
                # Starlette has them in a set.
                allow = ", ".join(sorted((error.headers or {}).get("Allow", "GET, HEAD").split(", ")))
                headers = [(b"allow", allow.encode())]
                return _refused(request, Refusal("method_not_allowed", f"expected {allow}", headers=headers))
            parts = request.scope["path"].removeprefix(self._root).replace(":", "/").split("/")
            stable = self.served.stable()
            for name, entry in self.served.entries.items():
                if name in parts and name not in stable:
                    return _refused(request, not_loaded(entry))
            names = list(stable)
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
