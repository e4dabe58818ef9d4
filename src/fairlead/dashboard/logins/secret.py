"""The secret that signs what the dashboards' visitors carry: one for all workers, and the same after a restart.

Layer L3; imports the standard library only.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from fairlead.dashboard.logins import new_file
from fairlead.errors import DashboardError

VARIABLE = "FAIRLEAD_SESSION_SECRET"
MIN_BYTES = 32
# Who names a model or a table by mistake shall not have it read whole.
MAX_BYTES = 4096
_WHAT = "a file with a secret"


def obtain(environ: Mapping[str, str], file: Path) -> bytes:
    """Read the secret, from `FAIRLEAD_SESSION_SECRET` or else from a file, which is made when it is not there.

    Parameters
    ----------
    file : one line; space around it does not count.

    Returns
    -------
    At least `MIN_BYTES` bytes.

    Raises
    ------
    DashboardError
        When it is too short or too long, when the file cannot be read or made, and when every user of the machine
        may read it. No message repeats what stands there.
    """
    if VARIABLE in environ:
        return _checked(os.fsencode(environ[VARIABLE]), VARIABLE, "set another, as `openssl rand -hex 32` makes one")
    new_file.make(file, _write)
    return _checked(_read(file), str(file), "remove it, and a new one is made; people then log in again")


def _write(path: Path) -> None:
    path.write_text(secrets.token_urlsafe(48) + "\n", "ascii")


def _read(path: Path) -> bytes:
    try:
        # A pipe would otherwise keep us waiting for its other end.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            new_file.check(path, os.fstat(handle), _WHAT)
            return os.read(handle, MAX_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise DashboardError(
            f"{path}: expected {_WHAT} that can be read, got: {error.strerror}: mend that, or name another"
        ) from error


def _checked(content: bytes, where: str, cure: str) -> bytes:
    secret = content.strip()
    if len(content) > MAX_BYTES:
        raise DashboardError(f"{where}: expected a secret of at most {MAX_BYTES} bytes, got more: {cure}")
    if len(secret) < MIN_BYTES:
        raise DashboardError(
            f"{where}: expected a secret of at least {MIN_BYTES} random bytes, got {len(secret)}: {cure}"
        )
    return secret
