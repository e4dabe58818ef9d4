"""Rows become the very matrix that a fitted ColumnTransformer makes of their frame, without the frame.

scikit-learn looks at a frame column by column, at 0.2 ms each whatever the number of rows. What
OneHotEncoder, StandardScaler, SimpleImputer and passthrough do to a value is known, so that it is done
here to the rows; any other class, or a setting that is not read here, has no such way.

Layer L1; imports numpy only, and scipy for a transformer whose matrix is sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.predict.validate import Row
from fairlead.schema import Feature, Schema

Matrix = npt.NDArray[np.float64]
RowsTransform = Callable[[Sequence[Row]], Any]
# What NumPy calls the dtype of categories, by the type of the feature.
_KINDS = {"string": "O", "int": "i", "float": "f", "bool": "b"}


class NoShortcut(Exception):
    """A step or a setting has no shortcut: the model's own way is taken."""


def class_key(step: object) -> str:
    """Name a step's exact class, a subclass of the user's being another: ``sklearn.StandardScaler``."""
    cls = type(step)
    return f"{cls.__module__.split('.')[0]}.{cls.__qualname__}"


@dataclass(frozen=True)
class _Words:
    """Columns that become one column a category.

    Parameters
    ----------
    places : of the columns in a row.
    columns : of the matrix, by value, for each of `places`; a value that is not known raises unless
        `ignores_unknown`.
    """

    places: tuple[int, ...]
    columns: tuple[dict[Any, int], ...]
    ignores_unknown: bool


@dataclass(frozen=True)
class _Numbers:
    """Columns that stay numbers.

    Parameters
    ----------
    places : of the columns in a row.
    start : their first column in the matrix.
    changes : what is done to them, in place and in this order.
    """

    places: tuple[int, ...]
    start: int
    changes: tuple[Callable[[Matrix], None], ...]


def rows_transform(transformer: Any, schema: Schema) -> RowsTransform:
    """Make of a ColumnTransformer, fitted on a frame, a function from rows to its matrix.

    The function raises for what the transformer would refuse, though not with its message.

    Raises
    ------
    NoShortcut
        When not every step is known exactly.
    """
    _need(class_key(transformer) == "sklearn.ColumnTransformer" and not transformer.transformer_weights)
    _need(_is_plain(transformer) and hasattr(transformer, "feature_names_in_"))
    of_source = {feature.source: place for place, feature in enumerate(schema.features)}
    words: list[_Words] = []
    numbers: list[_Numbers] = []
    width = 0
    for name, step, _ in transformer.transformers_:
        sources = transformer.feature_names_in_[transformer._transformer_to_input_indices[name]]
        _need(np.ndim(sources) == 1)
        if (isinstance(step, str) and step == "drop") or not len(sources):
            continue
        _need(all(source in of_source for source in sources))
        places = tuple(of_source[source] for source in sources)
        features = [schema.features[place] for place in places]
        chain = _chain(step)
        if chain and class_key(chain[-1]) == "sklearn.OneHotEncoder":
            words.append(_words(chain, places, features, width))
            width += sum(map(len, chain[-1].categories_))
        else:
            numbers.append(_numbers(chain, places, features, width))
            width += len(places)
    # Without a one-hot block the matrix is laid out by columns, and int64 where all are.
    _need(bool(words))
    if transformer.sparse_output_:
        from scipy.sparse import csr_matrix

        return lambda rows: csr_matrix(_matrix(rows, words, numbers, width))
    return lambda rows: _matrix(rows, words, numbers, width)


def _matrix(rows: Sequence[Row], words: Sequence[_Words], numbers: Sequence[_Numbers], width: int) -> Matrix:
    columns = list(zip(*rows, strict=True))
    # The last column takes the values that are not known, and is dropped.
    matrix = np.zeros((len(rows), width + 1))
    lines = np.arange(len(rows))
    for word in words:
        for place, known in zip(word.places, word.columns, strict=True):
            if word.ignores_unknown:
                matrix[lines, [known.get(value, width) for value in columns[place]]] = 1
            else:
                matrix[lines, [known[value] for value in columns[place]]] = 1
    for number in numbers:
        block = np.array([columns[place] for place in number.places], np.float64).T
        for change in number.changes:
            change(block)
        matrix[:, number.start : number.start + len(number.places)] = block
    return matrix[:, :width].copy()


def _words(chain: Sequence[Any], places: tuple[int, ...], features: Sequence[Feature], width: int) -> _Words:
    encoder = chain[-1]
    _need(encoder.handle_unknown in ("error", "ignore") and np.dtype(encoder.dtype) == np.float64)
    _need(encoder.drop is None and encoder.max_categories is None and encoder.min_frequency is None)
    fills = _word_fills(chain[:-1], features)
    columns = []
    for feature, categories, fill in zip(features, encoder.categories_, fills, strict=True):
        _need(categories.dtype.kind == _KINDS.get(feature.type))
        _need(not feature.nullable or feature.type == "string")  # null turns the others into float64
        _need(not any(value is None for value in categories))  # null reaches the encoder as NaN
        known = {None if _is_nan(value) else value: width + i for i, value in enumerate(categories.tolist())}
        _need(all(value is None or isinstance(value, str) for value in known) or feature.type != "string")
        if fill is not None and fill in known:
            known[None] = known[fill]
        elif fill is not None:
            known.pop(None, None)  # what stands for null is not known either
        columns.append(known)
        width += len(categories)
    return _Words(places, tuple(columns), encoder.handle_unknown == "ignore")


def _word_fills(imputers: Sequence[Any], features: Sequence[Feature]) -> list[Any]:
    """Give what stands for null in each column; None where nothing does."""
    if not imputers:
        return [None] * len(features)
    _need(len(imputers) == 1 and all(feature.type == "string" for feature in features))
    statistics = _statistics(imputers[0])
    _need(all(isinstance(value, str) for value in statistics))
    return list(statistics)


def _numbers(chain: Sequence[Any], places: tuple[int, ...], features: Sequence[Feature], start: int) -> _Numbers:
    # A frame of bools and numbers is one of objects to whoever passes it through.
    kinds = ("int", "float", "bool") if chain else ("int", "float")
    _need(all(feature.type in kinds for feature in features))
    return _Numbers(places, start, tuple(_change(step) for step in chain))


def _change(step: Any) -> Callable[[Matrix], None]:
    if class_key(step) == "sklearn.StandardScaler":
        return lambda block: _standardize(block, step.mean_ if step.with_mean else None, step.scale_)
    _need(class_key(step) == "sklearn.SimpleImputer" and step.strategy in ("mean", "median"))
    fills = np.asarray(_statistics(step), np.float64)
    return lambda block: np.copyto(block, fills, where=np.isnan(block))


def _standardize(block: Matrix, mean: Matrix | None, scale: Matrix | None) -> None:
    if mean is not None:
        block -= mean
    if scale is not None:
        block /= scale


def _statistics(imputer: Any) -> Any:
    _need(class_key(imputer) == "sklearn.SimpleImputer" and not imputer.add_indicator)
    _need(_is_nan(imputer.missing_values))
    _need(not any(value is None or _is_nan(value) for value in imputer.statistics_))
    return imputer.statistics_


def _chain(step: Any) -> list[Any]:
    """The steps of a branch, without those that pass their input on."""
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return []
    if class_key(step) == "sklearn.Pipeline":
        return [one for _, inner in step.steps for one in _chain(inner)]
    if class_key(step) == "sklearn.FunctionTransformer" and step.func is None and not step.validate:
        return []
    _need(_is_plain(step))
    return [step]


def _is_plain(step: Any) -> bool:
    """Whether a step gives arrays: nobody called `set_output`, nor gave it a method of its own."""
    output = getattr(step, "_sklearn_output_config", {}).get("transform", "default")
    return output == "default" and "transform" not in vars(step)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _need(condition: bool) -> None:
    if not condition:
        raise NoShortcut
