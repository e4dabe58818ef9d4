"""How the columns that trees split on are told: as the features that people know.

A preprocessing makes 0.31 of an age, and 1 of a word in the column of that word. What it makes of which value is found
by trying, as `preprocessing.origins` does; what cannot be led back is told as the preprocessing itself calls it.

Layer L3; pandas comes with the frames.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fairlead.dashboard.explainer.features import MISSING_NUMBER, MISSING_WORD, shown_text

if TYPE_CHECKING:
    import pandas as pd

    from fairlead.dashboard.explainer.attribution import Array, ExactAttribution

# Rows by which it is found out what becomes of a number, and how many it may differ by from a straight line.
_TRIED_ROWS = 200
_TOLERANCE = 1e-6
# Values of a feature, each of which is tried.
_MOST_WORDS = 1000
_MOST_NUMBERS = 50
_BLOCK = 256
_LISTED = 3
_DIGITS = (6, 9, 17)
_HUGE = 1e15


@dataclass(frozen=True)
class Split:
    """Where a node sends rows.

    Parameters
    ----------
    threshold : numbers up to it go left.
    missing_left : whether NaN does.
    is_strict : whether only numbers below the threshold do, as of xgboost.
    """

    threshold: float
    missing_left: bool
    is_strict: bool

    def sends_left(self, number: float) -> bool:
        """Whether a number of the matrix goes left."""
        if math.isnan(number):
            return self.missing_left
        return number < self.threshold if self.is_strict else number <= self.threshold

    def sign(self, is_left: bool, is_turned: bool = False) -> str:
        """Say how numbers on a side compare with the threshold.

        Parameters
        ----------
        is_turned : whether more in the matrix is less of the feature.
        """
        signs = ("<", "≥") if self.is_strict else ("≤", ">")
        sign = signs[not is_left]
        return {"<": ">", "≤": "≥", "≥": "≤", ">": "<"}[sign] if is_turned else sign


class Column(Protocol):
    """A column of the matrix that the last step takes."""

    @property
    def feature(self) -> str:
        """The feature that it is made of, as shown; empty where there is none."""
        ...

    def condition(self, split: Split, value: Any, number: float) -> str:
        """Say why a row goes where it goes.

        Parameters
        ----------
        value : of the feature, as shown; None where there is none.
        number : what is made of it.
        """
        ...

    def question(self, split: Split) -> str:
        """Say what is true of the rows that go left."""
        ...


@dataclass(frozen=True)
class NumberColumn:
    """A number as it is, or scaled: ``scale * number + offset``."""

    feature: str
    scale: float
    offset: float

    def condition(self, split: Split, value: Any, number: float) -> str:
        if value != MISSING_NUMBER:
            return self._compared(split, float(value), split.sends_left(number))
        if math.isnan(number):
            return "is missing"
        taken_as = (number - self.offset) / self.scale
        return f"missing, taken as {self._compared(split, taken_as, split.sends_left(number))}"

    def question(self, split: Split) -> str:
        return f"{self.feature} {split.sign(True, self.scale < 0)} {_written(self._bound(split))}"

    def _bound(self, split: Split) -> float:
        return (split.threshold - self.offset) / self.scale

    def _compared(self, split: Split, number: float, left: bool) -> str:
        return compared(number, split.sign(left, self.scale < 0), self._bound(split))


@dataclass(frozen=True)
class WordColumn:
    """What is made of each word, such as 1 of one and 0 of all others.

    Parameters
    ----------
    words : that are known.
    common : what is made of most of them, and of words that are not known.
    others : what is made of the others.
    """

    feature: str
    words: tuple[str, ...]
    common: float
    others: Mapping[str, float]

    def condition(self, split: Split, value: Any, number: float) -> str:
        word = word_of(value)
        own, far = self._sides(split, left=split.sends_left(number))
        if own == [word]:
            return f"is {word}"
        if not far or (word in own and len(own) <= len(far)):
            return f"{word}: one of {_listed(own)}" if own else word
        return f"{word}: {'not' if len(far) == 1 else 'none of'} {_listed(far)}"

    def question(self, split: Split) -> str:
        own, far = self._sides(split, left=True)
        if not own or not far:
            return f"{self.feature} is {'known' if own else 'not known'}"
        if len(own) <= len(far):
            return f"{self.feature} is {'' if len(own) == 1 else 'one of '}{_listed(own)}"
        return f"{self.feature} is {'not' if len(far) == 1 else 'none of'} {_listed(far)}"

    def is_of_groups(self) -> bool:
        """Whether the same is made of several words."""
        return len({self.common, *self.others.values()}) < len(self.words)

    def _sides(self, split: Split, left: bool) -> tuple[list[str], list[str]]:
        """Part the known words: those that go left, or right, and the others."""
        sides: tuple[list[str], list[str]] = ([], [])
        for word in self.words:
            sides[split.sends_left(self.others.get(word, self.common)) != left].append(word)
        return sides


@dataclass(frozen=True)
class OwnColumn:
    """What cannot be led back to values of a feature.

    Parameters
    ----------
    name : what the preprocessing calls it.
    """

    feature: str
    name: str

    def condition(self, split: Split, value: Any, number: float) -> str:
        if math.isnan(number):
            return f"{self.name} is missing"
        return f"{self.name}: {compared(number, split.sign(split.sends_left(number)), split.threshold)}"

    def question(self, split: Split) -> str:
        return f"{self.name} {split.sign(True)} {_written(split.threshold)}"


def compared(number: float, sign: str, bound: float) -> str:
    """Write how two numbers compare, with as many digits as it takes to be seen.

    >>> compared(22.0, ">", 21.5), compared(1.0000001, ">", 1.0)
    ('22 > 21.5', '1.0000001 > 1')
    """
    texts = [(_written(number, digits), _written(bound, digits)) for digits in _DIGITS]
    holds = {"≤": float.__le__, ">": float.__gt__, "≥": float.__ge__, "<": float.__lt__}[sign]
    left, right = next((pair for pair in texts if holds(*map(float, pair))), texts[0])
    return f"{left} {sign} {right}"


def word_of(value: Any) -> str:
    """Write a value as what it is listed by."""
    if isinstance(value, str):
        return value
    return MISSING_WORD if value == MISSING_NUMBER else _written(value, _DIGITS[1])


def _written(number: float, digits: int = _DIGITS[0]) -> str:
    """Write a number with so many digits, and not as a power of ten for being large."""
    return f"{number:.0f}" if 10**digits <= abs(number) < _HUGE else f"{number:.{digits}g}"


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(words[:_LISTED])
    return shown if len(words) <= _LISTED else f"{shown} and {len(words) - _LISTED} more"


def columns_of(attribution: ExactAttribution, frame: pd.DataFrame) -> tuple[Column, ...]:
    """Find out how the columns of a matrix are told.

    Parameters
    ----------
    attribution : knows the preprocessing, and which feature each column is made of.
    frame : rows as shown.
    """
    places, shown = attribution.origins.places, attribution.served.display.columns
    names = attribution.preprocessing.column_names()
    found: list[Column] = []
    for number, place in enumerate(places):
        feature = shown[place] if place >= 0 else ""
        if names is not None and len(names) == len(places):
            name = shown_text(names[number])
        else:
            name = f"prepared {feature}" if feature else f"column {number}"
        found.append(OwnColumn(feature, name))
    tried = frame.iloc[np.linspace(0, len(frame) - 1, min(_TRIED_ROWS, len(frame))).astype(int)]
    matrix = attribution.matrix(tried)
    words = attribution.served.display.words()
    for place, feature in enumerate(shown):
        own = np.flatnonzero(places == place)
        if not len(own):
            continue
        lines: dict[int, Column] = {}
        if feature not in words:
            values = tried[feature].to_numpy(dtype=np.float64)
            lines = {column: line for column in own if (line := _line(feature, values, matrix[:, column])) is not None}
        rest = np.array([column for column in own if column not in lines], dtype=np.int64)
        for column, told in (lines | _tabled(attribution, frame, feature, words.get(feature), rest)).items():
            found[column] = told
    return tuple(found)


def _line(feature: str, values: Array, made: Array) -> NumberColumn | None:
    """See whether a column is a number as it is, or scaled."""
    present = values != MISSING_NUMBER
    values, made = values[present], made[present]
    if not len(values) or np.isnan(made).any() or values.min() == values.max():
        return None
    low, high = values.argmin(), values.argmax()
    scale = (made[high] - made[low]) / (values[high] - values[low])
    if scale == 0:
        return None
    offset = made[low] - scale * values[low]
    if np.abs(scale * values + offset - made).max() > _TOLERANCE * np.abs(made[high] - made[low]):
        return None
    return NumberColumn(feature, float(scale), float(offset))


def _tabled(
    attribution: ExactAttribution, frame: pd.DataFrame, feature: str, known: Sequence[str] | None, own: Any
) -> dict[int, Column]:
    """See what is made of each value of a feature, where they are few."""
    values = [*dict.fromkeys([*(known or ()), *frame[feature].unique().tolist()])]
    if not len(own) or len(values) > (_MOST_NUMBERS if known is None else _MOST_WORDS):
        return {}
    kind: Any = object if known is not None else frame[feature].dtype
    made = []
    try:
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            rows = frame.iloc[[0] * len(block)].copy()
            rows[feature] = np.array(block, dtype=kind)
            made.append(attribution.matrix(rows)[:, own])
    except Exception:  # a step, or the user's own code, may raise anything for a row that nobody has seen
        return {}
    words = tuple(map(word_of, values))
    tables = {
        int(column): _table(feature, words, numbers)
        for column, numbers in zip(own, np.concatenate(made).T, strict=True)
    }
    # Another number made of each is a curve, of which a table says nothing.
    return {column: told for column, told in tables.items() if known is not None or told.is_of_groups()}


def _table(feature: str, words: tuple[str, ...], numbers: Array) -> WordColumn:
    texts = [repr(float(number)) for number in numbers]  # of NaN the same, too
    common = Counter(texts).most_common(1)[0][0]
    others = {word: float(text) for word, text in zip(words, texts, strict=True) if text != common}
    return WordColumn(feature, words, float(common), others)
