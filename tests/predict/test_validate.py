from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.predict.validate import Validator, type_name
from fairlead.schema import Feature, Problem, Schema

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
TYPES = ("bool", "int", "float", "string", "datetime")


def validator(*features: Feature, **more: Any) -> Validator:
    return Validator(Schema(features=features, **more))


def of(kind: Any, **more: Any) -> Validator:
    return validator(Feature(name="x", type=kind, **more))


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("bool", True, True),
        ("bool", False, False),
        ("bool", np.True_, True),
        ("int", 0, 0),
        ("int", 2**63 - 1, 2**63 - 1),
        ("int", -(2**63), -(2**63)),
        ("int", np.int8(-3), -3),
        ("int", np.uint64(3), 3),
        ("float", 1, 1.0),
        ("float", 1.5, 1.5),
        ("float", -0.0, -0.0),
        ("float", 2**64, 2.0**64),
        ("float", 1.7976931348623157e308, 1.7976931348623157e308),
        ("float", np.float32(0.5), 0.5),
        ("float", np.float64(0.5), 0.5),
        ("float", np.int64(2), 2.0),
        ("float", Decimal("1.5"), 1.5),
        ("string", "", ""),
        ("string", "NaN", "NaN"),
        ("string", "\0é☃\U0001f600", "\0é☃\U0001f600"),
        ("string", np.str_("a"), "a"),
        ("datetime", "2020-01-01T12:00:00Z", NOON),
        ("datetime", "2020-01-01t12:00:00z", NOON),
        ("datetime", "2020-01-01T14:00:00+02:00", NOON),
        ("datetime", "2020-01-01T12:00:00", NOON),
        ("datetime", NOON, NOON),
        ("datetime", NOON.replace(tzinfo=None), NOON),
        ("datetime", pd.Timestamp(NOON), NOON),
        ("datetime", pd.Timestamp("2020-01-01 12:00"), NOON),
        ("datetime", "0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_what_serves_as_what(kind: str, value: object, read: object) -> None:
    found = of(kind).check([{"x": value}])
    assert found.rejections == {}
    assert found.rows == [(read,)]
    assert type(found.rows[0][0]) is type(read) or isinstance(value, np.str_)


@pytest.mark.parametrize(
    ("kind", "value", "expected", "got"),
    [
        ("bool", 1, "a boolean", "an integer"),
        ("bool", 0.0, "a boolean", "a number"),
        ("bool", "true", "a boolean", "a string"),
        ("int", True, "an integer", "a boolean"),
        ("int", 1.0, "an integer", "a number"),
        ("int", "1", "an integer", "a string"),
        ("int", 2**63, "an integer", "an integer beyond 64 bits"),
        ("int", -(2**63) - 1, "an integer", "an integer beyond 64 bits"),
        ("int", 2**64, "an integer", "an integer beyond 64 bits"),
        ("int", 10**400, "an integer", "an integer beyond 64 bits"),
        ("int", np.uint64(2**63), "an integer", "an integer beyond 64 bits"),
        ("int", np.float64(1), "an integer", "a number"),
        ("int", np.True_, "an integer", "a boolean"),
        ("float", True, "a number", "a boolean"),
        ("float", "1.5", "a number", "a string"),
        ("float", 10**400, "a number", "a number too large"),
        ("float", math.nan, "a finite number", "NaN"),
        ("float", np.float32("nan"), "a finite number", "NaN"),
        ("float", math.inf, "a finite number", "an infinity"),
        ("float", -math.inf, "a finite number", "an infinity"),
        ("string", 1, "a string", "an integer"),
        ("string", b"x", "a string", "a bytes"),
        ("string", ["x"], "a string", "an array"),
        ("string", {"x": 1}, "a string", "an object"),
        ("datetime", "2020-01-01", "a date and time (RFC 3339)", "a string of another form"),
        ("datetime", "2020-13-01T00:00:00Z", "a date and time (RFC 3339)", "a string of another form"),
        ("datetime", "0001-01-01T00:00:00+05:00", "a date and time (RFC 3339)", "a string of another form"),
        ("datetime", "", "a date and time (RFC 3339)", "a string of another form"),
        ("datetime", 1577880000, "a date and time (RFC 3339)", "an integer"),
        ("datetime", pd.NaT, "a date and time (RFC 3339)", "a NaTType"),
        *[(kind, None, None, "null") for kind in TYPES],
        *[(kind, [], None, "an array") for kind in TYPES],
        *[(kind, {}, None, "an object") for kind in TYPES],
        *[(kind, (), None, "an array") for kind in TYPES],
        *[(kind, object(), None, "a object") for kind in TYPES],
    ],
)
def test_what_does_not(kind: str, value: object, expected: str | None, got: str) -> None:
    for record in ({"x": value}, {"x": value, "other": 1}):
        problems = of(kind).check([record]).rejections[0]
        assert [(problem.path, problem.got) for problem in problems] == [("$[0].x", got)]
        assert expected in (None, problems[0].expected)


def test_a_number_beyond_float64_cannot_come_from_json() -> None:
    # Python's own reader makes an infinity of it, msgspec's refuses it; either way nothing is predicted of it.
    found = of("float").check([json.loads('{"x": 1e400}')])
    assert found.rejections[0][0].got == "an infinity"


@pytest.mark.parametrize("kind", TYPES)
def test_null_only_where_nullable(kind: Any) -> None:
    assert of(kind, nullable=True).check([{"x": None}]).rows == [(None,)]
    assert of(kind, nullable=True).check([{}]).rejections[0][0].got == "nothing"


@pytest.mark.parametrize(
    ("kind", "default", "read"),
    [
        ("bool", True, True),
        ("int", 3, 3),
        ("float", 3, 3.0),
        ("string", "a", "a"),
        ("datetime", "2020-01-01T14:00:00+02:00", NOON),
        ("float", None, None),
    ],
)
def test_a_missing_key_means_the_default(kind: Any, default: Any, read: object) -> None:
    check = of(kind, default=default, nullable=default is None).check
    assert check([{}]).rows == [(read,)]
    slow = check([{}, {"x": []}])
    assert slow.rows == [(read,)]
    assert list(slow.places) == [0]


@pytest.mark.parametrize(
    ("kind", "categories", "known", "other", "got"),
    [
        ("string", ("a", "b"), "a", "c", "another string"),
        ("int", (1, 2), 2, 3, "another int"),
        ("float", (1, 2.5), 1.0, 3.0, "another float"),
        ("bool", (True,), True, False, "another bool"),
    ],
)
def test_categories_are_open_until_they_are_closed(
    kind: Any, categories: Any, known: object, other: object, got: str
) -> None:
    assert of(kind, categories=categories).check([{"x": other}]).rejections == {}
    by_schema = validator(Feature(name="x", type=kind, categories=categories), categories="closed")
    for closed in (of(kind, categories=categories, closed=True), by_schema):
        found = closed.check([{"x": known}, {"x": other}])
        assert len(found.rows) == 1
        expected = f"one of {', '.join(map(str, categories))}"
        assert found.rejections == {1: (Problem("$[1].x", expected, got),)}


def test_null_passes_closed_categories_where_nullable() -> None:
    assert of("string", categories=("a",), closed=True, nullable=True).check([{"x": None}]).rows == [(None,)]


def test_many_categories_are_not_all_told() -> None:
    problem = of("int", categories=tuple(range(100)), closed=True).check([{"x": 100}]).rejections[0][0]
    assert problem.expected == "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …"


def test_other_keys_are_ignored_and_counted() -> None:
    plain = of("int")
    assert plain.check([{"x": 1, "y": 2, "z": 3}, {"x": 1}, {"x": 1, "y": None}]).ignored_keys == 3
    defaults = validator(Feature(name="x", type="int", default=0), Feature(name="w", type="int", default=0))
    assert defaults.check([{"y": 2, "z": 3}, {}, {"w": 1, "y": None}]).ignored_keys == 3
    for check in (plain.check, defaults.check):
        # Of a rejected record nothing is counted.
        assert check([{"x": "bad", "y": 1}, {"x": 1, "y": 1}]).ignored_keys == 1
        assert check([{"x": 1, 5: 1}]).ignored_keys == 1


def test_other_keys_are_each_a_problem_when_forbidden() -> None:
    check = validator(Feature(name="x", type="int"), extra="forbid").check
    assert check([{"x": 1}]).rows == [(1,)]
    problems = check([{"x": "1", "y": 2, "my name": None, 5: []}, {"x": 1}]).rejections
    assert problems == {
        0: (
            Problem("$[0].x", "an integer", "a string"),
            Problem("$[0].y", "no such feature", "an integer"),
            Problem('$[0]["my name"]', "no such feature", "null"),
            Problem('$[0]["5"]', "no such feature", "an array"),
        )
    }


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tenure", "$[0].tenure"),
        ("größe", "$[0].größe"),
        ("my name", '$[0]["my name"]'),
        ("a.b", '$[0]["a.b"]'),
        ('a"b\\c', '$[0]["a\\"b\\\\c"]'),
        ("1st", '$[0]["1st"]'),
        ("", '$[0][""]'),
        ("a[0]", '$[0]["a[0]"]'),
        ("\ud800", '$[0]["\\\\ud800"]'),
    ],
)
def test_odd_names_are_quoted_in_paths(name: str, path: str) -> None:
    for kind, text in (("int", "x"), ("float", "x"), ("bool", "x"), ("datetime", "x")):
        check = validator(Feature(name=name, type=kind))
        assert check.check([{}]).rejections[0][0].path == path
        assert check.check([{name: []}]).rejections[0][0].path == path
        assert check.parse_text({name: text})[1][0].path == path.replace("$[0]", "$")


@pytest.mark.parametrize(
    ("record", "got"),
    [
        (None, "null"),
        (3, "an integer"),
        ("x", "a string"),
        ([], "an array"),
        ([1], "an array"),
        ((1,), "an array"),
        (True, "a boolean"),
        (1.5, "a number"),
        (object(), "a object"),
    ],
)
def test_what_is_no_object_is_one_problem(record: object, got: str) -> None:
    # Also where every feature has a default, so that an empty array could pass for an empty object.
    for check in (of("int").check, of("int", default=1).check):
        found = check([record, {"x": 1}])
        assert found.rejections == {0: (Problem("$[0]", "an object", got),)}
        assert found.rows == [(1,)]
        assert list(found.places) == [1]


def test_an_empty_list_is_no_rows() -> None:
    found = of("int").check([])
    assert (found.rows, list(found.places), found.rejections, found.ignored_keys) == ([], [], {}, 0)


def test_every_problem_of_every_record_is_told_in_order() -> None:
    check = validator(*[Feature(name=kind, type=kind) for kind in TYPES]).check
    good = {"bool": True, "int": 1, "float": 1, "string": "", "datetime": "2020-01-01T00:00:00Z"}
    found = check([good, {}, good, dict.fromkeys(TYPES), 3, {**good, "int": "1", "string": 1}])
    assert list(found.places) == [0, 2]
    assert list(found.rejections) == [1, 3, 4, 5]
    paths = {place: [problem.path for problem in problems] for place, problems in found.rejections.items()}
    assert paths[1] == [f"$[1].{kind}" for kind in TYPES]
    assert paths[3] == [f"$[3].{kind}" for kind in TYPES]
    assert paths[4] == ["$[4]"]
    assert paths[5] == ["$[5].int", "$[5].string"]


FEATURES = (
    Feature(name="b", type="bool"),
    Feature(name="i", type="int", nullable=True),
    Feature(name="f", type="float", default=0.5),
    Feature(name="s", type="string", categories=("k1", "k2"), closed=True),
    Feature(name="my name", type="string", nullable=True, default=None),
    Feature(name="d", type="datetime", default="2020-01-01T00:00:00Z"),
)
GOOD = {"b": True, "i": 1, "s": "k1"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just("k2"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*(feature.name for feature in FEATURES), "other"])
RECORDS = st.lists(
    st.dictionaries(KEYS, JSON) | st.dictionaries(KEYS, JSON).map(lambda more: {**GOOD, **more}) | JSON, max_size=6
)


@pytest.mark.parametrize("extra", ["ignore", "forbid"])
@given(records=RECORDS)
def test_nothing_makes_it_raise_and_no_record_touches_another(extra: str, records: list[Any]) -> None:
    check = validator(*FEATURES, extra=extra).check
    found = check(records)
    assert sorted([*found.places, *found.rejections]) == list(range(len(records)))
    assert list(found.places) == sorted(found.places)
    assert len(found.rows) == len(found.places)
    ignored = 0
    rows = dict(zip(found.places, found.rows, strict=True))
    for place, record in enumerate(records):
        alone = check([record])
        beside_bad = check([record, None])
        ignored += alone.ignored_keys
        if place in rows:
            # One good record takes the fast path, one beside a bad one the slow path.
            assert repr(alone.rows) == repr(beside_bad.rows) == repr([rows[place]])
            assert alone.ignored_keys == beside_bad.ignored_keys
        else:
            assert [str(problem.alone()) for problem in alone.rejections[0]] == [
                str(Problem(problem.path.replace(f"$[{place}]", "$", 1), problem.expected, problem.got))
                for problem in found.rejections[place]
            ]
    assert ignored == found.ignored_keys


SECRETS = st.one_of(
    st.text("qxz", min_size=12).map(lambda text: f"secret-{text}"),
    st.integers(min_value=10**12),
    st.integers(max_value=-(10**12)),
    st.floats(1e-9, 1e-3).map(lambda number: number + 7777.0),
)


@given(
    secrets=st.lists(SECRETS | st.lists(SECRETS, max_size=2) | st.dictionaries(st.just("k"), SECRETS), min_size=6),
    extra=st.sampled_from(["ignore", "forbid"]),
)
def test_no_problem_tells_a_value(secrets: list[Any], extra: Any) -> None:
    check = validator(*FEATURES, extra=extra)
    names = [feature.name for feature in FEATURES]
    record = {**dict(zip(names, secrets, strict=False)), "other": secrets[0]}
    texts = {name: str(value) for name, value in record.items()}
    problems = [*check.check([record, secrets[0]]).rejections[0], *check.parse_text(texts)[1]]
    told = "\n".join(f"{problem} {problem.path} {problem.expected} {problem.got}" for problem in problems)
    assert told
    assert [leaf for leaf in map(str, leaves(secrets)) if leaf in told] == []


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return leaves(list(value.values()))
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return [value]


@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("bool", "true", True),
        ("bool", "TRUE", True),
        ("bool", "False", False),
        ("int", "0", 0),
        ("int", "-0", 0),
        ("int", "-12", -12),
        ("int", "12.0", 12),
        ("int", "9007199254740993.0", 9007199254740993),
        ("int", "9223372036854775807", 2**63 - 1),
        ("int", "-9223372036854775808", -(2**63)),
        ("float", "1", 1.0),
        ("float", "-1.50", -1.5),
        ("float", "1e3", 1000.0),
        ("float", "1E-3", 0.001),
        ("float", "1e-400", 0.0),
        ("string", "nan", "nan"),
        ("string", " a ", " a "),
        ("string", "1", "1"),
        ("datetime", "2020-01-01T14:00:00+02:00", NOON),
        ("datetime", "2020-01-01 12:00:00Z", NOON),
        *[(kind, "", None) for kind in TYPES],
    ],
)
def test_text_is_read_by_type(kind: str, text: str, read: object) -> None:
    record, problems = of(kind).parse_text({"x": text})
    assert problems == []
    assert record == {"x": read}
    assert type(record["x"]) is type(read)
    if read is not None:
        assert of(kind).check([record]).rows == [(read,)]


NOT_ONE = "text that is not one"


@pytest.mark.parametrize(
    ("kind", "text", "got"),
    [
        *[("bool", text, NOT_ONE) for text in ("1", "0", "yes", "t", " true", "true ", "None")],
        *[("int", text, NOT_ONE) for text in ("+1", "01", "1_000", " 1", "1 ", "1.5", "1.", "1e3", "0x1", "x", " ")],
        *[("int", text, NOT_ONE) for text in ("٣", "1\n", "--1", "-", "nan", "inf", "true", "1,000")],
        ("int", "9223372036854775808", "an integer beyond 64 bits"),
        ("int", "-9223372036854775809.0", "an integer beyond 64 bits"),
        ("int", "9" * 10_000, "an integer beyond 64 bits"),
        *[("float", text, NOT_ONE) for text in ("nan", "NaN", "inf", "-inf", "Infinity", "1_000", " 1", "1 ", "1\n")],
        *[("float", text, NOT_ONE) for text in ("+1", "01", ".5", "5.", "٣", "1,5", "0x1p3", "true", " ", "e5", "1e")],
        ("float", "1e400", "a number too large"),
        ("float", "-1e400", "a number too large"),
        *[("datetime", text, NOT_ONE) for text in ("2020-01-01", "now", "1577880000", " ", "2020-02-30T00:00:00Z")],
        ("datetime", "9999-12-31T23:59:59-01:00", NOT_ONE),
    ],
)
def test_other_text_is_a_problem(kind: str, text: str, got: str) -> None:
    record, problems = of(kind).parse_text({"x": text, "y": text})
    assert record == {"y": text}
    assert [(problem.path, problem.got) for problem in problems] == [("$.x", got)]
    assert problems[0].expected == of(kind).check([{}]).rejections[0][0].expected


@given(text=st.text() | st.from_regex(r"[ +-]?[0-9_]{1,4}\.?[0-9]{0,3}(e[0-9]{1,3})?[ n]?", fullmatch=True))
def test_text_of_a_number_is_that_of_json(text: str) -> None:
    record, _ = of("float").parse_text({"x": text})
    try:
        # As wide as JSON, but for what its reader takes beyond RFC 8259: NaN, infinities and space around.
        number = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        number = None
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and text == text.strip()
    if is_number and math.isfinite(number):
        assert record == {"x": float(number)}
    else:
        assert record == ({} if text else {"x": None})


@given(value=st.integers(-(2**63), 2**63 - 1))
def test_an_integer_survives_its_text(value: int) -> None:
    assert of("int").parse_text({"x": str(value)}) == ({"x": value}, [])


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_its_text(value: float) -> None:
    assert of("float").parse_text({"x": repr(value)}) == ({"x": value}, [])


@given(
    value=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).filter(
        lambda one: 2 <= one.year <= 9998
    )
)
def test_a_datetime_comes_out_in_utc(value: datetime) -> None:
    (row,) = of("datetime").check([{"x": value.isoformat()}]).rows
    assert row[0] == value
    assert row[0].tzinfo is UTC


def test_types_are_named_as_in_json() -> None:
    values: list[object] = [None, True, 1, 1.5, "x", {}, [], ()]
    assert [type_name(value) for value in values] == [
        "null",
        "a boolean",
        "an integer",
        "a number",
        "a string",
        "an object",
        "an array",
        "an array",
    ]
