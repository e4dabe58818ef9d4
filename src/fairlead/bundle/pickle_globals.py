"""From the names in a pickle to the objects themselves, imported from installed libraries or the user's module.

An allowed name must also be what it says: `sklearn.ensemble._forest.Parallel` is a class of joblib's.
Layer L1; imports the libraries that an approved name belongs to.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from fairlead.bundle.allowlist import STDLIB, is_allowed
from fairlead.bundle.pickle_stream import ARRAY_WRAPPERS, Findings, Reference, StoredArray
from fairlead.bundle.skew import SKLEARN, release
from fairlead.errors import FairleadError, MissingExtra, SourceError, UnsafePickle, VersionSkew

_EXTRAS: Final = {"sklearn": "build", "pandas": "build", "pyarrow": "build", "scipy": "build"}


def refuse(names: frozenset[str], what: str, why: str = "which may run any code") -> UnsafePickle:
    """The refusal of `names`, with the flags that accept them."""
    listed = sorted(names)
    flags = [f"--trust {name}" for name in listed]
    if any(is_users_own(name) for name in listed):
        flags.append("--code FILE.py (the file that defines it)")
    note = ""
    if any(name.startswith(("cloudpickle.", "dill.")) for name in listed):
        note = " It holds a function or class by value: better define that in a module and give it by --code."
    return UnsafePickle(
        f"{what}: refused, and nothing of it was run: it asks for {', '.join(listed)}, {why}. "
        f"If you know who made the file, add {' '.join(flags)}.{note}"
    )


def is_users_own(name: str) -> bool:
    """Whether a global belongs to no installed library, so that only the user's file can define it."""
    library = name.partition(".")[0]
    present = sys.modules.get(library)
    if library == "__main__" or (present is not None and present.__spec__ is None):  # run from its bytes, by user_code
        return True
    return library not in sys.stdlib_module_names and importlib.util.find_spec(library) is None


def resolve(
    findings: Findings, trust: frozenset[str], what: str, modules: Mapping[str, ModuleType]
) -> dict[Reference, object]:
    """Find the object of every global; the names are taken to be checked already.

    Parameters
    ----------
    modules : the user's own, by the name that the pickle knows them by; looked at before anything installed.

    Raises
    ------
    UnsafePickle
        When an allowed name holds something from elsewhere.
    VersionSkew
        When an installed library no longer has the name.
    """
    approved: dict[Reference, object] = {}
    for written, (module, name) in findings.references.items():
        full = f"{module}.{name}"
        if full in ARRAY_WRAPPERS:
            approved[written] = StoredArray
            continue
        approved[written] = _find(module, name, what, findings.sklearn_versions, modules)
        if full not in trust and full not in STDLIB and not is_itself(approved[written], module):
            raise refuse(frozenset({full}), what, "which belongs to another library")
    return approved


def _find(module: str, name: str, what: str, versions: set[str], modules: Mapping[str, ModuleType]) -> object:
    if module not in modules and is_users_own(module):
        raise _absent(module, name, what)
    try:
        found: object = modules[module] if module in modules else importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        if module in modules:
            raise SourceError(f"{what}: {name} is not defined in the file given by --code") from error
        raise _skewed(module, name, what, versions) from error
    return found


def _absent(module: str, name: str, what: str) -> FairleadError:
    library = module.partition(".")[0]
    if library in _EXTRAS or library in ("xgboost", "lightgbm"):
        extra = _EXTRAS.get(library, library)
        return MissingExtra(f"{what}: {library} is not installed: run `pip install 'fairlead[{extra}]'`")
    if library == "catboost":
        return SourceError(f"{what}: catboost is not installed: run `pip install catboost`")
    return SourceError(f"{what}: {module}.{name} is defined in no installed module: give its file by --code FILE.py")


def _skewed(module: str, name: str, what: str, versions: set[str]) -> VersionSkew:
    library = module.partition(".")[0]
    cure = f"install the {library} it was made with, or train again"
    if library == "sklearn" and versions:
        cure = f"run `pip install {SKLEARN}=={max(versions, key=release)}`, or train again"
    return VersionSkew(f"{what}: {module}.{name} is not in the installed {library}: {cure}")


def is_itself(found: object, module: str) -> bool:
    """Whether an object comes from where its name says, and would be allowed under its own name too."""
    kind = found if isinstance(found, type) or hasattr(found, "__qualname__") else type(found)
    home, own = getattr(kind, "__module__", None), getattr(kind, "__qualname__", "")
    library = module.partition(".")[0]
    if not isinstance(home, str) or home.partition(".")[0] not in (library, "numpy"):
        return False
    return is_allowed(home, own) or (home, own) == ("numpy", "ufunc")
