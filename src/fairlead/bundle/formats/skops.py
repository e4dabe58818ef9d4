"""skops files: scikit-learn models without pickle; types outside both lists, skops's and ours, need `--trust`.

Source: skops documentation, "Secure persistence with skops".
"""

from __future__ import annotations

import importlib
import re
import zipfile
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from fairlead.bundle.allowlist import STDLIB, is_allowed
from fairlead.bundle.formats import LoadedModel, LoadRequest
from fairlead.bundle.formats.pickle import split_pair, user_modules
from fairlead.bundle.model_file import read_file
from fairlead.bundle.pickle_globals import is_itself, refuse
from fairlead.bundle.skew import SKLEARN, check_sklearn, loading, release
from fairlead.errors import SourceError
from fairlead.extras import require

SOURCES = ".skops"
_VERSION = re.compile(r'"_sklearn_version": \{[^{}]*"content": "\\"([^"\\]+)\\""')


def accepts(source: str) -> bool:
    """Whether the file's name ends in .skops."""
    path = Path(source)
    return path.suffix.lower() == SOURCES and path.is_file()


def load(request: LoadRequest) -> LoadedModel:
    """Check every type in the file, then load it.

    Raises
    ------
    UnsafePickle, VersionSkew, SourceError
        An unknown type; made by another scikit-learn; broken, or no model in it.
    """
    path = Path(request.source)
    data = read_file(path)
    found, versions, warnings = load_skops(data, request.trust, path.name, request.code)
    vectorizer, model = split_pair(found, path.name)
    return LoadedModel(model, "skops", {path.name: data}, versions, vectorizer, warnings=warnings)


def load_skops(
    data: bytes, trust: frozenset[str], what: str, code: Path | None = None
) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    """Check and load the bytes of a skops file; the results are those of `pickles.load_pickle`."""
    persistence: ModuleType = require("skops.io", "build")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            schema = archive.read("schema.json").decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, OSError) as error:
        raise SourceError(f"{what}: expected a skops file, got one that is broken or none ({error})") from error
    found_versions = set(_VERSION.findall(schema))
    warned = check_sklearn(found_versions, what)
    user_modules(code)  # skops finds the user's types in sys.modules
    with loading(what, found_versions) as told:
        unknown = frozenset(persistence.get_untrusted_types(data=data))
        refused = frozenset(name for name in unknown if not _is_known(name)) - trust
        if refused:
            raise refuse(refused, what)
        found = persistence.loads(data, trusted=sorted(unknown))
    versions = {SKLEARN: max(found_versions, key=release)} if found_versions else {}
    return found, versions, (*warned, *dict.fromkeys(told))


def _is_known(name: str) -> bool:
    """Whether the allow-list has a type that skops leaves to the caller: what a pickle may hold, a skops file may."""
    module, _, last = name.rpartition(".")
    if name in STDLIB:
        return True
    # An allowed module may hold what belongs to another library, as in a pickle.
    return is_allowed(module, last) and is_itself(getattr(importlib.import_module(module), last, None), module)
