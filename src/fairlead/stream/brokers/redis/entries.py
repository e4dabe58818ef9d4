"""What an entry of a Redis stream says.

Layer L3; imports msgspec, and faststream for an entry that FastStream wrote.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fairlead.stream.records import Record


def record(stream: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Record:
    """Make a record of an entry.

    The event is the field ``data`` where there is one, or what FastStream packed into ``__data__``; then the other
    fields are headers. Else it is all the fields, as a JSON object of strings.
    """
    name = entry_id.decode()
    rest = dict(fields)
    partition_key = _text(rest.pop(b"partition_key", b""))
    headers: dict[str, str] = {}
    if (data := rest.pop(b"data", None)) is None:
        if (packed := rest.pop(b"__data__", None)) is not None:
            data, headers = _unpacked(packed)
        else:
            data, rest = _as_object(fields), {}
    for field, value in rest.items():
        headers[_text(field).lower()] = _text(value)
    return Record(
        data=data,
        key=f"{stream}/{name}",
        partition=stream,
        position=name,
        partition_key=partition_key,
        arrived_at_s=int(name.partition("-")[0]) / 1000,
        headers=headers,
    )


def _unpacked(packed: bytes) -> tuple[bytes, dict[str, str]]:
    from faststream.redis.parser import BinaryMessageFormatV1

    data, headers = BinaryMessageFormatV1.parse(packed)
    return data, {name.lower(): str(value) for name, value in headers.items()}


def _as_object(fields: Mapping[bytes, bytes]) -> bytes:
    return msgspec.json.encode({_text(field): _text(value) for field, value in fields.items()})


def _text(value: bytes) -> str:
    # A field may hold any bytes; what is no text is shown, not lost.
    return value.decode(errors="backslashreplace")
