"""The scikit-learn that made a model beside the one that is installed, and what loading has to say.

A newer one's models load and then predict wrong numbers in silence, so they are refused; an older one's
load with a warning, where they load at all. Layer L1; stdlib only.

Source: scikit-learn user guide, "Model persistence: Security & maintainability limitations".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata

from fairlead.errors import FairleadError, SourceError, VersionSkew

SKLEARN = "scikit-learn"
_NOISE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison; suffixes such as ``rc1`` do not count.

    >>> release("1.10.2rc1") > release("1.9")
    True
    """
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def installed(library: str) -> str | None:
    """The installed version of a distribution; None when there is none."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def check_sklearn(versions: Iterable[str], what: str) -> tuple[str, ...]:
    """Compare the versions found in a model with the installed one; return the warnings.

    Raises
    ------
    VersionSkew
        When any part of the model was made by a newer scikit-learn.
    """
    here = installed(SKLEARN)
    made_by = sorted(versions, key=release)
    if here is None or not made_by:
        return ()
    oldest, newest = made_by[0], made_by[-1]
    if release(newest) > release(here):
        raise VersionSkew(
            f"{what}: made by {SKLEARN} {newest}, but {here} is installed, which would predict wrong numbers "
            f"in silence: run `pip install {SKLEARN}=={newest}`"
        )
    if release(oldest) < release(here):
        return (
            f"{what}: made by {SKLEARN} {oldest}, loaded by {here}: its numbers may differ; compare them, "
            f"or run `pip install {SKLEARN}=={oldest}`, or train again",
        )
    return ()


@contextmanager
def loading(what: str, versions: Iterable[str]) -> Iterator[list[str]]:
    """Load a model inside: its warnings go to the list, and whatever it raises becomes a `SourceError`.

    Raises
    ------
    VersionSkew
        When loading fails and an older scikit-learn made the model.
    """
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield told
        except FairleadError:
            raise
        except Exception as error:  # whatever a library or the user's class raises while it is rebuilt
            raise _explain(error, what, versions) from error
    for warning in caught:
        # What check_sklearn says once, scikit-learn says for each estimator.
        name = warning.category.__name__
        if name != "InconsistentVersionWarning" and not issubclass(warning.category, _NOISE):
            told.append(f"{what}: {warning.message}")


def _explain(error: Exception, what: str, versions: Iterable[str]) -> SourceError:
    reason = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
    here = installed(SKLEARN)
    older = sorted((v for v in versions if here and release(v) < release(here)), key=release)
    if older:
        return VersionSkew(
            f"{what}: made by {SKLEARN} {older[0]}, which {here} cannot read ({reason}): "
            f"run `pip install {SKLEARN}=={older[0]}` or train again"
        )
    return SourceError(f"{what}: cannot be loaded ({reason}): save it again with the installed libraries")
