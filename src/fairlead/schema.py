"""What a bundle accepts and what it gives: features, outputs, and the problems of a bad record.

The schema is read from YAML or derived by `bundle.signature`; `predict.validate` enforces it and
`web.openapi` shows it to clients. Layer L0: imports msgspec only.
"""

from __future__ import annotations

import re
from typing import Literal

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

    def __str__(self) -> str:
        name = re.split(r"[.\]]", self.path)[-1] or "record"
        return f"{name}: expected {self.expected}, got {self.got}, at {self.path}"


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
        for feature in self.features:
            if feature.name in seen:
                raise SchemaError(f"{feature.name}: feature declared twice")
            seen.add(feature.name)
            _check(feature)
        if not self.features:
            raise SchemaError("a schema needs at least one feature")

    @classmethod
    def parse(cls, data: object) -> Schema:
        """Make a schema of decoded YAML or JSON."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise SchemaError(f"schema: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def is_closed(self, feature: Feature) -> bool:
        """Whether values outside the feature's categories are refused."""
        return feature.categories is not None and (feature.closed or self.categories == "closed")


def _check(feature: Feature) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "bool": (bool,),
        "int": (int,),
        "float": (int, float),
        "string": (str,),
        "datetime": (str,),
    }
    wanted = kinds[feature.type]
    values: list[Scalar] = list(feature.categories or ())
    if feature.default is not UNSET and feature.default is not None:
        values.append(feature.default)
    for value in values:
        if not isinstance(value, wanted) or (isinstance(value, bool) and feature.type != "bool"):
            raise SchemaError(
                f"{feature.name}: expected {feature.type}, got {type(value).__name__} in its default or categories"
            )
    if feature.default is None and not feature.nullable:
        raise SchemaError(f"{feature.name}: its default is null, so say `nullable: true`")
    if len(set(feature.categories or ())) != len(feature.categories or ()):
        raise SchemaError(f"{feature.name}: a category is listed twice")


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


_OUTPUT = re.compile(
    r"""\s*(?P<name>[^=<>\s]+)\s*=\s*
        (?P<source>prediction|probability|probabilities)
        (?::(?P<label>(?:(?!\s*[<>]).)+))?
        \s*(?:(?P<comparison>>=|<=|>|<)\s*(?P<threshold>\S+))?\s*""",
    re.VERBOSE,
)


def parse_output(text: str) -> Output:
    """Read an output written as ``name=source[:label] [>= number]``.

    >>> parse_output("churn=probability:1 >= 0.5")
    Output(name='churn', source='probability', label='1', comparison='>=', threshold=0.5)

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
    try:
        threshold = None if found["threshold"] is None else float(found["threshold"])
    except ValueError as error:
        raise SchemaError(f"output {text!r}: {found['threshold']!r} is not a number") from error
    label = None if found["label"] is None else found["label"].strip()
    return msgspec.convert({**found, "label": label, "threshold": threshold}, Output)
