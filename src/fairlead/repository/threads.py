"""Work that takes long, beside the event loop and without holding it up."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TypeVar

from fairlead.errors import ModelFailed

T = TypeVar("T")
# How long a thread that computes may keep the interpreter from the event loop; Python's own 5 ms are felt.
_SWITCH_S = 0.0005


class _Gentle:
    """How many threads compute beside the loop, and the switch interval of when there was none."""

    count = 0
    before_s = 0.0


@contextmanager
def _gentle() -> Iterator[None]:
    """Let the event loop have the interpreter back soon while other threads compute; on the loop."""
    if not _Gentle.count:
        _Gentle.before_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
    _Gentle.count += 1
    try:
        yield
    finally:
        _Gentle.count -= 1
        if not _Gentle.count:
            sys.setswitchinterval(_Gentle.before_s)


async def in_thread(work: Callable[[], T], *, is_gentle: bool = True) -> T:
    """Have a function called in a thread of its own, and give what it returns or raise what it raises.

    The thread is a daemon, unlike those of `asyncio.to_thread`: what hangs there must not keep the process from
    ending.

    Parameters
    ----------
    is_gentle : whether the loop gets the interpreter back soon, at the price of a tenth of the work and more.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if answer.done():  # who asked has given up
            return
        if error is None:
            answer.set_result(result)  # type: ignore[arg-type]  # None is what a T may be
        else:
            answer.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:
            error = raised
        except BaseException as raised:  # and must not end the thread unheard, as `sys.exit` would
            error = ModelFailed(f"expected it to return, it raised {type(raised).__name__}")
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    with _gentle() if is_gentle else nullcontext():
        threading.Thread(target=run, name="fairlead-work", daemon=True).start()
        return await answer
