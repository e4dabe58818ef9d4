from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.originals import original_of
from fairlead.bundle.signature import read_schema, schema_of
from fairlead.errors import SchemaError
from fairlead.schema import Feature, Schema


def derive(
    model: Any, frame: pd.DataFrame | None = None, declared: Schema | None = None, signature: Any = None, form: str = ""
) -> Schema:
    loaded = LoadedModel(model, form or "pickle", {}, signature=signature)
    return schema_of(loaded, original_of(loaded), frame, declared)


def floats(*names: str) -> Schema:
    return Schema(features=tuple(Feature(name=name, type="float") for name in names))


@pytest.fixture(scope="module")
def encoded(people: pd.DataFrame) -> Any:
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), ("passthrough", ["age"]))
    X = people[["age", "city"]]
    return make_pipeline(encode, DecisionTreeClassifier(max_depth=3)).fit(X, people["plan"])


@pytest.fixture(scope="module")
def bare(numbers_only: pd.DataFrame, three: Any) -> Any:
    return DecisionTreeClassifier(max_depth=2).fit(numbers_only.to_numpy(), three)


def test_a_sample_tells_ranges_and_nulls(encoded: Any, people: pd.DataFrame) -> None:
    schema = derive(encoded, people.assign(city=people["city"].where(people["age"] > 20, None)))

    age, city = schema.features
    assert (age.minimum, age.maximum) == (people["age"].min(), people["age"].max())
    assert city.nullable


def test_categories_are_the_models_own(encoded: Any, people: pd.DataFrame) -> None:
    known = ("Bergen", "Bodø", "Oslo", "Tromsø")
    assert derive(encoded, people.assign(city="Voss")).features[1].categories == known
    declared = Schema(
        features=(
            Feature(name="town", column="city", type="string", categories=("Oslo", "Voss")),
            Feature(name="age", type="int"),
        )
    )

    schema = derive(encoded, declared=declared)

    assert schema.names == ("age", "town")
    assert schema.features[1].categories == ("Oslo", "Voss", "Bergen", "Bodø", "Tromsø")


def test_closed_categories_are_the_users(encoded: Any) -> None:
    feature = Feature(name="city", type="string", categories=("Oslo",), closed=True)

    schema = derive(encoded, declared=Schema(features=(Feature(name="age", type="float"), feature)))

    assert schema.features[1] == feature


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("age",), "schema: the model also wants city: declare it"),
        (("age", "city", "more"), "schema: the model knows no feature more: remove it"),
    ],
)
def test_a_declared_schema_must_fit(encoded: Any, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        derive(encoded, declared=floats(*names))


def test_a_bare_matrix_takes_the_declared_order(bare: Any) -> None:
    assert derive(bare, declared=floats("p", "q", "r", "s")).names == ("p", "q", "r", "s")
    with pytest.raises(SchemaError, match="schema: the model takes 4 features, 2 are declared"):
        derive(bare, declared=floats("p", "q"))


def test_a_bare_matrix_takes_the_samples_names(bare: Any, numbers_only: pd.DataFrame) -> None:
    assert derive(bare, numbers_only).names == ("a", "b", "c", "d")
    with pytest.raises(SchemaError, match=r"the model takes 4 features, the sample has 5 columns .* --target"):
        derive(bare, numbers_only.assign(y=1))


def test_a_sample_without_a_column(encoded: Any, people: pd.DataFrame) -> None:
    with pytest.raises(SchemaError, match="the sample has no column city, which the model wants; it has age, plan"):
        derive(encoded, people[["age", "plan"]])


def test_a_sample_of_another_type(encoded: Any, people: pd.DataFrame) -> None:
    with pytest.raises(SchemaError, match="city: the model learned strings, the sample holds ints"):
        derive(encoded, people.assign(city=1))


def test_mlflow_tells_types_and_what_is_optional(bare: Any) -> None:
    columns = [
        {"name": "a", "type": "long", "required": True},
        {"name": "b", "type": "double", "required": False},
        {"name": "c", "type": "boolean"},
        {"name": "d", "type": "float"},
    ]

    schema = derive(bare, signature=columns)

    assert [(f.name, f.type, f.nullable) for f in schema.features] == [
        ("a", "int", False),
        ("b", "float", True),
        ("c", "bool", False),
        ("d", "float", False),
    ]
    assert schema.features[1].default is None


def test_a_signature_that_does_not_fit_tells_nothing(encoded: Any, people: pd.DataFrame) -> None:
    assert derive(encoded, signature=[{"name": "other", "type": "long"}]) == derive(encoded)


class Ride:
    def predict(self, PULocationID: int, trip_distance: float = 1.5, kind=None, fast: bool = False):
        return trip_distance


class Loose:
    def predict(self, **features: Any) -> int:
        return 1


class Strange:
    def predict(self, when: list[int]) -> int:
        return 1


def test_arguments() -> None:
    schema = derive(Ride(), form="python")

    assert [(f.name, f.type, f.nullable) for f in schema.features] == [
        ("PULocationID", "int", False),
        ("trip_distance", "float", False),
        ("kind", "string", True),
        ("fast", "bool", False),
    ]
    assert (schema.features[1].default, schema.features[2].default) == (1.5, None)


def test_arguments_of_a_sample() -> None:
    assert derive(Loose(), pd.DataFrame({"a": [1], "b": ["x"]}), form="python").names == ("a", "b")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Loose(), r"predict\(\*features\): name the features as parameters, or declare them with --schema"),
        (Strange(), r"predict\(when: list\[int\]\): expected bool, int, float or str; declare it with --schema"),
    ],
)
def test_arguments_that_tell_nothing(model: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        derive(model, form="python")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("features: [", "not YAML"),
        ("features: []", "at least one feature"),
        ("- 1", "schema: Expected `object`, got `array`"),
        ("features: [{name: a, type: number}]", r"Invalid enum value 'number' - at `\$.features\[0\].type`"),
        ("features: [{name: a, type: float, colour: red}]", "unknown field `colour`"),
        ("features: [{name: a, type: int}, {name: a, type: int}]", "a: feature declared twice"),
    ],
)
def test_wrong_schema_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "schema.yaml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(SchemaError, match=f"schema.yaml: .*{message}"):
        read_schema(path)


def test_a_schema_file(tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text("extra: forbid\nfeatures:\n- {name: a, type: float, unit: °C}\n")

    assert read_schema(tmp_path / "schema.yaml") == Schema(
        features=(Feature(name="a", type="float", unit="°C"),), extra="forbid"
    )
