"""Where in an event things are, and the quickest way to them.

Layer L3; imports msgspec and what checks records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.config import StreamSettings
from fairlead.errors import ConfigError
from fairlead.predict.intake import Intake

# What every answer has besides its results.
MODEL, VERSION, IDEMPOTENCY_KEY = "model", "version", "idempotency_key"
Path = tuple[str, ...]
# What tells an event apart, or parts it.
Named = str | int


@dataclass(frozen=True)
class Envelope:
    """Where in an event things are, as names one below the other, and how answers are wrapped.

    Parameters
    ----------
    features : of the record of features; empty where the event is that record.
    id : of what tells events apart, empty for nothing.
    partition_key : of what parts answers, empty for nothing.
    results : the name under which outputs and id are in an answer.
    """

    features: Path = ()
    id: Path = ()
    partition_key: Path = ()
    results: str = "prediction"

    @classmethod
    def of(cls, settings: StreamSettings) -> Envelope:
        """Take it from the settings.

        Raises
        ------
        ConfigError
            When two things have one place.
        """
        features, id_, key = (
            tuple(place.split(".")) if place else ()
            for place in (settings.features, settings.id, settings.partition_key)
        )
        if settings.results in (MODEL, VERSION, IDEMPOTENCY_KEY):
            raise ConfigError(f"results: expected another name than {settings.results}, which an answer has already")
        for name, place in (("id", id_), ("partition_key", key)):
            for other in filter(None, (features, id_, key)):
                if place and place != other and place == other[: len(place)]:
                    raise ConfigError(
                        f"{name}: expected one value at {'.'.join(place)}, but {'.'.join(other)} is there"
                    )
            if place and features and place[: len(features)] == features:
                raise ConfigError(f"{name}: expected another place than {'.'.join(place)}, where the features are")
        return cls(features, id_, key, settings.results)

    def check_outputs(self, outputs: Sequence[str]) -> None:
        """Refuse an id that would be in the place of an output.

        Raises
        ------
        ConfigError
        """
        if self.id and self.id[-1] in outputs:
            raise ConfigError(f"id: {self.id[-1]} is an output of the model too: give that another name with --output")

    @property
    def beside(self) -> set[str]:
        """What is beside the features in an event that has them at its top."""
        return {path[0] for path in (self.id, self.partition_key) if path}


class Opener:
    """Takes events apart with msgspec alone: one call an event, and no object but the record of features.

    Parameters
    ----------
    envelope : says where things are.
    intake : of a bundle.
    takes_unseen : as of `Intake.row_type`.

    Attributes
    ----------
    open : gives the features' records, ids and partition keys of events; raises what msgspec raises. None where msgspec
        cannot: an id inside something, or the name of a feature too.
    """

    def __init__(self, envelope: Envelope, intake: Intake, *, takes_unseen: bool) -> None:
        kind = _event_type(envelope, intake, takes_unseen)
        self.open = None if kind is None else self._open
        if kind is not None:
            self._decode = msgspec.json.Decoder(kind).decode
        self._features = _getter(envelope, envelope.features)
        self._id = _getter(envelope, envelope.id)
        self._key = _getter(envelope, envelope.partition_key)

    def _open(self, events: Iterable[bytes]) -> Opened:
        decode = self._decode
        opened = [decode(event) for event in events]
        features = opened if self._features is None else list(map(self._features, opened))
        ids = repeat(None) if self._id is None else map(self._id, opened)
        return features, ids, repeat(None) if self._key is None else map(self._key, opened)


Opened = tuple[Sequence[Struct], Iterable[Named | None], Iterable[Named | None]]


def _event_type(envelope: Envelope, intake: Intake, takes_unseen: bool) -> type[Struct] | None:
    if envelope.features:
        record = intake.row_type({}, takes_unseen=takes_unseen)
        return None if record is None else _struct_of(_tree(envelope, record))
    is_inside = any(len(path) > 1 for path in (envelope.id, envelope.partition_key))
    if is_inside or not envelope.beside.isdisjoint(intake.schema.names):
        return None
    return intake.row_type(dict.fromkeys(sorted(envelope.beside), Named), takes_unseen=takes_unseen)


def _tree(envelope: Envelope, row_type: Any = None) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, kind in ((envelope.features, row_type), (envelope.id, Named), (envelope.partition_key, Named)):
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        if path:
            branch[path[-1]] = kind
    return tree


def _struct_of(tree: dict[str, Any]) -> type[Struct]:
    fields = [(f"f{i}", _struct_of(kind) if isinstance(kind, dict) else kind) for i, kind in enumerate(tree.values())]
    rename = {f"f{i}": name for i, name in enumerate(tree)}
    return msgspec.defstruct("Event", fields, rename=rename, frozen=True, gc=False)


def _getter(envelope: Envelope, path: Path) -> Callable[[Any], Any] | None:
    """Make what gives the value at a path of an event that was decoded; None for the empty one."""
    if path and not envelope.features:
        return attrgetter(f"o{sorted(envelope.beside).index(path[0])}")
    tree, fields = _tree(envelope), []
    for name in path:
        fields.append(f"f{list(tree).index(name)}")
        tree = tree[name]
    return attrgetter(".".join(fields)) if fields else None
