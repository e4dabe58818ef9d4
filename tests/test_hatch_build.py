"""The C extension: it compiles without a warning, runs clean under the sanitizers, and can be done without."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
SANITIZED = """
import importlib.util, sys, pytest
spec = importlib.util.spec_from_file_location("fairlead.predict._trees", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules["fairlead.predict._trees"] = module
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", sys.argv[2]]))
"""


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has_compiler() -> bool:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(compiler) is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C compiler")


@needs_compiler
def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    strict = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes")
    done = subprocess.run(hook().command(ROOT, tmp_path / "strict.so", strict), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    module = hook()
    target = tmp_path / "_trees.so"
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    done = subprocess.run(module.command(ROOT, target, checks), capture_output=True, text=True)
    if done.returncode:
        pytest.skip("the compiler has no sanitizers")
    compiler = module.command(ROOT, target)[0]
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment |= {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, str(target), "tests/predict/test_trees.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout


def test_without_a_compiler_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = hook()
    (tmp_path / module.EXTENSION).parent.mkdir(parents=True)
    monkeypatch.setenv("CC", "a-compiler-that-is-not-there")
    assert module.compiled(tmp_path) == "no C compiler (a-compiler-that-is-not-there)"


@needs_compiler
def test_what_the_compiler_says_is_told(tmp_path: Path) -> None:
    module = hook()
    (tmp_path / module.EXTENSION).parent.mkdir(parents=True)
    reason = module.compiled(tmp_path)  # there is no source
    assert reason is not None
    assert "_trees.c" in reason
    assert list((tmp_path / module.EXTENSION).parent.iterdir()) == []


@pytest.mark.parametrize("compiler", [pytest.param(None, marks=needs_compiler), "a-compiler-that-is-not-there"])
def test_a_wheel_is_of_the_platform_when_it_holds_the_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str | None
) -> None:
    if compiler is not None:
        monkeypatch.setenv("CC", compiler)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    holds = hook().EXTENSION.removeprefix("src/") in zipfile.ZipFile(wheel).namelist()
    if compiler is None:
        assert holds
        assert "-cp311-abi3-" in wheel.name
    else:
        assert not holds
        assert wheel.name.endswith("-py3-none-any.whl")
        assert "fairlead: no C extension, trees run in onnxruntime: no C compiler" in done.stdout + done.stderr
