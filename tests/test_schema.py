from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.bundle.signature import read_schema
from fairlead.errors import SchemaError
from fairlead.schema import Feature, Output, Problem, Schema, parse_output


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("y=prediction", Output(name="y", source="prediction")),
        (" y = prediction ", Output(name="y", source="prediction")),
        ("my-y.1=prediction", Output(name="my-y.1", source="prediction")),
        ("p=probability", Output(name="p", source="probability")),
        ("p=probability:1", Output(name="p", source="probability", label="1")),
        ("p=probabilities", Output(name="p", source="probabilities")),
        ("y=prediction>=0.5", Output(name="y", source="prediction", comparison=">=", threshold=0.5)),
        ("y=prediction > -1e3", Output(name="y", source="prediction", comparison=">", threshold=-1000)),
        ("y=probability < .5", Output(name="y", source="probability", comparison="<", threshold=0.5)),
        ("y=probability:1<=1.", Output(name="y", source="probability", label="1", comparison="<=", threshold=1)),
        ("p=probability:very likely", Output(name="p", source="probability", label="very likely")),
        (
            "p=probability: a b  > 0.5",
            Output(name="p", source="probability", label="a b", comparison=">", threshold=0.5),
        ),
        ("p=probability:a=b", Output(name="p", source="probability", label="a=b")),
        ("p=probability:a=b>=0.5", Output(name="p", source="probability", label="a=b", comparison=">=", threshold=0.5)),
        ("p=probability:a:b", Output(name="p", source="probability", label="a:b")),
        ("p=probability:>50K", Output(name="p", source="probability", label=">50K")),
        ("p=probability:<=50K", Output(name="p", source="probability", label="<=50K")),
        (
            "p=probability:<=50K > 0.5",
            Output(name="p", source="probability", label="<=50K", comparison=">", threshold=0.5),
        ),
        ("p=probability:a > b", Output(name="p", source="probability", label="a > b")),
        ("p=probability:été", Output(name="p", source="probability", label="été")),
    ],
)
def test_outputs(text: str, output: Output) -> None:
    assert parse_output(text) == output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected name=prediction"),
        ("prediction", "expected name=prediction"),
        ("=prediction", "expected name=prediction"),
        ("y=", "expected name=prediction"),
        ("y=label", "expected name=prediction"),
        ("my y=prediction", "expected name=prediction"),
        ("y=predictions", "expected name=prediction"),
        ("y=probability:", "expected name=prediction"),
        ("y=prediction >= ", "expected name=prediction"),
        ("y=prediction >= high", "expected name=prediction"),
        ("y=prediction == 1", "expected name=prediction"),
        ("y=prediction > nan", "expected name=prediction"),
        ("y=prediction > inf", "expected name=prediction"),
        ("y=prediction > 1_0", "expected name=prediction"),
        ("y=prediction > ١", "expected name=prediction"),
        ("y=prediction > 1e400", "1e400 is too large a number"),
        ("y=prediction:1", "only a probability has a label"),
        ("y=probabilities:1", "only a probability has a label"),
        ("y=probabilities > 0.5", "only one number can be compared"),
    ],
)
def test_what_is_no_output(text: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        parse_output(text)
    assert str(caught.value).startswith(f"output {text!r}")


@given(text=st.text() | st.from_regex(r"y=pro?b?[a-z]*:?.{0,9}[<>]=?.{0,5}", fullmatch=True))
def test_any_text_is_an_output_or_a_schema_error(text: str) -> None:
    try:
        output = parse_output(text)
    except SchemaError:
        return
    assert output.threshold is None or math.isfinite(output.threshold)
    assert (output.threshold is None) == (output.comparison is None)
    assert output.label is None or output.label == output.label.strip() != ""


def parse(*features: dict[str, Any], **more: Any) -> Schema:
    return Schema.parse({"features": list(features), **more})


def test_a_schema_is_read() -> None:
    schema = parse(
        {"name": "x", "type": "float", "unit": "km", "minimum": 0, "maximum": 1.5, "default": 1},
        {"name": "my name", "type": "string", "categories": ["a"], "closed": True, "column": "X"},
        extra="forbid",
    )
    assert schema.names == ("x", "my name")
    assert [feature.source for feature in schema.features] == ["x", "X"]
    assert [schema.is_closed(feature) for feature in schema.features] == [False, True]
    assert Schema(features=schema.features, categories="closed").is_closed(schema.features[1])
    assert not Schema(features=schema.features, categories="closed").is_closed(schema.features[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "Expected `object`, got `null`"),
        ([], "Expected `object`, got `array`"),
        ({}, "missing required field `features`"),
        ({"features": []}, "at least one feature"),
        ({"features": [{"type": "int"}]}, r"missing required field `name` - at `\$.features\[0\]`"),
        ({"features": [{"name": 3, "type": "int"}]}, r"Expected `str`, got `int` - at `\$.features\[0\].name`"),
        ({"features": [{"name": "x", "type": "flaot"}]}, "known are bool, int, float, string, datetime"),
        ({"features": [{"name": "x", "type": "int"}], "extra": "allow"}, "known are ignore, forbid"),
        ({"features": [{"name": "x", "type": "int"}], "categories": "shut"}, "known are open, closed"),
        ({"features": [{"name": "x", "type": "int"}], "extras": "forbid"}, "did you mean `extra`"),
        ({"features": [{"name": "x", "type": "int"}], "zzz": 1}, "known are features, extra, categories"),
        ({"features": [{"name": "x", "type": "int", "nulable": True}]}, "did you mean `nullable`"),
        (
            {"features": [{"name": "x", "type": "int", "categorys": []}]},
            r"\$.features\[0\]`: did you mean `categories`",
        ),
        ({"features": [{"name": "x", "type": "int", "zzz": 1}]}, "known are name, type, nullable"),
    ],
)
def test_what_is_no_schema_is_told_with_its_place(data: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        Schema.parse(data)
    assert "schema" in str(caught.value)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"type": "int", "default": "3"}, "expected int, got str"),
        ({"type": "int", "default": 1.0}, "expected int, got float"),
        ({"type": "int", "default": True}, "expected int, got bool"),
        ({"type": "int", "default": 2**63}, "is no integer of 64 bits"),
        ({"type": "bool", "default": 1}, "expected bool, got int"),
        ({"type": "float", "default": True}, "expected float, got bool"),
        ({"type": "float", "default": math.nan}, "is no finite number"),
        ({"type": "float", "default": math.inf}, "is no finite number"),
        ({"type": "float", "default": 10**400}, "is no finite number"),
        ({"type": "float", "categories": [1.0, math.nan]}, "is no finite number"),
        ({"type": "string", "default": 1}, "expected string, got int"),
        ({"type": "string", "categories": ["a", 1]}, "expected string, got int"),
        ({"type": "string", "categories": ["a", "a"]}, "a category is listed twice"),
        ({"type": "string", "categories": ["a"], "default": "b", "closed": True}, "is not among its categories"),
        ({"type": "datetime", "default": "tomorrow"}, r"is no date and time \(RFC 3339\)"),
        ({"type": "datetime", "default": "0001-01-01T00:00:00+05:00"}, "is no date and time"),
        ({"type": "datetime", "categories": ["2020-01-01T00:00:00Z"]}, "a datetime has no categories"),
        ({"type": "int", "default": None}, "say `nullable: true`"),
    ],
)
def test_a_feature_that_contradicts_itself_is_named(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=f"^my name: .*{message}"):
        parse({"name": "my name", **feature})


def test_a_default_must_be_among_categories_that_the_schema_closes() -> None:
    feature = {"name": "x", "type": "string", "categories": ["a"], "default": "b"}
    assert parse(feature).names == ("x",)
    with pytest.raises(SchemaError, match="x: its default is not among"):
        parse(feature, categories="closed")


def test_two_features_are_not_one() -> None:
    x = {"name": "x", "type": "int"}
    with pytest.raises(SchemaError, match="x: feature declared twice"):
        parse(x, x)
    with pytest.raises(SchemaError, match="y: another feature is the column x already"):
        parse(x, {"name": "y", "type": "int", "column": "x"})


def test_a_file_is_named_in_its_error(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("features: [{name: x, type: int, minumum: 3}]")
    with pytest.raises(SchemaError, match=r"schema\.yaml: .*unknown field `minumum`.*did you mean `minimum`"):
        read_schema(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("$[3].sepal_width", "sepal_width"),
        ("$.größe", "größe"),
        ("$[3]", "record"),
        ("$", "record"),
        ('$[3]["my name"]', "my name"),
        ('$["a.b"]', "a.b"),
        ('$["a\\"b]"]', 'a"b]'),
    ],
)
def test_a_problem_says_expected_got_and_where(path: str, name: str) -> None:
    assert str(Problem(path, "a number", "a string")) == f"{name}: expected a number, got a string, at {path}"


def test_a_problem_of_a_lone_record_has_no_index() -> None:
    for path, alone in (("$[0].x", "$.x"), ("$[0]", "$"), ('$[0]["a b"]', '$["a b"]'), ("$.x", "$.x")):
        assert Problem(path, "a", "b").alone() == Problem(alone, "a", "b")


def test_features_are_compared_by_what_they_say() -> None:
    assert Feature(name="x", type="int") == Feature(name="x", type="int", nullable=False)
