"""Whether one bundle may take another's place without a client noticing more than other numbers.

Every record that the one takes the other has to take, and to answer with outputs of the same names and types. Keys
that are no feature of the one do not count: the other may have made a feature of them.

Layer L2; imports nothing beyond what reads a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from fairlead.bundle.manifest import Manifest
from fairlead.predict.outputs import label_text
from fairlead.schema import Feature, Output, Scalar, Schema

_TYPE_NAMES = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
# An integer serves as a number; nothing else serves as another.
_SERVES_AS = {("int", "float")}
_SHOWN = 8


def incompatibilities(current: Manifest, new: Manifest) -> list[str]:
    """Say all that keeps `new` from taking the place of `current`; nothing when it may."""
    return _input_problems(current.schema, new.schema) + _output_problems(current, new)


def answer_difference(one: Any, other: Any) -> float:
    """Say how far two answers to one record are apart.

    Returns
    -------
    The largest difference of any two numbers, absolute or relative, the smaller; infinite where anything else
    differs, a label or a name.
    """
    if _is_number(one) and _is_number(other):
        return _distance(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return math.inf
        return max((answer_difference(value, other[name]) for name, value in one.items()), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return math.inf
        return max(map(answer_difference, one, other), default=0.0)
    return 0.0 if type(one) is type(other) and one == other else math.inf


def answer_problems(current: Any, new: Any) -> list[str]:
    """Say what a client would miss in an answer of the user's own class, whose outputs nobody declared the type of.

    Parameters
    ----------
    current, new : the two versions' answers to one record.
    """
    problems = []
    for name, before in current.items():
        now = new[name]
        if before is None or now is None:
            continue
        if _json_type(before) != _json_type(now):
            problems.append(f"output {name}: {_json_type(now)}, and {_json_type(before)} before")
        elif isinstance(before, dict) and (gone := before.keys() - now.keys()):
            problems.append(f"output {name}: without {_listed(gone)}")
    return problems


def _input_problems(current: Schema, new: Schema) -> list[str]:
    problems: list[str] = []
    before = {feature.name: feature for feature in current.features}
    for feature in new.features:
        known = before.get(feature.name)
        if known is not None:
            problems += _feature_problems(current, known, new, feature)
        elif feature.default is UNSET:
            problems.append(f"feature {feature.name}: new and required; give it a default")
    if new.extra == "forbid":
        gone = before.keys() - set(new.names)
        if current.extra == "ignore":
            problems.append("keys that are no feature: refused, and ignored before")
        elif gone:
            problems.append(f"feature {_listed(gone)}: gone, and refused as no feature")
    return problems


def _feature_problems(current: Schema, before: Feature, new: Schema, now: Feature) -> list[str]:
    where = f"feature {now.name}"
    if now.type != before.type and (before.type, now.type) not in _SERVES_AS:
        return [f"{where}: of type {now.type}, and {before.type} before"]
    problems = []
    if now.default is UNSET and before.default is not UNSET:
        problems.append(f"{where}: required, and had a default before")
    if before.nullable and not now.nullable:
        problems.append(f"{where}: null is refused, and was taken before")
    taken, takes = _values(current, before), _values(new, now)
    if takes is not None:
        if taken is None:
            problems.append(f"{where}: takes its known categories only, and took any {now.type} before")
        elif lost := taken - takes:
            problems.append(f"{where}: refuses {_listed(lost)}, taken before")
    return problems


def _values(schema: Schema, feature: Feature) -> set[Scalar] | None:
    """Give all values that a feature takes; None when nobody can count them."""
    if schema.is_closed(feature):
        return set(feature.categories or ())
    return {False, True} if feature.type == "bool" else None


def _output_problems(current: Manifest, new: Manifest) -> list[str]:
    before = {output.name: output for output in current.outputs}
    now = {output.name: output for output in new.outputs}
    problems = [f"output {name}: gone" for name in before if name not in now]
    problems += [f"output {name}: new, and unknown to clients" for name in now if name not in before]
    for name in before.keys() & now.keys():
        was, is_ = _output_type(current, before[name]), _output_type(new, now[name])
        if was != is_ and None not in (was, is_):
            problems.append(f"output {name}: {is_}, and {was} before")
    return problems


def _output_type(manifest: Manifest, output: Output) -> str | None:
    """Name an output's type; None where the user's own class decides for each answer."""
    if output.comparison is not None:
        return "a boolean"
    if output.source == "probability":
        return "a number"
    if output.source == "probabilities":
        return f"probabilities of {_listed(map(label_text, manifest.classes or ()))}"
    if manifest.classes:
        return " or ".join(sorted({_TYPE_NAMES[type(label)] for label in manifest.classes}))
    return "a number" if manifest.kind == "regressor" else None


def _listed(values: Iterable[object]) -> str:
    texts = sorted(map(str, values))
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _distance(one: float, other: float) -> float:
    if one == other:
        return 0.0
    try:
        if math.isnan(one) and math.isnan(other):
            return 0.0
        apart = abs(one - other) / max(1.0, abs(one))
    except OverflowError:  # of integers beyond what a float holds
        return math.inf
    return math.inf if math.isnan(apart) else apart


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if _is_number(value):
        return "a number"
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list | tuple) else "a string"
