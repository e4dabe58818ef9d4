"""Where on a feature's own axis a computed column passes a number, to the last bit.

A column that is made of one feature by steps that rise or fall (subtract, divide, clip, round to float32)
passes a threshold at exactly one float64 number. It is found by halving the ordered bit patterns of
float64, 64 times, with the graph itself as the function: so no step has to be inverted, and whatever the
graph rounds is rounded here. Where a column turns or jumps, `Value.breaks` says so, and each piece
between is searched by itself.

Layer L1, build time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Var

from fairlead.bundle.compile.columns import Float64, Value
from fairlead.errors import NotCompilable
from fairlead.predict.runtime import ort

Keys = npt.NDArray[np.uint64]
Test = Literal["at most", "below", "nan"]
_TESTS: tuple[Test, ...] = ("at most", "below", "nan")
_SIGN = np.uint64(1 << 63)
_CHUNK_ROWS = 4096
_MOST_SEARCHES = 4_000_000


def keys_of(numbers: Float64) -> Keys:
    """Number float64 in their order: ``a < b`` is ``keys_of(a) < keys_of(b)``; -0.0 comes just before 0.0."""
    bits = np.ascontiguousarray(numbers, dtype=np.float64).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def numbers_of(keys: Keys) -> Float64:
    """Give back what `keys_of` numbered."""
    keys = np.ascontiguousarray(keys, dtype=np.uint64)
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


# The infinities are pieces of their own: what is right for all numbers may be NaN for them.
_ENDS = keys_of(np.array([-np.inf, np.finfo(float).max, np.inf]))
_FIRST = _ENDS[0]


@dataclass(frozen=True)
class Searches:
    """Many searches at once; arrays of shape (n_searches,).

    Parameters
    ----------
    output, column, feature : which output of the graph is looked at, which column of it, and what feature moves it.
    test, number : of what the answer changes: of the column being at most the number, below it, or NaN.
    low, high : keys of the piece that is searched.
    """

    output: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    number: Float64
    low: Keys
    high: Keys


class Axes:
    """Columns as functions of the features that they are made of.

    Parameters
    ----------
    inputs : the graph's input, float64, shape (n_rows, n_features).
    features : the tensor whose columns are looked at.
    values : by column of it, what it was made of; each of one feature alone.
    """

    def __init__(self, inputs: Var, features: Var, values: Iterable[Value]) -> None:
        sources = {id(source.tensor): source.tensor for value in values for source, _ in value.breaks}
        self._place = {key: place for place, key in enumerate(sources, start=1)}
        outputs = {f"y{i}": op.identity(tensor) for i, tensor in enumerate([features, *sources.values()])}
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        graph = spox.build({"X": inputs}, outputs).SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        shape = inputs.unwrap_tensor().shape
        assert shape is not None
        self.n_features = int(shape[1] or 0)
        self._pieces: dict[tuple[tuple[int, int, float], ...], Keys] = {}

    def compute(self, X: Float64) -> list[Float64]:
        """Run the graph: the columns of `features` first, then those that breaks are told of."""
        parts = [
            self._session.run(None, {"X": X[start : start + _CHUNK_ROWS]}) for start in range(0, len(X), _CHUNK_ROWS)
        ]
        return [np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True)]

    def pieces(self, value: Value) -> Keys:
        """Give the last key of each piece of the axis in which a column only rises, only falls or stays."""
        known = tuple((id(source.tensor), source.index, number) for source, number in value.breaks)
        if known not in self._pieces:
            by_source: dict[tuple[int, int], tuple[Value, list[float]]] = {}
            for source, number in value.breaks:
                by_source.setdefault((id(source.tensor), source.index), (source, []))[1].append(number)
            found = [_ENDS]
            for source, numbers in by_source.values():
                ends = self.pieces(source)
                real = [number for number in numbers if not np.isnan(number)] or [0.0]
                place = self._place[id(source.tensor)]
                found += [ends, self.search([_searches(place, source.index, source, _TESTS, real, ends)])[1]]
            self._pieces[known] = np.unique(np.concatenate(found))
        return self._pieces[known]

    def cuts(self, column: int, value: Value, thresholds: Float64, tests: Sequence[Test]) -> Searches:
        """Prepare the searches for all `thresholds` that a column of `features` may pass, in all its pieces."""
        return _searches(0, column, value, (*tests, "nan"), thresholds, self.pieces(value))

    def search(self, wanted: Sequence[Searches]) -> tuple[npt.NDArray[np.int64], Keys]:
        """Find where answers change: features, and the last keys before it. A search may find nothing."""
        all_of = _joined(wanted)
        low, high = all_of.low.copy(), all_of.high.copy()
        before = self._answers(all_of, low)
        kept = np.flatnonzero(before != self._answers(all_of, high))
        all_of, low, high, before = _picked(all_of, kept), low[kept], high[kept], before[kept]
        while len(low) and (high - low).max() > 1:
            middle = low + (high - low) // np.uint64(2)
            same = self._answers(all_of, middle) == before
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return all_of.feature, low

    def _answers(self, searches: Searches, keys: Keys) -> npt.NDArray[np.bool_]:
        """Answer each search's test where its feature is at `keys`; one row holds a search of every feature."""
        order = np.argsort(searches.feature, kind="stable")
        counts = np.bincount(searches.feature, minlength=self.n_features)
        row = np.empty(len(order), np.int64)
        row[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        X = np.zeros((int(counts.max(initial=0)), self.n_features))
        if not len(X):
            return np.zeros(0, bool)
        X[row, searches.feature] = numbers_of(keys)
        y = np.empty(len(order))
        for place, found in enumerate(self.compute(X)):
            here = searches.output == place
            y[here] = found[row[here], searches.column[here]]
        with np.errstate(invalid="ignore"):
            return np.select(
                [searches.test == 0, searches.test == 1], [y <= searches.number, y < searches.number], np.isnan(y)
            )


def _searches(
    output: int, column: int, value: Value, tests: Sequence[Test], numbers: npt.ArrayLike, ends: Keys
) -> Searches:
    """Search every piece for every number by every test; whether a column is NaN does not depend on the number."""
    assert value.feature is not None
    numbers = np.asarray(numbers, dtype=np.float64)
    low, high = np.concatenate([[_FIRST], ends[:-1] + np.uint64(1)]), ends
    real = low < high
    low, high = low[real], high[real]
    asked = [(test, number) for test in tests for number in (numbers[:1] if test == "nan" else numbers)]
    if len(asked) * len(low) > _MOST_SEARCHES:
        raise NotCompilable("trees", "a feature has too many thresholds in too many pieces")
    test, number = np.array([(_TESTS.index(test), number) for test, number in asked], dtype=np.float64).reshape(-1, 2).T
    n = len(asked) * len(low)
    return Searches(
        np.full(n, output),
        np.full(n, column),
        np.full(n, value.feature),
        np.repeat(test.astype(np.int64), len(low)),
        np.repeat(number, len(low)),
        np.tile(low, len(asked)),
        np.tile(high, len(asked)),
    )


def _joined(searches: Sequence[Searches]) -> Searches:
    fields = Searches.__dataclass_fields__
    return Searches(*(np.concatenate([getattr(one, name) for one in searches]) for name in fields))


def _picked(searches: Searches, places: npt.NDArray[np.int64]) -> Searches:
    return Searches(*(getattr(searches, name)[places] for name in Searches.__dataclass_fields__))
