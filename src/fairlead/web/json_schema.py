"""The schema of a bundle as JSON Schema: a record of a request, and the prediction for it.

`openapi` puts these into the description of the service. What the predictor enforces is a constraint
here; what it only knows, such as the range seen in training, is told in words.

Source: JSON Schema 2020-12, as OpenAPI 3.1 uses it
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from fairlead.bundle.manifest import Manifest
from fairlead.predict.outputs import label_text
from fairlead.schema import Feature, Output, Schema

Json = dict[str, Any]

SHOWN_CATEGORIES = 50
_TYPES: dict[str, Json] = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
}
_LABEL_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def feature_schema(feature: Feature, closed: bool) -> Json:
    """Describe one feature. The range seen in training is told, not demanded, since it is not enforced."""
    schema = dict(_TYPES[feature.type])
    if feature.nullable:
        schema["type"] = [schema["type"], "null"]
    if feature.default is not UNSET:
        schema["default"] = feature.default
    categories = list(feature.categories or ())
    if closed:
        schema["enum"] = [*categories, None] if feature.nullable else categories
    elif 0 < len(categories) <= SHOWN_CATEGORIES:
        schema["examples"] = categories[:3]
        schema["x-categories"] = categories
    told = [feature.description, feature.unit and f"Unit: {feature.unit}", _range(feature)]
    if categories and not closed:
        told.append("Values other than the known categories are accepted")
    if text := ". ".join(part.rstrip(".") for part in told if part):
        schema["description"] = text + "."
    return schema


def record_schema(schema: Schema) -> Json:
    """Describe one record of a request."""
    described: Json = {
        "type": "object",
        "properties": {f.name: feature_schema(f, schema.is_closed(f)) for f in schema.features},
    }
    if required := [f.name for f in schema.features if f.default is UNSET]:
        described["required"] = required
    if schema.extra == "forbid":
        described["additionalProperties"] = False
    return described


def prediction_schema(manifest: Manifest) -> Json:
    """Describe what comes back for one record."""
    return {
        "type": "object",
        "properties": {output.name: _output_schema(output, manifest) for output in manifest.outputs},
        "required": [output.name for output in manifest.outputs],
        "additionalProperties": False,
    }


def _output_schema(output: Output, manifest: Manifest) -> Json:
    if output.comparison is not None:
        return {"type": "boolean", "description": f"{_source(output)} {output.comparison} {output.threshold}"}
    number: Json = {"type": "number", "minimum": 0, "maximum": 1}
    if output.source == "probability":
        return {**number, "description": _source(output)}
    labels = list(manifest.classes or ())
    if output.source == "probabilities":
        names = [label_text(label) for label in labels]
        return {
            "type": "object",
            "properties": dict.fromkeys(names, number),
            "required": names,
            "additionalProperties": False,
        }
    if labels:
        types = sorted({_LABEL_TYPES[type(label)] for label in labels})
        return {"type": types[0] if len(types) == 1 else types, "enum": labels}
    return {"type": "number"} if manifest.kind == "regressor" else {}


def _source(output: Output) -> str:
    if output.source == "probability":
        return f"probability of {output.label}" if output.label is not None else "probability of the predicted class"
    return output.source


def _range(feature: Feature) -> str | None:
    if feature.minimum is None and feature.maximum is None:
        return None
    low = "" if feature.minimum is None else f" from {feature.minimum:g}"
    high = "" if feature.maximum is None else f" to {feature.maximum:g}"
    return f"Seen in training:{low}{high}"
