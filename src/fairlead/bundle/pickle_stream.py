"""The opcodes of a pickle or joblib file, followed twice: dry, to see what it wants, and for real.

The dry walk makes inert placeholders where a pickle would look up and call objects: nothing is imported
and nothing of the file runs. joblib writes the bytes of each array into the stream, right behind the
BUILD of a `NumpyArrayWrapper`; both walks step over them in one way, so that they see the same opcodes.
Layer L1; numpy only for the real walk.

Source: CPython `Lib/pickle.py`, `Lib/pickletools.py`; joblib `numpy_pickle.NumpyArrayWrapper.read_array`.
"""

from __future__ import annotations

import _compat_pickle
import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

ARRAY_WRAPPERS: Final = frozenset(
    {"joblib.numpy_pickle.NumpyArrayWrapper", "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper"}
)
Reference = tuple[str, str]
_DTYPE = re.compile(r"[<>=|]?([?biufcSUVOMm])(\d*)")


@dataclass
class Findings:
    """What the dry walk saw.

    Parameters
    ----------
    references : every global, as written in the file, with the name it has in Python 3.
    sklearn_versions : from the states of estimators.
    indirect : globals whose result is called, or which are themselves changed.
    arrays : bytes of joblib's raw arrays by the offset where they begin; None for one of Python objects.
    """

    references: dict[Reference, Reference] = field(default_factory=dict)
    sklearn_versions: set[str] = field(default_factory=set)
    indirect: set[str] = field(default_factory=set)
    arrays: dict[int, int | None] = field(default_factory=dict)


class StoredArray:
    """Takes the place of joblib's wrapper: the description of the raw array that follows it."""

    shape: tuple[int, ...]
    order: str
    dtype: Any


@dataclass(eq=False, frozen=True)
class _Named:
    name: str


@dataclass(eq=False)
class _Made:
    origin: str
    args: Any
    state: Any = None

    def ignore(self, *items: object) -> None:
        """Take the place of every method by which pickle fills a container."""

    append = extend = add = __setitem__ = ignore


class _Stream(pickle._Unpickler):
    """What both walks share; `stack` and `append` are the base class's own."""

    stack: list[Any]
    append: Callable[[Any], None]
    proto: int
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BytesIO, findings: Findings) -> None:
        super().__init__(file)
        self.file = file
        self.findings = findings

    def load_build(self) -> None:
        raise NotImplementedError

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("it uses persistent ids or extension codes, whose meaning is not in the file")

    dispatch[pickle.BUILD[0]] = lambda self: self.load_build()
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BINPERSID):
        dispatch[_code[0]] = _refuse

    def _skip_padding(self, alignment: object) -> None:
        if alignment is not None:
            self.file.read(self.file.read(1)[0])


class DryWalk(_Stream):
    """Follow the opcodes with placeholders for everything that is not plain data."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Stream.dispatch)

    def find_class(self, module: str, name: str) -> _Named:
        """Note the global; import nothing."""
        known = (module, name)
        if self.proto < 3:
            module, name = _compat_pickle.NAME_MAPPING.get(
                known, (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
            )
        if self.findings.references.setdefault(known, (module, name)) != (module, name):
            raise pickle.UnpicklingError("it changes its protocol in the middle")
        return _Named(f"{module}.{name}")

    def _make(self, what: object, args: Any) -> _Made:
        if isinstance(what, _Made):
            self.findings.indirect.add(what.origin)
            return _Made(what.origin, args)
        if not isinstance(what, _Named):
            raise pickle.UnpicklingError(f"it calls a {type(what).__name__}")
        first = args[0] if isinstance(args, tuple) and args else None
        if what.name == "copyreg._reconstructor" and isinstance(first, _Named) and first.name in ARRAY_WRAPPERS:
            return _Made(first.name, ())
        return _Made(what.name, args)

    def load_call(self) -> None:
        """REDUCE and NEWOBJ."""
        args = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args)

    def load_call_with_keywords(self) -> None:
        """NEWOBJ_EX."""
        self.stack.pop()
        self.load_call()

    def _instantiate(self, klass: object, args: Any) -> None:
        """INST and OBJ, by way of the base class."""
        self.append(self._make(klass, args))

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = load_call
    dispatch[pickle.NEWOBJ_EX[0]] = load_call_with_keywords

    def load_build(self) -> None:
        """BUILD: note versions, and step over the array that joblib wrote behind its wrapper."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Named):
            self.findings.indirect.add(made.name)
            return
        if not isinstance(made, _Made):
            raise pickle.UnpicklingError(f"it sets the state of a {type(made).__name__}")
        made.state = state
        version = state.get("_sklearn_version") if isinstance(state, dict) else None
        if isinstance(version, str):
            self.findings.sklearn_versions.add(version)
        if made.origin in ARRAY_WRAPPERS:
            self._skip_array(state)
            self.stack[-1] = _Made("numpy.ndarray", ())

    def _skip_array(self, state: Any) -> None:
        start = self.file.tell()
        itemsize, has_objects = _layout(state["dtype"])
        if has_objects:
            self.findings.arrays[start] = None
            DryWalk(self.file, self.findings).load()
            return
        self._skip_padding(state.get("numpy_array_alignment_bytes"))
        size = self.findings.arrays[start] = _count(state["shape"]) * itemsize
        if len(self.file.getbuffer()) - self.file.tell() < size:
            raise EOFError("it ends inside an array")
        self.file.seek(size, io.SEEK_CUR)


class RealWalk(_Stream):
    """Load a joblib stream with the globals that were approved, and no others."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Stream.dispatch)

    def __init__(self, file: io.BytesIO, findings: Findings, approved: Mapping[Reference, object]) -> None:
        super().__init__(file, findings)
        self.approved = approved

    def find_class(self, module: str, name: str) -> Any:
        """Give an approved object; a name that was not seen before is an error."""
        return self.approved[module, name]

    def load_build(self) -> None:
        """BUILD: put the array itself in the place of joblib's wrapper."""
        super(_Stream, self).load_build()  # type: ignore[misc]  # the base class's own opcode, unknown to typeshed
        if isinstance(self.stack[-1], StoredArray):
            self.stack[-1] = self._read_array(self.stack[-1])

    def _read_array(self, stored: StoredArray) -> Any:
        import numpy as np

        count = _count(stored.shape)
        size = None if stored.dtype.hasobject else count * stored.dtype.itemsize
        # Were one byte more or less read here than was stepped over before, other opcodes would run than were checked.
        if self.findings.arrays.get(self.file.tell(), -1) != size:
            raise pickle.UnpicklingError("an array is not the one that was found there before")
        if stored.dtype.hasobject:
            return RealWalk(self.file, self.findings, self.approved).load()
        self._skip_padding(getattr(stored, "numpy_array_alignment_bytes", None))
        data = bytearray(self.file.read(count * stored.dtype.itemsize))
        array = np.frombuffer(data, stored.dtype) if data else np.empty(count, stored.dtype)
        if not stored.dtype.isnative:
            array = array.astype(stored.dtype.newbyteorder("="))
        return array.reshape(stored.shape, order="F" if stored.order == "F" else "C")


class Guarded(pickle.Unpickler):
    """Load a plain pickle, at the C unpickler's speed, with the globals that were approved and no others."""

    def __init__(self, file: io.BytesIO, approved: Mapping[Reference, object]) -> None:
        super().__init__(file)
        self.approved = approved

    def find_class(self, module: str, name: str) -> Any:
        """Give an approved object; a name that was not seen before is an error."""
        return self.approved[module, name]


def _count(shape: object) -> int:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise pickle.UnpicklingError("an array's shape is not made of integers")
    return math.prod(shape)


def _layout(dtype: object) -> tuple[int, bool]:
    """Bytes of one item, and whether it holds Python objects, from a dtype's constructor and state."""
    text = dtype.args[0] if isinstance(dtype, _Made) and dtype.origin == "numpy.dtype" and dtype.args else None
    match = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None or not isinstance(dtype, _Made):
        raise pickle.UnpicklingError("an array's dtype cannot be told")
    kind, digits = match.groups()
    state = dtype.state if isinstance(dtype.state, tuple) and len(dtype.state) > 5 else (None,) * 6
    parts = [value[0] for value in (state[4] or {}).values()] + ([state[2][0]] if state[2] else [])
    has_objects = kind == "O" or any(_layout(part)[1] for part in parts)
    if kind in "SUV" and isinstance(state[5], int) and state[5] >= 0:
        return state[5], has_objects
    return int(digits or {"M": 8, "m": 8, "O": 8, "?": 1}.get(kind, 0)) * (4 if kind == "U" else 1), has_objects
