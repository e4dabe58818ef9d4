"""What Lambda hands over of a stream of Kinesis becomes records, each under the key that every other reader gives it.

Source: https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fairlead.predict.validate import type_name
from fairlead.stream.events import Reason
from fairlead.stream.records import Record


def is_batch(event: Any) -> bool:
    """Whether an event is a batch of Kinesis; an empty one is."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    return isinstance(records, list) and all(
        isinstance(one, Mapping) and isinstance(one.get("kinesis"), Mapping) for one in records
    )


@dataclass(frozen=True)
class Batch:
    """What came in one event.

    Parameters
    ----------
    stream : its name.
    records : with their sequence numbers as `position`; the data of one that is refused is as it came.
    refused : why, by place, for what is no base64.
    """

    stream: str
    records: Sequence[Record]
    refused: Mapping[int, Reason]

    @classmethod
    def of(cls, given: Sequence[Mapping[str, Any]]) -> Batch:
        """Read a batch; never raises for what is in it."""
        refused: dict[int, Reason] = {}
        records = []
        for place, one in enumerate(given):
            data = _decoded(one["kinesis"].get("data"))
            if isinstance(data, Reason):
                refused[place] = data
            records.append(_record(one, data))
        return cls(_stream(given[0]) if given else "", records, refused)


def _decoded(text: Any) -> bytes | Reason:
    if not isinstance(text, str):
        return Reason("not_base64", f"expected base64 in `data`, got {type_name(text)}")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # the text itself is not told: it may be anything
        return Reason("not_base64", f"expected base64 in `data`, got {len(text)} other characters")


def _record(one: Mapping[str, Any], data: bytes | Reason) -> Record:
    kinesis = one["kinesis"]
    text = kinesis.get("data")
    raw = data if isinstance(data, bytes) else text.encode(errors="replace") if isinstance(text, str) else b""
    sequence = str(kinesis.get("sequenceNumber") or "")
    partition = f"{_stream(one)}/{str(one.get('eventID') or '').rpartition(':')[0]}"
    arrived_at_s = kinesis.get("approximateArrivalTimestamp")
    return Record(
        raw,
        # Kinesis numbers all; what people write by hand, to try a function, may have no number.
        f"{partition}/{sequence or sha256(raw).hexdigest()}",
        partition,
        sequence,
        str(kinesis.get("partitionKey") or ""),
        float(arrived_at_s) if isinstance(arrived_at_s, int | float) else None,
    )


def _stream(one: Mapping[str, Any]) -> str:
    """Give the stream's name: ``arn:aws:kinesis:REGION:ACCOUNT:stream/NAME``, with a consumer's behind it or not."""
    return str(one.get("eventSourceARN") or "").partition(":stream/")[2].partition("/")[0]
