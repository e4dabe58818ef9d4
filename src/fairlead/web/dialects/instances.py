"""KServe's first protocol, and TensorFlow Serving's: ``POST /v1/models/NAME:predict`` with instances.

``{"instances": [{…}, […]]}`` gives ``{"predictions": […]}``; an instance is a record, or an array in the schema's
order.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from typing import Any

import msgspec

from fairlead.predict.intake import Intake
from fairlead.predict.validate import type_name
from fairlead.schema import Schema
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import Content, Question
from fairlead.web.dialects.envelopes import decode, records_decoder, refuse
from fairlead.web.dialects.rows import Rows, ask
from fairlead.web.problems import Refusal

_read = records_decoder("instances")


class Predictions(msgspec.Struct):
    """The answer's body."""

    predictions: list[Any]


class Instances:
    """Records and arrays under ``instances``."""

    name = "instances"
    methods = ("POST",)

    def __init__(self, schema: Schema) -> None:
        self._rows = Rows(schema)

    def read(self, call: Call, intake: Intake) -> Question:
        if call.fields.get(b"content-type") != b"application/json":
            wire.check_is_json(call.fields)
        (values,) = msgspec.structs.astuple(decode(call.body, _read))
        if type(values) is not list:
            got = "nothing" if values is msgspec.UNSET else type_name(values)
            raise refuse("$.instances", "an array of records", got)
        return ask(self._rows.of_instances(values, "$.instances", intake), write, "$.instances")

    def refused(self, refusal: Refusal) -> bytes:
        return refusal.body_with_error()


def write(predictions: list[Any]) -> Content:
    """Answer with an object that holds the predictions."""
    return Content(wire.encode(Predictions(predictions)))
