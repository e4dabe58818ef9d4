"""The model as it came, behind one shape: `predict`, and `predict_proba` where it has one.

The native engine runs it, parity compares with it, and the compiler takes what is inside. Layer L1;
a compiled bundle is served without this module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fairlead.bundle.formats import LoadedModel, reload
from fairlead.bundle.manifest import InputForm
from fairlead.bundle.read import Bundle
from fairlead.errors import SourceError
from fairlead.extras import require
from fairlead.schema import Kind, Scalar


@dataclass(frozen=True)
class Original:
    """A loaded model and how to speak with it.

    Parameters
    ----------
    model : has `predict`, and `predict_proba` when `has_probabilities`.
    kind : what it does.
    classes : a classifier's labels, in the order of its probabilities.
    has_probabilities : whether it gives them.
    form : how rows are handed to it, see `bundle.manifest.Manifest`.
    inner : the user's own object, where `model` is a shape put around it.
    """

    model: Any
    kind: Kind
    classes: tuple[Scalar, ...] | None
    has_probabilities: bool
    form: InputForm
    inner: Any = None

    @property
    def own(self) -> Any:
        """The user's own object."""
        return self.model if self.inner is None else self.inner

    @property
    def class_name(self) -> str:
        """The class of what is inside, as ``sklearn.pipeline.Pipeline``."""
        cls = type(self.own)
        return f"{cls.__module__}.{cls.__qualname__}"


class BoosterModel:
    """A bare xgboost or LightGBM booster, which knows no classes, with a classifier's or regressor's methods.

    Parameters
    ----------
    inner : the booster.
    n_classes : classes that its objective predicts; 0 for a regression.
    """

    def __init__(self, inner: Any, n_classes: int) -> None:
        self.inner = inner
        self.n_classes = n_classes

    def predict(self, matrix: Any) -> Any:
        scores = self._scores(matrix)
        if self.n_classes == 0:
            return scores
        return (scores > 0.5).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)

    def predict_proba(self, matrix: Any) -> Any:
        scores = self._scores(matrix)
        return np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores

    def _scores(self, matrix: Any) -> Any:
        if not type(self.inner).__module__.startswith("xgboost"):
            return np.asarray(self.inner.predict(matrix), dtype=np.float64)
        # multi:softmax would answer labels alone, gblinear predicts nothing in place.
        data = require("xgboost", "xgboost").DMatrix(matrix)
        if self.n_classes > 2:
            margin = np.asarray(self.inner.predict(data, output_margin=True, validate_features=False), np.float64)
            scores = np.exp(margin - margin.max(axis=1, keepdims=True))
            return scores / scores.sum(axis=1, keepdims=True)
        return np.asarray(self.inner.predict(data, validate_features=False), dtype=np.float64)


def original_of(loaded: LoadedModel) -> Original:
    """Find out what a loaded model is.

    Raises
    ------
    SourceError
        When it is nothing that predicts.
    """
    if loaded.format == "python":
        return Original(loaded.model, "function", None, False, "arguments")
    if loaded.format == "onnx" or isinstance(loaded.model, bytes):
        from fairlead.bundle.onnx_model import OnnxModel

        graph = OnnxModel(loaded.model)
        return Original(graph, graph.kind, graph.classes, graph.has_probabilities, "matrix")
    library = type(loaded.model).__module__.split(".")[0]
    if type(loaded.model).__name__ == "Booster" and library in ("xgboost", "lightgbm"):
        booster = BoosterModel(loaded.model, _booster_classes(loaded.model, library))
        classes = tuple(range(booster.n_classes)) or None
        kind: Kind = "classifier" if classes else "regressor"
        return Original(booster, kind, classes, bool(classes), "matrix", loaded.model)
    return _estimator(_joined(loaded))


def load_original(bundle: Bundle) -> Any:
    """Load a native bundle's own model.

    It is loaded from a copy of its verified bytes: what lies in the bundle may change after it was opened.
    """
    manifest = bundle.manifest
    with TemporaryDirectory(prefix="fairlead-") as copy:
        for name in manifest.files:
            if name.startswith(("original/", "code/")):
                path = Path(copy) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bundle.read(name))
        code = Path(copy) / "code"
        loaded = reload(
            manifest.origin.format,
            Path(copy) / "original",
            code if code.is_dir() else None,
            trust=frozenset(manifest.trust),
            model_class=manifest.model_class,
        )
        return original_of(loaded).model


def _joined(loaded: LoadedModel) -> Any:
    if loaded.vectorizer is None:
        return loaded.model
    pipeline = require("sklearn.pipeline", "build")
    return pipeline.Pipeline([("vectorizer", loaded.vectorizer), ("model", loaded.model)])


def _estimator(model: Any) -> Original:
    base = require("sklearn.base", "build")
    if not hasattr(model, "predict"):
        raise SourceError(f"expected a model with `predict`, got {type(model).__module__}.{type(model).__name__}")
    has_probabilities = hasattr(model, "predict_proba")
    form = _form(model)
    if base.is_classifier(model):
        if isinstance(model.classes_, list) or np.ndim(model.classes_) != 1:
            raise SourceError(f"{type(model).__name__}: predicts more than one output, expected a model of one")
        classes = tuple(label.item() if isinstance(label, np.generic) else label for label in model.classes_)
        return Original(model, "classifier", classes, has_probabilities, form)
    return Original(model, "regressor", None, False, form)


def _form(model: Any) -> InputForm:
    first = first_step(model)
    if type(first).__name__ == "DictVectorizer":
        return "records"
    named = getattr(model, "feature_names_in_", None) is not None or hasattr(first, "feature_names_in_")
    return "frame" if named else "matrix"


def first_step(model: Any) -> Any:
    """The step that sees the input: a Pipeline's first, however deep, or the best one of a search."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif getattr(model, "steps", None):
            model = next((step for _, step in model.steps if step not in (None, "passthrough")), model.steps[-1][1])
        else:
            return model


def _booster_classes(booster: Any, library: str) -> int:
    if library == "xgboost":
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["learner_train_param"]["objective"]
        if objective.startswith("multi:"):
            return int(learner["learner_model_param"]["num_class"])
        return 2 if objective == "binary:logistic" else 0
    objective = booster.dump_model(num_iteration=1).get("objective", "").split(" ")[0]
    if objective.startswith("multiclass"):
        return int(booster.dump_model(num_iteration=1)["num_class"])
    return 2 if objective == "binary" else 0
