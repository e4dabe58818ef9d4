"""What explainerdashboard takes for the model: the bundle's own predictor, asked with rows as they are shown.

Every number of a board that is called a prediction comes from here, and so from `Predictor`.

Layer L3; imports numpy only, and pandas comes with the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.dashboard.explainer.features import Display
from fairlead.errors import DashboardError
from fairlead.predict.outputs import Prediction
from fairlead.predict.validate import Row
from fairlead.schema import Scalar

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.predict.predictor import Predictor

# Of a probability of nought the logarithm is that of the least number there is.
_LEAST = np.finfo(np.float64).tiny


class Served:
    """A predictor over rows as they are shown. Threads may share it.

    Parameters
    ----------
    display : of the bundle's schema.
    predictor : of the bundle; it is taken away before the explainer is written to a file.

    Attributes
    ----------
    feature_names_in_ : the columns; it makes the library hand over frames, and no bare arrays.
    """

    def __init__(self, display: Display, predictor: Predictor) -> None:
        self.display = display
        self.predictor: Predictor | None = predictor
        self.feature_names_in_ = np.asarray(display.columns, dtype=object)

    def outputs(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Predict rows.

        Parameters
        ----------
        frame : has `Display.columns`.

        Returns
        -------
        float64, shape (n_rows, n_outputs): a classifier's probabilities, a number for a regression.

        Raises
        ------
        InvalidRecords
            When the schema, or the user's own step, refuses a row.
        ModelFailed
            When the model raises.
        DashboardError
            When the user's own class answers anything but a number.
        """
        values = self._raw(frame).values
        try:
            return np.asarray(values, dtype=np.float64).reshape(len(frame), 1)
        except (TypeError, ValueError) as error:
            raise DashboardError(
                "expected a model that answers one number a row, or a class, got "
                f"{type(values[0]).__name__}: a dashboard has nothing to draw of it"
            ) from error

    def model_rows(self, frame: pd.DataFrame) -> list[Row]:
        """Give what reaches the model: rows of the manifest's model schema."""
        return self._attached().model_rows(self.display.table(frame))

    def _raw(self, frame: pd.DataFrame) -> Prediction:
        return self._attached().raw_prediction(self.display.table(frame))

    def _attached(self) -> Predictor:
        if self.predictor is None:
            raise DashboardError("the explainer has no predictor: call explain.attach() first")
        return self.predictor


class ServedRegressor(Served):
    """The model of a regression, or a function that answers numbers."""

    def predict(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Predict rows: float64, shape (n_rows,)."""
        return self.outputs(frame)[:, 0]


class ServedClassifier(Served):
    """A classifier, whose classes are numbers from 0 on, in the order of its probabilities.

    Parameters
    ----------
    classes : the classes as the model names them.
    """

    def __init__(self, display: Display, predictor: Predictor, classes: Sequence[Scalar]) -> None:
        super().__init__(display, predictor)
        self.classes_ = np.arange(len(classes))
        # A bool is equal to a number, so that 1 and True must not meet in one table.
        self._places = {(type(label), label): place for place, label in enumerate(classes)}

    def outputs(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Give probabilities: float64, shape (n_rows, n_classes).

        A model that has none gives 1 for the class that it predicts and 0 for the others.
        """
        prediction = self._raw(frame)
        if prediction.probabilities is not None:
            return prediction.probabilities
        chosen = np.zeros((len(frame), len(self.classes_)))
        chosen[np.arange(len(frame)), self._numbers(prediction)] = 1.0
        return chosen

    def predict_proba(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        return self.outputs(frame)

    def predict(self, frame: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Predict rows: the class's number, int64, shape (n_rows,)."""
        return self._numbers(self._raw(frame))

    def decision_function(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Give log-odds against the mean of all classes: float64, shape (n_rows, n_classes), a row adds up to 0."""
        return centred(np.log(np.maximum(self.outputs(frame), _LEAST)))

    def _numbers(self, prediction: Prediction) -> npt.NDArray[np.int64]:
        if prediction.codes is not None:
            return prediction.codes.astype(np.int64)
        places = (self._places[type(label), label] for label in prediction.values)
        return np.fromiter(places, np.int64, len(prediction.values))


def centred(margins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Take from margins what all classes have in common, which says nothing: the last axis is the classes."""
    found: npt.NDArray[np.float64] = margins - margins.mean(axis=-1, keepdims=True)
    return found


def served_of(display: Display, predictor: Predictor) -> Any:
    """Make the model of a predictor: a `ServedClassifier` or a `ServedRegressor`."""
    classes = predictor.manifest.classes
    if classes is None:
        return ServedRegressor(display, predictor)
    return ServedClassifier(display, predictor, classes)
