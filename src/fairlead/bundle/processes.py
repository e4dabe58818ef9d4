"""What a process does at its beginning that works beside another: it yields to that, and goes with it.

Layer L1; stdlib only, and fit to be run between a fork and what comes after it.

Source: prctl(2); sched(7), "The autogroup feature": Linux weighs niceness within a session, so that a process of its
own group is to stay in the session of those it yields to.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

# A tenth of what others get where all want more than there is: enough to come to an end under full load.
_NICE = 10
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def yield_to_all() -> None:
    """Take what others leave of the processor, go first when memory is short, and leave no core behind."""
    os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_with(parent: int) -> None:
    """Be killed when the thread that started this process ends, in whatever way.

    Parameters
    ----------
    parent : the process of that thread, which may have ended already.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
