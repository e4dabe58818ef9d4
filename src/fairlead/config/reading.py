"""Reads settings: flags over environment over `fairlead.yaml` over defaults, every mistake of them told at once.

Layer L0; imports msgspec only, and pyyaml while a file is read.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from fairlead.config.settings import (
    NAME,
    CacheSettings,
    CanarySettings,
    DashboardSettings,
    JobsSettings,
    ModelSettings,
    Settings,
    ShadowSettings,
    StreamSettings,
    WebSettings,
    is_address,
)
from fairlead.errors import ConfigError

CONFIG_VARIABLE = "FAIRLEAD_CONFIG"
_SECRET = re.compile(r"^keys?$|(^|_)(api_?keys?|passwords?|passwd|secrets?|tokens?|credentials?)(_|$)")
_SECRETS_BELONG = (
    "a secret has no place here; API keys come, hashed, from the environment variable FAIRLEAD_API_KEYS "
    "or from the file that web.api_keys_file names"
)
# What Kubernetes and Docker set for a service named fairlead-web.
_SERVICE_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_.+)?")
_LINKED_PORT = re.compile(r"(tcp|udp|sctp)://")
_PATHS = (
    "api_keys_file", "tls_certificate", "tls_key", "tls_client_ca", "state_directory", "directory", "checkpoints",
    "overflow", "users", "secret_file",
)  # fmt: skip
# The user and password of an address.
_LOGIN = re.compile(r"//[^/@\s]*:[^/@\s]*@")
# The same where the scheme was forgotten.
_BARE_LOGIN = re.compile(r"[^/@:\s]*:[^/@\s]*@")
_LOGIN_BELONGS = "an address with a password has no place here: set it as "
_SECTIONS: dict[str, type[Struct]] = {
    "web": WebSettings,
    "cache": CacheSettings,
    "jobs": JobsSettings,
    "stream": StreamSettings,
    "dashboard": DashboardSettings,
}


# The section, what its flags begin with here, and on the command line.
_FLAGS = (
    ("cache", "cache_", "--cache-"), ("stream", "stream_", "--"), ("dashboard", "dashboard_", "--"), ("web", "", "--"),
)  # fmt: skip
_IN_SECTIONS = [
    f"{section}.{name}" for section, struct in _SECTIONS.items() for name in struct.__struct_encode_fields__
]


def read(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Read the settings: flags over environment over file over defaults.

    Parameters
    ----------
    path : the file, None for the one that `FAIRLEAD_CONFIG` names, if any.
    environ : `FAIRLEAD_WEB_…` set the fields of `WebSettings`, and so for every other section; lists are comma
        separated.
    flags : fields of `WebSettings`, those of other sections as `cache_…`, `stream_…`, `dashboard_…`; None is a flag
        that was not given.

    Raises
    ------
    ConfigError
        With a line for each thing that is wrong, wherever it stands.
    """
    problems: list[str] = []
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    models: dict[str, ModelSettings] = {}
    found: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    if path is not None:
        _read_file(path, models, found, problems)
    for section, struct in _SECTIONS.items():
        found[section] |= _from_environment(struct, f"FAIRLEAD_{section.upper()}_", environ, problems)
    _read_flags(flags, found, problems)
    if not problems:
        _check_tls(found["web"], problems)
    if problems:
        raise ConfigError("\n".join(problems))
    sections: dict[str, Any] = {section: struct(**found[section]) for section, struct in _SECTIONS.items()}
    return Settings(models, **sections)


def _read_file(
    path: Path, models: dict[str, ModelSettings], found: dict[str, dict[str, Any]], problems: list[str]
) -> None:
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
        if not isinstance(name, str) or not NAME.fullmatch(name):
            expected = "a model's name of letters, digits, '.', '_', '-'"
            problems.append(f"{where}models: expected {expected}, got {_shown(name)}")
            continue
        values = _model(given, f"{where}models.{name}", path.parent, problems)
        if "source" in values:
            models[name] = ModelSettings(**{"name": name, **values})
    for section, struct in _SECTIONS.items():
        given = _section(data.get(section), f"{where}{section}", problems)
        problems += [
            f"{where}{section}.{name}: {_LOGIN_BELONGS}FAIRLEAD_{section.upper()}_{str(name).upper()}"
            for name, value in given.items()
            if isinstance(value, str) and _LOGIN.search(value)
        ]
        values = _checked(struct, given, f"{where}{section}.", str, problems)
        paths = [name for name in _PATHS if values.get(name) and not is_address(values[name])]
        found[section] |= values | {name: str(path.parent / values[name]) for name in paths}
    roots = found["jobs"].get("roots", ())
    if roots:
        found["jobs"]["roots"] = tuple(one if is_address(one) else str(path.parent / one) for one in roots)


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
    if "source" in values and not is_address(values["source"]):
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
        is_list = name in ("CORS_ORIGINS", "ROOTS", "TRUSTED_PROXIES")
        given[name.lower()] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    return _checked(struct, given, "", lambda name: prefix + name.upper(), problems, strict=False)


def _read_flags(flags: Mapping[str, object], found: dict[str, dict[str, Any]], problems: list[str]) -> None:
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in flags.items()
        if value is not None
    }
    for section, prefix, spelled in _FLAGS:
        own = {name.removeprefix(prefix): given.pop(name) for name in list(given) if name.startswith(prefix)}
        spell = partial(_flag, spelled)
        found[section] |= _checked(_SECTIONS[section], own, "", spell, problems)


def _flag(prefix: str, name: str) -> str:
    return prefix + name.replace("_", "-")


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
        raise ConfigError(
            f"{path}: expected a mapping with models, web, cache, jobs, stream and dashboard, got {_shown(data)}"
        )
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
    # As it is written, which a keyword of Python's is elsewhere.
    names = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
    values = {}
    for name, value in given.items():
        place = where + spell(str(name))
        if name not in names:
            problems.append(f"{place}: {_unknown(str(name), struct, spell)}")
            continue
        try:
            values[names[name]] = msgspec.convert(value, hints[names[name]], strict=strict)
        except msgspec.ValidationError as error:
            item = re.search(r"`\$\[(\d+)\]`$", str(error))
            if item and isinstance(value, list | tuple):
                place, value = f"{place}[{item[1]}]", value[int(item[1])]
            problems.append(f"{place}: expected {_description(hints[names[name]])}, got {_shown(value)}")
    return values


def _unknown(name: str, struct: type[Struct], spell: Callable[[str], str], elsewhere: Sequence[str] = ()) -> str:
    known = struct.__struct_encode_fields__
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
    shown = repr(_BARE_LOGIN.sub("…@", value)) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _check_tls(values: Mapping[str, object], problems: list[str]) -> None:
    for name, needed in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate"), ("tls_client_ca", "tls_key")):
        if values.get(name) and not values.get(needed):
            problems.append(f"web.{name}: expected {needed} beside it, got nothing")
