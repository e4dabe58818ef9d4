"""A copy of a consumer, for tests that kill it: ``STREAM CHECKPOINTS OUTPUT``, the environment told by variables.

It appends what it received to OUTPUT, a line each, and commits. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading

from fairlead.errors import BrokerUnavailable
from fairlead.stream.broker import SourceOptions
from fairlead.stream.brokers import open_source


async def main(stream: str, checkpoints: str, output: str) -> None:
    options = SourceOptions(environ=os.environ, checkpoints=checkpoints, lease_s=1.0, max_records=20)
    source = open_source(f"kinesis://{stream}", options)
    await source.start()
    with open(output, "ab", buffering=0) as lines:  # noqa: PTH123  # the whole of it is this loop
        while True:
            with contextlib.suppress(BrokerUnavailable):
                records = await source.receive(20, 0.0)
                lines.write(b"".join(b"%s %s\n" % (record.key.encode(), record.data) for record in records))
                await source.commit(records)


def end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
asyncio.run(main(*sys.argv[1:]))
