"""The one door to optional dependencies: import them here, or be told which extra brings them.

Layer L0; imports nothing of fairlead but `errors`.
"""

from __future__ import annotations

import importlib
from typing import Any

from fairlead.errors import MissingExtra


def require(module: str, extra: str) -> Any:
    """Import `module`, which the extra `extra` installs.

    Raises
    ------
    MissingExtra
        When it is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A broken install of the library itself is not a missing extra.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(f"{module} is not installed: run `pip install 'fairlead[{extra}]'`") from error
