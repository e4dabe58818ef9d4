"""Build in a process of its own: its memory goes away with it, and a library that crashes ends nothing else.

`build_apart` is the side that asks; run as a module, this file is the side that builds. The request comes on standard
input, which stays open: when it closes, nobody is waiting any more. Steps and the end go out as lines of JSON.
Layer L1; the asking side imports errors only.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from fairlead import errors
from fairlead.errors import FairleadError, SourceError

if TYPE_CHECKING:
    from fairlead.bundle.build import BuildOptions

_MODULE = "fairlead.bundle.build_process"
_SHOWN_LINES = 5
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Parameters
    ----------
    source : a path or ``module:Class``.
    told_as : what errors call it.
    name, version : of the model, where the options tell none.
    options : None for the defaults.
    """

    source: str
    told_as: str
    name: str
    version: str | None
    options: BuildOptions | None = None


def build_apart(request: BuildRequest, target: Path, timeout_s: float, step: Callable[[str], None]) -> tuple[str, ...]:
    """Build a bundle, and give the warnings of the build.

    Parameters
    ----------
    target : the bundle to make.
    timeout_s : after which the build is ended.
    step : is told each step as it begins.

    Raises
    ------
    FairleadError
        What the build raised, and `SourceError` when it crashed or took too long.
    """
    command = [sys.executable, "-P", "-m", _MODULE]
    with (
        tempfile.TemporaryFile() as noise,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise) as child,
    ):
        ended = threading.Timer(timeout_s, child.kill)
        ended.start()
        started = time.monotonic()
        try:
            done = _listen(child, pickle.dumps((sys.path, request, target)), step)
            child.wait()
        finally:
            ended.cancel()
            child.kill()
        if done is None:
            took_too_long = time.monotonic() - started >= timeout_s
            raise SourceError(_end_of(child, request, timeout_s if took_too_long else None, noise))
    if "error" in done:
        raise _error(done, request)
    return tuple(done["warnings"])


def _listen(child: subprocess.Popen[bytes], asked: bytes, step: Callable[[str], None]) -> Any:
    """Hand over the request, and give the last word; None when the child went without one."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(len(asked).to_bytes(_LENGTH_BYTES) + asked)
        child.stdin.flush()
    for line in child.stdout:
        said = json.loads(line)
        if "step" not in said:
            return said
        step(said["step"])
    return None


def _error(said: dict[str, str], request: BuildRequest) -> FairleadError:
    message = said["error"].replace(request.source, request.told_as)
    kind = getattr(errors, said["kind"], None)
    # Those that carry more than a message are told by their message alone.
    if isinstance(kind, type) and issubclass(kind, FairleadError) and "__init__" not in vars(kind):
        return kind(message)
    return SourceError(message)


def _end_of(child: subprocess.Popen[bytes], request: BuildRequest, timeout_s: float | None, noise: IO[bytes]) -> str:
    noise.seek(0)
    last = noise.read().decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
    told = "".join(f"\n  {line}" for line in last)
    if timeout_s is not None:
        return f"{request.told_as}: building it was ended after {timeout_s:g} s (cache.timeout_s){told}"
    code = child.returncode
    if code == -signal.SIGKILL:
        return f"{request.told_as}: building it was killed, as a system does that runs out of memory{told}"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{request.told_as}: building it {how}: the model, or a library that it needs, crashed{told}"


def _main() -> None:
    # By its length, since standard input does not end.
    length = int.from_bytes(sys.stdin.buffer.read(_LENGTH_BYTES))
    path, request, target = pickle.loads(sys.stdin.buffer.read(length))
    sys.path[:] = path
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What the model's code prints must not come between the lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(what: dict[str, object]) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    try:
        say({"warnings": _build(request, target, lambda step: say({"step": step}))})
    except FairleadError as error:
        say({"kind": type(error).__name__, "error": str(error)})


def _build(request: BuildRequest, target: Path, step: Callable[[str], None]) -> tuple[str, ...]:
    from dataclasses import replace

    from fairlead.bundle.build import BuildOptions, build

    options = request.options or BuildOptions()
    options = replace(options, name=options.name or request.name, version=options.version or request.version)
    return build(request.source, target, options, step).warnings


def _end_with_parent() -> NoReturn:
    # Not through `sys.stdin`, whose lock the end of the interpreter would want.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    _main()
