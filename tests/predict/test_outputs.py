from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.errors import ModelFailed, SchemaError
from fairlead.predict.outputs import OutputFormatter, Prediction, default_outputs, label_text
from fairlead.schema import parse_output

PROBABILITIES = np.array([[0.25, 0.75], [0.5, 0.5]])


def formatter(*texts: str, classes: Any = ("no", "yes"), has_probabilities: bool = True) -> OutputFormatter:
    return OutputFormatter([parse_output(text) for text in texts], classes, has_probabilities)


def test_a_classifier_answers_what_was_declared_in_that_order() -> None:
    made = formatter(
        "label=prediction",
        "all=probabilities",
        "p=probability:yes",
        "is_yes=probability:yes >= 0.6",
        "best=probability",
    )
    assert made.rows(Prediction(["yes", "no"], PROBABILITIES)) == [
        {"label": "yes", "all": {"no": 0.25, "yes": 0.75}, "p": 0.75, "is_yes": True, "best": 0.75},
        {"label": "no", "all": {"no": 0.5, "yes": 0.5}, "p": 0.5, "is_yes": False, "best": 0.5},
    ]
    assert list(made.rows(Prediction(["yes"], PROBABILITIES[:1]))[0]) == ["label", "all", "p", "is_yes", "best"]


@pytest.mark.parametrize(("sign", "wanted"), [(">=", [1, 1, 0]), (">", [1, 0, 0]), ("<=", [0, 1, 1]), ("<", [0, 0, 1])])
def test_a_regressor_is_compared(sign: str, wanted: list[int]) -> None:
    made = formatter("prediction=prediction", f"is=prediction {sign} 2", classes=None, has_probabilities=False)
    rows = made.rows(Prediction(np.array([3.0, 2.0, 1.0])))
    assert [row["prediction"] for row in rows] == [3.0, 2.0, 1.0]
    assert [row["is"] for row in rows] == [bool(one) for one in wanted]
    assert {type(value) for row in rows for value in row.values()} == {float, bool}


def test_labels_of_other_types_are_named_as_in_json() -> None:
    assert [label_text(one) for one in (True, False, 1, 1.5, "a b")] == ["true", "false", "1", "1.5", "a b"]
    made = formatter("p=probability:true", "all=probabilities", "is=prediction>0.5", classes=(False, True))
    assert made.rows(Prediction([True, False], PROBABILITIES))[0] == {
        "p": 0.75,
        "all": {"false": 0.25, "true": 0.75},
        "is": True,
    }


def test_defaults() -> None:
    assert [output.name for output in default_outputs("classifier", True)] == ["prediction", "probabilities"]
    assert [output.name for output in default_outputs("classifier", False)] == ["prediction"]
    assert [output.name for output in default_outputs("regressor", False)] == ["prediction"]
    assert [output.name for output in default_outputs("function", False)] == ["prediction"]


@pytest.mark.parametrize(
    ("texts", "classes", "has_probabilities", "message"),
    [
        (["p=probability:maybe"], ("no", "yes"), True, "p: no class maybe; known are no, yes"),
        (["p=probability:yes"], ("no", "yes"), False, "p: this model gives no probabilities"),
        (["p=probabilities"], None, False, "p: this model gives no probabilities"),
        (["p=prediction", "p=probability:yes"], ("no", "yes"), True, "a name is declared twice among p, p"),
        (["is=prediction >= 1"], ("no", "yes"), True, "is: the classes no, yes are no numbers to compare"),
    ],
)
def test_what_the_model_does_not_give_is_refused(
    texts: list[str], classes: Any, has_probabilities: bool, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        formatter(*texts, classes=classes, has_probabilities=has_probabilities)


class Point(msgspec.Struct):
    x: float


def test_the_answers_of_a_function_become_json() -> None:
    made = formatter("prediction=prediction", classes=None, has_probabilities=False)
    answers = [
        {
            "a": np.float32(0.5),
            "b": [np.int64(1), (np.bool_(True), None)],
            3: np.array([[1.0], [2.0]]),
            "s": np.str_("x"),
        },
        np.float64(2.5),
        Point(1.0),
        "text",
        None,
    ]
    rows = made.rows(Prediction(answers))
    assert [json.loads(json.dumps(row["prediction"])) for row in rows] == [
        {"a": 0.5, "b": [1, [True, None]], "3": [[1.0], [2.0]], "s": "x"},
        2.5,
        {"x": 1.0},
        "text",
        None,
    ]


@pytest.mark.parametrize("answer", [object(), {"a": [object()]}, {(1, 2): 3}, {1, object()}])
def test_an_answer_that_is_not_json_is_the_models_failure(answer: object) -> None:
    made = formatter("prediction=prediction", classes=None, has_probabilities=False)
    with pytest.raises(ModelFailed, match="not JSON"):
        made.rows(Prediction([answer]))


def test_an_answer_that_holds_itself_is_the_models_failure() -> None:
    made = formatter("prediction=prediction", classes=None, has_probabilities=False)
    answer: list[Any] = []
    answer.append(answer)
    with pytest.raises(ModelFailed, match="not JSON"):
        made.rows(Prediction([answer]))


def test_the_number_of_a_function_is_compared_and_another_answer_is_its_failure() -> None:
    made = formatter("is=prediction > 2", classes=None, has_probabilities=False)
    assert made.rows(Prediction([3, np.float32(1)])) == [{"is": True}, {"is": False}]
    for answer in ("a lot", {"a": 1}, [1, 2]):
        with pytest.raises(ModelFailed, match="output is: the model's answer is no number"):
            made.rows(Prediction([answer]))


def test_no_rows() -> None:
    made = formatter("p=probability:yes", "best=probability")
    assert made.rows(Prediction([], np.empty((0, 2)))) == []
