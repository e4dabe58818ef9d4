"""What clients of KServe's first protocol, MLflow and SageMaker ask besides predictions: who is there, and is it well.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol;
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fairlead import __version__
from fairlead.web import wire

if TYPE_CHECKING:
    from fairlead.web.app import App


def routes(app: App) -> list[Route]:
    """Make the routes of an app."""

    async def models(request: Request) -> Response:
        return Response(wire.encode({"models": list(app.served.stable())}), media_type="application/json")

    async def model(request: Request) -> Response:
        found = app.served.find(request.path_params["name"])
        app.check_ready(found)
        return Response(wire.encode({"name": found.name, "ready": True}), media_type="application/json")

    async def predict(request: Request) -> Response:
        # The predictions of models that are loaded are answered before Starlette is asked.
        app.served.find(request.path_params["name"])
        raise HTTPException(404)

    async def ping(request: Request) -> Response:
        app.check_ready()
        return Response(b"\n", media_type="application/json")

    async def version(request: Request) -> Response:
        return PlainTextResponse(__version__)

    return [
        Route("/v1/models", models),
        Route("/v1/models/{name}:predict", predict, methods=["GET", "POST"]),
        Route("/v1/models/{name}", model),
        Route("/ping", ping),
        Route("/version", version),
    ]
