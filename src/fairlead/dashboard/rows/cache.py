"""What was looked up lately is kept, and what many ask for at once is looked up once.

A page asks for the row that a person chose in some twenty places at the same time. Layer L3; stdlib only.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Keeps the values asked for last, in any thread. What fails is not kept.

    Parameters
    ----------
    capacity : how many values are kept.
    ttl_s : for how long; None as long as there is room.
    """

    def __init__(self, capacity: int, ttl_s: float | None = None) -> None:
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, V]] = OrderedDict()
        self._awaited: dict[str, Future[V]] = {}

    def get(self, key: str, load: Callable[[str], V]) -> V:
        """Give what is kept, or what `load` gives, which one thread calls while the others wait for it.

        Raises
        ------
        Exception
            What `load` raised, in each thread that waited.
        """
        with self._lock:
            if key in self._kept:
                since, value = self._kept[key]
                if self._ttl_s is None or time.monotonic() - since < self._ttl_s:
                    self._kept.move_to_end(key)
                    return value
            awaited = self._awaited.get(key)
            if awaited is None:
                mine = self._awaited[key] = Future()
        return self._load(key, load, mine) if awaited is None else awaited.result()

    def _load(self, key: str, load: Callable[[str], V], future: Future[V]) -> V:
        try:
            value = load(key)
        except BaseException as error:
            with self._lock:
                del self._awaited[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._awaited[key]
            self._kept[key] = (time.monotonic(), value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        future.set_result(value)
        return value
