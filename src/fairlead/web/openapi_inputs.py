"""What other servers' protocols send, as JSON Schema: records in arrays, columns, frames, tensors.

Part of the OpenAPI document, put in its place by `openapi_protocols`. Says all that JSON Schema has words for; that
arrays have to be of one length, or of a shape's, it has none for.
"""

from __future__ import annotations

from msgspec import UNSET

from fairlead.bundle.manifest import Manifest
from fairlead.schema import Feature, Schema
from fairlead.web.dialects.tensors import DATATYPES, NUMBERS, accepted
from fairlead.web.json_schema import Json, feature_schema
from fairlead.web.openapi_parts import array

_TEXT: Json = {"type": "string"}
PARAMETERS: Json = {"type": "object"}
SIZES = array({"type": "integer", "minimum": 0})
DATATYPE: Json = {"enum": list(DATATYPES)}
_ELEMENTS: dict[str, Json] = {"BOOL": {"type": ["boolean", "null"]}, "BYTES": {"type": ["string", "null"]}}
_INTEGERS = {f"{sign}INT{bits}": (sign, bits) for sign in ("", "U") for bits in (8, 16, 32, 64)}


def _flat_or_rows(element: Json) -> Json:
    return {"anyOf": [array(element), array(array(element))]}


def _elements(datatype: str) -> Json:
    if datatype in _ELEMENTS:
        return _ELEMENTS[datatype]
    if datatype not in _INTEGERS:
        return {"type": ["number", "null"]}
    sign, bits = _INTEGERS[datatype]
    low, high = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return {"type": ["integer", "null"], "minimum": low, "maximum": high}


TENSOR: Json = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "shape": SIZES,
        "datatype": DATATYPE,
        "parameters": PARAMETERS,
        "data": {"description": "Flat, or a row each; left out where `parameters.binary_data_size` is"},
    },
    "required": ["name", "shape", "datatype", "data"],
    "oneOf": [
        {"properties": {"datatype": {"const": name}, "data": _flat_or_rows(_elements(name))}} for name in DATATYPES
    ],
}


def instance(manifest: Manifest) -> Json:
    """Describe a record, as an object or as an array in the schema's order."""
    record = {"$ref": f"#/components/schemas/{manifest.name}.record"}
    items = [_value(manifest.schema, feature) for feature in manifest.schema.features]
    as_array = {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    return {"anyOf": [record, as_array]}


def columns(schema: Schema) -> Json:
    """Describe arrays by column; each element may be in an array of its own."""
    properties: Json = {}
    required = []
    for feature in schema.features:
        value = _value(schema, feature)
        column = {"anyOf": [array(value), array({**array(value), "minItems": 1, "maxItems": 1})]}
        names = _names(feature)
        properties |= dict.fromkeys(names, column)
        if feature.default is UNSET:
            required.append({"anyOf": [{"required": [name]} for name in names]})
    others: Json | bool = False if schema.extra == "forbid" else {"type": "array"}
    described: Json = {"type": "object", "properties": properties, "additionalProperties": others}
    return {**described, "allOf": required} if required else described


def split(schema: Schema) -> Json:
    """Describe a frame, with names for its columns or in the schema's order."""
    items = [_value(schema, feature) for feature in schema.features]
    row = {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    names: Json = {"type": "array", "items": _TEXT}
    if schema.extra == "forbid":
        names["items"] = {"enum": [name for feature in schema.features for name in _names(feature)]}
    names["allOf"] = [
        {
            "contains": {"enum": _names(feature)},
            "minContains": 1 if feature.default is UNSET else 0,
            "maxContains": 1,
        }
        for feature in schema.features
    ]
    return {
        "type": "object",
        "properties": {"columns": {"type": ["array", "null"]}, "data": array({"type": "array"}), "index": {}},
        "required": ["data"],
        "anyOf": [
            {"properties": {"columns": {"type": "null"}, "data": array(row)}},
            {"properties": {"columns": names}, "required": ["columns"]},
        ],
    }


def tensors(schema: Schema) -> Json:
    """Describe the tensors of a request: one a feature; or, of numbers alone, one of them all."""
    features = schema.features
    items = [_tensor(_names(feature), accepted(feature), _value(schema, feature)) for feature in features]
    if schema.extra != "forbid":
        known = [name for feature in features for name in _names(feature)]
        items.append({"properties": {"name": {"not": {"enum": known}}, "shape": _COLUMN}})
    separate: Json = {
        "items": {"allOf": [{"$ref": "#/components/schemas/InferInput"}, {"anyOf": items}]},
        "allOf": [
            {
                "contains": {"properties": {"name": {"enum": _names(feature)}}, "required": ["name"]},
                "minContains": 1 if feature.default is UNSET else 0,
                "maxContains": 1,
            }
            for feature in features
        ],
    }
    if any(feature.type not in ("bool", "int", "float") for feature in features):
        return {"type": "array", **separate}
    return {"type": "array", "anyOf": [separate, _matrix(schema)]}


_COLUMN: Json = {"prefixItems": [{}, {"const": 1}], "minItems": 1, "maxItems": 2}


def _matrix(schema: Schema) -> Json:
    values = [_value(schema, feature) for feature in schema.features]
    distinct = [value for place, value in enumerate(values) if value not in values[:place]]
    tensor = {
        "properties": {
            "shape": {"prefixItems": [{}, {"const": len(values)}], "minItems": 2, "maxItems": 2},
            "datatype": {"enum": [*NUMBERS, "BOOL"] if all(f.type == "bool" for f in schema.features) else [*NUMBERS]},
            "data": _flat_or_rows({"anyOf": distinct}),
        }
    }
    items = {"allOf": [{"$ref": "#/components/schemas/InferInput"}, tensor]}
    return {"items": items, "minItems": 1, "maxItems": 1}


def _tensor(names: list[str], datatypes: tuple[str, ...], value: Json) -> Json:
    properties = {"name": {"enum": names}, "shape": _COLUMN, "datatype": {"enum": [*datatypes]}}
    return {"properties": {**properties, "data": _flat_or_rows(value)}}


def _value(schema: Schema, feature: Feature) -> Json:
    """Describe a feature's values, without the words that are with the record already."""
    described = feature_schema(feature, schema.is_closed(feature))
    return {key: value for key, value in described.items() if key not in _SAID_ELSEWHERE}


_SAID_ELSEWHERE = ("description", "default", "examples", "x-categories")


def _names(feature: Feature) -> list[str]:
    """Give what a feature may be called: by its name, or by its column's in training."""
    return list(dict.fromkeys((feature.name, feature.source)))
