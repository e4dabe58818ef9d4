"""What a deployment may set: read from `fairlead.yaml`, the environment and flags, the later over the former.

Every mistake of all three is told at once, with its place and the nearest known setting. Layer L0: imports
msgspec only, and pyyaml while a file is read.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from fairlead.errors import ConfigError

CONFIG_VARIABLE = "FAIRLEAD_CONFIG"
PREFIX = "FAIRLEAD_WEB_"

Isolation = Literal["auto", "process"]
# What is expected is told in the words of `description`. The day's bound keeps infinity out of sockets' timeouts.
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number from 1 to 2147483647")]
Duration = Annotated[float, Meta(gt=0, le=86400, description="seconds, more than 0 and at most 86400")]
Pause = Annotated[float, Meta(ge=0, le=86400, description="seconds, from 0 to 86400")]
Switch = Annotated[bool, Meta(description="true or false")]
Text = Annotated[str, Meta(min_length=1, description="a text")]
Prefix = Annotated[
    str, Meta(pattern=r"^(/[^/?#\s]+)*\Z", description="a path such as /churn, with no slash at its end")
]
Origin = Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/?#\s]+)\Z")]
Origins = Annotated[tuple[Origin, ...], Meta(description="a list of origins, each like https://example.org or *")]

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
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PATHS = ("api_keys_file", "tls_certificate", "tls_key", "tls_client_ca")


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One model of a deployment.

    Parameters
    ----------
    source : path of a bundle. In a file it is relative to the file's own folder.
    isolation : ``process`` runs the model in processes of its own, ``auto`` where fairlead thinks best.
        Default auto.
    processes : model processes, when isolated. Default 1.
    name : what it is served as. Default its key in a file, else the bundle's own name.
    """

    source: Text
    isolation: Annotated[Isolation, Meta(description="auto or process")] = "auto"
    processes: Count = 1
    name: Annotated[str, Meta(pattern=_NAME.pattern, description="letters, digits, '.', '_', '-'")] | None = None


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


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of a deployment.

    Parameters
    ----------
    models : by name. Default none.
    web : how to serve over HTTP.
    """

    models: dict[str, ModelSettings] = {}
    web: WebSettings = WebSettings()


def read(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Read the settings: flags over environment over file over defaults.

    Parameters
    ----------
    path : the file, None for the one that `FAIRLEAD_CONFIG` names, if any.
    environ : `FAIRLEAD_WEB_…` set the fields of `WebSettings`; lists are comma separated.
    flags : fields of `WebSettings`; None is a flag that was not given.

    Raises
    ------
    ConfigError
        With a line for each thing that is wrong, wherever it stands.
    """
    problems: list[str] = []
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    models: dict[str, ModelSettings] = {}
    values: dict[str, Any] = {}
    if path is not None:
        models, values = _from_file(path, problems)
    values |= _from_environment(environ, problems)
    values |= _from_flags(flags, problems)
    if not problems:
        _check_tls(values, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return Settings(models, WebSettings(**values))


def _from_file(path: Path, problems: list[str]) -> tuple[dict[str, ModelSettings], dict[str, Any]]:
    try:
        data = _parse(path)
    except ConfigError as error:
        problems.append(str(error))
        return {}, {}
    where = f"{path}: "
    for name in data:
        if name not in Settings.__struct_fields__:
            elsewhere = [f"web.{field}" for field in WebSettings.__struct_fields__]
            problems.append(f"{where}{name}: {_unknown(str(name), Settings, str, elsewhere)}")
    models = {}
    for name, given in _section(data.get("models"), f"{where}models", problems).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            expected = "a model's name of letters, digits, '.', '_', '-'"
            problems.append(f"{where}models: expected {expected}, got {_shown(name)}")
            continue
        model = _section(given, f"{where}models.{name}", problems)
        found = _checked(ModelSettings, model, f"{where}models.{name}.", str, problems)
        if "source" in found:
            source = found.pop("source")
            place = source if _ADDRESS.match(source) else str(path.parent / source)
            models[name] = ModelSettings(place, **{"name": name, **found})
        elif "source" not in model:
            problems.append(f"{where}models.{name}.source: expected the path of a bundle, got nothing")
    web = _checked(WebSettings, _section(data.get("web"), f"{where}web", problems), f"{where}web.", str, problems)
    return models, web | {name: str(path.parent / web[name]) for name in _PATHS if web.get(name)}


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    given: dict[str, object] = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or _SERVICE_LINK.fullmatch(name) or (name == "PORT" and _LINKED_PORT.match(text)):
            continue
        is_list = name == "CORS_ORIGINS"
        given[name.lower()] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    return _checked(WebSettings, given, "", lambda name: PREFIX + name.upper(), problems, strict=False)


def _from_flags(flags: Mapping[str, object], problems: list[str]) -> dict[str, Any]:
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in flags.items()
        if value is not None
    }
    return _checked(WebSettings, given, "", lambda name: "--" + name.replace("_", "-"), problems)


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
        raise ConfigError(f"{path}: expected a mapping with models and web, got {_shown(data)}")
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
