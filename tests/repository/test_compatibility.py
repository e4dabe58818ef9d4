"""Which bundle may take another's place: whatever is let through takes every record that the other takes."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from fairlead.bundle.manifest import Manifest, Origin
from fairlead.predict.validate import Validator
from fairlead.repository.compatibility import answer_difference, answer_problems, incompatibilities
from fairlead.schema import Schema, parse_output

SIZE = {"name": "size", "type": "float"}
TOWN = {"name": "town", "type": "string", "categories": ["Delft", "Gouda"]}


def manifest(*features: dict[str, Any], outputs: tuple[str, ...] = ("prediction=prediction",), **more: Any) -> Manifest:
    of_schema = {name: more.pop(name) for name in ("extra", "categories") if name in more}
    given = {
        "name": "homes",
        "version": "1",
        "kind": "classifier",
        "classes": ("cheap", "dear"),
        "has_probabilities": True,
        "schema": Schema.parse({"features": features or [SIZE, TOWN], **of_schema}),
        "outputs": tuple(map(parse_output, outputs)),
        "engine": "onnx",
        "input_form": "frame",
        "origin": Origin(source="m", format="pickle", model="m", sha256=""),
        "files": {},
        "fairlead_version": "0",
    }
    return Manifest(**(given | more))


def changed(feature: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return feature | changes


@pytest.mark.parametrize(
    ("before", "now", "problems"),
    [
        (manifest(), manifest(), []),
        (manifest(), manifest(TOWN, SIZE), []),
        (manifest(), manifest(SIZE), []),
        (manifest(), manifest(SIZE, TOWN, {"name": "rooms", "type": "int", "default": 3}), []),
        (
            manifest(),
            manifest(SIZE, TOWN, {"name": "rooms", "type": "int"}),
            ["feature rooms: new and required; give it a default"],
        ),
        (manifest(changed(SIZE, type="int")), manifest(SIZE), []),
        (manifest(SIZE), manifest(changed(SIZE, type="int")), ["feature size: of type int, and float before"]),
        (
            manifest(changed(TOWN, type="datetime", categories=None)),
            manifest(TOWN),
            ["feature town: of type string, and datetime before"],
        ),
        (manifest(SIZE), manifest(changed(SIZE, nullable=True, default=None)), []),
        (
            manifest(changed(SIZE, nullable=True, default=None)),
            manifest(SIZE),
            ["feature size: required, and had a default before", "feature size: null is refused, and was taken before"],
        ),
        (manifest(TOWN), manifest(changed(TOWN, categories=["Leiden"])), []),
        (
            manifest(TOWN),
            manifest(changed(TOWN, closed=True)),
            ["feature town: takes its known categories only, and took any string before"],
        ),
        (manifest(changed(TOWN, closed=True)), manifest(TOWN), []),
        (manifest(TOWN, categories="closed"), manifest(changed(TOWN, closed=True)), []),
        (
            manifest(changed(TOWN, closed=True)),
            manifest(changed(TOWN, categories=["Delft", "Leiden"]), categories="closed"),
            ["feature town: refuses Gouda, taken before"],
        ),
        (manifest(), manifest(extra="forbid"), ["keys that are no feature: refused, and ignored before"]),
        (manifest(extra="forbid"), manifest(SIZE), []),
        (
            manifest(extra="forbid"),
            manifest(SIZE, extra="forbid"),
            ["feature town: gone, and refused as no feature"],
        ),
    ],
)
def test_inputs(before: Manifest, now: Manifest, problems: list[str]) -> None:
    assert incompatibilities(before, now) == problems


@pytest.mark.parametrize(
    ("before", "now", "problems"),
    [
        (("a=prediction", "b=probability:dear"), ("b=probability:cheap", "a=prediction"), []),
        (("a=prediction",), ("b=prediction",), ["output a: gone", "output b: new, and unknown to clients"]),
        (("a=probability:dear",), ("a=probability:dear>=0.5",), ["output a: a boolean, and a number before"]),
        (("a=prediction",), ("a=probability",), ["output a: a number, and a string before"]),
        (
            ("a=probabilities",),
            ("a=prediction",),
            ["output a: a string, and probabilities of cheap, dear before"],
        ),
    ],
)
def test_outputs(before: tuple[str, ...], now: tuple[str, ...], problems: list[str]) -> None:
    assert incompatibilities(manifest(outputs=before), manifest(outputs=now)) == problems


def test_other_classes_are_other_probabilities_and_no_other_prediction() -> None:
    three = manifest(classes=("cheap", "dear", "free"))
    assert incompatibilities(manifest(), three) == []
    found = incompatibilities(
        manifest(outputs=("p=probabilities",)),
        manifest(outputs=("p=probabilities",), classes=("cheap", "dear", "free")),
    )
    assert found == ["output p: probabilities of cheap, dear, free, and probabilities of cheap, dear before"]
    assert incompatibilities(manifest(), manifest(classes=(0, 1))) == [
        "output prediction: an integer, and a string before"
    ]


def test_a_regressor_is_no_classifier_and_a_class_of_the_user_s_own_shows_only_in_its_answers() -> None:
    regressor = manifest(kind="regressor", classes=None, has_probabilities=False)
    function = manifest(kind="function", classes=None, has_probabilities=False)
    assert incompatibilities(manifest(), regressor) == ["output prediction: a number, and a string before"]
    assert incompatibilities(regressor, function) == incompatibilities(function, manifest()) == []


CHOICES: dict[str, list[Any]] = {"bool": [False, True], "int": [0, 1, 2], "string": ["x", "y", "z"]}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.sampled_from([0, 1, 2, 3, -(2**63), 2**63 - 1]),
    "float": st.sampled_from([0.5, -1e308, 3, 2**63 - 1]),
    "string": st.sampled_from(["x", "y", "z", "", "2024-02-29T12:30:00Z"]),
    "datetime": st.sampled_from(["2024-02-29T12:30:00Z", "1999-01-01T00:00:00+05:00"]),
}


@st.composite
def features(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(VALUES)))
    one: dict[str, Any] = {"name": name, "type": kind, "nullable": draw(st.booleans())}
    if kind in CHOICES:
        one["categories"] = draw(st.lists(st.sampled_from(CHOICES[kind]), min_size=1, unique=True))
        one["closed"] = draw(st.booleans())
    if draw(st.booleans()):
        one["default"] = one["categories"][0] if kind in CHOICES else draw(VALUES[kind])
    return one


@st.composite
def changes(draw: st.DrawFn) -> tuple[Schema, Schema]:
    """Give a schema, and another that is nearly the same."""
    before = [draw(features(name)) for name in "ab"]
    now = [dict(one) for one in before]
    rules = [{"extra": draw(st.sampled_from(["ignore", "forbid"]))} for _ in range(2)]
    for one in now:
        other = draw(features(one["name"]))
        change = draw(st.sampled_from(["none", "type", "nullable", "default", "categories", "all"]))
        if change == "all" or (change == "type" and one["type"] not in CHOICES and other["type"] not in CHOICES):
            one.clear()
            one |= other
        elif change == "type" and one["type"] == "int":
            one |= {"type": "float", "closed": False}
        elif change == "nullable":
            one["nullable"] = not one["nullable"]
        elif change == "default" and one.pop("default", None) is None:
            one["default"] = draw(VALUES[one["type"]]) if one["type"] not in CHOICES else one["categories"][0]
        elif change == "categories" and one["type"] in CHOICES:
            categories = draw(st.permutations(CHOICES[one["type"]]))[: draw(st.integers(1, 3))]
            one |= {"categories": categories, "closed": draw(st.booleans())}
            one |= {"default": categories[0]} if "default" in one else {}
    kept = draw(st.sampled_from([now, now[:1], [*now, draw(features("c"))]]))
    return Schema.parse({"features": before, **rules[0]}), Schema.parse({"features": kept, **rules[1]})


@settings(max_examples=300)
@given(changes(), st.data())
def test_every_record_that_was_taken_is_taken(pair: tuple[Schema, Schema], data: st.DataObject) -> None:
    before, now = pair
    if incompatibilities(replace(manifest(), schema=before), replace(manifest(), schema=now)):
        return
    record = {}
    for feature in before.features:
        values = st.sampled_from(feature.categories) if before.is_closed(feature) else VALUES[feature.type]
        if feature.default is UNSET or data.draw(st.booleans()):
            record[feature.name] = data.draw((values | st.none()) if feature.nullable else values)
    if before.extra == "ignore" and "other" not in now.names:
        record["other"] = "x"
    assert not Validator(before).check([record]).rejections
    assert not Validator(now).check([record]).rejections


FORM = {"score": 1.5, "town": "Delft", "ranks": [1, 2]}


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (FORM, FORM, 0.0),
        (FORM, FORM | {"score": 1.75}, 0.25 / 1.5),
        ({"score": 0.1}, {"score": 0.3}, 0.2),
        ({"score": 1}, {"score": 1.0}, 0.0),
        ({"score": True}, {"score": 1}, math.inf),
        (FORM, FORM | {"town": "Gouda"}, math.inf),
        (FORM, FORM | {"ranks": [1, 4]}, 1.0),
        (FORM, FORM | {"ranks": [1]}, math.inf),
        (FORM, {"score": 1.5}, math.inf),
        ({"a": {"yes": 0.5}}, {"a": {"yes": 0.75}}, 0.25),
        ({"a": None}, {"a": None}, 0.0),
        ({"a": None}, {"a": 1.0}, math.inf),
        ({"a": math.nan}, {"a": math.nan}, 0.0),
        ({"a": math.nan}, {"a": 1.0}, math.inf),
        ({"a": 2**2000}, {"a": 0.5}, math.inf),
        ({"a": []}, {"a": []}, 0.0),
    ],
)
def test_answers_are_so_far_apart(one: Any, other: Any, difference: float) -> None:
    assert answer_difference(one, other) == pytest.approx(difference)


@pytest.mark.parametrize(
    ("before", "now", "problems"),
    [
        (1, 2.5, []),
        ("a", None, []),
        ("a", 1, ["output prediction: a number, and a string before"]),
        (True, 1, ["output prediction: a number, and a boolean before"]),
        ([1], {"a": 1}, ["output prediction: an object, and an array before"]),
        ({"a": 1}, {"a": "x", "b": 1}, []),
        ({"a": 1, "b": 2}, {"c": 1}, ["output prediction: without a, b"]),
    ],
)
def test_what_a_client_would_miss_in_an_answer(before: Any, now: Any, problems: list[str]) -> None:
    assert answer_problems({"prediction": before}, {"prediction": now}) == problems
