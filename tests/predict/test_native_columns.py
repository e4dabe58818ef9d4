"""The matrix made of rows is the one a ColumnTransformer makes of their frame: values, dtype and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from fairlead.predict.native_columns import NoShortcut, rows_transform
from fairlead.predict.training_frame import to_frame
from fairlead.schema import Feature, Schema

SCHEMA = Schema(
    features=(
        Feature(name="size", type="float", nullable=True),
        Feature(name="rooms", type="int"),
        Feature(name="floor", type="int", nullable=True),
        Feature(name="town", type="string", nullable=True, column="The town"),
        Feature(name="street", type="string"),
        Feature(name="garden", type="bool"),
    )
)
N_ROWS = 200


def made(seed: int, towns: tuple[str | None, ...], has_null: bool) -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(seed)
    return [
        (
            None if has_null and rng.random() < 0.2 else float(rng.normal(80, 20)),
            int(rng.integers(1, 6)),
            None if has_null and rng.random() < 0.2 else int(rng.integers(-(2**60), 2**60)),
            towns[rng.integers(len(towns))],
            f"street {rng.integers(40)}",
            bool(rng.integers(2)),
        )
        for _ in range(N_ROWS)
    ]


TRAIN = made(1, ("Delft", "Gouda", "Leiden", None), True)
ROWS = [*made(2, ("Delft", "Gouda", "Leiden", None, "Paris"), True), *made(3, ("Delft", "Gouda"), False)]
WORDS = ["The town", "street"]
KNOWN = OneHotEncoder(handle_unknown="ignore")
DENSE = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
FULL = make_pipeline(SimpleImputer(), StandardScaler())

SAME = {
    "dense": [("w", DENSE, WORDS), ("n", StandardScaler(), ["size", "rooms"])],
    "sparse": [("w", KNOWN, WORDS), ("n", FULL, ["size", "floor"])],
    "numbers first": [("n", StandardScaler(with_mean=False), ["floor", "size"]), ("w", DENSE, WORDS)],
    "passed through": [("w", DENSE, ["The town"]), ("n", "passthrough", ["size", "rooms", "floor"])],
    "identity": [("w", DENSE, ["The town"]), ("n", FunctionTransformer(), ["size"])],
    "dropped": [("w", DENSE, ["The town"]), ("n", "drop", ["size"]), ("none", StandardScaler(), [])],
    "bool": [("w", DENSE, ["The town"]), ("n", StandardScaler(with_std=False), ["garden", "size"])],
    "imputed": [
        ("w", make_pipeline(SimpleImputer(strategy="most_frequent"), DENSE), WORDS),
        ("n", make_pipeline(SimpleImputer(strategy="median")), ["size", "floor"]),
    ],
    "a word for null": [("w", make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), DENSE), ["The town"])],
    "coded numbers": [("w", DENSE, ["rooms", "street", "garden"]), ("n", "passthrough", ["size"])],
    "chosen": [("w", DENSE, make_column_selector(dtype_include=object)), ("n", StandardScaler(), slice(0, 2))],
    "strict": [("w", OneHotEncoder(sparse_output=False), ["street", "garden"])],
}


@pytest.mark.parametrize("case", SAME)
def test_it_is_the_same_matrix(case: str) -> None:
    transformer = ColumnTransformer(SAME[case]).fit(to_frame(TRAIN, SCHEMA))
    transform = rows_transform(transformer, SCHEMA)
    for rows in (ROWS, ROWS[:1], ROWS[:2], ROWS[N_ROWS:], ROWS[5:37]):
        expected, found = transformer.transform(to_frame(rows, SCHEMA)), transform(rows)
        assert type(found) is type(expected)
        parts = [(expected, found)]
        if not isinstance(expected, np.ndarray):
            assert case == "sparse"
            parts = [(getattr(expected, part), getattr(found, part)) for part in ("data", "indices", "indptr")]
        for one, other in parts:
            assert (one.dtype, one.shape, one.strides) == (other.dtype, other.shape, other.strides)
            assert one.tobytes() == other.tobytes()


def test_the_rest_is_passed_through() -> None:
    frame = to_frame(TRAIN, SCHEMA).drop(columns=["garden", "street"])
    transformer = ColumnTransformer([("w", DENSE, ["The town"])], remainder="passthrough").fit(frame)
    found = rows_transform(transformer, SCHEMA)(ROWS)
    assert found.tobytes() == transformer.transform(to_frame(ROWS, SCHEMA)[frame.columns]).tobytes()


OTHER = {
    "another class": [("w", DENSE, WORDS), ("n", MinMaxScaler(), ["size"])],
    "another encoder": [("w", OrdinalEncoder(), WORDS)],
    "numbers alone": [("n", StandardScaler(), ["size", "rooms"])],
    "words passed through": [("w", DENSE, ["street"]), ("n", "passthrough", ["The town"])],
    "bools passed through": [("w", DENSE, ["street"]), ("n", "passthrough", ["garden", "size"])],
    "rare words": [("w", OneHotEncoder(min_frequency=3, handle_unknown="ignore"), WORDS)],
    "dropped words": [("w", OneHotEncoder(drop="first"), WORDS)],
    "float32": [("w", OneHotEncoder(dtype=np.float32), WORDS)],
    "null among coded numbers": [("w", DENSE, ["floor"])],
    "an indicator": [("w", DENSE, WORDS), ("n", SimpleImputer(add_indicator=True), ["size"])],
    "a constant": [("w", DENSE, WORDS), ("n", SimpleImputer(strategy="constant"), ["size"])],
    "a function": [("w", DENSE, WORDS), ("n", FunctionTransformer(np.abs), ["size"])],
    "one column as a vector": [("w", DENSE, WORDS), ("n", FunctionTransformer(np.asarray), "size")],
}


@pytest.mark.parametrize("case", OTHER)
def test_what_is_not_known_exactly_has_no_shortcut(case: str) -> None:
    transformer = ColumnTransformer(OTHER[case])
    if case != "one column as a vector":
        transformer.fit(to_frame(TRAIN, SCHEMA))
        with pytest.raises(NoShortcut):
            rows_transform(transformer, SCHEMA)


def test_neither_has_one_that_gives_frames() -> None:
    transformer = ColumnTransformer([("w", DENSE, WORDS)]).set_output(transform="pandas")
    with pytest.raises(NoShortcut):
        rows_transform(transformer.fit(to_frame(TRAIN, SCHEMA)), SCHEMA)


def test_an_unknown_word_that_is_refused_is_refused_here_too() -> None:
    transformer = ColumnTransformer([("w", OneHotEncoder(), ["street"])]).fit(to_frame(TRAIN, SCHEMA))
    row = (1.0, 1, 1, "Delft", "no street", True)
    with pytest.raises(KeyError):
        rows_transform(transformer, SCHEMA)([row])
