"""What a deployment may set: read from `fairlead.yaml`, the environment and flags, the later over the former.

Every mistake of all three is told at once, with its place and the nearest known setting. Layer L0: imports
msgspec only, and pyyaml while a file is read.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from fairlead.errors import ConfigError

CONFIG_VARIABLE = "FAIRLEAD_CONFIG"
WEB_PREFIX = "FAIRLEAD_WEB_"
CACHE_PREFIX = "FAIRLEAD_CACHE_"
JOBS_PREFIX = "FAIRLEAD_JOBS_"

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
Origins = Annotated[tuple[Origin, ...], Meta(description="a list of origins, each like https://example.org or *")]
# A directory, or a bucket with or without a prefix; no other address, and no empty names, which S3 tells apart.
Root = Annotated[str, Meta(pattern=r"^(s3://[^/\s]+(/[^/]+)*/?|(?![A-Za-z][A-Za-z0-9+.-]+:/)[^\0]+)\Z")]
Roots = Annotated[tuple[Root, ...], Meta(description="a list of directories and s3://BUCKET/PREFIX addresses")]
# At most a century.
Kept = Annotated[float, Meta(gt=0, le=3155760000, description="seconds, more than 0 and at most 3155760000")]

_SECRET = re.compile(r"^keys?$|(^|_)(api_?keys?|passwords?|passwd|secrets?|tokens?|credentials?)(_|$)")
_SECRETS_BELONG = (
    "a secret has no place here; API keys come, hashed, from the environment variable FAIRLEAD_API_KEYS "
    "or from the file that web.api_keys_file names"
)
# What Kubernetes and Docker set for a service named fairlead-web.
_SERVICE_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_.+)?")
_LINKED_PORT = re.compile(r"(tcp|udp|sctp)://")
# A model's source may become an address, which is no path under the file's folder.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PATHS = ("api_keys_file", "tls_certificate", "tls_key", "tls_client_ca", "state_directory", "directory")


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
    name: Annotated[str, Meta(pattern=_NAME.pattern, description="letters, digits, '.', '_', '-'")] | None = None
    refresh_s: Duration | None = None
    canary: CanarySettings | None = None
    shadow: ShadowSettings | None = None
    lazy: Switch = False


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


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of a deployment.

    Parameters
    ----------
    models : by name. Default none.
    web : how to serve over HTTP.
    cache : where models from elsewhere are kept.
    jobs : which files may be scored over HTTP.
    """

    models: dict[str, ModelSettings] = {}
    web: WebSettings = WebSettings()
    cache: CacheSettings = CacheSettings()
    jobs: JobsSettings = JobsSettings()


_IN_SECTIONS = [
    f"{section}.{name}"
    for section, struct in (("web", WebSettings), ("cache", CacheSettings), ("jobs", JobsSettings))
    for name in struct.__struct_fields__
]


def is_address(source: str) -> bool:
    """Whether a model's source is kept elsewhere, as ``models:/churn@champion``, rather than at a path."""
    return _ADDRESS.match(source) is not None


def is_class(source: str) -> bool:
    """Whether a model's source names a class, as ``module:Class``."""
    return _CLASS.fullmatch(source) is not None


def read(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Read the settings: flags over environment over file over defaults.

    Parameters
    ----------
    path : the file, None for the one that `FAIRLEAD_CONFIG` names, if any.
    environ : `FAIRLEAD_WEB_…` set the fields of `WebSettings`, `FAIRLEAD_CACHE_…` those of `CacheSettings`,
        `FAIRLEAD_JOBS_…` those of `JobsSettings`; lists are comma separated.
    flags : fields of `WebSettings`, and those of `CacheSettings` as `cache_…`; None is a flag that was not
        given.

    Raises
    ------
    ConfigError
        With a line for each thing that is wrong, wherever it stands.
    """
    problems: list[str] = []
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    found = _Found()
    if path is not None:
        _read_file(path, found, problems)
    found.web |= _from_environment(WebSettings, WEB_PREFIX, environ, problems)
    found.cache |= _from_environment(CacheSettings, CACHE_PREFIX, environ, problems)
    found.jobs |= _from_environment(JobsSettings, JOBS_PREFIX, environ, problems)
    _read_flags(flags, found, problems)
    if not problems:
        _check_tls(found.web, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return Settings(found.models, WebSettings(**found.web), CacheSettings(**found.cache), JobsSettings(**found.jobs))


@dataclass
class _Found:
    """What was set so far, by its section."""

    models: dict[str, ModelSettings] = field(default_factory=dict)
    web: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, Any] = field(default_factory=dict)


def _read_file(path: Path, found: _Found, problems: list[str]) -> None:
    try:
        data = _parse(path)
    except ConfigError as error:
        problems.append(str(error))
        return
    where = f"{path}: "
    problems += [
        f"{where}{name}: {_unknown(str(name), Settings, str, _IN_SECTIONS)}"
        for name in data
        if name not in Settings.__struct_fields__
    ]
    for name, given in _section(data.get("models"), f"{where}models", problems).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            expected = "a model's name of letters, digits, '.', '_', '-'"
            problems.append(f"{where}models: expected {expected}, got {_shown(name)}")
            continue
        values = _model(given, f"{where}models.{name}", path.parent, problems)
        if "source" in values:
            found.models[name] = ModelSettings(**{"name": name, **values})
    for values, struct, section in (
        (found.web, WebSettings, "web"),
        (found.cache, CacheSettings, "cache"),
        (found.jobs, JobsSettings, "jobs"),
    ):
        given = _section(data.get(section), f"{where}{section}", problems)
        values |= _checked(struct, given, f"{where}{section}.", str, problems)
        values |= {name: str(path.parent / values[name]) for name in _PATHS if values.get(name)}
    roots = found.jobs.get("roots", ())
    found.jobs |= {"roots": tuple(one if is_address(one) else str(path.parent / one) for one in roots)} if roots else {}


def _model(data: object, where: str, folder: Path, problems: list[str]) -> dict[str, Any]:
    """Read a model with its canary and shadow."""
    given = dict(_section(data, where, problems))
    parts: dict[str, Any] = {}
    for name, struct in (("canary", CanarySettings), ("shadow", ShadowSettings)):
        if name in given:
            values = _sourced(struct, given.pop(name), f"{where}.{name}", folder, problems)
            parts |= {name: struct(**values)} if "source" in values else {}
    return _sourced(ModelSettings, given, where, folder, problems) | parts


def _sourced(struct: type[Struct], data: object, where: str, folder: Path, problems: list[str]) -> dict[str, Any]:
    """Read a section that has to say where a model comes from."""
    given = _section(data, where, problems)
    values = _checked(struct, given, f"{where}.", str, problems)
    if "source" in values and not _ADDRESS.match(values["source"]):
        values["source"] = str(folder / values["source"])
    if "source" not in given and (data is None or isinstance(data, dict)):
        problems.append(f"{where}.source: expected the path of a bundle or where a model is kept, got nothing")
    return values


def _from_environment(
    struct: type[Struct], prefix: str, environ: Mapping[str, str], problems: list[str]
) -> dict[str, Any]:
    given: dict[str, object] = {}
    for variable, text in environ.items():
        name = variable.removeprefix(prefix)
        if name == variable or _SERVICE_LINK.fullmatch(name) or (name == "PORT" and _LINKED_PORT.match(text)):
            continue
        is_list = name in ("CORS_ORIGINS", "ROOTS")
        given[name.lower()] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    return _checked(struct, given, "", lambda name: prefix + name.upper(), problems, strict=False)


def _read_flags(flags: Mapping[str, object], found: _Found, problems: list[str]) -> None:
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in flags.items()
        if value is not None
    }
    cache = {name.removeprefix("cache_"): value for name, value in given.items() if name.startswith("cache_")}
    web = {name: value for name, value in given.items() if not name.startswith("cache_")}
    found.web |= _checked(WebSettings, web, "", lambda name: "--" + name.replace("_", "-"), problems)
    found.cache |= _checked(CacheSettings, cache, "", lambda name: "--cache-" + name.replace("_", "-"), problems)


def _parse(path: Path) -> dict[Any, Any]:
    """Read a YAML mapping. What the file holds is not in the messages: it may be a secret."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        raise yaml.MarkedYAMLError(problem=f"{key.value} is set twice", problem_mark=key.start_mark)
                    seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    try:
        data = yaml.load(path.read_bytes(), Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: expected YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected YAML in UTF-8, got something else ({type(error).__name__})") from None
    if data is not None and not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping with models, web, cache and jobs, got {_shown(data)}")
    return data or {}


def _section(data: object, where: str, problems: list[str]) -> dict[Any, Any]:
    """Give a mapping; a section with nothing in it, or only comments, is empty."""
    if data is None or isinstance(data, dict):
        return data or {}
    problems.append(f"{where}: expected a mapping, got {_shown(data)}")
    return {}


def _checked(
    struct: type[Struct],
    given: Mapping[Any, object],
    where: str,
    spell: Callable[[str], str],
    problems: list[str],
    strict: bool = True,
) -> dict[str, Any]:
    """Give what is right of what was given; `spell` makes a source's own spelling of a field's name."""
    hints = get_type_hints(struct, include_extras=True)
    values = {}
    for name, value in given.items():
        place = where + spell(str(name))
        if name not in hints:
            problems.append(f"{place}: {_unknown(str(name), struct, spell)}")
            continue
        try:
            values[name] = msgspec.convert(value, hints[name], strict=strict)
        except msgspec.ValidationError as error:
            item = re.search(r"`\$\[(\d+)\]`$", str(error))
            if item and isinstance(value, list | tuple):
                place, value = f"{place}[{item[1]}]", value[int(item[1])]
            problems.append(f"{place}: expected {_description(hints[name])}, got {_shown(value)}")
    return values


def _unknown(name: str, struct: type[Struct], spell: Callable[[str], str], elsewhere: Sequence[str] = ()) -> str:
    known = struct.__struct_fields__
    if _SECRET.search(name.lower().replace("-", "_")) and not name.endswith("_file"):
        return _SECRETS_BELONG
    near = difflib.get_close_matches(name, [*known, *elsewhere], 1)
    hint = f"did you mean {spell(near[0])}?" if near else f"known are {', '.join(map(spell, known))}"
    return f"no such setting; {hint}"


def _description(hint: Any) -> str:
    parts = get_args(hint)
    told = [part.description for part in parts if isinstance(part, Meta) and part.description]
    return told[0] if told else _description(parts[0])


def _shown(value: object) -> str:
    """Tell a value in a message: short ones as they are written, others by their kind."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    shown = repr(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _check_tls(values: Mapping[str, object], problems: list[str]) -> None:
    for name, needed in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate"), ("tls_client_ca", "tls_key")):
        if values.get(name) and not values.get(needed):
            problems.append(f"web.{name}: expected {needed} beside it, got nothing")
