"""Settings from a real file, an environment and flags: who goes over whom, and what is said of mistakes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config import (
    CacheSettings,
    CanarySettings,
    DashboardSettings,
    JobsSettings,
    ModelSettings,
    Settings,
    ShadowSettings,
    StreamSettings,
    WebSettings,
    read,
)
from fairlead.errors import ConfigError
from pages import ROOT

PAGE = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
FIELDS = msgspec.structs.fields(WebSettings)


NO_SOURCE = "expected the path of a bundle or where a model is kept, got nothing"
SECRET = (
    "a secret has no place here; API keys come, hashed, from the environment variable FAIRLEAD_API_KEYS or from the "
    "file that web.api_keys_file names"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "fairlead.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(
    path: Path | None, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(path, environ or {}, flags or {})
    prefix = f"{path}: "
    return [line.removeprefix(prefix) for line in str(caught.value).split("\n")]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "web:\nmodels:\n", "web: {}\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path, text), {}, {}) == read(None, {}, {}) == Settings({}, WebSettings())


def test_the_file_sets_models_and_web(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        models:
          churn: {source: bundles/churn, isolation: process, processes: 2}
          iris: {source: /srv/iris}
          rides: {source: "models:/rides@champion"}
        web: {timeout_s: 2, cors_origins: [https://a.example, "*"], api_keys_file: keys, tls_certificate: /c,
              tls_key: k}
        """,
    )
    settings = read(path, {}, {})
    assert settings.models == {
        "churn": ModelSettings(str(tmp_path / "bundles/churn"), "process", 2, "churn"),
        "iris": ModelSettings("/srv/iris", name="iris"),
        "rides": ModelSettings("models:/rides@champion", name="rides"),
    }
    web = settings.web
    assert (web.timeout_s, web.cors_origins) == (2.0, ("https://a.example", "*"))
    assert (web.api_keys_file, web.tls_certificate) == (str(tmp_path / "keys"), "/c")
    assert (web.tls_key, web.tls_client_ca) == (str(tmp_path / "k"), None)


def test_the_file_sets_canary_shadow_and_cache(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        models:
          churn:
            source: models:/churn@champion
            refresh_s: 30
            canary: {source: next, weight: 0.05, sticky: "header:x-user-id", max_error_rate: 0, max_latency_s: 0.2,
                     min_requests: 10, window_s: 5}
            shadow: {source: "s3://models/churn"}
          lazy: {source: x, lazy: true, canary: {source: /srv/y}}
        web: {memory_budget_bytes: 5000000000, state_directory: state}
        cache: {directory: cache, max_bytes: 1, connect_timeout_s: 2, read_timeout_s: 3, timeout_s: 4}
        """,
    )
    settings = read(path, {}, {})
    assert settings.models["churn"] == ModelSettings(
        "models:/churn@champion",
        name="churn",
        refresh_s=30,
        canary=CanarySettings(str(tmp_path / "next"), 0.05, "header:x-user-id", 0, 0.2, 10, 5),
        shadow=ShadowSettings("s3://models/churn"),
    )
    assert settings.models["lazy"].lazy
    assert settings.models["lazy"].canary == CanarySettings("/srv/y")
    assert settings.web.memory_budget_bytes == 5_000_000_000
    assert settings.web.state_directory == str(tmp_path / "state")
    assert settings.cache == CacheSettings(str(tmp_path / "cache"), 1, 2, 3, 4)


def test_roots_of_jobs_begin_at_the_file_unless_they_are_addresses(tmp_path: Path) -> None:
    path = write(tmp_path, "jobs: {roots: [data/, /srv/x, 's3://b/p/'], directory: jobs, max_running: 2, keep_s: 60}")
    roots = (str(tmp_path / "data"), "/srv/x", "s3://b/p/")
    assert read(path, {}, {}).jobs == JobsSettings(roots, str(tmp_path / "jobs"), 2, keep_s=60)
    assert read(path, {"FAIRLEAD_JOBS_ROOTS": "a, s3://c"}, {}).jobs.roots == ("a", "s3://c")
    for root in ("", "s3://", "gs://b", "s3://b//p", "postgresql://h/d", "S3://b"):
        (problem,) = problems(write(tmp_path, f"jobs: {{roots: [a, '{root}']}}"))
        expected = "expected a list of directories and s3://BUCKET/PREFIX addresses"
        assert problem == f"jobs.roots[1]: {expected}, got '{root}'"


@pytest.mark.parametrize("sticky", ["header:X-User-Id", "cookie:session", "feature:customer id", "feature:a:b"])
def test_what_a_caller_is_known_by_is_a_header_a_cookie_or_a_feature(tmp_path: Path, sticky: str) -> None:
    path = write(tmp_path, f"models: {{c: {{source: x, canary: {{source: y, sticky: '{sticky}'}}}}}}")
    canary = read(path, {}, {}).models["c"].canary
    assert canary is not None
    assert canary.sticky == sticky


@pytest.mark.parametrize("sticky", ["x-user-id", "header:", "header:a b", "cookie:a;b", "feature:", "ip:1", ""])
def test_another_is_refused(tmp_path: Path, sticky: str) -> None:
    path = write(tmp_path, f"models: {{c: {{source: x, canary: {{source: y, sticky: '{sticky}'}}}}}}")
    expected = "expected header:NAME, cookie:NAME or feature:NAME"
    assert problems(path) == [f"models.c.canary.sticky: {expected}, got {sticky!r}"]


def test_what_is_wrong_with_a_model_its_canary_and_its_shadow_is_told_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        models:
          churn: {refresh: 1, canary: {weigth: 0.1, weight: 1.5, max_latency_s: fast}, shadow: {source: x, weight: 1}}
        cache: {max_byte: 1}
        """,
    )
    assert problems(path, {"FAIRLEAD_CACHE_TIMEOUT_S": "ten"}, {"cache_directroy": "x"}) == [
        "models.churn.canary.weigth: no such setting; did you mean weight?",
        "models.churn.canary.weight: expected a share from 0 to 1, got 1.5",
        "models.churn.canary.max_latency_s: expected seconds, more than 0 and at most 86400, got 'fast'",
        f"models.churn.canary.source: {NO_SOURCE}",
        "models.churn.shadow.weight: no such setting; known are source",
        "models.churn.refresh: no such setting; did you mean refresh_s?",
        f"models.churn.source: {NO_SOURCE}",
        "cache.max_byte: no such setting; did you mean max_bytes?",
        "FAIRLEAD_CACHE_TIMEOUT_S: expected seconds, more than 0 and at most 86400, got 'ten'",
        "--cache-directroy: no such setting; did you mean --cache-directory?",
    ]


def test_the_cache_too_is_set_by_flags_over_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path, "cache: {directory: file, max_bytes: 1, timeout_s: 1, read_timeout_s: 1}")
    environ = {"FAIRLEAD_CACHE_DIRECTORY": "environment", "FAIRLEAD_CACHE_MAX_BYTES": "2"}
    flags = {"cache_directory": Path("flag"), "cache_timeout_s": 3.0, "cache_max_bytes": None}
    assert read(path, environ, flags).cache == CacheSettings("flag", 2, read_timeout_s=1, timeout_s=3)
    assert read(path, environ, {}).cache.directory == "environment"


def test_flags_go_over_environment_over_file(tmp_path: Path) -> None:
    path = write(tmp_path, "web: {port: 1, workers: 2, host: file, metrics: true}")
    environ = {"FAIRLEAD_WEB_PORT": "3", "FAIRLEAD_WEB_HOST": "environment", "FAIRLEAD_WEB_METRICS": "false"}
    web = read(path, environ, {"port": 5, "host": None, "access_log": None}).web
    assert (web.port, web.workers, web.host, web.metrics, web.access_log) == (5, 2, "environment", False, False)


def test_the_environment_names_the_file_unless_one_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, "web: {port: 1}")
    (tmp_path / "other.yaml").write_text("web: {port: 2}")
    environ = {"FAIRLEAD_CONFIG": str(path)}
    assert read(None, environ, {}).web.port == 1
    assert read(tmp_path / "other.yaml", environ, {}).web.port == 2
    assert read(None, {"FAIRLEAD_CONFIG": ""}, {}).web.port == WebSettings().port


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("WORKERS", "4", 4),
        ("TIMEOUT_S", "0.25", 0.25),
        ("ACCESS_LOG", "1", True),
        ("ACCESS_LOG", "True", True),
        ("METRICS", "0", False),
        ("METRICS", "false", False),
        ("CORS_ORIGINS", "https://a.example, https://b.example,", ("https://a.example", "https://b.example")),
        ("CORS_ORIGINS", "", ()),
        ("ROOT_PATH", "", ""),
        ("ROOT_PATH", "/models/churn", "/models/churn"),
        ("API_KEYS_FILE", "keys", "keys"),
    ],
)
def test_environment_is_text(variable: str, text: str, value: object) -> None:
    assert getattr(read(None, {f"FAIRLEAD_WEB_{variable}": text}, {}).web, variable.lower()) == value


def test_proxies_are_addresses_and_networks_and_by_default_none() -> None:
    assert read(None, {}, {}).dashboard.trusted_proxies == ()
    environ = {"FAIRLEAD_DASHBOARD_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1,unix"}
    assert read(None, environ, {}).dashboard.trusted_proxies == ("10.0.0.0/8", "2001:db8::1", "unix")
    assert read(None, environ, {"dashboard_trusted_proxies": ("::1",)}).dashboard.trusted_proxies == ("::1",)
    expected = r"PROXIES\[0\]: expected a list of addresses or networks such as 10.0.0.0/8, or unix, got"
    for wrong in ("nginx", "*", "10.0.0.1:80/x"):
        with pytest.raises(ConfigError, match=expected):
            read(None, {"FAIRLEAD_DASHBOARD_TRUSTED_PROXIES": wrong}, {})


def test_flags_may_be_paths_and_lists() -> None:
    web = read(None, {}, {"api_keys_file": Path("keys"), "cors_origins": ["https://a.example"]}).web
    assert (web.api_keys_file, web.cors_origins) == ("keys", ("https://a.example",))


def test_other_variables_are_left_alone() -> None:
    others = ["DEBUG", "API_KEYS", "API_KEYS_FILE", "API_KEY", "SERVICE_HOST"]
    environ = {f"FAIRLEAD_{name}": "x" for name in others} | {"WEB_PORT": "1", "PORT": "2"}
    assert read(None, environ, {}) == Settings()


def test_what_kubernetes_sets_for_a_service_is_passed_over() -> None:
    linked = {
        "FAIRLEAD_WEB_SERVICE_HOST": "10.0.0.1",
        "FAIRLEAD_WEB_SERVICE_PORT": "80",
        "FAIRLEAD_WEB_SERVICE_PORT_HTTP": "80",
        "FAIRLEAD_WEB_PORT": "tcp://10.0.0.1:80",
        "FAIRLEAD_WEB_PORT_80_TCP": "tcp://10.0.0.1:80",
        "FAIRLEAD_WEB_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    linked |= {name.replace("_WEB_", "_CACHE_"): value for name, value in linked.items()}
    assert read(None, linked, {}) == Settings()


def test_every_unknown_name_is_told_with_the_nearest_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, "modles: {}\nport: 1\nweb: {tiemout_s: 1, zzz: 1}\nmodels: {churn: {source: x, proceses: 2}}"
    )
    first, second, third, fourth, fifth, variable, flag = problems(
        path, {"FAIRLEAD_WEB_PROT": "1"}, {"acces_log": True}
    )
    assert first == "modles: no such setting; did you mean models?"
    assert second == "port: no such setting; did you mean web.port?"
    assert third == "models.churn.proceses: no such setting; did you mean processes?"
    assert fourth == "web.tiemout_s: no such setting; did you mean timeout_s?"
    assert fifth.startswith("web.zzz: no such setting; known are host, port, workers,")
    assert variable == "FAIRLEAD_WEB_PROT: no such setting; did you mean FAIRLEAD_WEB_PORT?"
    assert flag == "--acces-log: no such setting; did you mean --access-log?"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("web: {port: '80'}", "web.port: expected a whole number from 0 to 65535, got '80'"),
        ("web: {port: 65536}", "web.port: expected a whole number from 0 to 65535, got 65536"),
        ("web: {port: true}", "web.port: expected a whole number from 0 to 65535, got true"),
        ("web: {workers: 0}", "web.workers: expected a whole number from 1 to 2147483647, got 0"),
        ("web: {port: }", "web.port: expected a whole number from 0 to 65535, got null"),
        ("web: {timeout_s: 0}", "web.timeout_s: expected seconds, more than 0 and at most 86400, got 0"),
        ("web: {timeout_s: .inf}", "web.timeout_s: expected seconds, more than 0 and at most 86400, got inf"),
        ("web: {drain_s: .nan}", "web.drain_s: expected seconds, from 0 to 86400, got nan"),
        ("web: {drain_s: -1}", "web.drain_s: expected seconds, from 0 to 86400, got -1"),
        ("web: {metrics: 1}", "web.metrics: expected true or false, got 1"),
        ("web: {host: ''}", "web.host: expected a text, got ''"),
        ("web: {tls_key: [a]}", "web.tls_key: expected a text, got a list"),
        (
            "web: {root_path: churn/}",
            "web.root_path: expected a path such as /churn, with no slash at its end, got 'churn/'",
        ),
        (
            "web: {cors_origins: [https://a.example, b.example]}",
            "web.cors_origins[1]: expected a list of origins, each like https://example.org or *, got 'b.example'",
        ),
        (
            "web: {cors_origins: '*'}",
            "web.cors_origins: expected a list of origins, each like https://example.org or *, got '*'",
        ),
        ("web: [a]", "web: expected a mapping, got a list"),
        ("cache: 1", "cache: expected a mapping, got 1"),
        ("[a]", "expected a mapping with models, web, cache, jobs, stream and dashboard, got a list"),
        ("models: {churn: ./churn}", "models.churn: expected a mapping, got './churn'"),
        ("models: {churn: {}}", f"models.churn.source: {NO_SOURCE}"),
        (
            "models: {c: {source: x, refresh_s: 0}}",
            "models.c.refresh_s: expected seconds, more than 0 and at most 86400, got 0",
        ),
        ("models: {c: {source: x, lazy: 1}}", "models.c.lazy: expected true or false, got 1"),
        ("models: {c: {source: x, canary: y}}", "models.c.canary: expected a mapping, got 'y'"),
        ("models: {c: {source: x, shadow: }}", f"models.c.shadow.source: {NO_SOURCE}"),
        ("models: {c: {source: x, shadow: {source: ''}}}", "models.c.shadow.source: expected a text, got ''"),
        ("cache: {max_bytes: 0}", "cache.max_bytes: expected a whole number of bytes, at least 1, got 0"),
        ("cache: {max_bytes: 1e10}", "cache.max_bytes: expected a whole number of bytes, at least 1, got '1e10'"),
        ("cache: {token: x}", f"cache.token: {SECRET}"),
        (
            "web: {memory_budget_bytes: 2GB}",
            "web.memory_budget_bytes: expected a whole number of bytes, at least 1, got '2GB'",
        ),
        ("models: {1: {source: x}}", "models: expected a model's name of letters, digits, '.', '_', '-', got 1"),
        (
            "models: {a/b: {source: x}}",
            "models: expected a model's name of letters, digits, '.', '_', '-', got 'a/b'",
        ),
        ("models: {c: {source: x, isolation: off}}", "models.c.isolation: expected auto or process, got false"),
        ("web: {tls_key: k}", "web.tls_key: expected tls_certificate beside it, got nothing"),
    ],
)
def test_what_is_wrong_says_expected_got_and_where(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in problems(write(tmp_path, text))


@pytest.mark.parametrize("key", ["api_keys", "api-key", "password", "redis_password", "secret", "auth_token", "key"])
@pytest.mark.parametrize(
    "form", ["{}: hunter2", "web: {{{}: [hunter2]}}", "models: {{churn: {{source: x, {}: hunter2}}}}"]
)
def test_a_secret_in_the_file_is_told_where_it_belongs(tmp_path: Path, form: str, key: str) -> None:
    (problem,) = problems(write(tmp_path, form.format(key)))
    assert "FAIRLEAD_API_KEYS" in problem
    assert "web.api_keys_file" in problem
    assert "hunter2" not in problem


def test_a_misspelt_file_of_secrets_is_no_secret(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "web: {api_key_file: x}")) == [
        "web.api_key_file: no such setting; did you mean api_keys_file?"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"web: {password: hunter2", "line 1: expected YAML: "),
        (b"web:\n  port: 1\n  port: 2\n", "line 3: expected YAML: port is set twice"),
        (b"web: !!python/object:os.system {}", "line 1: expected YAML: could not determine a constructor"),
        (b"web: !!map [hunter2]", "line 1: expected YAML: "),
        (b"web: \xff\xfe hunter2", "expected YAML in UTF-8"),
        (b"web: {x: 2024-13-45}", "expected YAML in UTF-8"),
        (b"[" * 5000, "expected YAML"),
    ],
)
def test_a_file_that_is_no_yaml_is_told_without_its_content(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "fairlead.yaml"
    path.write_bytes(content)
    (found,) = problems(path)
    assert problem in found
    assert "hunter2" not in found


def test_merged_keys_are_not_set_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "models:\n  a: &a {source: x, processes: 2}\n  b: {<<: *a, source: y}\n")
    assert read(path, {}, {}).models["b"] == ModelSettings(str(tmp_path / "y"), processes=2, name="b")


def test_a_file_that_contains_itself_ends(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "models: &a {churn: *a}"))[0].startswith("models.churn.churn: no such setting")


def test_a_missing_file_is_told_with_the_rest(tmp_path: Path) -> None:
    missing, variable = problems(tmp_path / "none.yaml", {"FAIRLEAD_WEB_PORT": ""})
    assert missing == "cannot be read: No such file or directory"
    assert variable == "FAIRLEAD_WEB_PORT: expected a whole number from 0 to 65535, got ''"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_any_value_is_taken_or_refused(value: object) -> None:
    for field in FIELDS:
        try:
            got = getattr(read(None, {}, {field.name: value}).web, field.name)
        except ConfigError:
            continue
        assert got == (field.default if value is None else tuple(value) if isinstance(value, list) else value)
        assert not isinstance(got, float) or math.isfinite(got)


@given(st.text())
def test_any_file_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    said = str(path)
    try:
        assert isinstance(read(path, {}, {}), Settings)
    except ConfigError as error:
        said = str(error)
    assert said.startswith(str(path))


@given(st.dictionaries(st.sampled_from([field.name for field in FIELDS]).map(str.upper), st.text(max_size=20)))
def test_any_environment_is_taken_or_refused_by_name(texts: dict[str, str]) -> None:
    said = ""
    try:
        read(None, {f"FAIRLEAD_WEB_{name}": text for name, text in texts.items()}, {})
    except ConfigError as error:
        said = str(error)
    assert all(line.startswith(("FAIRLEAD_WEB_", "web.tls_")) for line in said.splitlines())


def as_told(default: object) -> str:
    if default in ("", (), None):
        return "none"
    return f"`{str(default).lower()}`"


SECTIONS = {
    "models": ModelSettings,
    "canary": CanarySettings,
    "shadow": ShadowSettings,
    "web": WebSettings,
    "cache": CacheSettings,
    "jobs": JobsSettings,
    "stream": StreamSettings,
    "dashboard": DashboardSettings,
}
PREFIXES = {name: f"FAIRLEAD_{name.upper()}_" for name in ("web", "cache", "jobs", "stream", "dashboard")}
UNITS = {"_s": "seconds", "_bytes": "bytes", "_rows": "rows", "_rate": "share"}


def rows_of(section: str) -> dict[str, list[str]]:
    """Give the cells of a section's table by the setting's name."""
    text = re.split(r"^##+ ", PAGE.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_told(section: str) -> None:
    struct: Any = SECTIONS[section]
    rows = rows_of(section)
    assert list(rows) == list(struct.__struct_encode_fields__)
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        unit, default, *variable, told = rows[name]
        assert default == ("required" if field.required else as_told(field.default)), field.name
        prefix = PREFIXES.get(section)
        assert variable == ([] if prefix is None else [f"`{prefix}{name.upper()}`"]), name
        assert told, name
        assert unit == next((name for end, name in UNITS.items() if field.name.endswith(end)), unit), field.name
        assert re.search(rf"\b{field.name}\b.* : ", struct.__doc__ or ""), field.name
