"""The description of the service, made from what the bundles say of themselves.

Puts each model's record and prediction, from `json_schema`, into one OpenAPI 3.1 document. Knows no
server and no framework.

Source: OpenAPI 3.1.1, https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from msgspec import UNSET

from fairlead import __version__
from fairlead.bundle.manifest import Manifest
from fairlead.web.json_schema import Json, feature_schema, prediction_schema, record_schema
from fairlead.web.models import predict_path

_REFUSED = {
    400: "Not JSON, or not a query string",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The schema refuses some of the input: every problem of every record, by path",
    500: "The model or the server failed: the server's log has the reason under `request_id`",
}


@dataclass(frozen=True)
class Described:
    """A model as the document tells of it.

    Parameters
    ----------
    manifest : what the bundle says of itself.
    digest : of the bundle.
    example : a record that the model accepts.
    """

    manifest: Manifest
    digest: str
    example: Json | None = None


def document(models: Sequence[Described]) -> Json:
    """Describe a service of these models.

    Returns
    -------
    An OpenAPI 3.1 document, with ``/predict`` when there is exactly one model.
    """
    paths: Json = {}
    schemas: Json = {"Problem": _PROBLEM}
    for model in models:
        manifest, key = model.manifest, model.manifest.name
        schemas[f"{key}.record"] = record_schema(manifest.schema)
        schemas[f"{key}.prediction"] = prediction_schema(manifest)
        if model.example is not None:
            schemas[f"{key}.record"]["examples"] = [model.example]
        if len(models) == 1:
            paths["/predict"] = _predictions(model, "predict")
        paths[predict_path(key)] = _predictions(model, f"predict_{key}")
    paths["/livez"] = _probe("livez", "Whether the process lives", {})
    paths["/readyz"] = _probe("readyz", "Whether the models take requests", {"503": _refused("Shutting down")})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": " · ".join(model.manifest.name for model in models),
            "version": models[0].manifest.version if len(models) == 1 else __version__,
            "description": f"Predictions served by fairlead {__version__}.",
        },
        "tags": [{"name": m.manifest.name, "description": _tell(m)} for m in models] + [{"name": "probes"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


_PROBLEM: Json = {
    "type": "object",
    "description": "Problem details (RFC 9457). It tells the type of a bad value, never the value.",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "JSONPath of the bad value", "examples": ["$[3].tenure"]},
                    "expected": {"type": "string"},
                    "got": {"type": "string"},
                },
                "required": ["path", "expected", "got"],
                "additionalProperties": False,
            },
        },
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "errors"],
    "additionalProperties": False,
}


def _predictions(model: Described, operation: str) -> Json:
    key = model.manifest.name
    record = {"$ref": f"#/components/schemas/{key}.record"}
    one = {"$ref": f"#/components/schemas/{key}.prediction"}
    either = {"oneOf": [one, {"type": "array", "items": one}]}
    body: Json = {"schema": {"oneOf": [record, {"type": "array", "items": record}]}}
    if model.example is not None:
        body["examples"] = {
            "one record": {"value": model.example},
            "several records": {"value": [model.example, model.example]},
        }
    tags = [model.manifest.name]
    return {
        "post": {
            "operationId": operation,
            "tags": tags,
            "summary": "Predict for one record or several",
            "description": "An object gives an object; an array gives an array of predictions in the same order.",
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": _responses(either, _REFUSED),
        },
        "get": {
            "operationId": f"{operation}_one",
            "tags": tags,
            "summary": "Predict for one record in the query string",
            "parameters": _parameters(model),
            "responses": _responses(one, {status: _REFUSED[status] for status in (400, 422, 500)}),
        },
    }


def _parameters(model: Described) -> list[Json]:
    schema, example = model.manifest.schema, model.example or {}
    parameters: list[Json] = []
    for feature in schema.features:
        described = feature_schema(feature, schema.is_closed(feature))
        parameter: Json = {"name": feature.name, "in": "query", "required": feature.default is UNSET}
        if text := described.pop("description", None):
            parameter["description"] = text
        if example.get(feature.name) is not None:
            parameter["example"] = example[feature.name]
        if feature.nullable:
            parameter["allowEmptyValue"] = True
        parameters.append({**parameter, "schema": described})
    return parameters


def _tell(model: Described) -> str:
    said, digest = model.manifest, model.digest[:12]
    return f"{said.kind.capitalize()}, version {said.version}, {said.engine} engine, digest {digest}"


def _probe(operation: str, summary: str, more: Json) -> Json:
    schema = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    good = {"description": "Yes", "content": {"application/json": {"schema": schema}}}
    return {
        "get": {"operationId": operation, "tags": ["probes"], "summary": summary, "responses": {"200": good, **more}}
    }


def _responses(schema: Json, refused: dict[int, str]) -> Json:
    good = {"description": HTTPStatus.OK.phrase, "content": {"application/json": {"schema": schema}}}
    return {"200": good, **{str(status): _refused(text) for status, text in refused.items()}}


def _refused(description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}
