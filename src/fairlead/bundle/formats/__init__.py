"""Model formats: one file for each, found by its name here or by the entry point `fairlead.formats`.

A format module defines `SOURCES`, what it takes, in words; `accepts(source) -> bool`, cheap and without
loading; and `load(request) -> LoadedModel`. Formats whose source is no path (``module:Class``) tell by its
text. One that can open verified files with fewer libraries than it takes to check them adds `reopen(request)`.
Layer L1; a format imports its library when it loads, never before.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

from fairlead.config import is_class
from fairlead.errors import SourceError


@dataclass(frozen=True)
class LoadRequest:
    """What `build` was asked to load.

    Parameters
    ----------
    source : as the user wrote it: a path or ``module:Class``.
    vectorizer : a second file that holds the DictVectorizer, when it is not in the first.
    trust : globals that a pickle may use beyond the allow-list, as ``module.name``.
    code : the user's module that the model's classes may live in.
    """

    source: str
    vectorizer: Path | None = None
    trust: frozenset[str] = frozenset()
    code: Path | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model as it came, ready to be looked at.

    Parameters
    ----------
    model : an estimator, a Pipeline, a booster, an ONNX graph's bytes, or an instance of the user's class.
    format : the name of the format module.
    files : what is copied to ``original/``: bytes by file name; enough to load the model again.
    versions : library versions it was made with, as far as it tells.
    vectorizer : the DictVectorizer of a ``(vectorizer, estimator)`` pair.
    signature : MLflow's signature inputs: ``[{"name": …, "type": "double", "required": …}, …]``.
    input_example : records that came with the model.
    warnings : what the user should know, such as an older scikit-learn.
    """

    model: Any
    format: str
    files: dict[str, bytes]
    versions: dict[str, str] = field(default_factory=dict)
    vectorizer: Any = None
    signature: list[dict[str, Any]] | None = None
    input_example: list[dict[str, Any]] | None = None
    warnings: tuple[str, ...] = ()


class Format(Protocol):
    """What a module in this folder, or one behind the entry point, provides."""

    SOURCES: str

    def accepts(self, source: str) -> bool:
        """Whether `source` looks like this format; reads a few bytes at most."""
        ...

    def load(self, request: LoadRequest) -> LoadedModel:
        """Check, then load.

        Raises
        ------
        SourceError
            And its kinds: broken, unsafe, skewed.
        """
        ...


GROUP = "fairlead.formats"
VECTORIZER = "vectorizer"  # stem of the second file of a model that came in two


def known_formats() -> dict[str, Format]:
    """Every format by name: the modules of this folder, then the entry points."""
    found = {
        module.name: cast("Format", importlib.import_module(f"{__name__}.{module.name}"))
        for module in pkgutil.iter_modules(__path__)
    }
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, cast("Format", point.load()))
    return found


def find_format(source: str) -> tuple[str, Format]:
    """Find which format a source is of, by its name and first bytes.

    Raises
    ------
    SourceError
        When there is no such file, or no format takes it; lists those known.
    """
    formats = known_formats()
    for name, module in formats.items():
        if module.accepts(source):
            return name, module
    path = Path(source)
    if not path.exists() and not is_class(source):
        raise SourceError(f"{source}: no such file or directory")
    known = "; ".join(f"{name} ({module.SOURCES})" for name, module in formats.items())
    raise SourceError(f"{source}: expected a model in one of these formats, got none of them: {known}")


def load(request: LoadRequest) -> LoadedModel:
    """Load a model with the format that takes it.

    Raises
    ------
    SourceError
        And its kinds: missing, unknown, broken, unsafe, skewed.
    """
    return find_format(request.source)[1].load(request)


def reload(
    format_name: str,
    directory: Path,
    code_dir: Path | None = None,
    *,
    trust: frozenset[str] = frozenset(),
    model_class: str | None = None,
) -> LoadedModel:
    """Load a model again from a bundle's files, whose digests the caller has verified.

    Parameters
    ----------
    format_name : as in `LoadedModel.format`.
    directory : the bundle's ``original/``: exactly the `files` of the `LoadedModel`.
    code_dir : the bundle's ``code/`` with the user's modules.
    trust : what was trusted when the bundle was built.
    model_class : ``module:Class`` of a bundle of the user's own class.

    Raises
    ------
    SourceError
        As for `load`, and when the format is not known here.
    """
    formats = known_formats()
    if format_name not in formats:
        raise SourceError(f"{directory}: unknown model format {format_name!r}, known: {', '.join(formats)}")
    module = formats[format_name]
    code = _code_file(code_dir, model_class) or _code_file(directory, model_class)
    if model_class is not None:
        request = LoadRequest(model_class, trust=trust, code=code)
    else:
        source, vectorizer = _original_files(directory)
        request = LoadRequest(str(source), vectorizer, trust, code)
    reopened: LoadedModel = getattr(module, "reopen", module.load)(request)
    return reopened


def _original_files(directory: Path) -> tuple[Path, Path | None]:
    if (directory / "MLmodel").is_file():
        return directory, None
    files = sorted(path for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []
    vectorizers = [path for path in files if path.stem == VECTORIZER]
    if len(files) == 2 and len(vectorizers) == 1:
        files.remove(vectorizers[0])
        return files[0], vectorizers[0]
    if len(files) != 1:
        raise SourceError(f"{directory}: expected one model file, got {len(files)}")
    return files[0], None


def _code_file(directory: Path | None, model_class: str | None) -> Path | None:
    if directory is None or not directory.is_dir():
        return None
    if model_class is not None:
        path = directory / f"{model_class.partition(':')[0].rpartition('.')[2]}.py"
        return path if path.is_file() else None
    modules = sorted(directory.glob("*.py"))
    return modules[0] if len(modules) == 1 else None
