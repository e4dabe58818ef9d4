"""MLflow's scoring protocol, and SageMaker's: ``POST /invocations``.

One of ``dataframe_split``, ``dataframe_records``, ``instances`` and ``inputs`` in JSON, or CSV, or a record a line.

Source: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/ (inference server specification);
https://docs.aws.amazon.com/sagemaker/latest/dg/cdf-inference.html
"""

from __future__ import annotations

from typing import Any

import msgspec

from fairlead.predict.intake import Intake
from fairlead.predict.validate import type_name
from fairlead.schema import Schema
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import JSON, Question, accept, csv_text
from fairlead.web.dialects.envelopes import decode, is_array, members_decoder, refuse, value_of
from fairlead.web.dialects.instances import write
from fairlead.web.dialects.rows import Rows, ask
from fairlead.web.jobs import Source
from fairlead.web.problems import Refusal

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_read = members_decoder(*FORMS)
_read_split = members_decoder("data", "columns")
_read_lines = msgspec.json.Decoder().decode_lines


class Invocations:
    """Frames, tensors and records under one of four names, CSV, and JSON lines."""

    name = "invocations"
    methods = ("POST",)

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._rows = Rows(schema)

    def read(self, call: Call, intake: Intake) -> Question:
        media = wire.media_type(call.fields)
        chosen = accept.writer(call, intake, write)
        if media == accept.CSV:
            return ask(csv_text.source(call, intake), chosen, "$")
        if media in accept.JSON_LINES:
            return ask(self._lines(call.body, intake), chosen, "$")
        if media != JSON:
            raise wire.unsupported(JSON, accept.CSV, accept.JSON_LINES[0])
        found = decode(call.body, _read)
        members = zip(FORMS, msgspec.structs.astuple(found), strict=True)
        given = [(name, raw) for name, raw in members if raw]
        if len(given) != 1:
            got = "none" if not given else f"{len(given)} of them"
            raise refuse("$", f"exactly one of {', '.join(FORMS)}", got)
        name, raw = given[0]
        path = f"$.{name}"
        if name == "dataframe_split":
            return ask(self._split(raw, path, intake), chosen, f"{path}.data")
        return ask(self._source(name, value_of(raw), path, intake), chosen, path)

    def refused(self, refusal: Refusal) -> bytes:
        return refusal.body

    def _source(self, name: str, value: Any, path: str, intake: Intake) -> Source:
        if name == "inputs" and type(value) is dict:
            if value and not any(type(column) is list for column in value.values()):
                # One record, as `mlflow.pyfunc` takes it too.
                return self._rows.of_record(value, path, intake)
            return self._rows.of_columns(value, path, intake)
        if not is_array(value):
            expected = "an array, or an object of columns" if name == "inputs" else "an array"
            raise refuse(path, expected, type_name(value))
        if name == "dataframe_records":
            return self._rows.of_records(value, intake)
        return self._rows.of_instances(value, path, intake)

    def _split(self, raw: msgspec.Raw, path: str, intake: Intake) -> Source:
        text = bytes(raw)
        if text[:1] != b"{":
            raise refuse(path, "an object with columns and data", type_name(wire.decode(text)))
        raw_data, raw_columns = msgspec.structs.astuple(decode(text, _read_split))
        data = value_of(raw_data) if raw_data else None
        if not is_array(data):
            raise refuse(f"{path}.data", "an array of rows", type_name(data) if raw_data else "nothing")
        columns = wire.decode(bytes(raw_columns)) if raw_columns else None
        if columns is None:
            columns = list(self._schema.names)
        elif type(columns) is not list or not all(type(name) is str for name in columns):
            raise refuse(f"{path}.columns", "an array of names", "another value")
        return self._rows.of_table(columns, data, f"{path}.data", intake)

    def _lines(self, body: bytes, intake: Intake) -> Source:
        return self._rows.of_instances(decode(body, _read_lines), "$", intake)
