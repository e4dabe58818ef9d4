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
from fairlead.schema import Problem, Schema
from fairlead.web import wire
from fairlead.web.calls import Call
from fairlead.web.dialects import JSON, Question, accept, csv_text
from fairlead.web.dialects.envelopes import decode, records_decoder, refuse
from fairlead.web.dialects.instances import write
from fairlead.web.dialects.rows import Rows, ask
from fairlead.web.jobs import Source
from fairlead.web.problems import Refusal, invalid
from fairlead.web.sources import MadeRecords

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_read = records_decoder(*FORMS)
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
        values = msgspec.structs.astuple(found)
        given = [(name, value) for name, value in zip(FORMS, values, strict=True) if value is not msgspec.UNSET]
        if len(given) != 1:
            got = "none" if not given else f"{len(given)} of them"
            raise refuse("$", f"exactly one of {', '.join(FORMS)}", got)
        name, value = given[0]
        path = f"$.{name}"
        return ask(
            self._source(name, value, path, intake), chosen, path if name != "dataframe_split" else f"{path}.data"
        )

    def refused(self, refusal: Refusal) -> bytes:
        return refusal.body

    def _source(self, name: str, value: Any, path: str, intake: Intake) -> Source:
        if name == "dataframe_split":
            return self._split(value, path, intake)
        if name == "inputs" and type(value) is dict:
            if value and not any(type(column) is list for column in value.values()):
                # One record, as `mlflow.pyfunc` takes it too.
                alone = [value]
                return MadeRecords(1, lambda start, stop: alone[start:stop], intake, lambda _, rest: path + rest)
            return self._rows.of_columns(value, path, intake)
        if type(value) is not list:
            raise refuse(
                path, "an array" if name != "inputs" else "an array, or an object of columns", type_name(value)
            )
        if name == "dataframe_records":
            odd = [place for place, record in enumerate(value) if type(record) is not dict]
            problems = [Problem(f"{path}[{place}]", "an object", type_name(value[place])) for place in odd]
            if problems:
                raise invalid(problems, "the records")
        return self._rows.of_instances(value, path, intake)

    def _split(self, value: Any, path: str, intake: Intake) -> Source:
        if type(value) is not dict:
            raise refuse(path, "an object with columns and data", type_name(value))
        data, columns = value.get("data"), value.get("columns")
        if type(data) is not list:
            raise refuse(f"{path}.data", "an array of rows", type_name(data) if "data" in value else "nothing")
        if columns is None:
            columns = list(self._schema.names)
        elif type(columns) is not list or not all(type(name) is str for name in columns):
            raise refuse(f"{path}.columns", "an array of names", "another value")
        return self._rows.of_table(columns, data, f"{path}.data", intake)

    def _lines(self, body: bytes, intake: Intake) -> Source:
        records = decode(body, _read_lines)
        return self._rows.of_instances(records, "$", intake)
