"""The user's own module, run from the bytes that were digested and from nothing else.

Used when a bundle is built (`--code features.py`, ``module:Class``) and when it is served (from `code/`).
No `__pycache__` is written or read: a stale or planted .pyc would run in place of the verified source.
Layer L1; stdlib only.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType

from fairlead.errors import SourceError

_DIGEST = "__fairlead_sha256__"
_lock = threading.Lock()


def load_module(source: Path | bytes, name: str, where: str | None = None) -> ModuleType:
    """Run a module from its source and register it in `sys.modules` under `name`.

    Parameters
    ----------
    source : the file, or its bytes.
    name : what the module is imported as; a later one of the same name and another source replaces it,
        one of the same source is the same module: what a pickle's classes and `prepare` share is shared.
    where : what to call the file in errors and tracebacks, when `source` is bytes.

    Raises
    ------
    SourceError
        When the file is missing, its name is taken by a library, or running it fails: names file and line.
    """
    filename = where or (str(source) if isinstance(source, Path) else f"{name}.py")
    data = read_source(source) if isinstance(source, Path) else source
    _check_name(name, filename)
    digest = hashlib.sha256(data).hexdigest()
    module = ModuleType(name)
    module.__file__ = filename
    setattr(module, _DIGEST, digest)
    with _lock:
        before = sys.modules.get(name)
        if before is not None and getattr(before, _DIGEST, None) == digest:
            return before
        sys.modules[name] = module  # dataclasses and typing look a class's module up while it is made
        try:
            exec(compile(data, filename, "exec", dont_inherit=True), module.__dict__)
        except (Exception, SystemExit) as error:
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
            raise SourceError(_explain(error, filename)) from error
    return module


def read_source(path: Path) -> bytes:
    """The bytes of a module's file.

    Raises
    ------
    SourceError
        When it cannot be read or is no Python file.
    """
    if path.suffix != ".py":
        raise SourceError(f"{path}: expected a Python file such as features.py")
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot read the user's module ({error.strerror})") from error


def _check_name(name: str, filename: str) -> None:
    if not name.isidentifier():
        raise SourceError(f"{filename}: {name!r} cannot be a module's name: use letters, digits and underscores")
    present = getattr(sys.modules.get(name), "__file__", None) or ""
    # The user's own process may have imported the very file; only a library must not be replaced.
    if name in sys.stdlib_module_names or "site-packages" in Path(present).parts:
        raise SourceError(f"{filename}: a library is already called {name}: rename the file")


def _explain(error: BaseException, filename: str) -> str:
    line: int | None = None
    if isinstance(error, SyntaxError) and error.filename == filename:
        line, reason = error.lineno, error.msg
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
        line = frames[-1].lineno if frames else None
        reason = str(error).partition("\n")[0]
    place = f"{filename}, line {line}" if line else filename
    return f"{place}: the user's module cannot be imported ({type(error).__name__}: {reason})"
