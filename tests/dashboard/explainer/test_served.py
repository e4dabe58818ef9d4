"""What the library takes for the model gives what the predictor gives, for the same rows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from fairlead.dashboard.explainer.features import Display
from fairlead.dashboard.explainer.served import ServedClassifier, ServedRegressor, centred, served_of
from fairlead.errors import DashboardError, InvalidRecords
from fairlead.predict.predictor import load
from observing import records_of

BundleOf = Callable[[Any, pd.DataFrame, str], Path]


def _served(path: Path) -> Any:
    predictor = load(path)
    return served_of(Display(predictor.schema), predictor)


def _shown(served: Any, records: list[dict[str, Any]]) -> pd.DataFrame:
    return served.display.frame(records, [str(place) for place in range(len(records))])


def test_probabilities_are_those_of_the_predictor(survival_bundle: Path, passengers: pd.DataFrame) -> None:
    served = _served(survival_bundle)
    records = records_of(passengers[list(served.predictor.schema.names)])
    answers = served.predictor.run(records).predictions
    probabilities = served.predict_proba(_shown(served, records))
    assert probabilities.tolist() == [list(answer["probabilities"].values()) for answer in answers]
    assert served.predict(_shown(served, records)).tolist() == [answer["prediction"] for answer in answers]


@pytest.mark.parametrize("bundle", ["native_bundle", "compiled_bundle"])
def test_classes_that_are_words_are_numbers_in_their_order(
    bundle: str, homes: pd.DataFrame, request: pytest.FixtureRequest
) -> None:
    served = _served(request.getfixturevalue(bundle))
    records = [*records_of(homes), {"size": None, "rooms": 2, "town": "nowhere"}]
    answers = served.predictor.run(records).predictions
    frame = _shown(served, records)
    classes = served.predictor.manifest.classes
    assert [classes[place] for place in served.predict(frame)] == [answer["prediction"] for answer in answers]
    np.testing.assert_allclose(served.outputs(frame)[:, classes.index("dear")], [a["p"] for a in answers], rtol=1e-12)


def test_a_regression_gives_its_numbers(pay_bundle: Path, passengers: pd.DataFrame) -> None:
    served = _served(pay_bundle)
    records = records_of(passengers[list(served.predictor.schema.names)])
    answers = served.predictor.run(records).predictions
    assert isinstance(served, ServedRegressor)
    assert served.predict(_shown(served, records)).tolist() == [answer["prediction"] for answer in answers]


def test_a_model_without_probabilities_is_sure(passengers: pd.DataFrame, bundle_of: BundleOf) -> None:
    sample = passengers[["class", "fare"]]
    model = LinearSVC().fit(sample, passengers["survived"] == 1)
    served = _served(bundle_of(model, sample, "sure"))
    records = records_of(sample)
    frame = _shown(served, records)
    shares = served.predict_proba(frame)
    assert set(shares.ravel()) == {0.0, 1.0}
    classes = served.predictor.manifest.classes
    assert [classes[place] for place in shares.argmax(axis=1)] == model.predict(sample).tolist()
    assert (shares.argmax(axis=1) == served.predict(frame)).all()


def test_log_odds_of_several_classes_are_those_of_the_probabilities(
    passengers: pd.DataFrame, bundle_of: BundleOf
) -> None:
    sample = passengers[["fare", "own_cabin"]]
    served = _served(bundle_of(LogisticRegression().fit(sample, passengers["class"]), sample, "three"))
    frame = _shown(served, records_of(sample))
    margins = served.decision_function(frame)
    np.testing.assert_allclose(margins.sum(axis=1), 0, atol=1e-12)
    powers = np.exp(margins)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), served.predict_proba(frame))


def test_what_all_classes_have_in_common_is_taken_away() -> None:
    assert centred(np.array([[1.0, 2.0, 6.0]])).tolist() == [[-2.0, -1.0, 3.0]]


@pytest.mark.parametrize("bundle", ["prepared_bundle", "frame_prepared_bundle"])
def test_the_users_own_step_comes_first(bundle: str, request: pytest.FixtureRequest) -> None:
    served = _served(request.getfixturevalue(bundle))
    records = [{"area": 100.0, "rooms": 1}, {"area": 49.0, "rooms": 3}]
    answers = served.predictor.run(records).predictions
    frame = _shown(served, records)
    assert served.predict(frame).tolist() == pytest.approx([answer["prediction"] for answer in answers])
    assert served.model_rows(frame) == [(10.0, 1.0), (7.0, 3.0)]


def test_a_row_that_the_users_own_step_refuses_is_refused(prepared_bundle: Path) -> None:
    served = _served(prepared_bundle)
    frame = _shown(served, [{"area": 100.0, "rooms": 1}, {"area": 13.0, "rooms": 1}])
    with pytest.raises(InvalidRecords, match=r"\$\[1\]"):
        served.predict(frame)


def test_a_row_that_the_schema_refuses_is_refused(compiled_bundle: Path) -> None:
    served = _served(compiled_bundle)
    frame = _shown(served, [{"size": 1.0, "rooms": 1, "town": "Delft"}]).astype({"rooms": float})
    frame["rooms"] = np.nan
    with pytest.raises(InvalidRecords, match="rooms"):
        served.outputs(frame)
    with pytest.raises(InvalidRecords, match="rooms"):
        served.model_rows(frame)


def test_a_model_that_answers_no_number_has_no_dashboard(function_bundle: Path) -> None:
    served = _served(function_bundle)
    record = {"size": 50.0, "rooms": 2, "town": "Delft", "how": "well"}
    with pytest.raises(DashboardError, match="one number a row, or a class, got dict"):
        served.predict(_shown(served, [record]))


def test_without_a_predictor_there_is_nothing_to_show(compiled_bundle: Path) -> None:
    served = _served(compiled_bundle)
    frame = _shown(served, [{"size": 1.0, "rooms": 1, "town": "Delft"}])
    served.predictor = None
    again = pickle.loads(pickle.dumps(served))
    assert isinstance(again, ServedClassifier)
    with pytest.raises(DashboardError, match="attach"):
        again.predict(frame)
