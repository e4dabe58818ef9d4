"""Every error that fairlead raises on purpose.

    FairleadError
    ├── SourceError            source           the model to build from is missing, unknown or broken
    │   ├── UnsafePickle       unsafe_pickle    a pickle wants something outside the allow-list
    │   ├── VersionSkew        version_skew     made by a library that this one cannot stand in for
    │   ├── NotFitted          not_fitted       the estimator was never trained
    │   ├── SourceUnavailable  source_unavailable  where it is kept does not answer; may succeed later
    │   └── SourceDenied       source_denied    credentials for where it is kept are missing or refused
    ├── SchemaError            schema           a schema or an output is wrong, or cannot be derived
    ├── NotCompilable          not_compilable   a step has no compiled form; carries the step's name
    ├── BundleError            bundle           not a bundle, or one changed since it was built
    ├── InvalidRecords         invalid_records  input that the schema refuses; carries every problem
    ├── ModelFailed            model_failed     the user's own model raised while predicting
    ├── MissingExtra           missing_extra    an optional dependency is not installed
    ├── CacheError             cache            the cache of models cannot be written to or read
    │   └── CacheFull          cache_full       the disk has no room for what is to come
    ├── VersionRefused         version_refused  a new version cannot be served, or not in the place of the old one
    ├── TrialFailed            trial_failed     a new version could not be tried; may succeed later
    ├── ServeError             serve            a server cannot start: port taken, two models of one name
    ├── ConfigError            config           a setting or an API key's entry is unknown, wrong or out of range
    ├── InputError             input            a file to be scored is missing, unreadable or not what its name says
    ├── OutputError            output           what was scored cannot be written where it was to go
    ├── TooManyRejects         too_many_rejects more rows were refused than the caller allows
    ├── BrokerError            broker           a stream cannot be read or written as it was asked for
    │   └── BrokerUnavailable  broker_unavailable  its broker does not answer, or is busy; may succeed later
    └── RequestFailed          request_failed   a server gave no prediction; its kinds are in `client`

All of them are the user's to mend, and their message says how. What is not a `FairleadError` is a
fault of ours. Nothing here knows HTTP or exit codes: each mode owns its table from `code` to answer.

Layer L0; imports nothing of fairlead but the types of `schema`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairlead.schema import Problem


class FairleadError(Exception):
    """Base of every error raised on purpose.

    Attributes
    ----------
    code : stable, machine-readable name of the kind of error.
    retryable : whether the same call may succeed later without a change by the caller.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False


class SourceError(FairleadError):
    """The model to build from is missing, of an unknown format, or broken."""

    code = "source"


class UnsafePickle(SourceError):
    """A pickle asks for code outside the allow-list; none of it has run."""

    code = "unsafe_pickle"


class VersionSkew(SourceError):
    """The model was made by a library version that the installed one cannot stand in for."""

    code = "version_skew"


class NotFitted(SourceError):
    """The estimator was never trained."""

    code = "not_fitted"


class SourceUnavailable(SourceError):
    """The registry or store does not answer, answers with a fault of its own, or broke off."""

    code = "source_unavailable"
    retryable = True


class SourceDenied(SourceError):
    """The registry or store wants credentials that are missing, or refuses those it got."""

    code = "source_denied"


class SchemaError(FairleadError):
    """A schema or a declared output is wrong, or cannot be derived from what was given."""

    code = "schema"


class NotCompilable(FairleadError):
    """A step of the model has no compiled form that is known to agree with the original.

    Parameters
    ----------
    step : the name of the step, as in ``scale: RobustScaler``.
    reason : why it cannot be compiled.
    """

    code = "not_compilable"

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class BundleError(FairleadError):
    """A directory is no bundle, or is not the bundle that was built."""

    code = "bundle"


class InvalidRecords(FairleadError):
    """Input that the schema refuses.

    Parameters
    ----------
    problems : every problem of every record, in input order.
    """

    code = "invalid_records"

    def __init__(self, problems: Sequence[Problem]) -> None:
        shown = "\n".join(str(problem) for problem in problems[:20])
        more = f"\n… and {len(problems) - 20} more" if len(problems) > 20 else ""
        super().__init__(shown + more)
        self.problems = tuple(problems)


class ModelFailed(FairleadError):
    """The user's own model or code raised while predicting."""

    code = "model_failed"


class MissingExtra(FairleadError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    code = "missing_extra"


class CacheError(FairleadError):
    """The cache cannot be written to or read: full, not allowed, or no place for it."""

    code = "cache"


class CacheFull(CacheError):
    """There is no space for what is to come into the cache."""

    code = "cache_full"


class VersionRefused(FairleadError):
    """A version cannot be served, or not in the place of the current one.

    Parameters
    ----------
    reason : what is wrong with which bundle.
    written : the end of what it wrote, for a log; a traceback, or a library's last words.
    """

    code = "version_refused"

    def __init__(self, reason: str, written: str = "") -> None:
        super().__init__(reason)
        self.written = written


class TrialFailed(FairleadError):
    """A version could not be tried, for a reason that is not its own."""

    code = "trial_failed"
    retryable = True


class ServeError(FairleadError):
    """A server cannot start with what it was given."""

    code = "serve"


class ConfigError(FairleadError):
    """A setting, or an entry of the API keys, is unknown, of a wrong type or out of range."""

    code = "config"


class InputError(FairleadError):
    """What is to be scored is missing, cannot be read, or is not what its name says."""

    code = "input"


class OutputError(FairleadError):
    """What was scored cannot be written: no space, no right, another run at the same file."""

    code = "output"


class TooManyRejects(FairleadError):
    """More rows were refused than the caller allows."""

    code = "too_many_rejects"


class DashboardError(FairleadError):
    """A dashboard cannot be built or shown with what was given: data that do not fit, a store that changed."""

    code = "dashboard"


class BrokerError(FairleadError):
    """A stream cannot be read or written as it was asked for: no such stream, no right, a wrong address."""

    code = "broker"


class BrokerUnavailable(BrokerError):
    """A broker does not answer, broke off, or is too busy."""

    code = "broker_unavailable"
    retryable = True
