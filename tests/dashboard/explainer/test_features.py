"""How features are shown, and that each value comes back as what it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dashboard.explainer.features import MISSING_NUMBER, Display, meant_text, shown_name, shown_text
from fairlead.errors import InvalidRecords
from fairlead.predict.tables import checked_table
from fairlead.schema import Feature, FeatureType, Schema


def _schema(*features: Feature) -> Schema:
    return Schema(features=features)


def _back(schema: Schema, values: list[Any]) -> list[Any]:
    """Send values of the only feature through the frame and back."""
    display = Display(schema)
    name = schema.names[0]
    frame = display.frame([{name: value} for value in values], [str(place) for place in range(len(values))])
    return [record[name] for record in display.records(frame)]


MARK = "\N{ZERO WIDTH SPACE}"
ODD_WORDS = [
    "",
    " ",
    "NaN",
    "missing",
    f"missing{MARK}",
    "<b>",
    "‹b›",
    f"‹{MARK}",
    "a=b",
    "{x}",
    "-999",
    "None",
    2 * MARK,
]


def test_words_come_back_as_they_were() -> None:
    schema = _schema(Feature(name="town", type="string", nullable=True))
    assert _back(schema, [*ODD_WORDS, None]) == [*ODD_WORDS, None]


def test_words_that_are_all_known_come_back_as_they_were() -> None:
    feature = Feature(name="town", type="string", nullable=True, categories=tuple(ODD_WORDS), closed=True)
    assert _back(_schema(feature), [*ODD_WORDS, None]) == [*ODD_WORDS, None]


@given(st.lists(st.text(alphabet=st.sampled_from("<>‹›\u200bab"), max_size=8), max_size=4))
def test_any_text_comes_back(texts: list[str]) -> None:
    assert [meant_text(shown_text(text)) for text in texts] == texts
    assert not any(sign in shown_text(text) for text in texts for sign in "<>")


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float", [0.1, -0.0, 1e300, -999.0, 5.0]),
        ("int", [0, -999, 7, 2**52]),
        ("bool", [True, False]),
        ("datetime", ["2024-02-29T12:30:00Z", "1999-12-31T23:59:59.123456Z"]),
    ],
)
def test_values_come_back_as_they_were(kind: FeatureType, values: list[Any], nullable: bool) -> None:
    schema = _schema(Feature(name="x", type=kind, nullable=nullable))
    sent = [*values, None] if nullable else values
    found = _back(schema, sent)
    assert found == sent
    assert [type(value) for value in found] == [type(value) for value in sent]


def test_an_integer_that_cannot_be_missing_keeps_every_digit() -> None:
    assert _back(_schema(Feature(name="id", type="int")), [2**63 - 1, -(2**63)]) == [2**63 - 1, -(2**63)]


def test_a_datetime_of_another_zone_is_the_same_moment() -> None:
    schema = _schema(Feature(name="at", type="datetime"))
    assert _back(schema, ["2024-01-01T02:00:00+02:00", "2024-01-01T00:00:00"]) == ["2024-01-01T00:00:00Z"] * 2


def test_a_default_stands_for_a_feature_that_is_not_there() -> None:
    display = Display(_schema(Feature(name="a", type="int"), Feature(name="b", type="string", default="x")))
    assert display.records(display.frame([{"a": 1}], ["r"])) == [{"a": 1, "b": "x"}]


def test_what_is_missing_is_shown_as_what_a_person_can_type() -> None:
    display = Display(
        _schema(Feature(name="n", type="float", nullable=True), Feature(name="w", type="bool", nullable=True))
    )
    frame = display.frame([{"n": None, "w": None}, {"n": -999.0, "w": True}], ["a", "b"])
    assert frame["w"].tolist() == ["missing", "true"]
    assert frame["n"].iloc[0] == MISSING_NUMBER
    assert frame["n"].iloc[1] != MISSING_NUMBER
    typed = pd.DataFrame({"n": [-999], "w": ["missing"]}, dtype=object)
    assert display.records(typed) == [{"n": None, "w": None}]


def test_minus_999_is_a_number_where_nothing_can_be_missing() -> None:
    display = Display(_schema(Feature(name="n", type="float")))
    assert display.records(pd.DataFrame({"n": [-999]})) == [{"n": -999.0}]


def test_names_are_fit_for_ids_and_unique() -> None:
    names = ["sepal.length", "sepal․length", "monthly charges", "{a}", "(a)", "<i>", "a=b"]
    display = Display(_schema(*(Feature(name=name, type="float") for name in names)))
    assert len(set(display.columns)) == len(names)
    assert not any(sign in column for column in display.columns for sign in ".{}<>= ")
    assert display.column("sepal.length") == display.columns[0]
    assert display.column("no such feature") == shown_name("no such feature")
    records = [dict(zip(names, map(float, range(7)), strict=True))]
    assert display.records(display.frame(records, ["r"])) == records


def test_markup_in_an_index_is_not_shown_as_such() -> None:
    display = Display(_schema(Feature(name="n", type="float")))
    shown = display.frame([{"n": 1.0}], ["<script>"]).index[0]
    assert "<" not in shown
    assert meant_text(shown) == "<script>"


def test_only_words_that_the_schema_knows_are_categories() -> None:
    known = Feature(name="known", type="string", categories=("b", "a"), closed=True)
    display = Display(
        _schema(known, Feature(name="open", type="string", categories=("b",)), Feature(name="is", type="bool"))
    )
    frame = display.frame([{"known": "a", "open": "z", "is": False}], ["r"])
    assert [frame[column].dtype.name for column in frame] == ["category", "object", "category"]
    assert display.words() == {"known": ["b", "a"], "open": ["b"], "is": ["false", "true"]}


def test_a_number_between_integers_is_rounded() -> None:
    display = Display(_schema(Feature(name="n", type="int")))
    assert display.records(pd.DataFrame({"n": [1.4, 2.6]})) == [{"n": 1}, {"n": 3}]
    assert display.whole() == ["n"]


@pytest.mark.parametrize("typed", [1e30, math.inf, math.nan])
def test_what_is_no_integer_at_all_is_left_to_the_predictor_to_refuse(typed: float) -> None:
    schema = _schema(Feature(name="n", type="int"))
    table = Display(schema).table(pd.DataFrame({"n": [typed]}))
    assert checked_table(table, schema).rejections


def test_a_table_is_what_a_predictor_takes() -> None:
    schema = _schema(
        Feature(name="a.b", type="float", nullable=True),
        Feature(name="w", type="string", nullable=True, categories=("x",)),
        Feature(name="at", type="datetime"),
    )
    display = Display(schema)
    records = [
        {"a.b": None, "w": None, "at": "2024-01-01T00:00:00Z"},
        {"a.b": 2.0, "w": "x", "at": "2025-01-01T00:00:00Z"},
    ]
    checked = checked_table(display.table(display.frame(records, ["p", "q"])), schema)
    assert not checked.rejections
    assert checked.table.column("a.b").to_pylist() == [None, 2.0]
    assert checked.table.column("w").to_pylist() == [None, "x"]


def test_one_hot_columns_as_the_library_writes_them_are_numbers() -> None:
    display = Display(_schema(Feature(name="sex_male", type="float")))
    assert display.records(pd.DataFrame({"sex_male": np.array([1, 0], np.int8)})) == [
        {"sex_male": 1.0},
        {"sex_male": 0.0},
    ]


def test_a_table_lacks_nothing_silently() -> None:
    with pytest.raises(KeyError):
        Display(_schema(Feature(name="n", type="float"))).table(pd.DataFrame({"m": [1.0]}))


def test_a_missing_number_where_none_may_be_missing_is_refused() -> None:
    schema = _schema(Feature(name="n", type="float"))
    table = Display(schema).table(pd.DataFrame({"n": [math.nan]}))
    with pytest.raises(InvalidRecords):
        raise InvalidRecords(checked_table(table, schema).rejections[0])
