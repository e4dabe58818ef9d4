"""The ASGI app: predictions by exact path in raw ASGI, everything else by Starlette behind them.

`App` answers nothing itself. The path decides between a `PredictRoute` and the Starlette app that holds
the probes, the description of the service and its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fairlead import __version__
from fairlead.predict.predictor import Predictor
from fairlead.web import docs, openapi, wire
from fairlead.web.bundles import Served, check_names, predict_path
from fairlead.web.predictions import PredictRoute
from fairlead.web.problems import Refusal, failure
from fairlead.web.wire import Receive, Scope, Send


class App:
    """An ASGI app that serves models by name.

    Parameters
    ----------
    predictors : at least one, names unique.
    max_body_bytes : a larger body is refused.
    examples : a valid record for each model's name, shown in the documentation.

    Raises
    ------
    ServeError
        When two models have one name.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        max_body_bytes: int = wire.MAX_BODY_BYTES,
        examples: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        check_names([predictor.name for predictor in predictors])
        self._hot: dict[str, PredictRoute] = {}
        for predictor in predictors:
            self._hot[predict_path(predictor.name)] = PredictRoute(predictor, max_body_bytes)
        if len(predictors) == 1:
            self._hot["/predict"] = next(iter(self._hot.values()))
        self._rest = _describe(self, predictors, examples or {})
        self.draining = False

    def drain(self) -> None:
        """Tell load balancers, through ``/readyz``, to send no more."""
        self.draining = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI says."""
        if scope["type"] == "http":
            path: str = scope["path"]
            root: str = scope.get("root_path", "")
            route = self._hot.get(path.removeprefix(root) if root else path)
            if route is not None:
                await route(scope, receive, send)
                return
        await self._rest(scope, receive, send)


def make_app(served: Sequence[Served], max_body_bytes: int = wire.MAX_BODY_BYTES) -> App:
    """Make the app of loaded bundles."""
    predictors = [one.predictor for one in served if one.predictor is not None]
    examples = {one.name: one.example for one in served if one.example is not None}
    return App(predictors, max_body_bytes, examples)


def _describe(app: App, predictors: Sequence[Predictor], examples: Mapping[str, dict[str, Any]]) -> Starlette:
    """Make the Starlette app of everything that is not a prediction; its answers are written once, here."""
    models = [openapi.Described(p.manifest, p.digest, examples.get(p.name)) for p in predictors]
    description = wire.encode(openapi.document(models))
    index = wire.encode(
        {
            "service": "fairlead",
            "fairlead_version": __version__,
            "models": [{"name": p.name, "version": p.version, "predict": predict_path(p.name)} for p in predictors],
            "docs": "/docs",
            "openapi": "/openapi.json",
        }
    )

    async def livez(request: Request) -> Response:
        return Response(b'{"status":"live"}', media_type="application/json")

    async def readyz(request: Request) -> Response:
        if app.draining:
            raise Refusal("not_ready", "the server is shutting down", headers=[(b"retry-after", b"1")])
        return Response(b'{"status":"ready"}', media_type="application/json")

    async def show_openapi(request: Request) -> Response:
        return Response(description, media_type="application/json")

    async def show_index(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs")
        return Response(index, media_type="application/json")

    routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/openapi.json", show_openapi)]
    routes += [Route("/", show_index), *docs.routes(" · ".join(p.name for p in predictors))]
    return Starlette(routes=routes, exception_handlers=_handlers([p.name for p in predictors]))


def _handlers(names: Sequence[str]) -> dict[Any, Any]:
    shown = ", ".join(map(predict_path, names[:20])) + (" and more" if len(names) > 20 else "")
    nowhere = f"nothing is at this path: predictions are at {shown}, and /openapi.json tells all paths"

    def refused(request: Request, refusal: Refusal) -> Response:
        headers = {name.decode(): value.decode() for name, value in refusal.headers}
        return Response(refusal.body, refusal.status, headers, "application/problem+json")

    def raised(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return refused(request, Refusal("method_not_allowed", "expected GET", headers=[(b"allow", b"GET, HEAD")]))
        return refused(request, Refusal("not_found", nowhere))

    def failed(request: Request, error: Exception) -> Response:
        return refused(request, failure(error))

    return {HTTPException: raised, Refusal: refused, Exception: failed}
