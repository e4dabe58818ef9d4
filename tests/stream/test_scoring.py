from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fairlead.errors import ModelFailed
from fairlead.repository.traffic import Sticky, bucket
from fairlead.stream.envelope import Envelope
from fairlead.stream.events import Reason
from fairlead.stream.records import Message, Record
from fairlead.stream.scoring import Run, Scored, Team, _answers
from streams import Pricers, event, member, record

ENVELOPE = Envelope((), ("id",))


def team(pricers: Pricers, **how: Any) -> Team:
    return Team("price", ENVELOPE, member(pricers.build("1"), ENVELOPE), **how)


def with_canary(pricers: Pricers, weight: float, **how: Any) -> Team:
    return team(pricers, canary=member(pricers.build("2"), ENVELOPE), weight=weight, **how)


def sizes(n_events: int) -> list[Record]:
    return [record(event(number), number) for number in range(n_events)]


def told(found: list[Scored | Reason]) -> list[Any]:
    return [one.code if isinstance(one, Reason) else one.results for one in found]


def versions(found: list[Scored | Reason]) -> list[str]:
    return [one.version for one in found if isinstance(one, Scored)]


def test_answers_are_in_the_order_of_the_events_whatever_is_among_them(pricers: Pricers) -> None:
    runs: list[Run] = []
    records = sizes(6)
    records[1] = record(b"rubbish")
    records[2] = record(event(2, size=13))
    records[4] = record(event(4, size="large"))
    found = team(pricers, on_run=runs.append).score(records, gives_up=False)
    price = [{"price": number + 0.5, "id": number} for number in range(6)]
    assert told(found) == [price[0], "not_json", "model_failed", price[3], "invalid", price[5]]
    assert found[2] == Reason("model_failed", "the model raised ValueError: no price")
    assert [(run.version, run.rows, run.rejected) for run in runs] == [("1", 3, 3)]
    assert runs[0].duration_ns > 0


@pytest.mark.parametrize("n_events", [1, 3])
def test_a_model_that_fails_for_all_may_do_better_later(pricers: Pricers, n_events: int) -> None:
    one = team(pricers)
    pricers.fail("1")
    records = [*sizes(n_events), record(b"rubbish")]
    with pytest.raises(ModelFailed, match="no price"):
        one.score(records, gives_up=False)
    assert told(one.score(records, gives_up=True)) == [*["model_failed"] * n_events, "not_json"]
    pricers.fail()
    assert told(one.score(records, gives_up=False))[0] == {"price": 0.5, "id": 0}


def test_a_batch_of_which_nothing_can_be_read_has_reasons_only(pricers: Pricers) -> None:
    assert told(team(pricers).score([record(b""), record(b"[]")], gives_up=False)) == ["not_json", "invalid"]
    assert team(pricers).score([], gives_up=False) == []


@pytest.mark.parametrize("id_", [256, "é\u2028\x00", "", 2**64 - 1, -(2**63), 2**64])
def test_a_message_is_the_answer_and_its_key_as_json(pricers: Pricers, id_: Any) -> None:
    one = team(pricers)
    (scored,) = one.score([record(event(3, id=id_), partition_key="p")], gives_up=False)
    assert isinstance(scored, Scored)
    wrapped = {"model": "price", "version": "1", "prediction": {"price": 3.5, "id": id_}}
    key = 'rides/"shard"/é/496'
    message = one.message(scored, key)
    assert message == Message(msgspec.json.encode({**wrapped, "idempotency_key": key}), key, str(id_))
    assert json.loads(message.data)["idempotency_key"] == key
    assert message.size_bytes == len(message.data) + len(str(id_).encode())


def test_results_are_under_the_name_that_the_envelope_says(pricers: Pricers) -> None:
    envelope = Envelope(("home",), ("meta", "id"), (), 'the "result"')
    one = Team("price", envelope, member(pricers.build("1"), envelope))
    (scored,) = one.score([record({"home": {"size": 2}, "meta": {"id": "a"}})], gives_up=False)
    assert isinstance(scored, Scored)
    message = json.loads(one.message(scored, "k").data)
    assert message == {
        "model": "price",
        "version": "1",
        'the "result"': {"price": 2.0, "id": "a"},
        "idempotency_key": "k",
    }


def test_an_event_has_the_same_version_again_after_a_redelivery(pricers: Pricers) -> None:
    records = sizes(200)
    found = with_canary(pricers, 0.3).score(records, gives_up=False)
    expected = ["2" if bucket(one.key.encode(), "price") < 0.3 else "1" for one in records]
    assert versions(found) == expected
    assert 30 < expected.count("2") < 90
    assert [one["price"] for one in told(found)] == [
        (number + 0.5) * int(version) for number, version in enumerate(expected)
    ]
    backwards = with_canary(pricers, 0.3).score(records[::-1], gives_up=False)
    assert backwards[::-1] == found


@pytest.mark.parametrize(("weight", "expected"), [(0.0, {"1"}), (1.0, {"2"})])
def test_a_canary_has_nothing_or_all(pricers: Pricers, weight: float, expected: set[str]) -> None:
    runs: list[Run] = []
    found = with_canary(pricers, weight, on_run=runs.append).score(sizes(5), gives_up=False)
    assert set(versions(found)) == expected
    assert {run.version: run.rows for run in runs if run.rows} == dict.fromkeys(expected, 5)


def test_events_of_one_header_have_one_version(pricers: Pricers) -> None:
    one = with_canary(pricers, 0.5, sticky=Sticky.parse("header:X-User"))
    users = [f"u{number % 20}" for number in range(200)]
    records = [record(event(place), place, headers={"x-user": user}) for place, user in enumerate(users)]
    found = versions(one.score(records, gives_up=False))
    by_user = dict(zip(users, found, strict=True))
    assert found == [by_user[user] for user in users]
    assert set(found) == {"1", "2"}


def test_an_event_without_the_header_has_the_same_version_again(pricers: Pricers) -> None:
    one = with_canary(pricers, 0.5, sticky=Sticky.parse("header:x-user"))
    assert len({tuple(versions(one.score(sizes(20), gives_up=False))) for _ in range(5)}) == 1


def test_events_of_one_value_have_one_version(pricers: Pricers) -> None:
    one = with_canary(pricers, 0.5, sticky=Sticky.parse("feature:rooms"))
    records = [record(event(place, rooms=place % 20), place) for place in range(200)]
    found = versions(one.score(records, gives_up=False))
    assert found[:20] * 10 == found
    assert set(found) == {"1", "2"}


def test_what_a_canary_fails_is_answered_by_the_stable_version(pricers: Pricers) -> None:
    counted: list[tuple[int, int, int]] = []
    one = with_canary(pricers, 1.0, on_canary=lambda *counts: counted.append(counts))
    records = [*sizes(3), record(event(3, size=13)), record(b"rubbish")]
    found = one.score(records, gives_up=True)
    assert told(found)[3:] == ["model_failed", "not_json"]
    assert versions(found) == ["2", "2", "2"]
    pricers.fail("2")
    found = one.score(records, gives_up=True)
    assert told(found)[:3] == [{"price": number + 0.5, "id": number} for number in range(3)]
    assert versions(found) == ["1", "1", "1"]
    # What the stable version cannot read is no event of the canary's.
    assert [(events, failed) for events, failed, _ in counted] == [(4, 1), (4, 4)]
    assert all(each_ns > 0 for _, _, each_ns in counted)


def test_what_a_canary_refuses_is_answered_by_the_stable_version(pricers: Pricers, tmp_path: Path) -> None:
    strict = member(pricers.build("2", extra="forbid"), ENVELOPE)
    counted: list[tuple[int, int, int]] = []
    one = team(pricers, canary=strict, weight=1.0, on_canary=lambda *counts: counted.append(counts))
    found = one.score([record(event(1, more=1)), record(event(2))], gives_up=False)
    assert versions(found) == ["1", "2"]
    assert versions(one.score([record(event(1, more=1))], gives_up=False)) == ["1"]
    assert [(events, failed) for events, failed, _ in counted] == [(2, 1), (1, 1)]


class Leaves:
    """A predictor whose model ends the program for one row."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def answer(self, rows: Any) -> Any:
        if self.row in rows:
            raise SystemExit(3)
        return [{"prediction": 1.0} for _ in rows], {}


def test_what_would_end_the_program_is_the_models_failure() -> None:
    member: Any = SimpleNamespace(predictor=Leaves((1,)), reader=None)
    answers, late = _answers(member, [(0,), (1,), (2,)], gives_up=False)
    assert [answer is None for answer in answers] == [False, True, False]
    assert {place: (reason.code, reason.detail) for place, reason in late.items()} == {
        1: ("model_failed", "the model raised SystemExit")
    }
