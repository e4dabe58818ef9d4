"""What is recorded of a running service: metrics, logs and traces.

Layer L2: a mode hands in what happened; nothing here knows HTTP servers, and no request waits for it.
Nothing third-party but msgspec is imported until metrics are rendered or spans are made.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every child that is forked while its object lives.

    Servers that load an app once and fork it (gunicorn's ``--preload``) copy process ids, counters and
    open files along; whoever holds one of these starts anew.
    """
    weak = weakref.WeakMethod(method)

    def renew() -> None:
        alive = weak()
        if alive is not None:
            alive()

    os.register_at_fork(after_in_child=renew)
