"""Reads the body of `POST /jobs`: every problem of it at once, in the form of all others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from fairlead.predict.validate import type_name
from fairlead.schema import Problem
from fairlead.web import wire
from fairlead.web.dialects.envelopes import refuse
from fairlead.web.file_jobs.records import Column, Order
from fairlead.web.file_jobs.roots import NotAllowed, Roots
from fairlead.web.problems import Refusal, invalid

_HINTS: dict[str, Any] = get_type_hints(Order, include_extras=True)
_REQUIRED = ("input", "output")
_IN_ARRAY = re.compile(r"`\$\[(\d+)\]`$")


def read_order(body: bytes) -> Order:
    """Read an order.

    Raises
    ------
    Refusal
        ``not_json``; ``invalid_records`` with every problem.
    """
    given = wire.decode(body)
    if not isinstance(given, dict):
        raise refuse("$", "an object", type_name(given))
    problems = [Problem(f"$.{name}", "a value", "nothing") for name in _REQUIRED if name not in given]
    values = _checked(given, problems)
    if values.get("date") is not None and values.get("backfill") is not None:
        problems.append(Problem("$.backfill", "nothing beside date", "a string"))
    if problems:
        raise invalid(problems, "the request")
    return Order(**values)


def placed(order: Order, roots: Roots) -> Order:
    """Give an order with paths that may be read and written.

    Raises
    ------
    Refusal
        ``forbidden`` when one is below no root.
    """
    places, problems = {}, []
    for name in _REQUIRED:
        try:
            places[name] = roots.place(getattr(order, name))
        except NotAllowed as refused:
            problems.append(Problem(f"$.{name}", "a path below one of jobs.roots", refused.got))
    if problems:
        raise Refusal("forbidden", "this server reads and writes files below its jobs.roots only", problems)
    return msgspec.structs.replace(order, **places)


def _checked(given: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    values = {}
    for name, value in given.items():
        if name not in _HINTS:
            problems.append(Problem(f"$.{name}", f"one of {', '.join(_HINTS)}", "another name"))
            continue
        try:
            values[name] = msgspec.convert(value, _HINTS[name])
        except msgspec.ValidationError as error:
            problems.append(_problem(name, value, str(error)))
    return values


def _problem(name: str, value: Any, error: str) -> Problem:
    """Tell msgspec's finding in our words, without any value."""
    path, hint = f"$.{name}", _HINTS[name]
    if item := _IN_ARRAY.search(error):
        path, value, hint = f"{path}[{item[1]}]", value[int(item[1])], Column
    got = type_name(value)
    if ", got `" not in error:  # the type is right
        got = f"{got} of another form" if isinstance(value, str) else f"another {got.partition(' ')[2]}"
    return Problem(path, _description(hint), got)


def _description(hint: Any) -> str:
    parts = get_args(hint)
    hint = parts[0] if type(None) in parts else hint
    return next(str(part.description) for part in get_args(hint) if isinstance(part, Meta))
