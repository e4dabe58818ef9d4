"""Other servers' protocols in the OpenAPI document: Open Inference, KServe's first, MLflow's and SageMaker's."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.bundle.manifest import Manifest
from fairlead.web import openapi_inputs
from fairlead.web.dialects.outputs import columns_of
from fairlead.web.dialects.tensors import OF_FEATURE, OF_OUTPUT
from fairlead.web.json_schema import Json
from fairlead.web.openapi_inputs import DATATYPE, PARAMETERS, SIZES, TENSOR
from fairlead.web.openapi_parts import ADMIN, ASKED, SENT, array, closed, good, responses_of, table

_TEXT: Json = {"type": "string"}
_OCTETS: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_LENGTH = "Inference-Header-Content-Length"
_LENGTH_TEXT = "How many bytes of the body are JSON, where tensors in bytes follow"

SCHEMAS: Json = {
    "InferInput": TENSOR,
    "InferOutput": closed(
        {"name": _TEXT, "shape": SIZES, "datatype": DATATYPE, "parameters": PARAMETERS, "data": {"type": "array"}},
        ("parameters", "data"),
    ),
    "Tensor": closed(
        {
            "name": _TEXT,
            "datatype": DATATYPE,
            "shape": array({"type": "integer", "minimum": -1}),
            "parameters": PARAMETERS,
        },
        ("parameters",),
    ),
    "ModelState": closed(
        {"name": _TEXT, "version": _TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": _TEXT}
    ),
}


def _operation(
    operation: str,
    tag: str,
    summary: str,
    answer: Json,
    statuses: Sequence[int],
    body: Json | None = None,
    with_error: bool = True,
) -> Json:
    described: Json = {"operationId": operation, "tags": [tag], "summary": summary}
    if body is not None:
        described["requestBody"] = body
    return {**described, "responses": responses_of(answer, statuses, with_error)}


def _named(operation: Json) -> Json:
    return {**operation, "parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]}


def _optional(schema: Json) -> Json:
    return {"required": False, "content": {"application/json": {"schema": schema}}}


_TRUE = closed({"live": {"const": True}})
_READY = closed({"ready": {"const": True}})
_MODEL_READY = closed({"name": _TEXT, "ready": {"const": True}})
_CHANGE = _optional({"type": "object", "properties": {"parameters": {"type": ["object", "null"]}}})

_RELOADED = good(
    closed({"name": _TEXT, "version": _TEXT, "digest": _TEXT, "result": {"enum": ["swapped", "unchanged"]}})
)
_SHARE = closed({"version": _TEXT, "digest": _TEXT, "weight": {"type": "number", "minimum": 0, "maximum": 1}})
_SHARE_OR_NONE: Json = {"oneOf": [_SHARE, {"type": "null"}]}
_TEXT_OR_NONE: Json = {"type": ["string", "null"]}
_ROLES: Json = dict.fromkeys(("stable", "canary", "shadow"), _SHARE_OR_NONE)
_TRAFFIC = good(closed({"name": _TEXT, **_ROLES, "sticky": _TEXT_OR_NONE, "rolled_back": _TEXT_OR_NONE}))
_TRAFFIC_CHANGE = closed({"canary": closed({"weight": {"type": "number", "minimum": 0, "maximum": 1}})})

PATHS: Json = {
    "/v2": {
        "get": _operation(
            "v2_server",
            "service",
            "Name, version and extensions of the server (Open Inference Protocol)",
            good(closed({"name": _TEXT, "version": _TEXT, "extensions": array(_TEXT)})),
            ASKED,
        )
    },
    "/v2/health/live": {"get": _operation("v2_live", "service", "Whether the process lives", good(_TRUE), (405,))},
    "/v2/health/ready": {
        "get": _operation("v2_ready", "service", "Whether the models take requests", good(_READY), (405, 503))
    },
    "/v2/repository/index": {
        "post": _operation(
            "v2_index",
            "repository",
            "All models, loaded or not",
            good(array({"$ref": "#/components/schemas/ModelState"})),
            ADMIN,
            _optional({"type": "object", "properties": {"ready": {"type": ["boolean", "null"]}}}),
        )
    },
    "/v2/repository/models/{name}/load": {
        "post": _named(
            _operation("v2_load", "repository", "Load a model anew; an admin key", good(closed({})), ADMIN, _CHANGE)
        )
    },
    "/v2/repository/models/{name}/unload": {
        "post": _named(
            _operation(
                "v2_unload", "repository", "Take a model out of service; an admin key", good(closed({})), ADMIN, _CHANGE
            )
        )
    },
    "/models/{name}/reload": {
        "post": _named(
            _operation(
                "reload",
                "repository",
                "Look for a newer version now, and serve it; an admin key",
                _RELOADED,
                ADMIN,
                with_error=False,
            )
        )
    },
    "/models/{name}/traffic": {
        "get": _named(
            _operation("traffic", "repository", "Who answers a model's requests", _TRAFFIC, ASKED, with_error=False)
        ),
        "put": _named(
            _operation(
                "set_traffic",
                "repository",
                "Give the canary another share; an admin key",
                _TRAFFIC,
                ADMIN,
                {"required": True, "content": {"application/json": {"schema": _TRAFFIC_CHANGE}}},
                with_error=False,
            )
        ),
    },
    "/v1/models": {
        "get": _operation("v1_models", "service", "The models' names", good(closed({"models": array(_TEXT)})), ASKED)
    },
}


def model_schemas(manifest: Manifest) -> Json:
    """Describe what several paths of one model share, beside its record and its prediction."""
    key, schema = manifest.name, manifest.schema
    return {
        f"{key}.instance": openapi_inputs.instance(manifest),
        f"{key}.columns": openapi_inputs.columns(schema),
        f"{key}.frame": openapi_inputs.split(schema),
        f"{key}.tensors": openapi_inputs.tensors(schema),
    }


def model_paths(manifest: Manifest, example: Json | None, is_alone: bool) -> Json:
    """Describe the paths of one model."""
    key = manifest.name
    infer = _infer(manifest, example)
    invocations = _invocations(manifest, example)
    metadata = _metadata(manifest)
    ready = _operation(f"v2_ready_{key}", key, "Whether it takes requests", good(_MODEL_READY), ASKED)
    versioned = f"/v2/models/{key}/versions/{manifest.version}"
    paths: Json = {
        f"/v2/models/{key}/infer": {"post": infer},
        f"{versioned}/infer": {"post": {**infer, "operationId": f"{infer['operationId']}_version"}},
        f"/v2/models/{key}": {"get": metadata},
        versioned: {"get": {**metadata, "operationId": f"{metadata['operationId']}_version"}},
        f"/v2/models/{key}/ready": {"get": ready},
        f"{versioned}/ready": {"get": {**ready, "operationId": f"{ready['operationId']}_version"}},
        f"/v1/models/{key}:predict": {"post": _instances(manifest, example)},
        f"/v1/models/{key}": {"get": {**ready, "operationId": f"v1_ready_{key}"}},
        f"/models/{key}/invocations": {"post": invocations},
    }
    if is_alone:
        paths["/invocations"] = {"post": {**invocations, "operationId": "invocations"}}
    return paths


def _infer(manifest: Manifest, example: Json | None) -> Json:
    key = manifest.name
    outputs = [column.name for column in columns_of(manifest)]
    request: Json = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": PARAMETERS,
            "inputs": {"$ref": f"#/components/schemas/{key}.tensors"},
            "outputs": {
                "type": ["array", "null"],
                "items": {
                    "type": "object",
                    "properties": {"name": {"enum": outputs}, "parameters": PARAMETERS},
                    "required": ["name"],
                },
            },
        },
        "required": ["inputs"],
    }
    answer = closed(
        {
            "model_name": {"const": key},
            "model_version": {"const": manifest.version},
            "id": _TEXT,
            "outputs": array({"$ref": "#/components/schemas/InferOutput"}),
        },
        ("id",),
    )
    body: Json = {"schema": request}
    if example is not None:
        inputs = [
            {"name": f.name, "shape": [1], "datatype": OF_FEATURE[f.type], "data": [example[f.name]]}
            for f in manifest.schema.features
            if f.name in example
        ]
        body["examples"] = {"one row": {"value": {"id": "42", "inputs": inputs}}}
    header = {"description": _LENGTH_TEXT, "schema": {"type": "integer", "minimum": 0}}
    described = _operation(
        f"v2_infer_{key}",
        key,
        "Predict for tensors (Open Inference Protocol)",
        good(answer, _OCTETS, model=True, headers={_LENGTH: header}),
        SENT,
        {"required": True, "content": {"application/json": body, **_OCTETS}},
    )
    described["description"] = (
        "A tensor a feature, of shape [n] or [n, 1]; or, where all features are numbers, one of shape "
        f"[n, {len(manifest.schema.features)}]. With `{_LENGTH}`, bytes of tensors follow the JSON."
    )
    return described


def _metadata(manifest: Manifest) -> Json:
    names = {column.name: OF_OUTPUT[column.type] for column in columns_of(manifest)}
    listed = array({"$ref": "#/components/schemas/Tensor"})
    answer = closed(
        {
            "name": {"const": manifest.name},
            "versions": array(_TEXT),
            "platform": _TEXT,
            "inputs": listed,
            "outputs": {**listed, "description": f"{', '.join(names)}"},
        }
    )
    return _operation(f"v2_metadata_{manifest.name}", manifest.name, "Its tensors", good(answer), ASKED)


def _predictions(manifest: Manifest) -> Json:
    return closed({"predictions": array({"$ref": f"#/components/schemas/{manifest.name}.prediction"})})


def _instances(manifest: Manifest, example: Json | None) -> Json:
    schema = {
        "type": "object",
        "properties": {"instances": array({"$ref": f"#/components/schemas/{manifest.name}.instance"})},
        "required": ["instances"],
    }
    body: Json = {"schema": schema}
    if example is not None:
        body["examples"] = {"one record": {"value": {"instances": [example]}}}
    return _operation(
        f"v1_predict_{manifest.name}",
        manifest.name,
        "Predict for instances (KServe, TensorFlow Serving)",
        good(_predictions(manifest), model=True),
        SENT,
        {"required": True, "content": {"application/json": body}},
    )


_NO_ARRAYS: Json = {"additionalProperties": {"not": {"type": "array"}}}


def _invocations(manifest: Manifest, example: Json | None) -> Json:
    record, instance, columns, frame = (
        {"$ref": f"#/components/schemas/{manifest.name}.{part}"} for part in ("record", "instance", "columns", "frame")
    )
    forms: Json = {
        "dataframe_split": frame,
        "dataframe_records": array(record),
        "instances": array(instance),
        # An object with an array in it is one of columns.
        "inputs": {"anyOf": [columns, array(instance), {"allOf": [record, _NO_ARRAYS]}]},
    }
    schema = {
        "oneOf": [{"type": "object", "properties": {name: form}, "required": [name]} for name, form in forms.items()]
    }
    body: Json = {"schema": schema}
    if example is not None:
        body["examples"] = {"records": {"value": {"dataframe_records": [example]}}}
    lines: Json = {"application/jsonlines": {"schema": {"type": "string", "description": "A record a line"}}}
    return _operation(
        f"invocations_{manifest.name}",
        manifest.name,
        "Predict for a frame (MLflow, SageMaker)",
        good(_predictions(manifest), table(arrow=True, lines=True), model=True),
        SENT,
        {"required": True, "content": {"application/json": body, **table(), **lines}},
        with_error=False,
    )
