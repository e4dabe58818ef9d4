"""Events become rows, with what tells each apart and what it is parted by, or reasons why not.

A batch is read by msgspec alone; only what that refuses is looked at in Python, to tell all that is wrong.

Layer L3; imports msgspec and what checks records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from fairlead.predict.intake import Intake
from fairlead.predict.validate import Row, child_path, type_name
from fairlead.schema import Problem
from fairlead.stream.envelope import Envelope, Named, Opened, Opener, Path
from fairlead.stream.records import Record

Open = Callable[[Iterable[bytes]], Opened]
_NAMED = "a string or an integer"
# Batches that are read the other way after one that could not be read the quickest.
_READS_WITHOUT = 100
_MAX_KEY_CHARACTERS = 256


class Reason(Struct, frozen=True):
    """Why an event can never be scored.

    Parameters
    ----------
    code : stable and machine-readable.
    detail : what was expected and what came.
    problems : of its features, at places in the event.
    """

    code: str
    detail: str
    problems: tuple[Problem, ...] = ()


class Event(Struct, frozen=True, gc=False):
    """What was read from an event besides its features.

    Parameters
    ----------
    id : None where the envelope has none.
    partition_key : of the answer.
    """

    id: Named | None
    partition_key: str


@dataclass
class Events:
    """What was read from a batch.

    Parameters
    ----------
    rows : of the schema, one for each event that was accepted.
    events : beside each of `rows`.
    places : of these in the batch.
    refused : why, by place.
    """

    rows: Sequence[Row]
    events: Sequence[Event]
    places: Sequence[int]
    refused: dict[int, Reason] = field(default_factory=dict)


class Reader:
    """Reads events for one bundle.

    Parameters
    ----------
    intake : of the bundle, checks the features.
    envelope : says where they are.
    max_record_bytes : a larger event is refused.
    """

    def __init__(self, intake: Intake, envelope: Envelope, max_record_bytes: int) -> None:
        self._intake = intake
        self._envelope = envelope
        self._max_bytes = max_record_bytes
        # Where msgspec cannot, every event is read the slow way.
        self._known = Opener(envelope, intake, takes_unseen=False).open
        self._any = Opener(envelope, intake, takes_unseen=True).open
        self._reads_until_known = 0

    def read(self, records: Sequence[Record]) -> Events:
        """Read the events of a batch; never raises for what is in them."""
        if (all_at_once := self._quickest(records) or self._quick(records, self._any)) is not None:
            return Events(*all_at_once, list(range(len(records))))
        rows: list[Row] = []
        events: list[Event] = []
        places: list[int] = []
        refused: dict[int, Reason] = {}
        for place, record in enumerate(records):
            read = self._quick([record], self._any) or self._slow(record)
            if isinstance(read, Reason):
                refused[place] = read
            else:
                rows += read[0]
                events += read[1]
                places.append(place)
        return Events(rows, events, places, refused)

    def _quickest(self, records: Sequence[Record]) -> tuple[list[Row], list[Event]] | None:
        """Read events without a word that is not known; after a batch with one it is not tried for a while."""
        if self._reads_until_known:
            self._reads_until_known -= 1
            return None
        found = self._quick(records, self._known)
        if found is None:
            self._reads_until_known = _READS_WITHOUT
        return found

    def _quick(self, records: Sequence[Record], opener: Open | None) -> tuple[list[Row], list[Event]] | None:
        """Read events of the expected form, None when one has any other."""
        if opener is None or max((len(record.data) for record in records), default=0) > self._max_bytes:
            return None
        try:
            for record in records:
                if not record.data.isascii():
                    record.data.decode()  # what is no feature is passed over unseen, and may be no text
            features, ids, keys = opener(record.data for record in records)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        rows = self._intake.rows(features)
        if rows is None:
            return None
        return rows, [Event(id_, _part(record, id_, key)) for record, id_, key in zip(records, ids, keys, strict=False)]

    def _slow(self, record: Record) -> tuple[list[Row], list[Event]] | Reason:
        """Read any event, and tell all that is wrong with it."""
        if len(record.data) > self._max_bytes:
            return Reason("too_large", f"expected at most {self._max_bytes} bytes, got {len(record.data)}")
        try:
            value = msgspec.json.decode(record.data.decode())
        except UnicodeDecodeError as error:
            return Reason("not_utf8", f"expected JSON in UTF-8, got another byte at {error.start}")
        except RecursionError:
            return Reason("not_json", "expected a JSON object: it is nested too deep")
        except msgspec.DecodeError as error:
            what = str(error) if record.data.strip() else "it is empty"
            return Reason("not_json", f"expected a JSON object: {what}")
        problems: list[Problem] = []
        envelope, row = self._envelope, ()
        features = _at(value, envelope.features, problems, "an object")
        if not problems:
            row, problems = self._row(features)
        id_ = _name_at(value, envelope.id, problems)
        key = _name_at(value, envelope.partition_key, problems)
        if problems:
            return _invalid(problems)
        return [row], [Event(id_, _part(record, id_, key))]

    def _row(self, features: Any) -> tuple[Row, list[Problem]]:
        if not self._envelope.features and isinstance(features, dict):
            features = _without(features, self._envelope, self._intake.schema.names)
        checked = self._intake.check([features])
        return checked.rows[0] if checked.rows else (), self._located(checked.rejections.get(0, ()))

    def refusal(self, problems: Sequence[Problem]) -> Reason:
        """Tell an event's problems that were found when its row was predicted."""
        return _invalid(self._located(problems))

    def _located(self, problems: Sequence[Problem]) -> list[Problem]:
        """Name problems of a record of features where the values are in the event."""
        at = _json_path(self._envelope.features)
        return [Problem(at + problem.alone().path[1:], problem.expected, problem.got) for problem in problems]


def _part(record: Record, id_: Named | None, key: Named | None) -> str:
    named = id_ if key is None else key
    text = record.partition_key if named is None else str(named)
    return short_key(text)


def short_key(text: str) -> str:
    """Give a partition key of at most 256 characters, as Kinesis has them, that parts alike."""
    return text if len(text) <= _MAX_KEY_CHARACTERS else sha256(text.encode(errors="surrogatepass")).hexdigest()


def _invalid(problems: Sequence[Problem]) -> Reason:
    each = tuple(dict.fromkeys(problems))  # what is missing, of which two things are parts, is told once
    return Reason("invalid", "; ".join(map(str, each[:3])), each)


def _at(value: Any, path: Path, problems: list[Problem], expected: str) -> Any:
    """Give what is at a path, or tell what is there instead."""
    for depth, name in enumerate(path):
        if not isinstance(value, dict):
            problems.append(Problem(_json_path(path[:depth]), "an object", type_name(value)))
            return None
        if name not in value or value[name] is None:
            wanted = expected if depth == len(path) - 1 else "an object"
            got = "null" if name in value else "nothing"
            problems.append(Problem(_json_path(path[: depth + 1]), wanted, got))
            return None
        value = value[name]
    return value


def _name_at(value: Any, path: Path, problems: list[Problem]) -> Named | None:
    """Give what tells an event apart, None where nothing does, or tell what is there instead."""
    if not path:
        return None
    found = _at(value, path, problems, _NAMED)
    if isinstance(found, str | int) and not isinstance(found, bool):
        return found
    if found is not None:
        problems.append(Problem(_json_path(path), _NAMED, type_name(found)))
    return None


def _without(features: dict[str, Any], envelope: Envelope, names: Sequence[str]) -> dict[str, Any]:
    """Leave out of a record what is no feature of it but its id or its partition key."""
    others = envelope.beside.difference(names)
    return {name: value for name, value in features.items() if name not in others} if others else features


def _json_path(path: Path) -> str:
    found = "$"
    for name in path:
        found = child_path(found, name)
    return found
