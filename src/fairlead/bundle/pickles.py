"""Look into a pickle or joblib file before loading it, then load the very bytes that were looked at.

First a dry walk lists every global the file asks for; then each must be on the allow-list or trusted by
name, and be what its name says; only then is the file loaded, with those objects and no others.
Layer L1; imports scikit-learn and the like only when a checked file needs them.

Source: CPython documentation, "pickle: Restricting Globals".
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Final

from fairlead.bundle.allowlist import is_allowed
from fairlead.bundle.pickle_globals import refuse, resolve
from fairlead.bundle.pickle_stream import ARRAY_WRAPPERS, DryWalk, Findings, Guarded, RealWalk
from fairlead.bundle.skew import SKLEARN, check_sklearn, loading, release
from fairlead.errors import SourceError

NO_MODULES: Final[Mapping[str, ModuleType]] = MappingProxyType({})
_DECOMPRESS: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
    b"\x78": zlib.decompress,
}


@dataclass(frozen=True)
class PickleReport:
    """What a pickle or joblib file would use, found without running any of it.

    Parameters
    ----------
    globals : every global as ``module.name``, under its Python 3 name.
    indirect : those whose result it would call, or which it would change.
    versions, oldest : the newest and the oldest version of each library that its objects tell of.
    findings : what the walk saw, for loading.
    """

    globals: frozenset[str]
    indirect: frozenset[str]
    versions: dict[str, str]
    oldest: dict[str, str]
    findings: Findings


def inspect_pickle(data: bytes, what: str = "pickle") -> PickleReport:
    """List what a pickle or joblib file, compressed or not, would use.

    Parameters
    ----------
    data : the file's bytes.
    what : what to call the file in an error.

    Raises
    ------
    SourceError
        When the bytes are not a whole pickle.
    """
    return _report(_walk(_decompress(data, what), what))


def check_pickle(report: PickleReport, trust: frozenset[str], what: str = "pickle") -> None:
    """Refuse a pickle that asks for more than the allow-list and `trust` permit.

    Raises
    ------
    UnsafePickle
        Naming every such global and the flags that accept them.
    """
    references = report.findings.references.values()
    unknown = frozenset(
        f"{module}.{name}"
        for module, name in references
        if not is_allowed(module, name) and f"{module}.{name}" not in ARRAY_WRAPPERS
    )
    if unknown - trust:
        raise refuse(unknown - trust, what)
    if report.indirect - trust:
        raise refuse(report.indirect - trust, what, "and calls what that returns, or changes it")


def load_pickle(
    data: bytes, trust: frozenset[str], what: str, modules: Mapping[str, ModuleType] = NO_MODULES
) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    """Check a pickle or joblib file and load it from the same bytes.

    Parameters
    ----------
    data : the file's bytes.
    trust : globals permitted beyond the allow-list, as ``module.name``.
    what : what to call the file in an error.
    modules : the user's own modules, by the name the pickle knows them by, ``__main__`` too.

    Returns
    -------
    The object, the library versions it was made with, and warnings for the user.

    Raises
    ------
    UnsafePickle, VersionSkew, SourceError
        Refused before anything ran; made by a version that cannot be stood in for; broken.
    """
    stream = _decompress(data, what)
    findings = _walk(stream, what)
    report = _report(findings)
    check_pickle(report, trust, what)
    warned = check_sklearn(findings.sklearn_versions, what)
    with loading(what, findings.sklearn_versions) as told:
        approved = resolve(findings, trust, what, modules)
        file = io.BytesIO(stream)
        walk = RealWalk(file, findings, approved) if findings.arrays else Guarded(file, approved)
        model = walk.load()
    return model, report.versions, (*warned, *dict.fromkeys(told))


def _walk(stream: bytes, what: str) -> Findings:
    findings = Findings()
    try:
        DryWalk(io.BytesIO(stream), findings).load()
    except Exception as error:  # garbage fails in as many ways as there are opcodes
        reason = str(error) or type(error).__name__
        raise SourceError(
            f"{what}: expected a pickle or joblib file, got one that is broken or no pickle ({reason})"
        ) from error
    return findings


def _report(findings: Findings) -> PickleReport:
    versions = sorted(findings.sklearn_versions, key=release)
    names = {f"{module}.{name}" for module, name in findings.references.values()}
    return PickleReport(
        globals=frozenset(names) - ARRAY_WRAPPERS,
        indirect=frozenset(findings.indirect),
        versions={SKLEARN: versions[-1]} if versions else {},
        oldest={SKLEARN: versions[0]} if versions else {},
        findings=findings,
    )


def _decompress(data: bytes, what: str) -> bytes:
    if not data:
        raise SourceError(f"{what}: the file is empty")
    if data.startswith((b"\x04\x22\x4d\x18", b"ZF")):
        raise SourceError(
            f"{what}: compressed by lz4 or a joblib before 0.10: save it again with joblib.dump(model, file)"
        )
    for magic, decompress in _DECOMPRESS.items():
        if data.startswith(magic):
            try:
                return decompress(data)
            except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
                raise SourceError(f"{what}: its compressed data is broken ({error})") from error
    return data
