"""Which columns a ColumnTransformer hands to one of its members.

Layer L1, build time only.

Source: the `columns` of scikit-learn's ``ColumnTransformer.transformers``, as fitted
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def places_of(wanted: Any, names: Sequence[str | None]) -> list[int]:
    """Find the places of the columns that `wanted` tells by name, place, slice or mask.

    Parameters
    ----------
    names : of all columns; None for one that has no name.

    Raises
    ------
    KeyError
        When it tells a name that none has.
    """
    places = list(range(len(names)))
    by_name = {name: place for place, name in enumerate(names) if name is not None}
    if isinstance(wanted, slice):
        if isinstance(wanted.start, str) or isinstance(wanted.stop, str):
            # As in pandas, a slice of names includes its end.
            start = None if wanted.start is None else by_name[wanted.start]
            return places[start : None if wanted.stop is None else by_name[wanted.stop] + 1]
        return places[wanted]
    if np.asarray(wanted).dtype == bool:
        return [int(place) for place in np.flatnonzero(wanted)]
    found = [wanted] if isinstance(wanted, str | int | np.integer) else list(wanted)
    return [by_name[one] if isinstance(one, str) else places[int(one)] for one in found]
