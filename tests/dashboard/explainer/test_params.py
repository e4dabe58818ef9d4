"""Parameters of an explainer.yaml: which pass, how they are put, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.dashboard.explainer.features import Display
from fairlead.dashboard.explainer.params import params_of
from fairlead.errors import DashboardError
from fairlead.schema import Feature, Schema

DISPLAY = Display(
    Schema(
        features=(
            Feature(name="sex", type="string", categories=("female", "male"), description="as <written>"),
            Feature(name="fare.in {kr}", type="float", unit="kr", nullable=True),
            Feature(name="town_Oslo", type="float"),
            Feature(name="town_Bergen", type="float"),
        )
    )
)
LABELS = ("0", "1")


def test_parameters_are_put_in_terms_of_what_is_shown() -> None:
    given = {
        "cats": ["town", {"Home": ["town_Oslo", "town_Bergen"], "sex": ["sex"]}],
        "cats_notencoded": {"town": "<elsewhere>", "nothing": "?"},
        "descriptions": {"sex": "as <told>", "nothing": "?"},
        "labels": ["<lost>", "saved"],
        "pos_label": "saved",
        "target": "Outcome",
        "n_jobs": 3,
        "shap": "guess",
        "na_fill": -999,
        "cv": None,
    }
    found = params_of(given, DISPLAY, LABELS)
    assert found.notes == []
    assert found.kwargs == {
        "cats": {"town": ["town_Oslo", "town_Bergen"], "Home": ["town_Oslo", "town_Bergen"]},
        "cats_notencoded": {"town": "‹elsewhere›"},
        "descriptions": {
            "sex": "as ‹told›",
            "nothing": "?",
            DISPLAY.columns[1]: "in kr, -999 where it is missing",
        },
        "labels": ["‹lost›", "saved"],
        "pos_label": 1,
        "target": "Outcome",
    }


@pytest.mark.parametrize(("given", "place"), [({}, 1), ({"pos_label": 0}, 0), ({"pos_label": "0"}, 0)])
def test_the_positive_class_is_named_or_counted(given: dict[str, Any], place: int) -> None:
    assert params_of(given, DISPLAY, LABELS).kwargs["pos_label"] == place


def test_a_group_that_is_a_feature_itself_is_passed_over() -> None:
    found = params_of({"cats": ["sex"]}, DISPLAY, LABELS)
    assert found.kwargs["cats"] == {}
    assert found.notes == ["cats: sex is a feature of the model itself, there is nothing to be put together"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"descripions": {}}, "descripions: no parameter of an explainer: did you mean 'descriptions'"),
        ({"shap": "deep"}, "shap: fairlead decides this itself"),
        ({"na_fill": 0}, "na_fill: fairlead decides"),
        ({"cv": 5}, "cv: fairlead decides"),
        ({"labels": ["only one"]}, "labels: expected 2 different ones"),
        ({"labels": ["a", "a"]}, "labels: expected 2 different ones"),
        ({"labels": "ab"}, "labels: expected a list, got str"),
        ({"pos_label": "2"}, "pos_label: expected one of 0, 1"),
        ({"pos_label": True}, "pos_label: expected one of 0, 1"),
        ({"units": "kr"}, "units: a probability has none"),
        ({"target": 5}, "target: expected text, got int"),
        ({"descriptions": ["x"]}, "descriptions: expected text by name, got list"),
        ({"cats": "sex"}, "cats: expected a list, got str"),
        ({"cats": ["nothing"]}, "cats: nothing: expected two features nothing_… or more, got 0"),
        ({"cats": {"G": ["sex", "nothing"]}}, "cats: G: no feature nothing; there are"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(params: dict[str, Any], told: str) -> None:
    with pytest.raises(DashboardError) as caught:
        params_of(params, DISPLAY, LABELS)
    assert told in str(caught.value)


@pytest.mark.parametrize("params", [{"labels": ["a", "b"]}, {"pos_label": 1}])
def test_what_is_of_a_classifier_is_an_error_for_a_regression(params: dict[str, Any]) -> None:
    with pytest.raises(DashboardError, match=f"{next(iter(params))}: the model is no classifier"):
        params_of(params, DISPLAY, None)


def test_a_regression_has_units() -> None:
    assert params_of({"units": "kr", "labels": None}, DISPLAY, None).kwargs["units"] == "kr"
