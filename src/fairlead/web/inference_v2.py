"""What the Open Inference Protocol has besides inference: metadata, health, and the repository of models.

Inference itself is a dialect, `dialects.infer`. Everything here is asked for seldom and is Starlette.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md;
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead import __version__
from fairlead.bundle.manifest import Manifest
from fairlead.errors import FairleadError
from fairlead.web import wire
from fairlead.web.admin import body_of, changed, control_of
from fairlead.web.dialects.envelopes import decode
from fairlead.web.dialects.outputs import columns_of
from fairlead.web.dialects.tensors import OF_FEATURE, OF_OUTPUT
from fairlead.web.problems import Refusal

if TYPE_CHECKING:
    from fairlead.web.app import App
    from fairlead.web.models import Model

EXTENSIONS = ("binary_tensor_data", "model_repository")
_PLATFORM = "fairlead_{engine}"


class _Index(msgspec.Struct):
    """The body of a request for the index."""

    ready: bool | None = None


class _Change(msgspec.Struct):
    """The body of a request to load or unload; may be empty."""

    parameters: dict[str, Any] | None = None


_read_index = msgspec.json.Decoder(_Index).decode
_read_change = msgspec.json.Decoder(_Change).decode


def routes(app: App) -> list[Route]:
    """Make the routes of an app."""

    async def live(request: Request) -> Response:
        return _json({"live": True})

    async def ready(request: Request) -> Response:
        app.check_ready()
        return _json({"ready": True})

    async def server(request: Request) -> Response:
        return _json({"name": "fairlead", "version": __version__, "extensions": EXTENSIONS})

    async def model_metadata(request: Request) -> Response:
        return _json(metadata(_model(app, request).intake.manifest))

    async def model_ready(request: Request) -> Response:
        model = _model(app, request)
        app.check_ready(model)
        return _json({"name": model.name, "ready": True})

    async def index(request: Request) -> Response:
        body = await body_of(app, request)
        only_ready = decode(body, _read_index).ready if body else False
        return _json([entry for entry in _index(app) if not only_ready or entry["state"] == "READY"])

    async def load(request: Request) -> Response:
        body = await body_of(app, request)
        parameters = (decode(body, _read_change).parameters if body else None) or {}
        if any(name == "config" or name.startswith("file:") for name in parameters):
            raise Refusal("bad_request", "expected no config and no files: a model is loaded from its bundle as it is")
        name = request.path_params["name"]
        app.served.entry(name)
        try:
            await control_of(app).reload(name)
        except FairleadError as error:
            raise Refusal("bad_request", f"{name} was not loaded: {error}") from error
        return _json({})

    async def unload(request: Request) -> Response:
        if body := await body_of(app, request):
            decode(body, _read_change)
        model = app.served.find(request.path_params["name"])
        await changed(control_of(app).unload(model.name))
        return _json({})

    found = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", unload, methods=["POST"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [Route(path, model_metadata), Route(path + "/ready", model_ready)]
    return found


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Describe a model's tensors."""
    outputs = []
    for column in columns_of(manifest):
        shape = [-1, len(column.labels)] if column.type == "probabilities" else [-1]
        tensor: dict[str, Any] = {"name": column.name, "datatype": OF_OUTPUT[column.type], "shape": shape}
        outputs.append({**tensor, "parameters": {"labels": column.labels}} if column.labels else tensor)
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": _PLATFORM.format(engine=manifest.engine),
        "inputs": [
            {"name": feature.name, "datatype": OF_FEATURE[feature.type], "shape": [-1]}
            for feature in manifest.schema.features
        ],
        "outputs": outputs,
    }


def _index(app: App) -> list[dict[str, str]]:
    entries = []
    for name, entry in app.served.entries.items():
        model = entry.stable
        is_ready = model is not None and model.is_ready
        reason = "" if is_ready else entry.deployment.reason or "its engine does not answer"
        version = "" if entry.deployment.stable is None else entry.deployment.stable.version
        state = "READY" if is_ready else "UNAVAILABLE"
        entries.append({"name": name, "version": version, "state": state, "reason": reason})
    return entries


def _model(app: App, request: Request) -> Model:
    model = app.served.find(request.path_params["name"])
    version = request.path_params.get("version")
    models = app.served.entry(model.name).models
    answering = [model, models["canary"]] if "canary" in models else [model]
    for one in answering:
        if version in (None, one.version):
            return one
    told = " and ".join(one.version for one in answering)
    raise Refusal("not_found", f"{model.name} is served in version {told} only")


def _json(value: Any) -> Response:
    return Response(wire.encode(value), media_type="application/json")
