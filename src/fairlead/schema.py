"""What a bundle accepts and what it gives: features, outputs, and the problems of a bad record.

The schema is read from YAML or derived by `bundle.signature`; `predict.validate` enforces it and
`web.openapi` shows it to clients. Layer L0: imports msgspec only.
"""

from __future__ import annotations

import difflib
import math
import re
from datetime import UTC, datetime
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from fairlead.errors import SchemaError

FeatureType = Literal["bool", "int", "float", "string", "datetime"]
Scalar = bool | int | float | str
Kind = Literal["classifier", "regressor", "function"]
Comparison = Literal[">=", ">", "<=", "<"]


class Problem(Struct, frozen=True):
    """One thing wrong with one record. It tells the type of a bad value, never the value.

    Parameters
    ----------
    path : JSONPath of the bad value, such as ``$[3].sepal_width``.
    expected, got : what the schema wants there and what came, such as ``number`` and ``string``.
    """

    path: str
    expected: str
    got: str

    def alone(self) -> Problem:
        """Name it as a problem of a record by itself: at ``$.tenure``, not ``$[7].tenure``."""
        return Problem(re.sub(r"^\$\[\d+\]", "$", self.path), self.expected, self.got)

    def moved(self, place: int) -> Problem:
        """Name it as a problem of the record at another place: at ``$[7].tenure``, not ``$[0].tenure``."""
        return Problem(f"$[{place}]{self.path[self.path.index(']') + 1 :]}", self.expected, self.got)

    def shifted(self, rows: int) -> Problem:
        """Name it as a problem of the record that stands so many rows further on."""
        index = re.match(r"\$\[(\d+)\]", self.path)
        return self if index is None else self.moved(int(index[1]) + rows)

    def __str__(self) -> str:
        return f"{_last_name(self.path)}: expected {self.expected}, got {self.got}, at {self.path}"


def _last_name(path: str) -> str:
    """Give the last name of a JSONPath, ``record`` where it ends in an index."""
    quoted = re.search(r'\[("(?:[^"\\]|\\.)*")\]$', path)
    if quoted:
        return str(msgspec.json.decode(quoted[1]))
    plain = re.search(r"\.([^.\]]+)$", path)
    return plain[1] if plain else "record"


class Feature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One named input of a model.

    Parameters
    ----------
    name : the key in a JSON record, a query string or a CSV header.
    type : ``bool``, ``int`` (64 bits), ``float`` (finite float64), ``string`` or ``datetime`` (RFC 3339).
    nullable : whether null (NaN in a frame) is accepted.
    default : what a missing key means; without it a missing key is a problem.
    categories : the values known from training. A string's place here is its code in a compiled model.
    closed : refuse a value outside `categories` instead of encoding it as the original would.
    minimum, maximum : the range seen in training; told, not enforced.
    unit, description : for people.
    column : the name the model was trained with, where it differs from `name`.
    """

    name: str
    type: FeatureType
    nullable: bool = False
    default: Scalar | None | UnsetType = UNSET
    categories: tuple[Scalar, ...] | None = None
    closed: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unit: str | None = None
    description: str | None = None
    column: str | None = None

    @property
    def source(self) -> str:
        """The column's name in the frame that the original model was trained with."""
        return self.column or self.name


class Schema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The features of a model, in the model's own order.

    Parameters
    ----------
    features : at least one, names unique.
    extra : ``ignore`` counts keys that are no feature, ``forbid`` makes each a problem.
    categories : ``closed`` refuses values outside any feature's categories, whatever the feature says.

    Raises
    ------
    SchemaError
        From `parse`, naming the field that is wrong.
    """

    features: tuple[Feature, ...]
    extra: Literal["ignore", "forbid"] = "ignore"
    categories: Literal["open", "closed"] = "open"

    def __post_init__(self) -> None:
        seen: set[str] = set()
        sources: set[str] = set()
        for feature in self.features:
            if feature.name in seen:
                raise SchemaError(f"{feature.name}: feature declared twice")
            if feature.source in sources:
                raise SchemaError(f"{feature.name}: another feature is the column {feature.source} already")
            seen.add(feature.name)
            sources.add(feature.source)
            _check(feature, self.is_closed(feature))
        if not self.features:
            raise SchemaError("a schema needs at least one feature")

    @classmethod
    def parse(cls, data: object) -> Schema:
        """Make a schema of decoded YAML or JSON."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise SchemaError(f"schema: {error}{_hint(str(error))}") from error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def is_closed(self, feature: Feature) -> bool:
        """Whether values outside the feature's categories are refused."""
        return feature.categories is not None and (feature.closed or self.categories == "closed")


_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "string": (str,),
    "datetime": (str,),
}


def _check(feature: Feature, closed: bool) -> None:
    values: list[Scalar] = list(feature.categories or ())
    if feature.default is not UNSET and feature.default is not None:
        values.append(feature.default)
    for value in values:
        if not isinstance(value, _KINDS[feature.type]) or (isinstance(value, bool) and feature.type != "bool"):
            raise SchemaError(
                f"{feature.name}: expected {feature.type}, got {type(value).__name__} in its default or categories"
            )
        if not _is_in_range(feature.type, value):
            raise SchemaError(f"{feature.name}: {value} in its default or categories is no {_RANGES[feature.type]}")
    if feature.type == "datetime" and feature.categories is not None:
        raise SchemaError(f"{feature.name}: a datetime has no categories")
    if feature.default is None and not feature.nullable:
        raise SchemaError(f"{feature.name}: its default is null, so say `nullable: true`")
    if len(set(feature.categories or ())) != len(feature.categories or ()):
        raise SchemaError(f"{feature.name}: a category is listed twice")
    if closed and feature.default not in (UNSET, None, *(feature.categories or ())):
        raise SchemaError(f"{feature.name}: its default is not among its categories, which are closed")


_RANGES = {
    "int": "integer of 64 bits",
    "float": "finite number",
    "datetime": "date and time (RFC 3339)",
}


def _is_in_range(kind: FeatureType, value: Scalar) -> bool:
    if kind == "int":
        return -(2**63) <= int(value) < 2**63
    try:
        if kind == "float":
            return math.isfinite(value)  # type: ignore[arg-type]  # its type was checked before
        if kind == "datetime":
            msgspec.convert(value, datetime).astimezone(UTC)
    except (OverflowError, msgspec.ValidationError):
        return False
    return True


def _hint(message: str) -> str:
    """Name what the author of a schema most likely meant, or what there is to choose from."""
    unknown = re.search(r"unknown field `([^`]*)`(?: - at `([^`]*)`)?", message)
    if unknown:
        kind = Feature if "features" in (unknown[2] or "") else Schema
        near = difflib.get_close_matches(unknown[1], kind.__struct_fields__, 1)
        return f": did you mean `{near[0]}`?" if near else f": known are {', '.join(kind.__struct_fields__)}"
    choice = re.search(r"Invalid enum value .* at `\$(?:\.features\[[^]]*\])?\.(\w+)`", message)
    if choice:
        return f": known are {', '.join(_CHOICES[choice[1]])}"
    return ""


_CHOICES: dict[str, tuple[str, ...]] = {
    "type": get_args(FeatureType),
    "extra": ("ignore", "forbid"),
    "categories": ("open", "closed"),
}


class Output(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One named field of a prediction.

    Parameters
    ----------
    name : the key in the answer.
    source : ``prediction`` (the label or the number), ``probability`` (of one class, or of the predicted
        one when `label` is None) or ``probabilities`` (all classes).
    label : the class, written as text, that a ``probability`` is of.
    comparison, threshold : make the field a bool: source compared with the threshold.
    """

    name: str
    source: Literal["prediction", "probability", "probabilities"]
    label: str | None = None
    comparison: Comparison | None = None
    threshold: float | None = None


# A label may hold what a comparison is made of, as `>50K` does, so that a comparison is what ends in a number.
_OUTPUT = re.compile(
    r"""\s*(?P<name>[^=<>\s]+)\s*=\s*
        (?P<source>prediction|probability|probabilities)
        (?::\s*(?P<label>\S.*?))?
        \s*(?:(?P<comparison>>=|<=|>|<)\s*(?P<threshold>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))?\s*""",
    re.VERBOSE | re.ASCII,
)


def parse_output(text: str) -> Output:
    """Read an output written as ``name=source[:label] [>= number]``.

    >>> parse_output("churn=probability:1 >= 0.5")
    Output(name='churn', source='probability', label='1', comparison='>=', threshold=0.5)
    >>> parse_output("rich=probability:>50K").label
    '>50K'

    Raises
    ------
    SchemaError
        When the text has another form.
    """
    match = _OUTPUT.fullmatch(text)
    usage = "expected name=prediction, name=probability[:LABEL] or name=probabilities, optionally `>= NUMBER`"
    if match is None:
        raise SchemaError(f"output {text!r}: {usage}")
    found = match.groupdict()
    if found["label"] is not None and found["source"] != "probability":
        raise SchemaError(f"output {text!r}: only a probability has a label")
    if found["comparison"] is not None and found["source"] == "probabilities":
        raise SchemaError(f"output {text!r}: only one number can be compared, name one probability:LABEL")
    threshold = None if found["threshold"] is None else float(found["threshold"])
    if threshold is not None and not math.isfinite(threshold):
        raise SchemaError(f"output {text!r}: {found['threshold']} is too large a number")
    return msgspec.convert({**found, "threshold": threshold}, Output)
