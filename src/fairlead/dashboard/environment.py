"""What has to be so before explainerdashboard is imported, and the one door to it.

Layer L3; imports explainerdashboard when asked for it.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from fairlead.extras import require

# A process forked after OpenMP has begun its threads waits for ever at its next prediction. With one, it begins none.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def prepare() -> None:
    """Set the environment right: one thread for what computes, and nothing for Dash to heed.

    Dash takes its prefixes, debugging and a protocol for agents from variables, which are not meant for us.
    """
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    for name in [name for name in os.environ if name.startswith("DASH_")]:
        del os.environ[name]


def library() -> Any:
    """Import explainerdashboard.

    Raises
    ------
    MissingExtra
        When it is not installed.
    """
    prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        found = require("explainerdashboard", "dashboard")
    logging.getLogger("explainerdashboard").setLevel(logging.ERROR)
    return found
