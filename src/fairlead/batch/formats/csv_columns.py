"""Columns of text become typed columns: what `Validator.parse_text` does, for a whole column at once.

What it cannot decide, or is wrong, is left to be read one by one, so that both mean the same.

Layer L3; imports pyarrow when a column comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fairlead.predict.tables import arrow_type
from fairlead.schema import FeatureType

if TYPE_CHECKING:
    import pyarrow as pa

# JSON's grammar of numbers, as in `validate`; the longest that surely fit.
_INT = r"\A-?(?:0|[1-9][0-9]{0,17})(?:\.0{1,30})?\z"
_FLOAT = r"\A-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\z"
# RFC 3339 for days that every month has, or the month at hand; leap days and seconds are read one by one.
_DATETIME = (
    r"\A[12][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?\z"
)
_WITHOUT_ZONE = r":[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?\z"


def typed(texts: pa.Array, kind: FeatureType) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """Read a column.

    Parameters
    ----------
    texts : strings, null where a field is empty; of a string feature they may be a dictionary's.

    Returns
    -------
    The column, and which of its rows are to be read one by one; these are null.
    """
    import pyarrow.compute as pc

    if kind == "string":
        return texts, np.zeros(len(texts), dtype=np.bool_)
    values = _READ[kind](texts)
    return values, np.asarray(pc.and_not(texts.is_valid(), values.is_valid()))


def _bools(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    lower = pc.ascii_lower(texts)
    known = pc.is_in(lower, value_set=pa.array(["true", "false"]))
    return pc.if_else(known, pc.equal(lower, "true"), pa.scalar(None, pa.bool_()))


def _ints(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    texts = _matching(texts, _INT)
    if pc.any(pc.match_substring(texts, ".")).as_py():
        texts = pc.replace_substring_regex(texts, r"\.0+\z", "")
    return texts.cast(arrow_type("int"))


def _floats(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _matching(texts, _FLOAT).cast(arrow_type("float"))
    # A number too large has become an infinity.
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))


def _datetimes(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    texts = _matching(texts, _DATETIME)
    has_none = pc.match_substring_regex(texts, _WITHOUT_ZONE)
    if pc.any(has_none).as_py():
        texts = pc.if_else(has_none, pc.binary_join_element_wise(texts, "Z", ""), texts)
    return texts.cast(arrow_type("datetime"))


def _matching(texts: pa.Array, pattern: str) -> pa.Array:
    """Make null what does not match."""
    import pyarrow as pa
    import pyarrow.compute as pc

    matches = pc.match_substring_regex(texts, pattern)
    return texts if pc.all(matches).as_py() else pc.if_else(matches, texts, pa.scalar(None, pa.string()))


_READ: dict[str, Any] = {"bool": _bools, "int": _ints, "float": _floats, "datetime": _datetimes}
