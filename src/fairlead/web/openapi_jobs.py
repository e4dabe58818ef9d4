"""Jobs of files in the OpenAPI document, for services that have them."""

from __future__ import annotations

from typing import get_args

from fairlead.web.file_jobs.records import COLUMN, DATE, State
from fairlead.web.json_schema import Json
from fairlead.web.openapi_parts import ASKED, array, closed, good, responses_of

_TEXT: Json = {"type": "string"}
_TEXT_OR_NONE: Json = {"type": ["string", "null"]}
_MOMENT: Json = {"type": "string", "format": "date-time"}
_MOMENT_OR_NONE: Json = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_COUNT_OR_NONE: Json = {"type": ["integer", "null"], "minimum": 0}

_ORDER: Json = {
    "input": {
        "type": "string",
        "minLength": 1,
        "maxLength": 4096,
        "description": "A file, a glob or a directory below one of jobs.roots; with date templates",
    },
    "output": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "The same; where answers go"},
    "model": {"type": ["string", "null"], "minLength": 1, "maxLength": 256, "description": "The only one by default"},
    "keep": {
        "type": ["array", "null"],
        "minItems": 1,
        "maxItems": 10_000,
        "items": {"type": "string", "pattern": f"^{COLUMN}$"},
        "description": "Columns of the input that the output has too; all by default",
    },
    "date": {"type": ["string", "null"], "pattern": f"^{DATE}$", "description": "What fills the template"},
    "backfill": {
        "type": ["string", "null"],
        "pattern": rf"^{DATE}\.\.{DATE}$",
        "description": "The dates that fill the template, one after the other",
    },
    "format": {"enum": ["parquet", "csv", "jsonl", None], "description": "Of outputs whose names do not tell it"},
    "max_rejects": {**_COUNT_OR_NONE, "description": "Refused rows above which the job fails"},
    "resume": {"type": "boolean", "default": True, "description": "Whether files that are done already are left out"},
}
SCHEMAS: Json = {
    "JobOrder": {
        **closed(_ORDER, [name for name in _ORDER if name not in ("input", "output")]),
        "not": {"required": ["date", "backfill"], "properties": {"date": _TEXT, "backfill": _TEXT}},
    },
    "Job": closed(
        {
            **_ORDER,
            "id": _TEXT,
            "state": {"enum": list(get_args(State))},
            "version": _TEXT,
            "digest": _TEXT,
            "made_at": _MOMENT,
            "started_at": _MOMENT_OR_NONE,
            "ended_at": _MOMENT_OR_NONE,
            "files": _COUNT_OR_NONE,
            "files_done": _COUNT,
            "rows_in": _COUNT,
            "rows_out": _COUNT,
            "rejects": _COUNT,
            "rows_per_s": {"type": ["number", "null"]},
            "share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "reason": _TEXT_OR_NONE,
            "report": {"type": ["object", "null"]},
        }
    ),
}
_JOB: Json = {"$ref": "#/components/schemas/Job"}
_BODY: Json = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobOrder"}}},
}
_ID: Json = {"name": "id", "in": "path", "required": True, "schema": _TEXT}


def _operation(operation: str, summary: str, responses: Json) -> Json:
    return {"operationId": operation, "tags": ["jobs"], "summary": summary, "responses": responses}


def _taken_on() -> Json:
    """Describe the answers to an order: there is no 200."""
    responses = responses_of(good(_JOB), (*ASKED, 400, 413, 415, 422))
    del responses["200"]
    where = {"description": "Where to ask for the job", "schema": {"type": "string"}}
    taken_on = good(_JOB, headers={"Location": where})
    return {"202": {**taken_on, "description": "The job was taken on"}, **responses}


PATHS: Json = {
    "/jobs": {
        "get": _operation(
            "jobs",
            "The newest jobs, without their reports; an admin key",
            responses_of(good(closed({"jobs": array(_JOB)})), ASKED),
        ),
        "post": {
            **_operation("make_job", "Have files scored; an admin key", _taken_on()),
            "requestBody": _BODY,
        },
    },
    "/jobs/{id}": {
        "get": {
            **_operation("job", "How far a job is; an admin key", responses_of(good(_JOB), ASKED)),
            "parameters": [_ID],
        },
        "delete": {
            **_operation(
                "cancel_job",
                "Cancel a job, unless it is over; an admin key",
                {**responses_of(good(_JOB), ASKED), "202": {**good(_JOB), "description": "It is about to end"}},
            ),
            "parameters": [_ID],
        },
    },
}
