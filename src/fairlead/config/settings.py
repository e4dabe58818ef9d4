"""The settings that there are: their names, types, defaults and what they mean.

Layer L0; imports msgspec only.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

Isolation = Literal["auto", "process"]
# What is expected is told in the words of `description`. The day's bound keeps infinity out of sockets' timeouts.
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number from 1 to 2147483647")]
Size = Annotated[int, Meta(ge=1, le=2**63 - 1, description="a whole number of bytes, at least 1")]
Share = Annotated[float, Meta(ge=0, le=1, description="a share from 0 to 1")]
Duration = Annotated[float, Meta(gt=0, le=86400, description="seconds, more than 0 and at most 86400")]
Pause = Annotated[float, Meta(ge=0, le=86400, description="seconds, from 0 to 86400")]
Switch = Annotated[bool, Meta(description="true or false")]
Text = Annotated[str, Meta(min_length=1, description="a text")]
Prefix = Annotated[
    str, Meta(pattern=r"^(/[^/?#\s]+)*\Z", description="a path such as /churn, with no slash at its end")
]
Origin = Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/?#\s]+)\Z")]
Sticky = Annotated[
    str,
    # A header's or cookie's name is a token. Source: RFC 9110 section 5.6.2
    Meta(
        pattern=r"^((header|cookie):[!#$%&'*+.^_`|~0-9A-Za-z-]+|feature:[^\n]+)\Z",
        description="header:NAME, cookie:NAME or feature:NAME",
    ),
]
# Names of hosts are none: who answers for them may change. What the numbers are is found out where they are used.
Proxy = Annotated[str, Meta(pattern=r"^(unix|[0-9A-Fa-f:.]+(/[0-9]+)?)\Z")]
Proxies = Annotated[tuple[Proxy, ...], Meta(description="a list of addresses or networks such as 10.0.0.0/8, or unix")]
Origins = Annotated[tuple[Origin, ...], Meta(description="a list of origins, each like https://example.org or *")]
# A directory, or a bucket with or without a prefix; no other address, and no empty names, which S3 tells apart.
Root = Annotated[str, Meta(pattern=r"^(s3://[^/\s]+(/[^/]+)*/?|(?![A-Za-z][A-Za-z0-9+.-]+:/)[^\0]+)\Z")]
Roots = Annotated[tuple[Root, ...], Meta(description="a list of directories and s3://BUCKET/PREFIX addresses")]
# Names joined by dots, as in ride.features.
Place = Annotated[
    str, Meta(pattern=r"^[^.\n]+(\.[^.\n]+)*\Z", description="a place such as ride, or event.ride for a nested one")
]
# Where records come from and go to.
Url = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9+.-]*://[^\s]+\Z", description="an address such as kinesis://rides or redis://host/rides"
    ),
]
# At most a century.
Kept = Annotated[float, Meta(gt=0, le=3155760000, description="seconds, more than 0 and at most 3155760000")]

# A model's source may become an address, which is no path under the file's folder.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CanarySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A second version of a model, which answers a share of its requests.

    Parameters
    ----------
    source : of the canary, as a model's.
    weight : the share of requests, from 0 to 1, that it answers. Default 0.
    sticky : what keeps a caller with one version: ``header:NAME``, ``cookie:NAME`` or ``feature:NAME``.
        Default none, which leaves each request to chance.
    max_error_rate : the share of failed requests above which the canary is taken back. Default 0.05.
    max_latency_s : the 95th percentile of the time to answer above which it is taken back. Default none.
    min_requests : requests in the window before either is judged. Default 100.
    window_s : the time looked back on. Default 60.
    """

    source: Text
    weight: Share = 0.0
    sticky: Sticky | None = None
    max_error_rate: Share = 0.05
    max_latency_s: Duration | None = None
    min_requests: Count = 100
    window_s: Duration = 60.0


class ShadowSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A version that is asked too, whose answers are only compared.

    Parameters
    ----------
    source : of the shadow, as a model's.
    """

    source: Text


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One model of a deployment.

    Parameters
    ----------
    source : path of a bundle or a model, or where a store has one: ``models:/churn@champion``. A path in a
        file is relative to the file's own folder.
    isolation : ``process`` runs the model in processes of its own, ``auto`` where fairlead thinks best.
        Default auto.
    processes : model processes, when isolated. Default 1.
    name : what it is served as. Default its key in a file, else the bundle's own name.
    refresh_s : how often to look whether `source` means something newer. Default none, which is never.
    canary : a version that answers a share of the requests. Default none.
    shadow : a version whose answers are only compared. Default none.
    lazy : load it with the first request, and let it go when memory is needed. Default false.
    """

    source: Text
    isolation: Annotated[Isolation, Meta(description="auto or process")] = "auto"
    processes: Count = 1
    name: Annotated[str, Meta(pattern=NAME.pattern, description="letters, digits, '.', '_', '-'")] | None = None
    refresh_s: Duration | None = None
    canary: CanarySettings | None = None
    shadow: ShadowSettings | None = None
    lazy: Switch = False

    def needs_processes(self) -> list[str]:
        """Name the settings that are set here and need a process which stays, and keeps others beside it."""
        asked = {
            "isolation": self.isolation == "process",
            "refresh_s": self.refresh_s,
            "canary": self.canary,
            "shadow": self.shadow,
        }
        return [name for name, value in asked.items() if value]


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where models from elsewhere are kept, and how long to wait for them.

    Parameters
    ----------
    directory : of the cache. Default fairlead in $XDG_CACHE_HOME, which is ~/.cache where it is not set.
    max_bytes : what the cache may hold; the least recently used goes first. Default 10 GiB.
    connect_timeout_s : how long to wait for a connection. Default 5.
    read_timeout_s : how long a connection may be silent. Default 20.
    timeout_s : how long a whole fetch may take, with all its tries. Default 600.
    """

    directory: Text | None = None
    max_bytes: Size = 10 * 1024**3
    connect_timeout_s: Duration = 5.0
    read_timeout_s: Duration = 20.0
    timeout_s: Duration = 600.0


class WebSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How to serve over HTTP. Durations are in seconds, sizes in bytes.

    Parameters
    ----------
    host : address to listen on. Default 127.0.0.1.
    port : TCP port, 0 for any that is free. Default 9696.
    workers : processes that answer. Default 1.
    root_path : path prefix that a proxy in front takes off. Default none.
    access_log : a line on standard output for each request. Default false.
    max_body_bytes : the largest request body. Default 10 MiB.
    max_header_bytes : the largest request head. Default 32 KiB.
    max_queue_rows : rows that may wait for a model. Default 65536.
    timeout_s : a request's deadline. Default 10.
    shutdown_timeout_s : how long accepted requests may take to finish after SIGTERM. Default 25.
    drain_s : how long after SIGTERM /readyz says 503 while requests are still taken. Default 0.
    read_timeout_s : within what time a client must have sent its whole request. Default 20.
    keep_alive_s : how long an idle connection is kept. Default 75.
    cors_origins : origins whose pages may call this service, ``*`` for all. Default none.
    api_keys_file : path of the hashed API keys. Default none.
    tls_certificate, tls_key : paths of the server's certificate chain and its key, PEM. Default none.
    tls_client_ca : path of the authorities whose client certificates are required, PEM. Default none.
    metrics : answer /metrics. Default true.
    tracing : record a trace of each request. Default false.
    log_format : ``text`` for people, ``json`` for machines; of the lines on standard error. Default text.
    memory_budget_bytes : what lazy models may take together, over all processes. Default no limit.
    state_directory : where changes of traffic made at run time are kept. Default fairlead in
        $XDG_STATE_HOME, which is ~/.local/state where it is not set.
    """

    host: Text = "127.0.0.1"
    port: Port = 9696
    workers: Count = 1
    root_path: Prefix = ""
    access_log: Switch = False
    max_body_bytes: Count = 10 * 1024 * 1024
    max_header_bytes: Count = 32 * 1024
    max_queue_rows: Count = 65536
    timeout_s: Duration = 10.0
    shutdown_timeout_s: Pause = 25.0
    drain_s: Pause = 0.0
    read_timeout_s: Duration = 20.0
    keep_alive_s: Pause = 75.0
    cors_origins: Origins = ()
    api_keys_file: Text | None = None
    tls_certificate: Text | None = None
    tls_key: Text | None = None
    tls_client_ca: Text | None = None
    metrics: Switch = True
    tracing: Switch = False
    log_format: Annotated[Literal["text", "json"], Meta(description="text or json")] = "text"
    memory_budget_bytes: Size | None = None
    state_directory: Text | None = None


class JobsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which files may be scored over HTTP, and how many at once.

    Parameters
    ----------
    roots : directories and ``s3://BUCKET/PREFIX`` below which inputs and outputs have to be. A path in a file is
        relative to the file's own folder. Default none, which allows no jobs at all.
    directory : where jobs are kept over a restart. Default beside what web.state_directory keeps.
    max_running : jobs that run at once, each in a process of its own. Default 1.
    max_queued : jobs that may wait for their turn. Default 100.
    keep_s : how long a job is remembered after its end. Default a week.
    """

    roots: Roots = ()
    directory: Text | None = None
    max_running: Count = 1
    max_queued: Count = 100
    keep_s: Kept = 604800.0


class StreamSettings(Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """How to score events as they come. Durations are in seconds, sizes in bytes.

    Parameters
    ----------
    from_ : where events come from, such as ``kinesis://rides``; ``from`` in files.
    to : where predictions go.
    dead_letter : where events go that can never be scored.
    model : which of `models` scores, where there are several.
    features : the place of the features in an event. Default the whole event.
    id : the place of what tells events apart, which is passed on beside the outputs. Default none.
    results : under which name outputs and id are in what is published. Default prediction.
    partition_key : the place of what parts the predictions among partitions. Default the id, and without one the key
        that the event came with.
    group : under which name copies of this consumer share the work. Default fairlead.
    start : ``oldest`` or ``newest``, where a group begins that has read nothing yet. Default oldest.
    max_records : events in one batch. Default 500.
    max_wait_s : how long after its first event a batch waits for more. Default 0.05.
    max_record_bytes : a larger event is a dead letter. Default 1 MiB.
    checkpoints : where it is kept how far shards and files are read: a SQLite file, or ``dynamodb://TABLE`` for more
        than one machine. Default a file in the state directory.
    lease_s : after what time of silence another copy takes over a shard of Kinesis. Default 10.
    overflow : a directory or ``s3://BUCKET/PREFIX`` for what is too large to be published. Default a directory in the
        state directory.
    state_directory : where checkpoints and overflow are kept. Default fairlead in $XDG_STATE_HOME, which is
        ~/.local/state where it is not set.
    host : address of the port for probes and metrics. Default 127.0.0.1.
    port : that port, 0 for any that is free. Default 9697.
    report_batch_item_failures : whether Lambda answers with the records that are to come again, as an event source
        mapping with ReportBatchItemFailures wants it. Default false, which raises.
    shutdown_timeout_s : how long what was begun may take to finish after SIGTERM. Default 25.
    log_format : ``text`` for people, ``json`` for machines; of the lines on standard error. Default text.
    """

    from_: Url | None = None
    to: Url | None = None
    dead_letter: Url | None = None
    model: Text | None = None
    features: Place | None = None
    id: Place | None = None
    results: Annotated[str, Meta(pattern=r"^[^.\n]+\Z", description="a name such as prediction")] = "prediction"
    partition_key: Place | None = None
    group: Text = "fairlead"
    start: Annotated[Literal["oldest", "newest"], Meta(description="oldest or newest")] = "oldest"
    max_records: Count = 500
    max_wait_s: Pause = 0.05
    max_record_bytes: Size = 1024 * 1024
    checkpoints: Text | None = None
    lease_s: Duration = 10.0
    overflow: Text | None = None
    state_directory: Text | None = None
    host: Text = "127.0.0.1"
    port: Port = 9697
    report_batch_item_failures: Switch = False
    shutdown_timeout_s: Pause = 25.0
    log_format: Annotated[Literal["text", "json"], Meta(description="text or json")] = "text"


class DashboardSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How to show dashboards. Durations are in seconds.

    Parameters
    ----------
    host : address to listen on. Default 127.0.0.1.
    port : TCP port, 0 for any that is free. Default 8050.
    server : ``gunicorn``, with processes, or ``waitress``, which has threads only. Default gunicorn.
    workers : processes that answer. Default 1.
    threads : of each process. Default 4.
    root_path : path prefix that a proxy in front takes off, or leaves on. Default none.
    trusted_proxies : addresses or networks of proxies whose word on where a request comes from counts, ``unix`` for
        one at a socket of that kind. Default none.
    users : the file of users and passwords that `fairlead dashboard users` keeps. Default none, which asks nobody to
        log in.
    secret_file : holds what signs the sessions; made when it is not there. Default the users' file with .secret at
        its end.
    session_s : how long a login lasts. Default 12 hours.
    max_attempts : wrong passwords for one user, or from one address, before others are not looked at. Default 10.
    attempts_window_s : for how long they are counted. Default 300.
    timeout_s : how long a worker may take for a page. Default 60.
    shutdown_timeout_s : how long pages that are asked for may take to finish after SIGTERM. Default 25.
    log_format : of standard error, ``text`` or ``json``. Default text.
    """

    host: Text = "127.0.0.1"
    port: Port = 8050
    server: Annotated[Literal["gunicorn", "waitress"], Meta(description="gunicorn or waitress")] = "gunicorn"
    workers: Count = 1
    threads: Count = 4
    root_path: Prefix = ""
    trusted_proxies: Proxies = ()
    users: Text | None = None
    secret_file: Text | None = None
    session_s: Kept = 43200.0
    max_attempts: Count = 10
    attempts_window_s: Duration = 300.0
    timeout_s: Duration = 60.0
    shutdown_timeout_s: Pause = 25.0
    log_format: Annotated[Literal["text", "json"], Meta(description="text or json")] = "text"


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of a deployment.

    Parameters
    ----------
    models : by name. Default none.
    web : how to serve over HTTP.
    cache : where models from elsewhere are kept.
    jobs : which files may be scored over HTTP.
    stream : how to score events as they come.
    dashboard : how to show dashboards.
    """

    models: dict[str, ModelSettings] = {}
    web: WebSettings = WebSettings()
    cache: CacheSettings = CacheSettings()
    jobs: JobsSettings = JobsSettings()
    stream: StreamSettings = StreamSettings()
    dashboard: DashboardSettings = DashboardSettings()


def is_address(source: str) -> bool:
    """Whether a model's source is kept elsewhere, as ``models:/churn@champion``, rather than at a path."""
    return _ADDRESS.match(source) is not None


def is_class(source: str) -> bool:
    """Whether a model's source names a class, as ``module:Class``."""
    return _CLASS.fullmatch(source) is not None
