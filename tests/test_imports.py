"""What importing costs, and the rules of the house that no linter knows."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "fairlead"
MODULES = sorted(SOURCE.rglob("*.py"))
CLI = SOURCE / "cli"
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}


def imported_by(code: str) -> set[str]:
    """Run code in a new interpreter; return the modules it imported, by full name."""
    count = "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    script = f"import sys; before = set(sys.modules); {code}; {count}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def third_party(modules: set[str]) -> set[str]:
    tops = {module.split(".")[0] for module in modules}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in {"fairlead", "__main__"}}


def test_import_fairlead_imports_nothing_of_others() -> None:
    assert third_party(imported_by("import fairlead")) == set()


@pytest.mark.parametrize("module", ["errors", "extras", "schema"])
def test_lowest_layer_imports_msgspec_only(module: str) -> None:
    # msgspec takes typing_extensions along where it is installed.
    assert third_party(imported_by(f"import fairlead.{module}")) <= {"msgspec", "typing_extensions"}


def test_serving_a_compiled_bundle_imports_no_training_library(iris_bundle: Path) -> None:
    ask = {"sepal_length": 7.7, "sepal_width": 3.0, "petal_length": 6.1, "petal_width": 2.3}
    code = f"import fairlead, fairlead.web; fairlead.load({str(iris_bundle)!r}).predict({ask!r})"
    modules = imported_by(code)
    # Nor what it does without: a tree ensemble has an engine of ours.
    assert "onnxruntime" not in modules
    assert "fairlead.predict._trees" in modules
    training = {"joblib", "lightgbm", "mlflow", "onnx", "pandas", "pyarrow", "scipy", "skl2onnx", "sklearn", "skops"}
    assert third_party(modules) & (training | {"spox", "xgboost"}) == set()
    assert {
        module for module in modules if module.startswith(("fairlead.bundle.formats", "fairlead.bundle.pickles"))
    } == set()


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_functions_and_classes_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bare = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert bare == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_cli_prints(path: Path) -> None:
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert CLI in path.parents or calls == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_named_for_their_job(path: Path) -> None:
    assert not VAGUE & set(path.relative_to(SOURCE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_contracts_take_no_arbitrary_keywords(path: Path) -> None:
    open_ended = [
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.args.kwarg is not None
        and not is_of_another(node)
    ]
    assert open_ended == []


def is_of_another(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a library decides what it is called with: it takes and ignores `**_`, or hands all on to `super`."""
    handed_on = any(ast.unparse(node) == f"super().{function.name}" for node in ast.walk(function))
    return handed_on or (function.args.kwarg is not None and function.args.kwarg.arg == "_")
