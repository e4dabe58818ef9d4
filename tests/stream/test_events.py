from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead.bundle.manifest import Manifest
from fairlead.bundle.read import open_bundle
from fairlead.config import StreamSettings
from fairlead.errors import ConfigError
from fairlead.predict.intake import Intake
from fairlead.schema import Problem, Schema
from fairlead.stream.envelope import Envelope
from fairlead.stream.events import Event, Events, Reader, Reason
from streams import record

FEATURES = [
    {"name": "size", "type": "float", "nullable": True},
    {"name": "rooms", "type": "int", "default": 1},
    {"name": "town hall", "type": "string", "default": "Delft", "categories": ["Delft", "Gouda"]},
    {"name": "seen", "type": "datetime", "nullable": True, "default": None},
]
SCHEMAS = {
    extra: Schema.parse({"features": FEATURES, "extra": extra, "categories": "closed"})
    for extra in ("ignore", "forbid")
}
WHOLE = Envelope()
NESTED = Envelope(("ride", "features"), ("ride", "id"), ("meta", "key"))


class SlowIntake(Intake):
    """Has no type of a row, as a schema has not whose names msgspec does not take."""

    def row_type(self, others: Mapping[str, Any], *, takes_unseen: bool = True) -> None:
        return None


@pytest.fixture(scope="session")
def homes_manifest(compiled_bundle: Path) -> Manifest:
    return open_bundle(compiled_bundle).manifest


@pytest.fixture
def reader(homes_manifest: Manifest) -> Callable[..., Reader]:
    """Make a reader of the schema above."""

    def make(
        envelope: Envelope = WHOLE, extra: str = "ignore", max_bytes: int = 3_000_000, kind: type[Intake] = Intake
    ) -> Reader:
        return Reader(kind(replace(homes_manifest, schema=SCHEMAS[extra]), "digest"), envelope, max_bytes)

    return make


def one(reader: Reader, data: object, **more: Any) -> Any:
    """Read an event: its row and what is beside it, or the reason against it."""
    found = reader.read([record(data, **more)])
    assert len(found.rows) + len(found.refused) == 1
    return found.refused[0] if found.refused else (found.rows[0], found.events[0])


def row(size: float | None, rooms: int = 1, town: str = "Delft") -> tuple[Any, ...]:
    return (size, rooms, town, None)


@pytest.mark.parametrize("kind", [Intake, SlowIntake])
@pytest.mark.parametrize(
    ("envelope", "event", "id_", "key"),
    [
        (Envelope(), {"size": 2}, None, ""),
        (Envelope(("ride",), ("ride_id",)), {"ride": {"size": 2}, "ride_id": 256}, 256, "256"),
        (Envelope(("ride",), ("ride_id",)), {"ride_id": "é", "other": [1], "ride": {"size": 2}}, "é", "é"),
        (Envelope(("ride",), (), ("key",)), {"ride": {"size": 2}, "key": 7}, None, "7"),
        (NESTED, {"ride": {"features": {"size": 2}, "id": "a"}, "meta": {"key": "k"}}, "a", "k"),
        (Envelope(("ride", "now"), ("ride", "now id")), {"ride": {"now": {"size": 2}, "now id": 0}}, 0, "0"),
        (
            Envelope(("a", "b", "c"), ("a", "b", "id"), ("a", "b", "id")),
            {"a": {"b": {"c": {"size": 2}, "id": 1}}},
            1,
            "1",
        ),
        (Envelope((), ("id",)), {"size": 2, "id": 1}, 1, "1"),
        (Envelope((), ("meta", "id"), ("meta", "key")), {"size": 2, "meta": {"id": 1, "key": ""}}, 1, ""),
        # The name of a feature may tell events apart.
        (Envelope((), ("rooms",)), {"size": 2, "rooms": 1}, 1, "1"),
    ],
)
def test_things_are_found_where_the_envelope_says(
    reader: Any, kind: type[Intake], envelope: Envelope, event: Any, id_: Any, key: str
) -> None:
    for extra in SCHEMAS:
        assert one(reader(envelope, extra, kind=kind), event) == (row(2.0), Event(id_, key))


def test_without_a_key_of_its_own_an_event_keeps_that_of_its_producer(reader: Any) -> None:
    assert one(reader(), {"size": 1}, partition_key="p")[1] == Event(None, "p")
    assert one(reader(Envelope((), ("id",))), {"size": 1, "id": 5}, partition_key="p")[1] == Event(5, "5")


def test_a_long_key_is_told_shorter_and_parts_alike(reader: Any) -> None:
    read = reader(Envelope((), ("id",)))
    keys = [
        one(read, {"size": 1, "id": text})[1].partition_key for text in ("é" * 256, "é" * 257, "é" * 257, "e" * 257)
    ]
    assert keys[0] == "é" * 256
    assert [len(key) for key in keys[1:]] == [64, 64, 64]
    assert keys[1] == keys[2] != keys[3]


BAD: list[tuple[str, bytes, str, str]] = [
    ("not UTF-8", b'{"size": "\xff"}', "not_utf8", "expected JSON in UTF-8, got another byte at 10"),
    ("not UTF-8 in what is no feature", b'{"size": 1, "more": "\xff"}', "not_utf8", "got another byte at 21"),
    ("UTF-16", '{"size": 1}'.encode("utf-16"), "not_utf8", "at 0"),
    ("empty", b"", "not_json", "it is empty"),
    ("blank", b" \n", "not_json", "it is empty"),
    ("text", b"rubbish", "not_json", "malformed"),
    ("cut off", b'{"size": 1', "not_json", "truncated"),
    ("two", b'{"size": 1}{"size": 1}', "not_json", "trailing"),
    ("NaN", b'{"size": NaN}', "not_json", "malformed"),
    ("infinity", b'{"size": Infinity}', "not_json", "malformed"),
    ("huge", b'{"size": 1e999}', "not_json", "out of range"),
    ("deep", b"[" * 100_000, "not_json", "nested too deep"),
    ("deep beside", b'{"size": 1, "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json", "nested too deep"),
    ("lone surrogate", rb'{"size": 1, "id": "\ud800"}', "not_json", ""),
    ("list", b"[1, 2]", "invalid", "at $: expected an object, got an array"),
    ("number", b"7", "invalid", "expected an object, got an integer"),
    ("null", b"null", "invalid", "expected an object, got null"),
]


@pytest.mark.parametrize(("data", "code", "detail"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
@pytest.mark.parametrize("envelope", [Envelope(), Envelope((), ("id",)), Envelope(("ride",))])
def test_what_is_no_event_has_its_reason(reader: Any, envelope: Envelope, data: bytes, code: str, detail: str) -> None:
    found = one(reader(envelope), data)
    assert found.code == code
    assert detail.removeprefix("at $: ") in found.detail


@pytest.mark.parametrize(
    ("event", "problems"),
    [
        ({}, [("$.ride", "an object", "nothing"), ("$.meta", "an object", "nothing")]),
        ({"ride": 5, "meta": []}, [("$.ride", "an object", "an integer"), ("$.meta", "an object", "an array")]),
        ({"ride": None, "meta": None}, [("$.ride", "an object", "null"), ("$.meta", "an object", "null")]),
        (
            {"ride": {"features": [], "id": 1.5}, "meta": {"key": True}},
            [
                ("$.ride.features", "an object", "an array"),
                ("$.ride.id", "a string or an integer", "a number"),
                ("$.meta.key", "a string or an integer", "a boolean"),
            ],
        ),
        (
            {"ride": {"features": {"size": 2, "town hall": "Rome"}, "id": 1}, "meta": {"key": 1}},
            [('$.ride.features["town hall"]', "one of Delft, Gouda", "another string")],
        ),
        (
            {
                "ride": {"features": {"size": "2", "rooms": 2**63, "town hall": "Rome", "seen": "soon"}, "id": None},
                "meta": {},
            },
            [
                ("$.ride.features.size", "a number", "a string"),
                ("$.ride.features.rooms", "an integer", "an integer beyond 64 bits"),
                ('$.ride.features["town hall"]', "one of Delft, Gouda", "another string"),
                ("$.ride.features.seen", "a date and time (RFC 3339)", "a string of another form"),
                ("$.ride.id", "a string or an integer", "null"),
                ("$.meta.key", "a string or an integer", "nothing"),
            ],
        ),
    ],
)
def test_every_problem_is_told_at_its_place_in_the_event(
    reader: Any, event: Any, problems: list[tuple[str, str, str]]
) -> None:
    found = one(reader(NESTED), event)
    assert found.code == "invalid"
    assert found.problems == tuple(Problem(*problem) for problem in problems)
    assert found.detail == "; ".join(map(str, found.problems[:3]))


def test_other_keys_are_refused_where_the_schema_forbids_them(reader: Any) -> None:
    event = {"size": 1, "id": 3, "more": 4}
    found = one(reader(Envelope((), ("id",)), "forbid"), event)
    assert found.problems == (Problem("$.more", "no such feature", "an integer"),)
    found = one(reader(Envelope(("ride",), ("id",)), "forbid"), {"ride": event, "id": 3})
    assert [problem.path for problem in found.problems] == ["$.ride.id", "$.ride.more"]


def test_ignored_keys_are_counted_without_the_id(homes_manifest: Manifest) -> None:
    intake = Intake(replace(homes_manifest, schema=SCHEMAS["ignore"]), "digest")
    Reader(intake, Envelope((), ("id",)), 1000).read([record({"size": 1, "id": 3, "more": 4})])
    assert intake.counts.ignored_keys == 1


def test_an_event_that_is_too_large_is_not_read(reader: Any) -> None:
    data = b'{"size": 1, "more": "' + b"x" * 2_000_000 + b'"}'
    for envelope in (Envelope(), Envelope((), ("id",))):
        found = one(reader(envelope, max_bytes=1_048_576), data)
        assert found == Reason("too_large", f"expected at most 1048576 bytes, got {len(data)}")
    assert one(reader(), data)[0] == row(1.0)


def test_one_bad_event_does_not_move_its_neighbours(reader: Any) -> None:
    events = [{"size": 0}, [], {"size": 2}, {"size": "x"}, {"size": 4}]
    found = reader().read([record(event, number) for number, event in enumerate(events)])
    assert [(place, values[0]) for place, values in zip(found.places, found.rows, strict=True)] == [
        (0, 0),
        (2, 2),
        (4, 4),
    ]
    assert found.refused.keys() == {1, 3}


def test_what_the_model_refuses_is_told_at_its_place(reader: Any) -> None:
    problem = Problem("$[0].size", "a number above 0", "a number")
    assert reader(NESTED).refusal([problem]).problems[0].path == "$.ride.features.size"
    assert reader().refusal([problem]).problems[0].path == "$.size"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.sampled_from(["Delft", "2024-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", 1e308, 10**30]),
    st.lists(st.integers(), max_size=1),
    st.dictionaries(st.sampled_from(["size", "id"]), st.integers(), max_size=2),
)
RECORDS = st.fixed_dictionaries(
    {"size": st.one_of(st.floats(0, 9), VALUES)},
    optional={"rooms": VALUES, "town hall": VALUES, "seen": VALUES, "id": VALUES, "more": VALUES},
)
EVENTS = st.one_of(
    st.fixed_dictionaries({"ride": st.one_of(RECORDS, VALUES), "id": VALUES}, optional={"key": VALUES, "more": VALUES}),
    RECORDS,
    VALUES,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(st.one_of(EVENTS.map(msgspec.json.encode), st.binary(max_size=4)), min_size=1, max_size=4),
    extra=st.sampled_from(sorted(SCHEMAS)),
)
@pytest.mark.parametrize("envelope", [Envelope(), Envelope(("ride",)), Envelope(("ride",), ("id",), ("key",))])
def test_both_ways_to_read_events_agree(reader: Any, envelope: Envelope, events: list[bytes], extra: str) -> None:
    records = [record(data, number) for number, data in enumerate(events)]
    quick: Events = reader(envelope, extra).read(records)
    slow: Events = reader(envelope, extra, kind=SlowIntake).read(records)
    assert quick == slow
    for place, reason in quick.refused.items():
        assert reason.detail
        assert bool(reason.problems) == (reason.code == "invalid"), events[place]


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ({"id": "a", "partition_key": "a.b"}, "id: expected one value at a, but a.b is there"),
        ({"features": "a.b", "id": "a"}, "id: expected one value at a, but a.b is there"),
        ({"features": "a.b", "partition_key": "a"}, "partition_key: expected one value at a, but a.b is there"),
        ({"features": "a", "id": "a"}, "id: expected another place than a, where the features are"),
        ({"features": "a", "id": "a.b"}, "id: expected another place than a.b, where the features are"),
        ({"features": "a", "partition_key": "a.b"}, "partition_key: expected another place than a.b"),
        ({"results": "model"}, "results: expected another name than model"),
        ({"results": "version"}, "which an answer has already"),
        ({"results": "idempotency_key"}, "which an answer has already"),
    ],
)
def test_an_envelope_with_two_things_in_one_place_is_refused(places: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Envelope.of(StreamSettings(**places))
    assert told in str(caught.value)


def test_an_envelope_is_taken_from_the_settings() -> None:
    assert Envelope.of(StreamSettings()) == Envelope()
    found = Envelope.of(StreamSettings(features="a.b", id="a.c", partition_key="ab", results="result"))
    assert found == Envelope(("a", "b"), ("a", "c"), ("ab",), "result")
    assert Envelope.of(StreamSettings(id="a", partition_key="a")) == Envelope((), ("a",), ("a",))


def test_an_id_in_the_place_of_an_output_is_refused() -> None:
    Envelope((), ("id",)).check_outputs(["price"])
    with pytest.raises(ConfigError, match="id: price is an output of the model too"):
        Envelope((), ("meta", "price")).check_outputs(["price"])
    assert json.loads(msgspec.json.encode(Reason("a", "b")))["problems"] == []
