"""The description of the service, made from what the bundles say of themselves.

Puts each model's record and prediction, from `json_schema`, into one OpenAPI 3.1 document; what other servers'
protocols add is in `openapi_protocols`. Knows no server and no framework.

Source: OpenAPI 3.1.1, https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from msgspec import UNSET

from fairlead import __version__
from fairlead.bundle.manifest import Manifest
from fairlead.schema import Feature
from fairlead.web import openapi_jobs as jobs
from fairlead.web import openapi_protocols as protocols
from fairlead.web.json_schema import Json, feature_schema, prediction_schema, record_schema
from fairlead.web.models import predict_path
from fairlead.web.openapi_parts import ASKED, PROBLEM, PROBLEM_WITH_ERROR, SENT, good, refusals, responses_of, table


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


def document(
    models: Sequence[Described],
    needs_key: bool = False,
    root: str = "",
    is_alone: bool | None = None,
    has_jobs: bool = False,
) -> Json:
    """Describe a service of these models.

    Parameters
    ----------
    needs_key : whether API keys are asked for.
    root : the path prefix under which clients find it.
    is_alone : whether ``/predict`` is there; left out, when there is exactly one model.
    has_jobs : whether files are scored.

    Returns
    -------
    An OpenAPI 3.1 document.
    """
    paths: Json = {}
    schemas: Json = {"Problem": PROBLEM, "ProblemWithError": PROBLEM_WITH_ERROR, **protocols.SCHEMAS}
    if is_alone is None:
        is_alone = len(models) == 1
    for model in models:
        manifest, key = model.manifest, model.manifest.name
        schemas[f"{key}.record"] = record_schema(manifest.schema)
        schemas[f"{key}.prediction"] = prediction_schema(manifest)
        schemas |= protocols.model_schemas(manifest)
        if model.example is not None:
            schemas[f"{key}.record"]["examples"] = [model.example]
        if is_alone:
            paths["/predict"] = _predictions(model, "predict")
        paths[predict_path(key)] = _predictions(model, f"predict_{key}")
        paths |= protocols.model_paths(manifest, model.example, is_alone)
    paths |= protocols.PATHS
    paths |= _service()
    if has_jobs:
        paths |= jobs.PATHS
        schemas |= jobs.SCHEMAS
    if needs_key:
        for path, item in paths.items():
            if path in OPEN:
                for operation in item.values():
                    operation["security"] = []
    described: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": " · ".join(model.manifest.name for model in models) or "fairlead",
            "version": models[0].manifest.version if len(models) == 1 else __version__,
            "description": f"Predictions served by fairlead {__version__}.",
        },
        "tags": [
            *({"name": m.manifest.name, "description": _tell(m)} for m in models),
            *({"name": name, "description": text} for name, text in _TAGS.items()),
            *([{"name": "jobs", "description": "Files to be scored"}] if has_jobs else []),
        ],
        "paths": paths,
        "components": {"schemas": schemas, "responses": refusals()},
    }
    if root:
        described["servers"] = [{"url": root}]
    if needs_key:
        described["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"header": []}]
    return described


# What is answered without a key.
OPEN = ("/", "/docs", "/livez", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")
_TAGS = {
    "service": "Probes and descriptions",
    "repository": "Which models are loaded",
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
            "description": (
                "An object gives an object; an array gives an array of predictions in the same order, and so do CSV "
                "and Arrow. `Accept` asks for the answer in another form."
            ),
            "requestBody": {"required": True, "content": {"application/json": body, **table(arrow=True)}},
            "responses": responses_of(good(either, table(arrow=True, lines=True), model=True), SENT),
        },
        "get": {
            "operationId": f"{operation}_one",
            "tags": tags,
            "summary": "Predict for one record in the query string",
            "parameters": _parameters(model),
            "responses": responses_of(good(one, table(arrow=True, lines=True), model=True), (*ASKED, 400, 422, 504)),
        },
    }


def _parameters(model: Described) -> list[Json]:
    schema, example = model.manifest.schema, model.example or {}
    parameters: list[Json] = []
    for feature in schema.features:
        described = feature_schema(feature, schema.is_closed(feature))
        _write_as_text(described, feature)
        parameter: Json = {"name": feature.name, "in": "query", "required": feature.default is UNSET}
        if text := described.pop("description", None):
            parameter["description"] = text
        if example.get(feature.name) is not None:
            parameter["example"] = example[feature.name]
        if feature.nullable:
            parameter["allowEmptyValue"] = True
        parameters.append({**parameter, "schema": described})
    return parameters


def _write_as_text(described: Json, feature: Feature) -> None:
    """Describe a value as it stands in a query string, where null is the empty value and no word."""
    if not feature.nullable:
        if feature.type == "string":
            described.setdefault("minLength", 1)
        return
    described["type"] = described["type"][0]
    if described.get("default", UNSET) is None:
        del described["default"]
    if "enum" in described:
        described["enum"] = [value for value in described["enum"] if value is not None]


def _tell(model: Described) -> str:
    said, digest = model.manifest, model.digest[:12]
    return f"{said.kind.capitalize()}, version {said.version}, {said.engine} engine, digest {digest}"


def _service() -> Json:
    status: Json = {
        "type": "object",
        "properties": {"status": {"type": "string"}},
        "required": ["status"],
        "additionalProperties": False,
    }
    anything: Json = {"type": "object"}
    html: Json = {"text/html": {"schema": {"type": "string"}}}
    text: Json = {"schema": {"type": "string"}}
    metrics = {
        "description": HTTPStatus.OK.phrase,
        "content": {"text/plain": text, "application/openmetrics-text": text},
    }
    return {
        "/livez": _get("livez", "Whether the process lives", good(status), (405,)),
        "/readyz": _get("readyz", "Whether the models take requests", good(status), (405, 503)),
        "/ping": _get("ping", "The same, as SageMaker and MLflow ask", _empty(), (405, 503)),
        "/version": _get("version", "The version of fairlead", _text(), ASKED),
        "/metrics": _get("metrics", "Figures for Prometheus", metrics, (*ASKED, 404)),
        "/openapi.json": _get("openapi", "This document", good(anything), ASKED),
        "/": _get("index", "What is served; a page for browsers", good(anything, html), (405, 500)),
        "/docs": _get("docs", "A page to try it", {"description": "OK", "content": html}, (405, 500)),
    }


def _get(operation: str, summary: str, answer: Json, statuses: Sequence[int]) -> Json:
    responses = responses_of(answer, statuses)
    return {"get": {"operationId": operation, "tags": ["service"], "summary": summary, "responses": responses}}


def _text() -> Json:
    return {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}


def _empty() -> Json:
    return {"description": "Yes; the body is a line break"}
