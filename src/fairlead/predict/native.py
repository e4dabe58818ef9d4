"""The engine of a native bundle: it runs the user's own object.

Where the build has proved that a shorter way gives the very same bits, with the library versions that
are at work here too, the engine takes it (`native_shortcuts`); whatever that way refuses goes the plain
one, so that every answer and every error is the model's own.

Layer L1; pandas is imported where the model was trained on a frame and needs one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.errors import ModelFailed
from fairlead.predict.encode import BLOCK_ROWS, Encoder
from fairlead.predict.native_shortcuts import Shortcut, shortcut_of
from fairlead.predict.outputs import Prediction
from fairlead.predict.training_frame import to_frame
from fairlead.predict.validate import Row
from fairlead.schema import Kind, Schema

if TYPE_CHECKING:
    import pyarrow as pa

# Sizes of the batches that a shortcut is tried with, and how many of each: BLAS may add in another order.
_PROOFS = ((1, 20), (2, 10), (7, 5), (32, 5), (64, 2))


class NativeEngine:
    """Runs the user's own object.

    Parameters
    ----------
    model : as `bundle.formats` loaded it; a vectorizer and its estimator joined in a Pipeline.
    kind : what it does.
    schema : the features that reach the model.
    form : how rows are handed to it, see `bundle.manifest.Manifest`.
    has_probabilities : whether to ask for them.
    proved : what `prove` gave when the bundle was built.
    """

    def __init__(
        self,
        model: Any,
        kind: Kind,
        schema: Schema,
        form: str,
        has_probabilities: bool,
        proved: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self._kind = kind
        self._schema = schema
        self._form = form
        self._has_probabilities = has_probabilities
        self._encoder = Encoder(schema)
        # Another version may compute otherwise, or keep what it learned under another name.
        holds_here = bool(proved) and proved == _versions(proved or ())
        self._shortcut = shortcut_of(model, schema, form, has_probabilities) if holds_here else None

    @property
    def unseen(self) -> dict[str, int]:
        return self._encoder.unseen

    @property
    def has_shortcut(self) -> bool:
        """Whether rows go a shorter way than the model's own methods."""
        return self._shortcut is not None

    def prove(self, rows: Sequence[Row]) -> dict[str, str] | None:
        """Show that a shortcut gives the model's own answers to the bit.

        Parameters
        ----------
        rows : of the schema, which the model can predict.

        Returns
        -------
        The versions of the libraries that this holds for; None when there is no shortcut, or it differs.
        """
        shortcut = shortcut_of(self.model, self._schema, self._form, self._has_probabilities)
        if shortcut is None:
            return None
        batches = [rows[i * size : (i + 1) * size] for size, times in _PROOFS for i in range(times)]
        with shortcut.in_order():
            same = all(self._is_same(shortcut, batch) for batch in [*batches, rows] if batch)
        return _versions(shortcut.libraries) if same else None

    def predict(self, rows: Sequence[Row]) -> Prediction:
        if self._form == "arguments":
            self._encoder.count_unseen(rows)
            return Prediction([self._call(dict(zip(self._schema.names, row, strict=True))) for row in rows])
        if self._form != "matrix":  # whose encoder counts
            self._encoder.count_unseen(rows)
        return self._predict(rows, self._shortcut)

    def predict_table(self, table: pa.Table) -> Prediction:
        parts = [
            self.predict(
                list(zip(*(column.to_pylist() for column in table.slice(start, BLOCK_ROWS).columns), strict=True))
            )
            for start in range(0, table.num_rows or 1, BLOCK_ROWS)
        ]
        if len(parts) == 1:
            return parts[0]
        values = [part.values for part in parts]
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        return Prediction(
            np.concatenate(values) if isinstance(values[0], np.ndarray) else list(chain.from_iterable(values)),
            np.concatenate(probabilities) if probabilities else None,
        )

    def _predict(self, rows: Sequence[Row], shortcut: Shortcut | None) -> Prediction:
        batch = None
        if shortcut is not None:
            try:
                batch = rows if shortcut.takes_rows else self._batch(rows)
                return self._prediction(*shortcut(batch), len(rows))
            except Exception:  # the plain way answers or raises as the model does
                batch = None if shortcut.takes_rows else batch
        batch = self._batch(rows) if batch is None else batch
        try:
            values = self.model.predict(batch)
            probabilities = self.model.predict_proba(batch) if self._has_probabilities else None
            values = np.asarray(values)
        except Exception as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {error}") from error
        return self._prediction(values, probabilities, len(rows))

    def _batch(self, rows: Sequence[Row]) -> Any:
        return model_input(rows, self._schema, self._form, self._encoder)

    def _prediction(self, values: Any, probabilities: Any, n_rows: int) -> Prediction:
        values = np.asarray(values)
        if values.shape not in ((n_rows,), (n_rows, 1)):
            raise ModelFailed(f"the model gave an array of shape {values.shape} for {n_rows} rows: one value each")
        values = values.reshape(n_rows)
        if self._kind == "classifier":
            return Prediction(values.tolist(), None if probabilities is None else _matrix(probabilities, n_rows))
        try:
            return Prediction(values.astype(np.float64))
        except (TypeError, ValueError) as error:
            raise ModelFailed(f"the model gave {values.dtype} values: expected numbers") from error

    def _is_same(self, shortcut: Shortcut, rows: Sequence[Row]) -> bool:
        plain = self._predict(rows, None)
        try:
            short = self._prediction(*shortcut(rows if shortcut.takes_rows else self._batch(rows)), len(rows))
        except Exception:  # what the shortcut refuses is not wrong: the plain way is taken then, too
            return True
        return _bits(plain) == _bits(short)

    def _call(self, arguments: dict[str, Any]) -> Any:
        try:
            return self.model.predict(**arguments)
        except Exception as error:
            raise ModelFailed(f"the model raised {type(error).__name__}: {error}") from error


def model_input(rows: Sequence[Row], schema: Schema, form: str, encoder: Encoder) -> Any:
    """Make what the model itself takes: one dict a row, a pandas frame, or a float64 matrix.

    Parameters
    ----------
    schema : the features that reach the model.
    form : which of them, see `bundle.manifest.Manifest`.
    encoder : of the schema.
    """
    if form == "matrix":
        return encoder.encode(rows)
    if form == "records":
        names = [feature.source for feature in schema.features]
        return [dict(zip(names, row, strict=True)) for row in rows]
    return to_frame(rows, schema)


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    return {name: sys.modules[name].__version__ for name in sorted(libraries) if name in sys.modules}


def _bits(prediction: Prediction) -> list[object]:
    parts = (prediction.values, prediction.probabilities)
    return [(part.shape, part.tobytes()) if isinstance(part, np.ndarray) else part for part in parts]


def _matrix(probabilities: Any, n_rows: int) -> npt.NDArray[np.float64]:
    try:
        matrix = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelFailed("the model gave probabilities that are no numbers") from error
    if matrix.ndim != 2 or len(matrix) != n_rows:
        raise ModelFailed(f"the model gave probabilities of shape {matrix.shape} for {n_rows} rows")
    return matrix
