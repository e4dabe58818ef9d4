from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.errors import BrokerUnavailable
from fairlead.schema import Problem
from fairlead.stream.dead_letters import DeadLetters
from fairlead.stream.events import Reason
from fairlead.stream.overflow import open_overflow
from streams import record

REASON = Reason("invalid", "$.size: expected a number, got a string", (Problem("$.size", "a number", "a string"),))


def letters(limit: int | None = None, overflow: Path | None = None) -> DeadLetters:
    return DeadLetters("kinesis://rides", limit, None if overflow is None else open_overflow(str(overflow), {}))


@pytest.mark.parametrize("data", [b"", b"\xff\x00\n", bytes(range(256)), b'{"size": "x"}', b" \r\n"])
def test_the_bytes_come_back_as_they_came(data: bytes) -> None:
    one = record(data, 7, partition_key="p", arrived_at_s=1654161514.132)
    message = letters().message(one, REASON, "price", "3")
    told = json.loads(message.data)
    assert base64.b64decode(told.pop("data")) == data
    assert len(told.pop("failed_at")) == len("2022-06-02T09:18:34.132Z")
    assert told == {
        "idempotency_key": "homes/7",
        "code": "invalid",
        "reason": REASON.detail,
        "problems": [{"path": "$.size", "expected": "a number", "got": "a string"}],
        "model": "price",
        "version": "3",
        "from": "kinesis://rides",
        "partition": "homes",
        "partition_key": "p",
        "arrived_at": "2022-06-02T09:18:34.132Z",
    }
    assert (message.key, message.partition_key) == ("homes/7", "p")


def test_when_an_event_arrived_may_be_unknown() -> None:
    assert json.loads(letters().message(record(b""), REASON, "price", "3").data)["arrived_at"] is None


def test_what_is_too_large_is_told_by_where_it_lies(tmp_path: Path) -> None:
    data = b"\xff" * 5000
    message = letters(5000, tmp_path / "overflow").message(record(data), REASON, "price", "3")
    told = json.loads(message.data)
    assert told["data"] is None
    assert told["problems"]
    assert told["stored"] == {"at": told["stored"]["at"], "size_bytes": 5000, "sha256": sha256(data).hexdigest()}
    assert Path(told["stored"]["at"]).read_bytes() == data
    assert message.size_bytes <= 5000
    # One that just fits is told whole.
    whole = letters(None).message(record(data), REASON, "price", "3")
    assert (
        b"stored" not in letters(whole.size_bytes, tmp_path / "other").message(record(data), REASON, "price", "3").data
    )
    assert not (tmp_path / "other").exists()


def test_an_answer_that_is_too_large_lies_beside_its_event(tmp_path: Path) -> None:
    output = b'{"prediction":1}'
    told = json.loads(letters(None, tmp_path).message(record(b"{}"), REASON, "price", "3", output).data)
    assert Path(told["output"]["at"]).read_bytes() == output
    assert base64.b64decode(told["data"]) == b"{}"
    assert json.loads(letters().message(record(b"{}"), REASON, "price", "3", output).data)["output"] is None


@pytest.mark.parametrize(
    "problems",
    [
        [Problem(f"$.f{number}", "a number", "a string") for number in range(1000)],
        [Problem(f"$.{'long' * 5000}", "no such feature", "a string") for _ in range(5)],
        [Problem('$["' + "\\u0000é" * 5000 + '"]', "no such feature", "a string") for _ in range(5)],
    ],
    ids=["many", "long", "escaped"],
)
def test_problems_are_told_as_far_as_they_fit(tmp_path: Path, problems: list[Problem]) -> None:
    reason = Reason("invalid", "; ".join(map(str, problems[:3])), tuple(problems))
    message = letters(4000, tmp_path).message(record(b"x" * 5000), reason, "price", "3")
    assert message.size_bytes <= 4000
    told: dict[str, Any] = msgspec.json.decode(message.data)
    assert told["code"] == "invalid"
    assert 1 <= len(told["problems"]) <= 3
    assert Path(told["stored"]["at"]).read_bytes() == b"x" * 5000


def test_what_cannot_be_kept_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailable, match="what is too large cannot be kept: Not a directory"):
        letters(10, tmp_path / "file" / "below").message(record(b"x" * 5000), REASON, "price", "3")
