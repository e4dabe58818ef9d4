"""What a message of RabbitMQ says.

Layer L3; imports aiormq.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from aiormq.abc import DeliveredMessage

from fairlead.stream.records import Record


def record(queue: str, message: DeliveredMessage, generation: int) -> Record:
    """Make a record of a message, which was delivered by a connection of this generation.

    RabbitMQ has no name for a message that outlives a redelivery. So it is the message id that its producer gave, else
    the SHA-256 of the data: then messages of the same data share a key.
    """
    properties = message.header.properties
    headers = {str(name).lower(): _text(value) for name, value in (properties.headers or {}).items()}
    name = properties.message_id or hashlib.sha256(message.body).hexdigest()
    sent_at = properties.timestamp
    return Record(
        data=message.body,
        key=f"{queue}/{name}",
        partition=queue,
        position=(generation, message.delivery_tag),
        partition_key=headers.get("partition_key", ""),
        arrived_at_s=sent_at.timestamp() if isinstance(sent_at, datetime) else None,
        headers=headers,
    )


def _text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
