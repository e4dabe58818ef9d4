"""A job as data: what was ordered, what became of it, and what a client is told of it.

Imports msgspec and what lies below the modes: both the workers and the runner read these.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import asdict

State = Literal["queued", "running", "done", "failed", "cancelled"]
OVER: frozenset[State] = frozenset({"done", "failed", "cancelled"})

# A year, a month, a day or an hour; a space at either end of a name, or a comma, is lost on the flag `--keep`.
DATE = r"[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2})?)?)?"
COLUMN = r"[^,\s]([^,]*[^,\s])?"
# What is expected is told in the words of `description`.
Path = Annotated[str, Meta(min_length=1, max_length=4096, description="a path or an s3:// address")]
Name = Annotated[str, Meta(min_length=1, max_length=256, description="a model's name")]
Column = Annotated[str, Meta(pattern=rf"^{COLUMN}\Z", description="a column's name without a comma")]
Columns = Annotated[list[Column], Meta(min_length=1, max_length=10_000, description="an array of columns' names")]
Date = Annotated[str, Meta(pattern=rf"^{DATE}\Z", description="a date such as 2026-10")]
Dates = Annotated[str, Meta(pattern=rf"^{DATE}\.\.{DATE}\Z", description="dates such as 2026-01..2026-06")]
Format = Annotated[Literal["parquet", "csv", "jsonl"], Meta(description="parquet, csv or jsonl")]
Rejects = Annotated[int, Meta(ge=0, le=2**63 - 1, description="an integer, at least 0")]
Switch = Annotated[bool, Meta(description="a boolean")]


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client orders, in the words of `fairlead score`.

    Parameters
    ----------
    input, output : one file, a glob or a directory; with date templates.
    model : by name; None for the only one that is served.
    keep : columns to keep; None for all.
    date, backfill : what fills the template.
    format : of outputs whose names do not tell it.
    max_rejects : refused rows above which scoring ends.
    resume : whether files that are done already are left out.
    """

    input: Path
    output: Path
    model: Name | None = None
    keep: Columns | None = None
    date: Date | None = None
    backfill: Dates | None = None
    format: Format | None = None
    max_rejects: Rejects | None = None
    resume: Switch = True


class Job(Struct, frozen=True):
    """A job that was taken on; never changed afterwards.

    Parameters
    ----------
    id : nobody guesses it.
    order : with the model's name, and with paths that were found to be below a root, without links in them.
    version, digest : of the bundle that was served then.
    bundle : its directory.
    made_at : when.
    request_id : of the request that made it, for the log.
    """

    id: str
    order: Order
    version: str
    digest: str
    bundle: str
    made_at: datetime
    request_id: str


class Fate(Struct, frozen=True):
    """What has become of a job; the runner's word.

    Parameters
    ----------
    state : over or not.
    begun : how often it was begun and not ended by the service's own will.
    started_at, ended_at : of the last time it ran.
    reason : why it failed.
    """

    state: State = "queued"
    begun: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None


class Status(Struct, frozen=True):
    """How far a run is, as `fairlead score --status-file` writes it.

    Parameters
    ----------
    files, files_done : of the plan.
    rows_in, rows_out, rejects : so far.
    rows_per_s : over the whole run so far.
    share : of the file at hand that is read, from 0 to 1, where that can be known.
    error : why it failed.
    report : of the whole run, at its end.
    """

    files: int | None = None
    files_done: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rejects: int = 0
    rows_per_s: float | None = None
    share: float | None = None
    error: str | None = None
    report: Any = None


class View(Order, frozen=True, kw_only=True):
    """What a client is told of a job: the order, and as in `Job`, `Fate` and `Status`."""

    id: str
    state: State
    version: str
    digest: str
    made_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    files: int | None
    files_done: int
    rows_in: int
    rows_out: int
    rejects: int
    rows_per_s: float | None
    share: float | None
    reason: str | None
    report: Any


def view(job: Job, fate: Fate, status: Status | None) -> View:
    """Put together what is known of a job."""
    how_far = status or Status()
    return View(
        **asdict(job.order),
        id=job.id,
        state=fate.state,
        version=job.version,
        digest=job.digest,
        made_at=job.made_at,
        started_at=fate.started_at,
        ended_at=fate.ended_at,
        files=how_far.files,
        files_done=how_far.files_done,
        rows_in=how_far.rows_in,
        rows_out=how_far.rows_out,
        rejects=how_far.rejects,
        rows_per_s=how_far.rows_per_s,
        share=how_far.share,
        reason=fate.reason,
        report=how_far.report if fate.state in OVER else None,
    )
