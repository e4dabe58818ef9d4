from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from fairlead.stream.brokers.kinesis.threads import Threads

UNANSWERED = """
import asyncio, time
from contextlib import suppress
from fairlead.stream.brokers.kinesis.threads import Threads

async def work():
    with suppress(TimeoutError):
        await asyncio.wait_for(Threads(1).run(time.sleep, 3600), 0.1)

asyncio.run(work())
"""


def test_so_many_calls_run_at_once_and_a_cancelled_one_makes_room() -> None:
    async def work() -> None:
        begun, release = threading.Semaphore(0), threading.Event()

        def call() -> None:
            begun.release()
            release.wait()

        threads = Threads(2)
        calls = [asyncio.create_task(threads.run(call)) for _ in range(3)]
        for _ in range(2):
            assert await asyncio.to_thread(begun.acquire, timeout=20)
        assert not begun.acquire(blocking=False)
        calls[0].cancel()
        assert await asyncio.to_thread(begun.acquire, timeout=20)
        release.set()
        await asyncio.gather(*calls[1:])
        assert calls[0].cancelled()
        assert await threads.run(divmod, 7, 2) == (3, 1)

    asyncio.run(work())


def test_a_call_that_is_never_answered_does_not_keep_the_process() -> None:
    subprocess.run([sys.executable, "-c", UNANSWERED], check=True, timeout=60)
